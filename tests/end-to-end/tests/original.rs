//! The original system's behavior: `/generate`, its order of checks, its reasons.

use end_to_end::{Gateway, config_dir};
use serde_json::{Value, json};

fn asking(user: &str, project: &str, model: &str) -> Value {
    json!({"user_id": user, "project_id": project, "model": model, "prompt": "Why is the sky blue?", "max_tokens": 4})
}

#[tokio::test]
async fn generate_answers_with_the_originals_fields() {
    let gateway = Gateway::start().await;
    let answer = gateway
        .post(
            "/generate",
            &asking("user_standard_01", "standard_project", "simulated-small"),
        )
        .await;
    assert_eq!(answer.status(), 200);
    let answer: Value = answer.json().await.expect("JSON");
    assert_eq!(answer["status"], "completed");
    assert_eq!(answer["estimated_output_tokens"], 4);
    for field in ["request_id", "message"] {
        assert!(
            answer[field].as_str().is_some_and(|text| !text.is_empty()),
            "{field}: {answer}"
        );
    }
    for field in ["estimated_input_tokens", "estimated_cost_eur"] {
        assert!(
            answer[field].as_f64().is_some_and(|number| number > 0.0),
            "{field}: {answer}"
        );
    }
}

#[tokio::test]
async fn refusals_come_in_the_originals_order_with_its_reasons_and_each_is_in_the_ledger() {
    let dir = config_dir(|name, text| match name {
        "users.yaml" => format!("{text}  gone_01:\n    name: Gone\n    project_id: vip_project\n    enabled: false\n"),
        _ => text,
    });
    let gateway = Gateway::start_in(dir, &[]).await;
    let cases = [
        (asking("nobody", "nowhere", "nothing"), 403, "unknown_user"),
        (asking("gone_01", "nowhere", "nothing"), 403, "user_disabled"),
        (
            asking("user_standard_01", "vip_project", "nothing"),
            403,
            "project_mismatch",
        ),
        (
            asking("user_standard_01", "standard_project", "nothing"),
            404,
            "unknown_model",
        ),
        (
            asking("user_standard_01", "standard_project", "ollama-llama"),
            400,
            "model_disabled",
        ),
    ];
    for (body, status, reason) in &cases {
        let answer = gateway.post("/generate", body).await;
        assert_eq!(answer.status(), *status, "{reason}");
        assert_eq!(answer.json::<Value>().await.expect("JSON"), json!({"detail": reason}));
    }
    let records = gateway.records().await;
    assert_eq!(records.len(), cases.len());
    for (record, (_, status, reason)) in records.iter().rev().zip(&cases) {
        assert_eq!(
            (&record["reason"], &record["http_status"]),
            (&json!(reason), &json!(status))
        );
        assert_eq!(
            (&record["status"], &record["decision"]),
            (&json!("rejected"), &json!("rejected"))
        );
    }
    assert!((gateway.metric("sluice_refusals_total{").await - 5.0).abs() < 0.1);
}

#[tokio::test]
async fn bad_input_says_what_to_change() {
    let gateway = Gateway::start().await;
    for (body, says) in [
        ("", "empty"),
        ("{", "EOF while parsing"),
        ("[\"simulated-small\"]", "must be a JSON object"),
        (r#"{"messages":[]}"#, "`model` is missing"),
        (r#"{"model":7,"messages":[]}"#, "`model` must be a string"),
        (
            r#"{"model":"simulated-small","max_tokens":"many"}"#,
            "`max_tokens` must be",
        ),
        (
            r#"{"model":"simulated-small","model":"simulated-large"}"#,
            "`model` is given twice",
        ),
        (
            r#"{"model":"simulated-small","max_tokens":1,"max_tokens":2}"#,
            "`max_tokens` is given twice",
        ),
    ] {
        let request = gateway
            .http
            .post(format!("{}/v1/chat/completions", gateway.proxy))
            .body(body);
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status(), 400, "{body}");
        let answer: Value = answer.json().await.expect("JSON");
        let message = answer["error"]["message"].as_str().expect("a message");
        assert!(message.contains(says), "{body}: {message}");
        assert_eq!(answer["error"]["type"], "invalid_request_error");
    }
}

#[tokio::test]
async fn a_plans_requests_a_minute_hold_and_say_when_to_come_back() {
    let dir = config_dir(|name, text| match name {
        "limits.yaml" => text.replace("requests_per_minute: 60\n", "requests_per_minute: 3\n"),
        "models.yaml" => text.replace("average_latency_seconds: 0.5", "average_latency_seconds: 0"),
        _ => text,
    });
    let gateway = Gateway::start_in(dir, &[]).await;
    let chat = json!({"model": "simulated-small", "messages": [], "max_tokens": 1});
    for remaining in ["2", "1", "0"] {
        let answer = gateway.post("/v1/chat/completions", &chat).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["x-ratelimit-limit-requests"], "3");
        assert_eq!(answer.headers()["x-ratelimit-remaining-requests"], remaining);
    }
    let refused = gateway.post("/v1/chat/completions", &chat).await;
    assert_eq!(refused.status(), 429);
    let after: u64 = refused.headers()["retry-after"]
        .to_str()
        .expect("text")
        .parse()
        .expect("whole seconds");
    assert!((1..=20).contains(&after), "{after}");
    let body: Value = refused.json().await.expect("JSON");
    assert_eq!(
        (&body["error"]["type"], &body["error"]["code"]),
        (&json!("requests"), &json!("rate_limit_exceeded"))
    );
    let refused = gateway
        .post(
            "/generate",
            &asking("user_standard_01", "standard_project", "simulated-small"),
        )
        .await;
    assert_eq!(
        refused.json::<Value>().await.expect("JSON"),
        json!({"detail": "rate_limited"})
    );
}

#[tokio::test]
async fn the_queue_is_bounded_waits_in_order_and_says_how_long_was_waited() {
    let dir = config_dir(|name, text| match name {
        "limits.yaml" => text
            .replace("max_active_requests: 50", "max_active_requests: 1")
            .replace("max_queue_size: 1000", "max_queue_size: 1"),
        "degradation.yaml" => "degradation_levels:\n  normal:\n    number: 0\n    threshold: 0.0\n".to_owned(),
        _ => text,
    });
    let gateway = Gateway::start_in(dir, &[]).await;
    let chat = json!({"model": "simulated-small", "messages": [], "max_tokens": 1});
    let (first, second, third) = tokio::join!(
        gateway.post("/v1/chat/completions", &chat),
        gateway.post("/v1/chat/completions", &chat),
        gateway.post("/v1/chat/completions", &chat),
    );
    let mut statuses = [
        first.status().as_u16(),
        second.status().as_u16(),
        third.status().as_u16(),
    ];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 503]);
    let answers = [first, second, third];
    let refused = answers.iter().find(|answer| answer.status() == 503).expect("one");
    assert!(refused.headers().contains_key("retry-after"));
    assert_eq!(
        answers
            .iter()
            .filter(|answer| answer.headers().contains_key("x-sluice-queue-ms"))
            .count(),
        1
    );
    let records = gateway.records().await;
    assert_eq!(
        records.iter().filter(|record| record["decision"] == "queued").count(),
        1
    );
    assert_eq!(
        records.iter().filter(|record| record["reason"] == "queue_full").count(),
        1
    );
    let status = gateway.admin_json("/queue/status").await;
    assert_eq!(
        (&status["active_requests"], &status["queue_size"]),
        (&json!(0), &json!(0))
    );
}
