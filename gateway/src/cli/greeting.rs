//! What a gateway prints once it is ready: where everything is, and a request to try.

use super::addresses::Addresses;
use crate::config::{Config, Identity};
use crate::services::Services;
use std::io::IsTerminal;
use std::path::Path;

/// One line in the log; and, unless the log is JSON, the addresses and a request to try. A link to the console is for
/// whoever started the gateway, not for readers of a service's log: it is printed on a terminal only.
pub(super) fn print(services: &Services, addresses: &Addresses, token_file: &Path, link: &str) {
    let Addresses { proxy, admin, .. } = addresses;
    let snapshot = services.current.get();
    let config = &snapshot.config;
    tracing::info!(%proxy, %admin, version = env!("CARGO_PKG_VERSION"), "ready");
    let startup = &config.gateway.startup;
    if startup.telemetry.is_json {
        return;
    }
    let scheme = if startup.tls.is_some() { "https" } else { "http" };
    eprintln!("\n  proxy    {scheme}://{proxy}   (OpenAI at /v1, Ollama at /api, POST /generate)");
    eprintln!(
        "  admin    http://{admin}   (token: SLUICE_ADMIN_TOKEN, or in {})",
        token_file.display()
    );
    if std::io::stderr().is_terminal() {
        eprintln!(
            "  console  http://{admin}/login?code={link}   (valid once, for ten minutes; for another: sluice console)"
        );
    } else {
        eprintln!("  console  http://{admin}   (`sluice console` prints a link to log in)");
    }
    if let Some(command) = request_to_try(config, &format!("{scheme}://{proxy}")) {
        eprintln!("\n  Try it:\n  {command}\n");
    }
}

/// A `curl` command that works as it stands.
fn request_to_try(config: &Config, url: &str) -> Option<String> {
    let model = &config.models.iter().find(|model| model.enabled)?.name;
    let json = "-H 'content-type: application/json'";
    let Identity::Open {
        default_user: Some(user),
    } = config.gateway.identity
    else {
        let user = &config.users.iter().find(|user| user.enabled)?.id;
        let key = format!(
            "$({} keys create --user {user} --label try --expires 1d{})",
            program(),
            data_dir(config)
        );
        return Some(format!(
            "curl -s {url}/v1/chat/completions {json} -H \"authorization: Bearer {key}\" -d \
             '{{\"model\":\"{model}\",\"messages\":[{{\"role\":\"user\",\"content\":\"Why is the sky blue?\"}}]}}'"
        ));
    };
    let user = config.user(user);
    let project = &config.project(user.project).id;
    Some(format!(
        "curl -s {url}/generate {json} -d '{{\"user_id\":\"{}\",\"project_id\":\"{project}\",\"model\":\"{model}\",\
         \"prompt\":\"Why is the sky blue?\",\"max_tokens\":32}}'",
        user.id
    ))
}

/// This program as it was called.
fn program() -> String {
    std::env::args().next().unwrap_or_else(|| "sluice".to_owned())
}

/// The flag that finds this gateway from any directory.
fn data_dir(config: &Config) -> String {
    let dir = &config.gateway.startup.data_dir;
    let dir = std::fs::canonicalize(dir).unwrap_or_else(|_| dir.clone());
    format!(" --data-dir {}", dir.display())
}
