//! A changed configuration is taken over while requests run: all of it or nothing.

use end_to_end::{Gateway, as_admin, config_dir, roomy, wait_for};
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
async fn sighup_and_a_changed_file_reload_and_whoever_was_removed_is_unknown() {
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

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_reloads_under_load_fail_no_request() {
    let gateway = Gateway::start_in(
        config_dir(|name, text| match name {
            "models.yaml" => text.replace("average_latency_seconds: 0.5", "average_latency_seconds: 0.01"),
            _ => roomy(name, text),
        }),
        &[],
    )
    .await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let workers: Vec<_> = (0..8)
        .map(|_| {
            let (http, url, stopped) = (
                gateway.http.clone(),
                format!("{}/v1/chat/completions", gateway.proxy),
                stopped.clone(),
            );
            tokio::spawn(async move {
                let mut served = 0;
                while !*stopped.borrow() {
                    let answer = http
                        .post(&url)
                        .json(&chat("simulated-small"))
                        .send()
                        .await
                        .expect("an answer");
                    assert_eq!(answer.status(), 200);
                    answer.bytes().await.expect("unbroken");
                    served += 1;
                }
                served
            })
        })
        .collect();
    for at in 0..100 {
        edit(&gateway, "limits.yaml", |text| {
            let (old, new) = if at % 2 == 0 {
                ("high: 10", "high: 9")
            } else {
                ("high: 9", "high: 10")
            };
            text.replace(old, new)
        });
        assert_eq!(reload(&gateway).await.0, 200);
    }
    stop.send(true).expect("workers run");
    let mut served = 0;
    for worker in workers {
        served += worker.await.expect("no request failed");
    }
    assert!(served > 50, "{served}");
}
