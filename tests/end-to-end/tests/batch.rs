//! OpenAI's Batch API with the real client: through a restart, beside interactive traffic, cancelled, and wrong.

use end_to_end::{Gateway, config_dir, python, roomy, sluice, wait_for};
use serde_json::{Value, json};
use std::time::Duration;
use tempfile::TempDir;

/// Twenty places of 50 ms.
fn twenty_places() -> TempDir {
    config_dir(|name, text| match name {
        "models.yaml" => text.replace("average_latency_seconds: 0.5", "average_latency_seconds: 0.05"),
        "limits.yaml" => roomy(name, text).replace("max_active_requests: 2000", "max_active_requests: 20"),
        _ => roomy(name, text),
    })
}

async fn start(gateway: &Gateway, lines: usize) -> String {
    let printed = python::run(
        "openai_batch.py",
        &[&gateway.proxy, "simulated-small", "start", &lines.to_string()],
    )
    .await;
    printed.trim().to_owned()
}

async fn upload(gateway: &Gateway, purpose: &str, text: &str) -> (u16, Value) {
    let body = format!(
        "--b\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\n{purpose}\r\n--b\r\ncontent-disposition: form-data; name=\"file\"; filename=\"x.jsonl\"\r\n\r\n{text}\r\n--b--\r\n"
    );
    let request = gateway
        .http
        .post(format!("{}/v1/files", gateway.proxy))
        .header("content-type", "multipart/form-data; boundary=b")
        .body(body);
    let answer = request.send().await.expect("an answer");
    (answer.status().as_u16(), answer.json().await.expect("JSON"))
}

async fn finish(gateway: &Gateway, batch: &str) -> Value {
    let printed = python::run("openai_batch.py", &[&gateway.proxy, "simulated-small", "finish", batch]).await;
    serde_json::from_str(&printed).expect("JSON")
}

/// Sends a hundred interactive requests, one after another; how many had to wait for a slot.
async fn interactive_that_waited(gateway: &Gateway) -> usize {
    let body = json!({"model": "simulated-small", "messages": [], "max_tokens": 2});
    let mut waited = 0;
    for _ in 0..100 {
        let request = gateway
            .http
            .post(format!("{}/v1/chat/completions", gateway.proxy))
            .header("x-sluice-user", "user_vip_01");
        let answer = request.json(&body).send().await.expect("an answer");
        assert_eq!(answer.status(), 200);
        waited += usize::from(answer.headers().contains_key("x-sluice-queue-ms"));
    }
    waited
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_done_through_a_stop_and_a_kill_each_line_once_and_interactive_requests_come_first() {
    let gateway = Gateway::start_in(twenty_places(), &[]).await;
    let lines = 1500;
    let batch = start(&gateway, lines).await;
    let waited = interactive_that_waited(&gateway).await;
    assert_eq!(waited, 0, "interactive requests wait for slots that a batch holds");
    let mut gateway = gateway;
    for signal in ["TERM", "KILL"] {
        gateway.signal(signal);
        gateway.ended().await;
        gateway = Gateway::start_in(gateway.left(), &[]).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let done = finish(&gateway, &batch).await;
    assert_eq!(done["status"], "completed", "{}", done["counts"]);
    let answered = done["output"].as_array().expect("a list").len();
    let failed = done["errors"].as_array().expect("a list");
    assert_eq!(
        answered + failed.len(),
        lines,
        "each line has one answer: {}",
        done["counts"]
    );
    assert!(failed.iter().any(|row| row == &json!(["request-7", 404])), "{failed:?}");
    // Lines in progress at the kill may have lost their answers; their errors say so.
    assert!(failed.iter().all(|row| row[1] == 404 || row[1].is_null()), "{failed:?}");
    assert!(failed.len() <= 1 + 40, "{}", failed.len());
    assert_eq!(done["metadata"], json!({"of": "a test"}));
    let script = "import json, sqlite3; c = sqlite3.connect('data/usage.db'); \
        print(json.dumps(c.execute(\"SELECT count(*), count(DISTINCT request_id) FROM requests WHERE request_type = 'batch'\").fetchone()))";
    let counted = std::process::Command::new("python3")
        .args(["-c", script])
        .current_dir(gateway.dir.path())
        .output();
    let counted: Vec<usize> = serde_json::from_slice(&counted.expect("python runs").stdout).expect("two numbers");
    assert_eq!(counted, [lines, lines], "one record each");
    let verified = sluice(gateway.dir.path(), &["ledger", "verify"]);
    assert!(verified.status.success(), "{verified:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_can_be_cancelled_and_a_wrong_one_says_what_is_wrong() {
    let gateway = Gateway::start_in(twenty_places(), &[]).await;
    let batch = start(&gateway, 3000).await;
    wait_for("the first answers", || async {
        let request = gateway.http.get(format!("{}/v1/batches/{batch}", gateway.proxy));
        let batch: Value = request.send().await.expect("an answer").json().await.expect("JSON");
        (batch["request_counts"]["completed"].as_u64() > Some(0)).then_some(())
    })
    .await;
    python::run(
        "openai_batch.py",
        &[&gateway.proxy, "simulated-small", "cancel", &batch],
    )
    .await;
    let done = finish(&gateway, &batch).await;
    assert_eq!(
        (&done["status"], &done["counts"][0]),
        (&json!("cancelled"), &json!(3000))
    );

    assert_eq!(upload(&gateway, "fine-tune", "x").await.0, 400);
    let (status, file) = upload(&gateway, "batch", "nonsense").await;
    assert_eq!((status, &file["bytes"]), (200, &json!(8)));
    let create = |endpoint: &str| {
        gateway
            .http
            .post(format!("{}/v1/batches", gateway.proxy))
            .json(&json!({"input_file_id": file["id"], "endpoint": endpoint, "completion_window": "24h"}))
    };
    assert_eq!(create("/v1/images").send().await.expect("an answer").status(), 400);
    let batch: Value = create("/v1/embeddings")
        .send()
        .await
        .expect("an answer")
        .json()
        .await
        .expect("JSON");
    let id = batch["id"].as_str().expect("an id").to_owned();
    let failed = wait_for("the end", || async {
        let request = gateway.http.get(format!("{}/v1/batches/{id}", gateway.proxy));
        let batch: Value = request.send().await.expect("an answer").json().await.expect("JSON");
        (batch["status"] == "failed").then_some(batch)
    })
    .await;
    assert_eq!(failed["errors"]["data"][0]["code"], "invalid_json_line", "{failed}");
    let other = gateway
        .http
        .get(format!("{}/v1/batches/{id}", gateway.proxy))
        .header("x-sluice-user", "user_vip_01");
    assert_eq!(
        other.send().await.expect("an answer").status(),
        404,
        "everyone sees their own project's alone"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_comes_back_as_it_was_and_a_project_has_at_most_a_hundred_batches_at_once() {
    let gateway = Gateway::start_in(twenty_places(), &[]).await;
    let lines = (0..20_000).map(|number| {
        json!({"custom_id": format!("request-{number}"), "method": "POST", "url": "/v1/chat/completions",
            "body": {"model": "simulated-small", "messages": [{"role": "user", "content": "a ".repeat(100)}], "max_tokens": 2}})
    });
    let text = lines.map(|line| line.to_string()).collect::<Vec<_>>().join("\n");
    assert!(text.len() > 5_000_000);
    let (status, file) = upload(&gateway, "batch", &text).await;
    assert_eq!((status, &file["bytes"]), (200, &json!(text.len())));
    let id = file["id"].as_str().expect("an id");
    let content = gateway.http.get(format!("{}/v1/files/{id}/content", gateway.proxy));
    let content = content
        .send()
        .await
        .expect("an answer")
        .text()
        .await
        .expect("all of it");
    assert!(content == text, "{} bytes of {}", content.len(), text.len());

    let create = || {
        gateway
            .http
            .post(format!("{}/v1/batches", gateway.proxy))
            .json(&json!({"input_file_id": id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}))
    };
    for _ in 0..100 {
        assert_eq!(create().send().await.expect("an answer").status(), 200);
    }
    let refused = create().send().await.expect("an answer");
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.headers()["retry-after"], "60");
    let refused: Value = refused.json().await.expect("JSON");
    assert_eq!(refused["error"]["code"], "concurrency_limit_exceeded");
}
