//! A changed configuration is taken over while requests run: all of it or nothing.

use end_to_end::{Gateway, as_admin, config_dir, python, roomy, wait_for};
use serde_json::{Value, json};

fn chat(model: &str) -> Value {
    json!({"model": model, "messages": [], "max_tokens": 2})
}

fn edit(gateway: &Gateway, name: &str, change: impl Fn(String) -> String) {
    let file = gateway.dir.path().join("config").join(name);
    let text = std::fs::read_to_string(&file).expect("readable");
    std::fs::write(&file, change(text)).expect("writable");
}

async fn reload(gateway: &Gateway) -> (u16, Value) {
    let answer = as_admin(gateway.http.post(format!("{}/config/reload", gateway.admin))).await;
    (answer.status().as_u16(), answer.json().await.expect("JSON"))
}

#[tokio::test]
async fn a_reload_acts_at_once_says_what_has_changed_and_keeps_what_was_counted() {
    let gateway = Gateway::start_in(config_dir(roomy), &[]).await;
    assert_eq!(
        gateway
            .post("/v1/chat/completions", &chat("simulated-small"))
            .await
            .status(),
        200
    );
    edit(&gateway, "limits.yaml", |text| {
        text.replace("requests_per_minute: 1000000", "requests_per_minute: 2")
    });
    edit(&gateway, "models.yaml", |text| {
        let added = "  simulated-new:\n    backend: simulated\n    max_input_tokens: 100\n    max_output_tokens: 10\n    \
            input_cost_per_1k_tokens_eur: 0\n    output_cost_per_1k_tokens_eur: 0\n";
        text.replace("models:\n", &format!("models:\n{added}"))
    });
    let (status, told) = reload(&gateway).await;
    assert_eq!((status, &told["result"]), (200, &json!("ok")), "{told}");
    let changes = told["changes"].to_string();
    assert!(
        changes.contains("limits.rate_limits.standard.requests_per_minute: 1000000 → 2"),
        "{changes}"
    );
    assert!(changes.contains("models.simulated-new: added"), "{changes}");
    assert_eq!(
        gateway
            .post("/v1/chat/completions", &chat("simulated-new"))
            .await
            .status(),
        200
    );
    let small = gateway.post("/v1/chat/completions", &chat("simulated-small")).await;
    assert_eq!(small.headers()["x-ratelimit-limit-requests"], "2");
    assert_eq!(small.headers()["x-sluice-model"], "simulated-small", "ids did not move");
    assert_eq!(
        gateway
            .post("/v1/chat/completions", &chat("simulated-small"))
            .await
            .status(),
        429
    );
    let summary = gateway.admin_json("/config/summary").await;
    assert_eq!(summary["last_reload"]["result"], "ok");
    assert_eq!(
        gateway.admin_json("/usage/project/standard_project").await["records_by_model"]["simulated-small"],
        3
    );
}

#[tokio::test]
async fn a_broken_file_changes_nothing_and_is_reported() {
    let gateway = Gateway::start_in(config_dir(roomy), &[]).await;
    edit(&gateway, "projects.yaml", |text| {
        text.replace("plan: vip", "plan: vipp")
    });
    edit(&gateway, "users.yaml", |text| {
        text.replace("user_vip_01:", "user_vip_02:")
    });
    let (status, told) = reload(&gateway).await;
    assert_eq!(status, 422);
    assert!(
        told["problems"][0]
            .as_str()
            .is_some_and(|line| line.contains("did you mean `vip`?")),
        "{told}"
    );
    let request = gateway
        .http
        .post(format!("{}/v1/chat/completions", gateway.proxy))
        .header("x-sluice-user", "user_vip_01");
    assert_eq!(
        request
            .json(&chat("simulated-small"))
            .send()
            .await
            .expect("an answer")
            .status(),
        200,
        "the old one stays"
    );
    assert_eq!(
        gateway.admin_json("/config/summary").await["last_reload"]["result"],
        "failed"
    );
    assert!(gateway.metric("sluice_config_reloads_total{result=\"failed\"}").await > 0.5);
}

#[tokio::test]
async fn sighup_and_a_changed_file_reload_and_removed_users_are_unknown() {
    let gateway = Gateway::start_in(config_dir(roomy), &[]).await;
    gateway.signal("HUP");
    wait_for("reload", || async {
        (gateway.metric("sluice_config_reloads_total{result=\"ok\"}").await > 0.5).then_some(())
    })
    .await;
    edit(&gateway, "users.yaml", |text| {
        text.replace("user_vip_01:", "user_vip_02:")
    });
    let asking = |user: &'static str| {
        let request = gateway
            .http
            .post(format!("{}/v1/chat/completions", gateway.proxy))
            .header("x-sluice-user", user);
        async move {
            request
                .json(&chat("simulated-small"))
                .send()
                .await
                .expect("an answer")
                .status()
                .as_u16()
        }
    };
    wait_for("second reload", || async {
        (asking("user_vip_02").await == 200).then_some(())
    })
    .await;
    assert_eq!(asking("user_vip_01").await, 403);
    let users = gateway.admin_json("/config/summary").await["users"].clone();
    assert!(
        users.get("user_vip_01").is_none() && users.get("user_vip_02").is_some(),
        "{users}"
    );
}

/// Resident memory of a process, in bytes.
fn resident(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/statm")).expect("Linux");
    text.split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok())
        .expect("pages")
        * 4096
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_reloads_under_load_fail_no_request_and_hold_no_memory() {
    let gateway = Gateway::start_in(
        config_dir(|name, text| match name {
            "models.yaml" => text.replace("average_latency_seconds: 0.5", "average_latency_seconds: 0.01"),
            _ => roomy(name, text),
        }),
        &[],
    )
    .await;
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let asking: Vec<_> = (0..4)
        .map(|_| {
            let (http, url) = (gateway.http.clone(), format!("{}/v1/chat/completions", gateway.proxy));
            let stop = std::sync::Arc::clone(&stop);
            tokio::spawn(async move {
                let mut done = 0;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let answer = http
                        .post(&url)
                        .json(&chat("simulated-small"))
                        .send()
                        .await
                        .expect("an answer");
                    assert_eq!(answer.status(), 200);
                    answer.bytes().await.expect("whole");
                    done += 1;
                }
                done
            })
        })
        .collect();
    let mut after_a_while = 0;
    for round in 1..=1000_u32 {
        edit(&gateway, "limits.yaml", |text| {
            let weight =
                |text: String, from: u32, to: u32| text.replace(&format!("high: {from}"), &format!("high: {to}"));
            weight(text, 10 + (round - 1) % 7, 10 + round % 7)
        });
        let (status, told) = reload(&gateway).await;
        assert_eq!((status, &told["result"]), (200, &json!("ok")), "round {round}: {told}");
        if round == 200 {
            after_a_while = resident(gateway.pid());
        }
    }
    let at_the_end = resident(gateway.pid());
    // A file that is broken changes nothing, and is told of.
    edit(&gateway, "limits.yaml", |text| {
        text.replace("max_active_requests", "max_active_request")
    });
    let (status, told) = reload(&gateway).await;
    assert_eq!((status, &told["result"]), (422, &json!("failed")));
    assert!(told["problems"].to_string().contains("max_active_requests"), "{told}");
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let mut done = 0;
    for asking in asking {
        done += asking.await.expect("no request failed");
    }
    assert!(done > 500, "there was load: {done}");
    let summary = gateway.admin_json("/config/summary").await;
    assert!(
        summary["version"].as_u64().expect("a count") > 1000,
        "{}",
        summary["version"]
    );
    assert!(
        at_the_end < after_a_while + (24 << 20),
        "{after_a_while} bytes after 200 reloads, {at_the_end} after 1,000"
    );
}

#[tokio::test]
async fn the_schemas_hold_for_the_repositorys_files_and_see_what_is_wrong() {
    let dir = config_dir(|_, text| text);
    let printed = end_to_end::sluice(dir.path(), &["check", "--schema"]);
    assert!(printed.status.success());
    let file = dir.path().join("schemas.json");
    std::fs::write(&file, &printed.stdout).expect("writable");
    let config = dir.path().join("config");
    let told = python::run("schemas.py", &[&file.to_string_lossy(), &config.to_string_lossy()]).await;
    assert!(told.contains("schemas ok 6"), "{told}");
    let one = end_to_end::sluice(dir.path(), &["check", "--schema", "models.yaml"]);
    assert_eq!(
        serde_json::from_slice::<Value>(&one.stdout).expect("JSON")["title"],
        "models.yaml"
    );
    let none = end_to_end::sluice(dir.path(), &["check", "--schema", "nothing.yaml"]);
    assert_eq!(none.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&none.stderr).contains("gateway.yaml"));
    // As JSON, every mistake with its place.
    std::fs::write(config.join("users.yaml"), "users:\n  x: {name: X, project: y}\n").expect("writable");
    let wrong = end_to_end::sluice(dir.path(), &["check", "--json"]);
    let told: Value = serde_json::from_slice(&wrong.stdout).expect("JSON");
    assert_eq!((wrong.status.code(), &told["result"]), (Some(2), &json!("wrong")));
    let unknown = told["problems"]
        .as_array()
        .expect("a list")
        .iter()
        .find(|problem| problem["key"] == "users.x.project");
    assert_eq!(unknown.expect("named")["line"], 2);
    for shell in ["bash", "zsh", "fish"] {
        let script = end_to_end::sluice(dir.path(), &["completions", shell]);
        assert!(
            script.status.success() && String::from_utf8_lossy(&script.stdout).contains("upstreams"),
            "{shell}"
        );
    }
}
