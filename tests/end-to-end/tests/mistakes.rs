//! Plausible mistakes in configuration and commands, and what is printed for each: read the snapshot aloud.

use end_to_end::{config_dir, program};
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// A file of the configuration, a text in it, and what stands there instead. An empty text is the file's end.
type Edit = (&'static str, &'static str, &'static str);

/// A mistake: what someone did, to which files, and the command that shows it.
struct Mistake {
    what: &'static str,
    edits: &'static [Edit],
    command: &'static str,
}

/// A mistake that `sluice check` finds.
const fn wrong(what: &'static str, edits: &'static [Edit]) -> Mistake {
    Mistake {
        what,
        edits,
        command: "check",
    }
}

/// A command that cannot be done.
const fn called(what: &'static str, command: &'static str) -> Mistake {
    Mistake {
        what,
        edits: &[],
        command,
    }
}

const SERVER: &str = "  llama:\n    backend: openai\n    max_input_tokens: 8000\n    max_output_tokens: 4096\n    \
                      input_cost_per_1k_tokens_eur: 0\n    output_cost_per_1k_tokens_eur: 0\n";

#[rustfmt::skip]
const MISTAKES: &[Mistake] = &[
    // The files themselves.
    wrong("a key without its colon", &[("users.yaml", "    name: Standard User", "    name Standard User")]),
    wrong("a line indented by a tab", &[("users.yaml", "    role: user\n", "\trole: user\n")]),
    wrong("a line that is indented too far", &[("projects.yaml", "    plan: standard", "      plan: standard")]),
    wrong("a quote that is not closed", &[("projects.yaml", "name: VIP Project", "name: \"VIP Project")]),
    wrong("a bracket that is not closed", &[("models.yaml", "    priority: normal", "    aliases: [gpt, small")]),
    wrong("the same user twice", &[("users.yaml", "  user_vip_01:", "  user_standard_01:")]),
    wrong("an empty file", &[("limits.yaml", "*", "")]),
    wrong("a list where names belong", &[("users.yaml", "*", "users:\n  - name: Ada\n")]),
    wrong("a file that is not there", &[("degradation.yaml", "-", "")]),
    wrong("a file in the wrong place", &[("limits.yaml", "*", "users:\n  ada: {name: Ada, project_id: standard_project}\n")]),
    // Keys and values.
    wrong("a misspelt key", &[("projects.yaml", "max_concurrent_requests: 5", "max_concurent_requests: 5")]),
    wrong("a key of another system", &[("gateway.yaml", "data_dir: data", "data_dir: data\nmaster_key: sk-1234")]),
    wrong("a number with a unit", &[("limits.yaml", "max_queue_wait_seconds: 30", "max_queue_wait_seconds: 30s")]),
    wrong("a number with separators", &[("projects.yaml", "monthly_token_quota: 1000000\n", "monthly_token_quota: 1,000,000\n")]),
    wrong("a negative number", &[("limits.yaml", "max_queue_size: 1000", "max_queue_size: -1")]),
    wrong("yes instead of true", &[("models.yaml", "    enabled: true", "    enabled: yes")]),
    wrong("a required key left out", &[("models.yaml", "    max_output_tokens: 512\n", "")]),
    wrong("a budget with a currency", &[("projects.yaml", "monthly_budget_eur: 50\n", "monthly_budget_eur: 50 EUR\n")]),
    wrong("a limit of zero", &[("limits.yaml", "requests_per_minute: 60", "requests_per_minute: 0")]),
    wrong("a share in percent", &[("projects.yaml", "    max_concurrent_requests: 5\n", "    max_concurrent_requests: 5\n    budget_actions: {alert: 80}\n")]),
    wrong("an unknown role", &[("users.yaml", "role: batch", "role: robot")]),
    wrong("an unknown backend", &[("models.yaml", "backend: ollama", "backend: vllm")]),
    // References.
    wrong("a project that does not exist", &[("users.yaml", "project_id: vip_project", "project_id: vip-project")]),
    wrong("a plan that does not exist", &[("projects.yaml", "plan: batch", "plan: unlimited")]),
    wrong("a default user that does not exist", &[("gateway.yaml", "default_user: user_standard_01", "default_user: ada")]),
    wrong("a fallback that does not exist", &[("models.yaml", "  simulated-large:\n", "  simulated-large:\n    fallbacks: [simulated-smal]\n")]),
    wrong("a smaller model that costs more", &[("models.yaml", "  simulated-small:\n", "  simulated-small:\n    smaller_model: simulated-large\n")]),
    wrong("limits of a user who does not exist", &[("limits.yaml", "", "user_limits: {user_standard_1: {requests_per_minute: 10}}\n")]),
    wrong("a name that two models have", &[("models.yaml", "  simulated-large:\n", "  simulated-large:\n    aliases: [simulated-small]\n")]),
    // Addresses.
    wrong("a port alone", &[("gateway.yaml", "listen: 127.0.0.1:8000", "listen: 8000")]),
    wrong("an address with a scheme", &[("gateway.yaml", "listen: 127.0.0.1:8000", "listen: http://127.0.0.1:8000")]),
    wrong("one address for both listeners", &[("gateway.yaml", "admin_listen: 127.0.0.1:8001", "admin_listen: localhost:8000")]),
    wrong("a server without a scheme", &[("models.yaml", "ollama_base_url: http://localhost:11434", "ollama_base_url: localhost:11434")]),
    wrong("a server with two schemes", &[("models.yaml", "ollama_base_url: http://localhost:11434", "ollama_base_url: http://http://localhost:11434")]),
    wrong("a model without a server", &[("models.yaml", "", SERVER)]),
    wrong("a database of another kind", &[("gateway.yaml", "sqlite://data/usage.db", "mysql://root@localhost/sluice")]),
    wrong("an origin with a path", &[("gateway.yaml", "", "cors_origins: [\"https://chat.example.org/app\"]\n")]),
    wrong("certificates that are not there", &[("gateway.yaml", "", "tls: {cert_file: cert.pem, key_file: key.pem}\n")]),
    // What is right, and hardly meant.
    wrong("warning: fewer tokens than a few answers need", &[("limits.yaml", "tokens_per_minute: 250000", "tokens_per_minute: 2000"), ("models.yaml", "", SERVER), ("models.yaml", "", "    endpoints: [{base_url: \"http://127.0.0.1:9\"}]\n")]),
    wrong("warning: fewer slots than the reserve needs", &[("limits.yaml", "max_active_requests: 50", "max_active_requests: 6")]),
    wrong("warning: open identity for everybody", &[("gateway.yaml", "listen: 127.0.0.1:8000", "listen: 0.0.0.0:8000")]),
    wrong("warning: levels in the wrong order", &[("degradation.yaml", "      reduce_max_tokens: {factor: 0.25}\n      reject_batch: true\n      reject_standard: true\n      allow_only_priority: high\n  emergency", "      reduce_max_tokens: {factor: 0.9}\n  emergency")]),
    wrong("warning: people refused before batch", &[("degradation.yaml", "      reduce_max_tokens: {factor: 0.75}", "      reject_standard: true")]),
    wrong("warning: a wait longer than the timeout", &[("limits.yaml", "max_queue_wait_seconds: 30", "max_queue_wait_seconds: 300")]),
    wrong("warning: a first token later than the timeout", &[("gateway.yaml", "first_token_seconds: 120", "first_token_seconds: 600")]),
    wrong("warning: a file that nobody reads", &[("user.yaml", "*", "users: {}\n")]),
    wrong("warning: a variable that is not set", &[("models.yaml", "", SERVER), ("models.yaml", "", "    endpoints: [{base_url: \"http://127.0.0.1:9\", api_key_env: MISSING_KEY}]\n")]),
    wrong("warning: a key where the name of a variable belongs", &[("models.yaml", "", SERVER), ("models.yaml", "", "    endpoints: [{base_url: \"http://127.0.0.1:9\", api_key_env: sk-abc123}]\n")]),
    wrong("warning: an older key beside a newer one", &[("models.yaml", "    enabled: false\n", "    upstream_model: llama3.3\n    endpoints: [{base_url: \"http://10.0.0.5:11434\"}]\n")]),
    wrong("warning: a budget where nothing costs anything", &[("models.yaml", "0.0001", "0"), ("models.yaml", "0.0002", "0"), ("models.yaml", "0.0005", "0"), ("models.yaml", "0.001", "0")]),
    wrong("warning: a fallback that is disabled", &[("models.yaml", "  simulated-large:\n", "  simulated-large:\n    fallbacks: [ollama-llama]\n")]),
    // Commands.
    called("a directory that is not there", "check --config conf"),
    called("a misspelt command", "chekc"),
    called("a misspelt flag", "serve --lisen 127.0.0.1:8000"),
    called("a host name to listen on", "serve --listen gpu-server:8000"),
    called("open identity for everybody", "serve --listen 0.0.0.0:8000"),
    called("an unknown log level", "SLUICE_LOG=verbose serve"),
    called("a short admin token", "SLUICE_ADMIN_TOKEN=secret serve --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0"),
    called("a database that refuses connections", "serve --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 --database-url postgres://sluice:secret@127.0.0.1:9/sluice"),
    called("a database file that is none", "serve --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 --database-url sqlite://config/users.yaml"),
    called("a key before the gateway was ever started", "keys create --user user_vip_01"),
    called("usage before the gateway was ever started", "usage"),
    called("the queue of a gateway that does not run", "queue"),
    called("a gateway that is not there", "keys list --admin-url localhost:9 --admin-token 0123456789abcdef"),
    called("an unknown group", "usage --by team"),
    called("a day that does not exist", "usage --from 2026-02-30"),
    called("an import without a file", "keys import team.csv"),
    called("a configuration over another", "init --server http://127.0.0.1:9"),
    called("a server that does not answer", "init --config new --server 127.0.0.1:9"),
    called("people who are neither a number nor a file", "init --config new --server 127.0.0.1:9 --people forty"),
    called("a schema of a file that does not exist", "check --schema user.yaml"),
];

fn edit(dir: &Path, (file, from, to): Edit) {
    let path = dir.join("config").join(file);
    let text = match from {
        "*" => to.to_owned(),
        "-" => return std::fs::remove_file(path).expect("a file"),
        "" => std::fs::read_to_string(&path).expect("a file") + to,
        _ => {
            let text = std::fs::read_to_string(&path).expect("a file");
            assert!(text.contains(from), "{file} has no {from:?}");
            text.replacen(from, to, 1)
        }
    };
    std::fs::write(path, text).expect("writable");
}

/// Runs a command line; variables may stand before it, as in a shell.
fn printed(dir: &TempDir, line: &str) -> String {
    let mut command = Command::new(program("sluice"));
    command
        .current_dir(dir.path())
        .env_remove("SLUICE_ADMIN_TOKEN")
        .env_remove("SLUICE_LOG");
    for word in line.split_whitespace() {
        match word.split_once('=') {
            Some((name, value)) if name.starts_with("SLUICE_") => command.env(name, value),
            _ => command.arg(word),
        };
    }
    let output = command.output().expect("sluice runs");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8(text)
        .expect("text")
        .replace(&dir.path().display().to_string(), "DIR");
    format!(
        "{}(exit code {})\n",
        text,
        output.status.code().expect("it ends by itself")
    )
}

#[test]
fn every_mistake_is_explained() {
    assert!(MISTAKES.len() >= 60);
    let mut all = String::new();
    for mistake in MISTAKES {
        let dir = config_dir(|_, text| text);
        mistake.edits.iter().for_each(|one| edit(dir.path(), *one));
        let said = printed(&dir, mistake.command);
        let is_warning = mistake.what.starts_with("warning");
        assert_eq!(said.contains("(exit code 0)"), is_warning, "{}: {said}", mistake.what);
        assert!(!is_warning || said.contains("warning: "), "{}: {said}", mistake.what);
        let _ = writeln!(all, "## {}\n$ sluice {}\n{said}", mistake.what, mistake.command);
    }
    insta::assert_snapshot!("messages", all);
}

#[test]
fn the_shipped_configuration_has_no_warnings() {
    let dir = config_dir(|_, text| text);
    assert!(!printed(&dir, "check").contains("warning"));
}
