//! Queries of the ledger: the original's summaries, sums by any groups, a caller's own usage; and that
//! sums, records and counters agree, over restarts and crashes too.

mod durability;
mod usage;

use end_to_end::{Gateway, as_admin, config_dir, roomy, sluice};
use serde_json::{Value, json};

fn chat(max_tokens: u64) -> Value {
    json!({"model": "simulated-small", "messages": [{"role": "user", "content": "Why is the sky blue?"}], "max_tokens": max_tokens})
}

/// No latency, so that there are many records soon. `SLUICE_RUNS=50` kills as often as a release should stand.
fn fast(name: &str, text: String) -> String {
    match name {
        "models.yaml" => text.replace("average_latency_seconds: 0.5", "average_latency_seconds: 0"),
        _ => roomy(name, text),
    }
}

async fn ask(gateway: &Gateway, user: &str, body: &Value) -> u16 {
    let request = gateway
        .http
        .post(format!("{}/v1/chat/completions", gateway.proxy))
        .header("x-sluice-user", user);
    request.json(body).send().await.expect("an answer").status().as_u16()
}

/// Three completed of one user, two of another, one refused.
async fn six_records(gateway: &Gateway) {
    for _ in 0..3 {
        assert_eq!(ask(gateway, "user_standard_01", &chat(8)).await, 200);
    }
    for _ in 0..2 {
        assert_eq!(ask(gateway, "user_vip_01", &chat(4)).await, 200);
    }
    assert_eq!(ask(gateway, "user_vip_01", &json!({"model": "nowhere"})).await, 404);
}

#[tokio::test]
async fn keys_are_made_rotated_and_revoked_over_the_admin_listener_and_hold_to_their_models() {
    let gateway = Gateway::start_in(config_dir(fast), &["--identity", "keys"]).await;
    let make = gateway.http.post(format!("{}/keys", gateway.admin));
    let made =
        as_admin(make.json(&json!({"user": "user_vip_01", "models": ["simulated-small"], "expires": "1h"}))).await;
    assert_eq!(made.status(), 201);
    let made: Value = made.json().await.expect("JSON");
    let (id, secret) = (
        made["id"].as_str().expect("an id"),
        made["secret"].as_str().expect("a secret"),
    );
    let asking = |secret: &str, model: &str| {
        let mut body = chat(2);
        body["model"] = model.into();
        let request = gateway
            .http
            .post(format!("{}/v1/chat/completions", gateway.proxy))
            .bearer_auth(secret)
            .json(&body);
        async move { request.send().await.expect("an answer").status().as_u16() }
    };
    assert_eq!(asking(secret, "simulated-small").await, 200, "it works at once");
    assert_eq!(asking(secret, "simulated-large").await, 403);
    assert_eq!(gateway.records().await[0]["reason"], "model_not_allowed");
    let models = gateway
        .http
        .get(format!("{}/v1/models", gateway.proxy))
        .bearer_auth(secret);
    let models: Value = models.send().await.expect("an answer").json().await.expect("JSON");
    assert_eq!(models["data"].as_array().expect("a list").len(), 1);

    let rotate = gateway.http.post(format!("{}/keys/{id}/rotate", gateway.admin));
    let rotated: Value = as_admin(rotate).await.json().await.expect("JSON");
    let newer = rotated["secret"].as_str().expect("a secret");
    assert_eq!(rotated["models"], json!(["simulated-small"]));
    assert_eq!(asking(newer, "simulated-small").await, 200);
    assert_eq!(
        asking(secret, "simulated-small").await,
        200,
        "the old one works for an hour"
    );
    let revoke = gateway.http.delete(format!("{}/keys/{id}", gateway.admin));
    assert_eq!(as_admin(revoke).await.status(), 200);
    assert_eq!(asking(secret, "simulated-small").await, 401, "and ends at once");
    let used = end_to_end::wait_for("last use", || async {
        let keys = gateway.admin_json("/keys").await;
        let keys = keys["keys"].as_array().expect("a list").clone();
        keys.iter().all(|key| key["last_used_at"].is_string()).then_some(keys)
    })
    .await;
    assert_eq!(used.len(), 1, "a key that was rotated is the same key");
    assert!(
        !serde_json::to_string(&used).expect("text").contains("sk-sluice-"),
        "secrets are not kept"
    );
    let wrong = gateway
        .http
        .post(format!("{}/keys", gateway.admin))
        .json(&json!({"user": "nobody"}));
    assert_eq!(as_admin(wrong).await.status(), 400);
    let usage = gateway.admin_json(&format!("/usage/key/{id}")).await;
    assert_eq!(
        usage["records_by_status"]["completed"], 3,
        "its old and its new secret are one key"
    );
}

/// Corrects, as an operator; status and answer.
async fn correct(gateway: &Gateway, body: Value) -> (u16, Value) {
    let request = gateway
        .http
        .post(format!("{}/usage/corrections", gateway.admin))
        .json(&body);
    let answer = as_admin(request).await;
    (answer.status().as_u16(), answer.json().await.expect("JSON"))
}

#[tokio::test]
async fn a_correction_is_a_record_of_its_own_that_mends_sums_and_budgets_and_is_no_request() {
    let gateway = Gateway::start_in(config_dir(fast), &[]).await;
    six_records(&gateway).await;
    let before = gateway.admin_json("/usage/summary").await;
    let wrong = gateway.records().await[1].clone();
    let body = json!({"request_id": wrong["request_id"], "output_tokens": -4, "cost_eur": -0.000_000_8, "reason": "price typed wrongly"});
    let (status, told) = correct(&gateway, body).await;
    assert_eq!(status, 200, "{told}");
    let (status, _) = correct(
        &gateway,
        json!({"user": "user_standard_01", "input_tokens": 1000, "cost_eur": 1.5, "reason": "by hand"}),
    )
    .await;
    assert_eq!(status, 200);

    let after = gateway.admin_json("/usage/summary").await;
    for same in [
        "total_records",
        "records_by_status",
        "records_by_project",
        "records_by_user",
        "records_by_model",
    ] {
        assert_eq!(after[same], before[same], "a correction is no request");
    }
    let tokens = |summary: &Value| summary["total_tokens"].as_i64().expect("a count");
    assert_eq!(tokens(&after), tokens(&before) + 996);
    let metrics = gateway.admin_json("/metrics/summary").await;
    assert_eq!(
        (&metrics["total_requests"], &metrics["completed_requests"]),
        (&json!(6), &json!(5))
    );
    assert_eq!(metrics["requests_by_status"], before["records_by_status"]);
    let newest = &gateway.records().await[0];
    assert_eq!(
        (&newest["status"], &newest["project_id"]),
        (&json!("correction"), &json!("standard_project"))
    );
    let limits = gateway.admin_json("/limits/project/standard_project").await;
    let used = |limits: &Value| {
        let all = limits["allowances"].as_array().expect("allowances").iter();
        let costs = all
            .filter(|one| one["measure"] == "eur")
            .filter_map(|one| one["used"].as_f64());
        costs.fold(0.0, f64::max)
    };
    assert!(used(&limits) > 1.49, "{limits}");
    let verified = sluice(gateway.dir.path(), &["ledger", "verify"]);
    assert!(
        verified.status.success(),
        "{}",
        String::from_utf8_lossy(&verified.stdout)
    );

    for (body, said) in [
        (json!({"user": "user_vip_01", "reason": "x"}), "the correction is empty"),
        (
            json!({"user": "user_vip_01", "input_tokens": 1, "reason": " "}),
            "`reason` is empty",
        ),
        (json!({"input_tokens": 1, "reason": "x"}), "give the `user`"),
        (
            json!({"request_id": "nowhere", "input_tokens": 1, "reason": "x"}),
            "no record has the request id",
        ),
        (
            json!({"user": "user_vip_01", "input_tokens": 1, "reason": "x", "tokens": 5}),
            "unknown field",
        ),
        (
            json!({"user": "user_vip_01", "cost_eur": 1e300, "reason": "x"}),
            "at most 1000000000000 tokens and 1000000 euros",
        ),
    ] {
        let (status, told) = correct(&gateway, body).await;
        assert!(
            matches!(status, 400 | 422) && told["detail"].as_str().is_some_and(|detail| detail.contains(said)),
            "{told}"
        );
    }
    // A restart counts corrections too.
    let mut gateway = gateway;
    gateway.signal("TERM");
    gateway.ended().await;
    let gateway = Gateway::start_in(gateway.left(), &[]).await;
    assert!(used(&gateway.admin_json("/limits/project/standard_project").await) > 1.49);
}
