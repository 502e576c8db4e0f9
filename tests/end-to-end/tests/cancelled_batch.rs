//! A batch that is cancelled while one of its lines is about to be queued: the line does not wait for a slot any more.

use end_to_end::upstream::Scripted;
use end_to_end::{Gateway, config_dir, roomy, wait_for, with_model};
use serde_json::json;
use tempfile::TempDir;

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_is_queued_just_as_its_batch_is_cancelled_ends_with_it() {
    let upstream = Scripted::start(|mut connection| async move {
        connection.read_request().await;
        connection.closed().await;
    })
    .await;
    let dir = config_dir(|name, text| match name {
        "models.yaml" => with_model(&text, "tested", "openai", &upstream.url, ", max_concurrent_requests: 1"),
        "limits.yaml" => roomy(name, text).replace("max_queue_wait_seconds: 30", "max_queue_wait_seconds: 3600"),
        _ => roomy(name, text),
    });
    let faults = TempDir::new().expect("a temporary directory");
    let (fault, reached) = (faults.path().join("fault"), faults.path().join("fault.reached"));
    let file = fault.to_string_lossy().into_owned();
    let gateway = Gateway::start_with(dir, &[], &[("SLUICE_FAULT_FILE", &file)]).await;
    let body = json!({"model": "tested", "messages": [{"role": "user", "content": "hello"}]});
    let endless = gateway.http.post(format!("{}/v1/chat/completions", gateway.proxy));
    tokio::spawn(endless.json(&body).send());
    wait_for("a filled slot", || async {
        (gateway.admin_json("/queue/status").await["active_requests"] == 1).then_some(())
    })
    .await;

    std::fs::write(&fault, "hold resolved").expect("writable");
    let batch = gateway.start_batch("tested", 1).await;
    wait_for("a line that is about to be queued", || async {
        reached.exists().then_some(())
    })
    .await;
    let cancelled = gateway.post(&format!("/v1/batches/{batch}/cancel"), &json!({})).await;
    assert_eq!(cancelled.status(), 200);
    std::fs::remove_file(&reached).expect("held");

    let ended = wait_for("the end of the batch", || async {
        let batch = gateway.batch(&batch).await;
        (batch["status"] == "cancelled").then_some(batch)
    })
    .await;
    assert_eq!(
        ended["request_counts"],
        json!({"total": 1, "completed": 0, "failed": 1})
    );
    let queue = gateway.admin_json("/queue/status").await;
    assert_eq!(queue["queue_size"], 0, "{queue}");
}
