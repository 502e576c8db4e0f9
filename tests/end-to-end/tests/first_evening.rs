//! A newcomer's first evening: a configuration from what the servers say, limits that hold for the team, and keys that
//! work at once, against real servers.

use end_to_end::llama::Llama;
use end_to_end::{Gateway, Simulated, as_admin, config_dir, sluice};
use futures_util::future::join_all;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Output;
use tempfile::TempDir;

fn text(output: &Output) -> String {
    let all = [output.stdout.clone(), output.stderr.clone()].concat();
    String::from_utf8(all).expect("text")
}

/// Runs a command that must succeed; its standard output.
fn done(dir: &Path, args: &[&str]) -> String {
    let output = sluice(dir, args);
    assert!(output.status.success(), "{args:?}: {}", text(&output));
    String::from_utf8(output.stdout).expect("text")
}

/// How many answers have which status, of one chat of every secret at once.
async fn all_at_once(gateway: &Gateway, model: &str, secrets: &[String]) -> BTreeMap<u16, usize> {
    let body = json!({"model": model, "messages": [{"role": "user", "content": "Why is the sky blue? ".repeat(50)}]});
    let asked = secrets.iter().map(|secret| {
        let request = gateway
            .http
            .post(format!("{}/v1/chat/completions", gateway.proxy))
            .bearer_auth(secret);
        let request = request.json(&body);
        async move { request.send().await.expect("an answer").status().as_u16() }
    });
    let mut counts = BTreeMap::new();
    for status in join_all(asked).await {
        *counts.entry(status).or_default() += 1;
    }
    counts
}

/// The secrets that `keys import` prints.
fn secrets(csv: &str) -> Vec<String> {
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    assert_eq!(
        reader.headers().expect("a head"),
        vec!["user_id", "id", "label", "expires_at", "secret"]
    );
    reader
        .records()
        .map(|record| record.expect("a line")[4].to_owned())
        .collect()
}

#[tokio::test]
async fn a_configuration_for_forty_people_admits_them_all_at_once_on_servers_that_were_asked() {
    let llama = Llama::start().await;
    let simulated = Simulated::start(&["answers=0.05"]);
    let dir = TempDir::new().expect("a directory");
    // The simulated server needs no key, and does not mind one.
    let output = std::process::Command::new(end_to_end::program("sluice"))
        .args([
            "init",
            "--server",
            &llama.url,
            "--server",
            &simulated.url,
            "--api-key-env",
            "UPSTREAM_KEY",
        ])
        .args(["--people", "40", "--budget", "200", "--listen", "127.0.0.1:0"])
        .env("UPSTREAM_KEY", "sk-up")
        .current_dir(dir.path())
        .output()
        .expect("sluice runs");
    let said = text(&output);
    assert!(output.status.success(), "{said}");
    // 131,072 tokens in 4 slots; and what the simulated server reports, over Ollama's protocol.
    assert!(said.contains("llama.cpp, 4 slots: tiny (32768 tokens)"), "{said}");
    assert!(said.contains("Ollama") && said.contains("answers"), "{said}");
    assert!(!said.contains("warning"), "{said}");
    let models = std::fs::read_to_string(dir.path().join("config/models.yaml")).expect("written");
    for part in [
        "max_concurrent_requests: 4",
        "max_input_tokens: 28672",
        "api_key_env: UPSTREAM_KEY",
    ] {
        assert!(models.contains(part), "{part} is not in {models}");
    }

    let gateway = Gateway::start_in(dir, &[]).await;
    let at = ["--admin-url", &gateway.admin, "--admin-token", "admin-of-the-test"];
    let list = "config/team.csv";
    let created = done(
        gateway.dir.path(),
        &[&["keys", "import", list, "--expires", "1y"], &at[..]].concat(),
    );
    let keys = secrets(&created);
    assert_eq!(keys.len(), 40);
    assert_eq!(
        all_at_once(&gateway, "answers", &keys).await,
        BTreeMap::from([(200, 40)])
    );
    // A model that writes as much as it may: up to 4,096 tokens each.
    let limits = gateway.admin_json("/limits/project/team").await;
    let budget = limits["allowances"].as_array().expect("a list");
    assert!(
        budget
            .iter()
            .any(|one| one["measure"] == "eur" && one["limit"] == 200.0),
        "{limits}"
    );

    let again = sluice(gateway.dir.path(), &[&["keys", "import", list], &at[..]].concat());
    assert_eq!(
        secrets(&String::from_utf8(again.stdout.clone()).expect("text")).len(),
        0
    );
    assert_eq!(text(&again).matches(" already").count(), 40, "{}", text(&again));
    let over = sluice(gateway.dir.path(), &["init", "--server", &simulated.url]);
    assert_eq!(over.status.code(), Some(2), "{}", text(&over));
    assert!(text(&over).contains("never overwrites"));
}

#[tokio::test]
async fn the_shipped_example_admits_forty_people_with_long_answers_at_once() {
    let simulated = Simulated::start(&["answers=0.05"]);
    let dir = config_dir(|name, text| match name {
        "models.yaml" => end_to_end::with_model(&text, "answers", "openai", &simulated.url, ""),
        _ => text,
    });
    let gateway = Gateway::start_in(dir, &[]).await;
    let people = vec!["unused".to_owned(); 40];
    assert_eq!(
        all_at_once(&gateway, "answers", &people).await,
        BTreeMap::from([(200, 40)])
    );
}

#[tokio::test]
async fn a_key_works_at_once_keeps_its_id_over_rotations_and_a_leaked_secret_ends_at_once() {
    let gateway = Gateway::start_in(config_dir(|_, text| text), &["--identity", "keys"]).await;
    let dir = gateway.dir.path();
    let at = [
        "--admin-url",
        gateway.admin.trim_start_matches("http://"),
        "--admin-token",
        "admin-of-the-test",
    ];
    let keys = |args: &[&str]| done(dir, &[&["keys"], args, &at[..]].concat());
    let status = async |secret: &str| {
        let secret = vec![secret.trim().to_owned()];
        *all_at_once(&gateway, "simulated-small", &secret)
            .await
            .keys()
            .next()
            .expect("an answer")
    };
    let first = keys(&[
        "create",
        "--user",
        "user_vip_01",
        "--label",
        "laptop",
        "--expires",
        "2099-12-31",
    ]);
    assert_eq!(status(&first).await, 200, "without a pause");
    let list = || -> Value { serde_json::from_str(&keys(&["list", "--json"])).expect("JSON") };
    let before = list();
    let id = before[0]["id"].as_str().expect("an id");
    assert_eq!(before[0]["expires_at"], "2100-01-01T00:00:00Z");

    let second = keys(&["rotate", id]);
    assert_eq!(
        (status(&first).await, status(&second).await),
        (200, 200),
        "both for an hour"
    );
    let third = keys(&["rotate", id, "--grace", "0s"]);
    assert_eq!(
        (status(&first).await, status(&second).await, status(&third).await),
        (401, 401, 200)
    );
    let after = list();
    for field in ["id", "label", "user_id", "expires_at", "models"] {
        assert_eq!(after[0][field], before[0][field], "{field}");
    }
    assert_eq!(after.as_array().expect("a list").len(), 1);
    let shown = keys(&["list"]);
    assert!(
        shown.contains("laptop") && shown.contains("2100-01-01 00:00 UTC"),
        "{shown}"
    );
    let answer = gateway
        .http
        .get(format!("{}/v1/models", gateway.proxy))
        .bearer_auth(second.trim());
    let answer = answer.send().await.expect("an answer").text().await.expect("text");
    assert!(
        answer.contains("was replaced by a rotation") && answer.contains(id),
        "{answer}"
    );
}

#[tokio::test]
async fn limits_of_a_key_hold_after_a_rotation() {
    let gateway = Gateway::start_in(config_dir(|_, text| text), &["--identity", "keys"]).await;
    let made: Value = {
        let request = gateway
            .http
            .post(format!("{}/keys", gateway.admin))
            .json(&json!({"user": "user_vip_01"}));
        as_admin(request).await.json().await.expect("JSON")
    };
    let id = made["id"].as_str().expect("an id").to_owned();
    let file = gateway.dir.path().join("config/limits.yaml");
    let limits = std::fs::read_to_string(&file).expect("a file");
    std::fs::write(
        &file,
        format!("{limits}key_limits: {{{id}: {{requests_per_minute: 3}}}}\n"),
    )
    .expect("writable");
    let reloaded = as_admin(gateway.http.post(format!("{}/config/reload", gateway.admin))).await;
    assert_eq!(reloaded.status(), 200);
    let first = vec![made["secret"].as_str().expect("a secret").to_owned(); 2];
    assert_eq!(
        all_at_once(&gateway, "simulated-small", &first).await,
        BTreeMap::from([(200, 2)])
    );
    let rotate = gateway
        .http
        .post(format!("{}/keys/{id}/rotate", gateway.admin))
        .json(&json!({"grace": "1d"}));
    let rotated: Value = as_admin(rotate).await.json().await.expect("JSON");
    let second = vec![rotated["secret"].as_str().expect("a secret").to_owned(); 3];
    assert_eq!(
        all_at_once(&gateway, "simulated-small", &second).await,
        BTreeMap::from([(200, 1), (429, 2)])
    );
}

#[tokio::test]
async fn commands_create_no_database_and_say_which_one_they_use() {
    let dir = config_dir(|_, text| text);
    for args in [
        &["keys", "create", "--user", "user_vip_01"][..],
        &["usage"],
        &["ledger", "verify"],
    ] {
        let output = sluice(dir.path(), args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(
            text(&output).contains("there is no database data/usage.db"),
            "{}",
            text(&output)
        );
    }
    assert!(!dir.path().join("data").exists());
    let mut gateway = Gateway::start_in(dir, &["--identity", "keys"]).await;
    gateway.signal("TERM");
    assert_eq!(gateway.ended().await, Some(0));
    let output = sluice(gateway.dir.path(), &["keys", "create", "--user", "user_vip_01"]);
    assert!(output.status.success());
    assert!(
        text(&output).contains("in the database data/usage.db"),
        "{}",
        text(&output)
    );
}

#[tokio::test]
async fn the_printed_request_to_try_works_as_it_stands_and_no_link_is_in_the_log() {
    let dir = config_dir(|_, text| text);
    // With a token file, as an operator has it.
    let log = std::fs::File::create(dir.path().join("sluice.log")).expect("writable");
    let child = std::process::Command::new(end_to_end::program("sluice"))
        .args([
            "serve",
            "--identity",
            "keys",
            "--listen",
            "localhost:0",
            "--admin-listen",
            "127.0.0.1:0",
        ])
        .env_remove("SLUICE_ADMIN_TOKEN")
        .current_dir(dir.path())
        .stderr(log)
        .spawn()
        .expect("sluice starts");
    let _ends = end_to_end::Ends(child);
    let log = || std::fs::read_to_string(dir.path().join("sluice.log")).expect("a log");
    let printed = end_to_end::wait_for("request to try", || async {
        let log = log();
        let line = log.lines().find(|line| line.trim().starts_with("curl "))?;
        Some(line.trim().to_owned())
    })
    .await;
    let elsewhere = TempDir::new().expect("a directory");
    let output = std::process::Command::new("bash")
        .args(["-c", &printed])
        .current_dir(elsewhere.path())
        .output();
    let output = output.expect("bash runs");
    let answer = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        answer.contains("\"chat.completion\""),
        "{printed}\n{answer}\n{}",
        text(&output)
    );
    let log = log();
    assert!(!log.contains("code=") && !log.contains('\u{1b}'), "{log}");
    assert!(log.contains("sluice console"), "{log}");
}

#[tokio::test]
async fn a_log_in_json_is_json_from_the_first_line_to_the_last() {
    let dir = config_dir(|name, text| match name {
        "gateway.yaml" => text + "telemetry: {log_format: json}\n",
        _ => text,
    });
    let mut gateway = Gateway::start_in(dir, &[]).await;
    gateway.signal("TERM");
    gateway.ended().await;
    let log = gateway.log();
    assert!(log.lines().count() >= 2, "{log}");
    for line in log.lines() {
        assert!(serde_json::from_str::<Value>(line).is_ok(), "{line}");
    }
}
