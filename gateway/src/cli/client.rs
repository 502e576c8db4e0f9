//! A running gateway, asked through its admin listener: where it is, and with which token.

use super::addresses::Addresses;
use super::{ConfigArgs, Failure};
use crate::{config, web_client};
use clap::Args;
use reqwest_blocking::blocking::{Client, RequestBuilder};
use serde_json::Value;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Which gateway is asked.
#[derive(Debug, Args)]
pub(super) struct AdminArgs {
    #[command(flatten)]
    pub(super) config: ConfigArgs,
    /// URL of the admin listener. Default: that of the gateway that runs with the data directory.
    #[arg(long, env = "SLUICE_ADMIN_URL")]
    admin_url: Option<String>,
    /// Admin token. Default: the token file in the data directory.
    #[arg(long, env = "SLUICE_ADMIN_TOKEN", hide_env_values = true)]
    admin_token: Option<String>,
    /// Data directory of the gateway. Default: `data_dir` in gateway.yaml.
    #[arg(long)]
    data_dir: Option<PathBuf>,
}

impl AdminArgs {
    /// The URL that was given.
    pub(super) fn given_url(&self) -> Option<String> {
        let url = self.admin_url.as_ref().filter(|url| !url.is_empty())?;
        let url = url.trim_end_matches('/');
        Some(if url.contains("://") {
            url.to_owned()
        } else {
            format!("http://{url}")
        })
    }

    /// The flag's directory, else the configuration's, else the default.
    pub(super) fn data_dir(&self) -> PathBuf {
        let configured = || config::load(&self.config.config, &config::Found::new()).ok();
        match &self.data_dir {
            Some(dir) => dir.clone(),
            None => configured().map_or_else(|| "data".into(), |config| config.gateway.startup.data_dir),
        }
    }

    /// Where the admin listener is.
    pub(super) fn url(&self) -> Result<String, Failure> {
        if let Some(url) = self.given_url() {
            return Ok(url);
        }
        let file = self.data_dir().join("sluice.addr");
        url_in(&file).ok_or_else(|| {
            Failure::other(format!(
                "no running gateway found ({} does not exist); start one with `sluice serve`, or give its address with --admin-url",
                file.display()
            ))
        })
    }

    /// The gateway that runs with the data directory, if it answers.
    pub(super) fn running(&self) -> Option<Admin> {
        let url = url_in(&self.data_dir().join("sluice.addr"))?;
        let http = client(Duration::from_secs(2)).ok()?;
        let answer = http.get(format!("{url}/health")).send().ok()?;
        answer.status().is_success().then_some(())?;
        Admin::at(self, url).ok()
    }
}

/// The admin listener's URL in an address file.
fn url_in(file: &Path) -> Option<String> {
    let mut admin = Addresses::read(file)?.admin;
    if admin.ip().is_unspecified() {
        // A listener on all addresses listens on loopback too.
        admin.set_ip(match admin {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    Some(format!("http://{admin}"))
}

fn client(timeout: Duration) -> Result<Client, Failure> {
    let client = web_client::client(timeout);
    client.map_err(|error| Failure::other(error.to_string()))
}

/// A gateway's admin listener.
pub(super) struct Admin {
    pub(super) http: Client,
    pub(super) url: String,
    token: String,
}

impl Admin {
    pub(super) fn find(args: &AdminArgs) -> Result<Self, Failure> {
        Self::at(args, args.url()?)
    }

    fn at(args: &AdminArgs, url: String) -> Result<Self, Failure> {
        let token = match args.admin_token.as_ref().filter(|token| !token.is_empty()) {
            Some(token) => token.clone(),
            None => {
                let file = args.data_dir().join("admin.token");
                let read = std::fs::read_to_string(&file).map_err(|error| {
                    Failure::other(format!(
                        "cannot read the admin token in {}: {error}; give it with SLUICE_ADMIN_TOKEN or --admin-token",
                        file.display()
                    ))
                })?;
                read.trim().to_owned()
            }
        };
        Ok(Self {
            http: client(Duration::from_secs(10))?,
            url,
            token,
        })
    }

    pub(super) fn get(&self, path: &str) -> Result<Value, Failure> {
        self.ask(self.http.get(format!("{}{path}", self.url)))
    }

    pub(super) fn ask(&self, request: RequestBuilder) -> Result<Value, Failure> {
        let sent = request.bearer_auth(&self.token).send();
        let answer = sent.map_err(|error| unreachable_gateway(&self.url, &error))?;
        let status = answer.status();
        let body: Value = answer.json().unwrap_or_default();
        if status.is_success() {
            return Ok(body);
        }
        let words = ["detail", "message"].iter().find_map(|name| body[*name].as_str());
        Err(Failure::other(words.map_or_else(
            || format!("{} returned status {status}", self.url),
            str::to_owned,
        )))
    }
}

/// With what is at the bottom of it.
pub(super) fn unreachable_gateway(url: &str, error: &reqwest_blocking::Error) -> Failure {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    Failure::other(format!(
        "cannot reach a gateway at {url}: {cause}; start it with `sluice serve`, or give another address with --admin-url"
    ))
}
