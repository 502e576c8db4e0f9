//! Starting, stopping, checking, keys: what whoever runs the gateway does.

use end_to_end::{Gateway, config_dir, roomy, sluice};
use serde_json::{Value, json};

fn chat() -> Value {
    json!({"model": "simulated-small", "messages": [], "max_tokens": 2})
}

#[test]
fn check_reports_ten_different_mistakes_at_once_with_file_line_and_key() {
    let dir = config_dir(|name, text| match name {
        "users.yaml" => text
            .replacen("project_id: standard_project", "project_id: standard_projekt", 1)
            .replacen("role: batch", "role: robot", 1)
            .replacen("enabled: true", "enabled: maybe", 1),
        "projects.yaml" => text.replacen("plan: vip", "plan: vipp", 1).replacen(
            "monthly_budget_eur: 50\n",
            "monthly_budget_eur: -50\n",
            1,
        ),
        "models.yaml" => text
            .replacen("max_output_tokens: 512", "max_output_tokens: many", 1)
            .replacen("average_latency_seconds", "average_latency", 1)
            .replacen("    backend: ollama\n", "    backend: olama\n", 1),
        "limits.yaml" => text.replacen("max_active_requests: 50", "max_active_requests: 0", 1),
        "degradation.yaml" => text.replacen("threshold: 0.95", "threshold: 95", 1),
        _ => text,
    });
    let output = sluice(dir.path(), &["check"]);
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    for mistake in [
        "config/users.yaml:5: users.user_standard_01.project_id: there is no project `standard_projekt`; did you mean `standard_project`?",
        "config/users.yaml:7: users.user_standard_01.enabled: must be true or false, not `maybe`",
        "config/users.yaml:16: users.user_batch_01.role: must be one of user, batch, admin, not `robot`",
        "config/projects.yaml:8: projects.standard_project.monthly_budget_eur: must be a number of euros",
        "config/projects.yaml:13: projects.vip_project.plan: there is no plan `vipp`; did you mean `vip`?",
        "config/models.yaml:10: models.simulated-small.max_output_tokens: must be a whole number",
        "config/models.yaml:13: models.simulated-small.average_latency: unknown key; did you mean `average_latency_seconds`?",
        "config/models.yaml:24: models.ollama-llama.backend: must be one of simulated, ollama, openai, not `olama`",
        "config/limits.yaml:3: global_limits.max_active_requests: must be at least 1",
        "config/degradation.yaml:22: degradation_levels.critical_pressure.threshold: must be between 0 and 1",
        "10 mistakes in the configuration",
    ] {
        assert!(text.contains(mistake), "{mistake}\n--- in\n{text}");
    }
    assert_eq!(
        sluice(dir.path(), &["serve"]).status.code(),
        Some(2),
        "and serve does not start with it"
    );
}

#[test]
fn check_says_that_the_repositorys_configuration_is_right() {
    let dir = config_dir(|_, text| text);
    let output = sluice(dir.path(), &["check"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("4 users, 3 projects, 3 models"));
}

#[test]
fn bad_flags_and_open_identity_off_loopback_are_refused() {
    let dir = config_dir(|_, text| text);
    let output = sluice(dir.path(), &["serve", "--listen", "0.0.0.0:0"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--identity keys"));
    assert_eq!(
        sluice(dir.path(), &["serve", "--listen", "here"]).status.code(),
        Some(2)
    );
    assert_eq!(sluice(dir.path(), &["fly"]).status.code(), Some(2));
}

#[tokio::test]
async fn keys_are_made_demanded_revoked_and_never_kept() {
    let gateway = Gateway::start_in(config_dir(roomy), &["--identity", "keys"]).await;
    assert_eq!(gateway.post("/v1/chat/completions", &chat()).await.status(), 401);
    let models = gateway.http.get(format!("{}/v1/models", gateway.proxy));
    assert_eq!(
        models.send().await.expect("an answer").status(),
        401,
        "lists are for callers who may ask"
    );

    let made = sluice(
        gateway.dir.path(),
        &["keys", "create", "--user", "user_vip_01", "--expires", "30d"],
    );
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let key = String::from_utf8(made.stdout).expect("text").trim().to_owned();
    assert!(key.starts_with("sk-sluice-"));
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    for header in ["authorization", "x-api-key", "api-key"] {
        let value = if header == "authorization" {
            format!("Bearer {key}")
        } else {
            key.clone()
        };
        let request = gateway
            .http
            .post(format!("{}/v1/chat/completions", gateway.proxy))
            .header(header, value);
        assert_eq!(
            request.json(&chat()).send().await.expect("an answer").status(),
            200,
            "{header}"
        );
    }
    let record = gateway.records().await.remove(0);
    assert_eq!(
        (&record["user_id"], &record["project_id"]),
        (&json!("user_vip_01"), &json!("vip_project"))
    );
    let id = record["key_id"].as_str().expect("the key's id").to_owned();

    let raised = json!({"user_id": "admin_01", "project_id": "vip_project", "model": "simulated-small", "prompt": "x"});
    let request = gateway
        .http
        .post(format!("{}/generate", gateway.proxy))
        .bearer_auth(&key)
        .json(&raised);
    assert_eq!(
        request.send().await.expect("an answer").status(),
        403,
        "a key speaks for its own user alone"
    );

    assert!(sluice(gateway.dir.path(), &["keys", "revoke", &id]).status.success());
    assert!(
        !sluice(gateway.dir.path(), &["keys", "revoke", &id]).status.success(),
        "once is enough"
    );
    let listed = sluice(gateway.dir.path(), &["keys", "list"]);
    assert!(String::from_utf8_lossy(&listed.stdout).contains("revoked"));
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let request = gateway
        .http
        .post(format!("{}/v1/chat/completions", gateway.proxy))
        .bearer_auth(&key);
    let refused = request.json(&chat()).send().await.expect("an answer");
    assert_eq!(refused.status(), 401);
    assert_eq!(gateway.records().await[0]["reason"], "key_revoked");

    for file in std::fs::read_dir(gateway.dir.path().join("data")).expect("data/") {
        let bytes = std::fs::read(file.expect("readable").path()).expect("readable");
        assert!(
            !bytes.windows(key.len()).any(|window| window == key.as_bytes()),
            "the secret is kept nowhere"
        );
    }
    assert!(!gateway.log().contains(&key));
}

#[tokio::test]
async fn a_request_may_lower_its_priority_and_open_identity_reads_headers() {
    let gateway = Gateway::start().await;
    let request = gateway
        .http
        .post(format!("{}/v1/chat/completions", gateway.proxy))
        .json(&chat());
    let request = request
        .header("x-sluice-user", "user_vip_01")
        .header("x-sluice-class", "batch")
        .header("x-sluice-priority", "low");
    assert_eq!(request.send().await.expect("an answer").status(), 200);
    let record = gateway.records().await.remove(0);
    assert_eq!(
        (&record["user_id"], &record["request_type"]),
        (&json!("user_vip_01"), &json!("batch"))
    );
    assert_eq!(record["priority"], "low");
}

#[tokio::test]
async fn the_admin_listener_asks_for_its_token() {
    let gateway = Gateway::start().await;
    for (path, status) in [
        ("/health", 200),
        ("/ready", 200),
        ("/metrics", 200),
        ("/usage/recent", 401),
        ("/config/summary", 401),
        ("/queue/status", 401),
    ] {
        let answer = gateway
            .http
            .get(format!("{}{path}", gateway.admin))
            .send()
            .await
            .expect("an answer");
        assert_eq!(answer.status(), status, "{path}");
    }
    let wrong = gateway
        .http
        .get(format!("{}/usage/recent", gateway.admin))
        .bearer_auth("wrong");
    assert_eq!(wrong.send().await.expect("an answer").status(), 401);
    let summary = gateway.admin_json("/config/summary").await;
    assert_eq!(summary["projects"]["vip_project"]["monthly_token_quota"], 20_000_000);
    assert_eq!(summary["limits"]["rate_limits"]["batch"]["requests_per_minute"], 20);
}

#[tokio::test]
async fn on_sigterm_running_requests_finish_and_the_exit_code_is_0() {
    let mut gateway = Gateway::start().await;
    let mut body = chat();
    body["model"] = "simulated-large".into();
    body["stream"] = true.into();
    let answer = gateway.post("/v1/chat/completions", &body).await;
    gateway.signal("TERM");
    let text = answer.text().await.expect("unbroken");
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    assert_eq!(gateway.ended().await, Some(0));
    assert!(!gateway.dir.path().join("data/sluice.addr").exists());
}

#[tokio::test]
async fn what_was_acknowledged_survives_kill_9() {
    let gateway = Gateway::start().await;
    let mut ids = Vec::new();
    for _ in 0..20 {
        let answer = gateway.post("/v1/chat/completions", &json!({"model": "nowhere"})).await;
        ids.push(answer.headers()["x-request-id"].to_str().expect("text").to_owned());
    }
    let dir = tempfile::TempDir::new().expect("a directory");
    gateway.signal("KILL");
    for part in ["config", "data"] {
        let copied = std::process::Command::new("cp")
            .arg("-r")
            .arg(gateway.dir.path().join(part))
            .arg(dir.path())
            .status();
        assert!(copied.expect("cp runs").success());
    }
    std::fs::remove_file(dir.path().join("data/sluice.addr")).expect("left by the killed one");
    let again = Gateway::start_in(dir, &[]).await;
    let kept: Vec<String> = again
        .records()
        .await
        .iter()
        .filter_map(|record| Some(record["request_id"].as_str()?.to_owned()))
        .collect();
    for id in ids {
        assert_eq!(kept.iter().filter(|kept| **kept == id).count(), 1, "{id}");
    }
}
