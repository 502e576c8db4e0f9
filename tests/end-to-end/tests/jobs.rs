//! Requests that go on without a client: neither they nor their answers are lost when the gateway stops or is killed.

use end_to_end::{Gateway, Simulated, config_dir, roomy, sluice, wait_for, with_model};
use serde_json::{Value, json};
use tempfile::TempDir;

/// One place at an upstream of a process of its own, so that it outlives the gateway.
fn one_place(url: &str) -> TempDir {
    config_dir(|name, text| match name {
        "models.yaml" => with_model(&text, "tested", "openai", url, ", max_concurrent_requests: 1"),
        _ => roomy(name, text),
    })
}

fn body() -> Value {
    json!({"user_id": "user_standard_01", "project_id": "standard_project", "model": "tested", "prompt": "x", "max_tokens": 3})
}

/// So many requests, of which the first runs and the others are queued; the ids of the queued ones.
async fn queue(gateway: &Gateway, count: usize) -> Vec<String> {
    let (http, url) = (gateway.http.clone(), format!("{}/generate", gateway.proxy));
    tokio::spawn(async move { http.post(url).json(&body()).send().await });
    wait_for("a running request", || async {
        (gateway.admin_json("/queue/status").await["active_requests"] == 1).then_some(())
    })
    .await;
    let mut ids = Vec::new();
    for _ in 0..count {
        let answer: Value = gateway.post("/generate", &body()).await.json().await.expect("JSON");
        assert_eq!(answer["status"], "queued", "{answer}");
        ids.push(answer["request_id"].as_str().expect("an id").to_owned());
    }
    ids
}

async fn all_completed(gateway: &Gateway, ids: &[String]) {
    for id in ids {
        let done = wait_for("an answer", || async {
            let request = gateway.http.get(format!("{}/requests/{id}", gateway.proxy));
            let status: Value = request.send().await.expect("an answer").json().await.expect("JSON");
            let is_open = status["status"] == "queued" || status["status"] == "processing";
            (!is_open).then_some(status)
        })
        .await;
        assert_eq!(done["status"], "completed", "{done}");
        assert_eq!(done["output_tokens"], 3, "{done}");
    }
}

async fn one_record_each(gateway: &Gateway, ids: &[String]) {
    let records = gateway.records().await;
    for id in ids {
        let count = records.iter().filter(|record| record["request_id"] == **id).count();
        assert_eq!(count, 1, "{id}");
    }
    let verified = sluice(gateway.dir.path(), &["ledger", "verify"]);
    assert!(verified.status.success(), "{verified:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_at_a_stop_is_done_by_the_next_start() {
    let upstream = Simulated::start(&["tested=0.7"]);
    let mut gateway = Gateway::start_in(one_place(&upstream.url), &[]).await;
    let ids = queue(&gateway, 3).await;
    gateway.signal("TERM");
    assert_eq!(gateway.ended().await, Some(0));
    let gateway = Gateway::start_in(gateway.left(), &[]).await;
    all_completed(&gateway, &ids).await;
    one_record_each(&gateway, &ids).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_and_runs_at_a_kill_is_done_by_the_next_start_and_answers_stay() {
    let upstream = Simulated::start(&["tested=0.4"]);
    let mut gateway = Gateway::start_in(one_place(&upstream.url), &[]).await;
    let ids = queue(&gateway, 4).await;
    all_completed(&gateway, &ids[..1]).await;
    gateway.signal("KILL");
    assert_eq!(gateway.ended().await, None);
    let gateway = Gateway::start_in(gateway.left(), &[]).await;
    all_completed(&gateway, &ids).await;
    one_record_each(&gateway, &ids).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_own_project_sees_an_answer() {
    let upstream = Simulated::start(&["tested=0.3"]);
    let gateway = Gateway::start_in(one_place(&upstream.url), &["--identity", "keys"]).await;
    let key = |user: &str| {
        let made = sluice(gateway.dir.path(), &["keys", "create", "--user", user]);
        String::from_utf8(made.stdout).expect("text").trim().to_owned()
    };
    let (own, other) = (key("user_standard_01"), key("user_vip_01"));
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let ask = |key: &str| {
        gateway
            .http
            .post(format!("{}/generate", gateway.proxy))
            .bearer_auth(key)
            .json(&body())
    };
    let first = tokio::spawn(ask(&own).send());
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    let queued: Value = ask(&own).send().await.expect("an answer").json().await.expect("JSON");
    let id = queued["request_id"].as_str().expect("an id").to_owned();
    let see = |key: &str| {
        let request = gateway
            .http
            .get(format!("{}/requests/{id}", gateway.proxy))
            .bearer_auth(key);
        async move { request.send().await.expect("an answer").status().as_u16() }
    };
    assert_eq!((see(&own).await, see(&other).await), (200, 404));
    first.await.expect("no panic").expect("an answer");
    wait_for("the end", || async {
        (gateway.records().await.len() == 2).then_some(())
    })
    .await;
    assert_eq!((see(&own).await, see(&other).await), (200, 404));
}
