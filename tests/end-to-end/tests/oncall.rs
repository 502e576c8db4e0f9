//! What whoever is on call finds in the log and in the metrics: levels, throttling and blocking, refusals and failures, in
//! words and no more lines than there are causes.

use end_to_end::{Gateway, as_admin, config_dir, roomy, wait_for, with_model};
use futures_util::future::join_all;
use serde_json::json;

/// Sends so many chats at once, for their statuses.
async fn chats(gateway: &Gateway, model: &str, user: &str, count: usize) -> Vec<u16> {
    let body = json!({"model": model, "max_tokens": 20, "messages": [{"role": "user", "content": "SECRETWORD"}]});
    let asked = (0..count).map(|_| {
        let request = gateway
            .http
            .post(format!("{}/v1/chat/completions", gateway.proxy))
            .header("x-sluice-user", user);
        let request = request.json(&body);
        async move { request.send().await.expect("an answer").status().as_u16() }
    });
    join_all(asked).await
}

/// The lines of the log that have a text, once there is one.
async fn lines(gateway: &Gateway, text: &str) -> Vec<String> {
    let found = wait_for(text, || async {
        let log = gateway.log();
        let lines = log.lines().filter(|line| line.contains(text)).map(str::to_owned);
        Some(lines.collect::<Vec<_>>()).filter(|lines| !lines.is_empty())
    })
    .await;
    assert!(!gateway.log().contains("SECRETWORD"), "the log has no word of a prompt");
    found
}

#[tokio::test]
async fn a_failed_reload_shows_in_metrics_that_were_there_before_it() {
    let gateway = Gateway::start().await;
    let metrics = async || {
        let answer = gateway
            .http
            .get(format!("{}/metrics", gateway.admin))
            .send()
            .await
            .expect("an answer");
        answer.text().await.expect("text")
    };
    let before = metrics().await;
    for line in [
        "sluice_config_reloads_total{result=\"failed\"} 0",
        "sluice_config_reloads_total{result=\"ok\"} 0",
        "sluice_config_last_reload_successful 1",
    ] {
        assert!(before.lines().any(|shown| shown == line), "{line}");
    }
    let file = gateway.dir.path().join("config/users.yaml");
    let right = std::fs::read_to_string(&file).expect("a file");
    let reload = async || {
        as_admin(gateway.http.post(format!("{}/config/reload", gateway.admin)))
            .await
            .status()
    };
    std::fs::write(
        &file,
        right.replace("project_id: vip_project", "project_id: vip-project"),
    )
    .expect("writable");
    assert_eq!(reload().await, 422);
    assert!(metrics().await.contains("sluice_config_last_reload_successful 0"));
    std::fs::write(&file, &right).expect("writable");
    assert_eq!(reload().await, 200);
    assert!(metrics().await.contains("sluice_config_last_reload_successful 1"));
    let told = lines(&gateway, "did you mean `vip_project`?").await;
    assert!(
        told[0].contains("invalid configuration: config/users.yaml:"),
        "{told:?}"
    );
}

#[tokio::test]
async fn refusals_are_told_once_and_counted() {
    let gateway = Gateway::start_in(config_dir(|_, text| text), &[]).await;
    let statuses = chats(&gateway, "simulated-small", "user_standard_01", 100).await;
    let refused = statuses.iter().filter(|status| **status == 429).count();
    assert!(refused >= 30, "{statuses:?}");
    let told = lines(&gateway, "request refused").await;
    assert_eq!(told.len(), 1, "{told:?}");
    for word in [
        "rate limit exceeded: 60 requests per minute",
        "reason=\"rate_limited\"",
        "standard_project",
    ] {
        assert!(told[0].contains(word), "{word}: {told:?}");
    }
}

#[tokio::test]
async fn a_failing_server_has_a_line_with_model_and_server() {
    let dir = config_dir(|name, text| match name {
        "models.yaml" => with_model(&text, "broken", "openai", "http://127.0.0.1:9", ""),
        _ => roomy(name, text),
    });
    let gateway = Gateway::start_in(dir, &[]).await;
    let statuses = chats(&gateway, "broken", "user_vip_01", 5).await;
    assert!(statuses.iter().all(|status| *status >= 500), "{statuses:?}");
    let told = lines(&gateway, "broken failed on 127.0.0.1:9").await;
    assert!(told.len() <= 2 && told[0].contains("no_healthy_upstream"), "{told:?}");
}

#[tokio::test]
async fn levels_that_rise_and_fall_are_told_with_their_actions() {
    let dir = config_dir(|name, text| match name {
        "limits.yaml" => roomy(name, text)
            .replace("max_active_requests: 2000", "max_active_requests: 1")
            .replace("max_queue_size: 1000", "max_queue_size: 20")
            .replace("max_queue_wait_seconds: 30", "max_queue_wait_seconds: 600"),
        "models.yaml" => text.replace("average_latency_seconds: 0.5", "average_latency_seconds: 0.1"),
        _ => roomy(name, text),
    });
    let gateway = Gateway::start_in(dir, &[]).await;
    chats(&gateway, "simulated-small", "user_standard_01", 20).await;
    let risen = lines(&gateway, "degradation rises from normal to").await;
    assert!(risen[0].contains("reduce_max_tokens: "), "{risen:?}");
    lines(&gateway, "degradation falls from").await;
}

#[tokio::test]
async fn budgets_that_throttle_and_block_are_told_with_amount_and_currency() {
    let dir = config_dir(|name, text| match name {
        // 1,000 output tokens cost 0.001 euros here: ten requests of twenty tokens are 0.0002.
        "projects.yaml" => roomy(name, text).replace("monthly_budget_eur: 1000000\n", "monthly_budget_eur: 0.0004\n"),
        "models.yaml" => text.replace("average_latency_seconds: 2.0", "average_latency_seconds: 0.01"),
        _ => roomy(name, text),
    });
    let gateway = Gateway::start_in(dir, &[]).await;
    for _ in 0..40 {
        if chats(&gateway, "simulated-large", "user_standard_01", 1).await == [429] {
            break;
        }
    }
    let told = lines(&gateway, "project standard_project has used €0.0003").await;
    assert!(
        told.iter()
            .any(|line| line.contains("of its budget of €0.0004 this month")),
        "{told:?}"
    );
    lines(&gateway, "its share of capacity and its concurrency are halved").await;
    let refused = lines(&gateway, "budget exceeded: ").await;
    assert!(
        refused[0].contains("€0.0004 per month") && refused[0].contains("UTC"),
        "{refused:?}"
    );
}
