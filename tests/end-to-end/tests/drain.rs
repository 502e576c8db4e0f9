//! The end of the drain: clients that still run or wait get an error and a record, stored work is left to the next
//! process, and the gateway exits with 0.

use end_to_end::upstream::{Scripted, WHOLE, delta};
use end_to_end::{Gateway, config_dir, roomy, sluice, wait_for, with_model};
use futures_util::StreamExt;
use futures_util::future::join_all;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Clients that wait for the only slot.
const QUEUED: u64 = 4;

fn chat(stream: bool) -> Value {
    json!({"model": "tested", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 9, "stream": stream})
}

/// A gateway with one slot at an upstream that begins every stream and never ends one.
async fn stuck() -> (Gateway, Scripted) {
    let upstream = Scripted::start(|mut connection| async move {
        connection.read_request().await;
        connection.begin_stream().await;
        connection.chunk(&delta("begun")).await;
        connection.closed().await;
    })
    .await;
    let dir = config_dir(|name, text| match name {
        "models.yaml" => with_model(&text, "tested", "openai", &upstream.url, ", max_concurrent_requests: 1"),
        "gateway.yaml" => text.replace("drain_seconds: 30", "drain_seconds: 1"),
        _ => roomy(name, text),
    });
    (Gateway::start_in(dir, &[]).await, upstream)
}

/// An upstream that answers once it is well, and until then begins every answer and never ends one.
async fn stuck_until(is_well: Arc<AtomicBool>) -> Scripted {
    Scripted::start(move |mut connection| {
        let is_well = Arc::clone(&is_well);
        async move {
            while connection.read_request().await {
                if is_well.load(Relaxed) {
                    connection.answer("200 OK", WHOLE).await;
                } else {
                    connection
                        .write("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n{")
                        .await;
                    connection.closed().await;
                    return;
                }
            }
        }
    })
    .await
}

/// A queued client's answer: status and body.
async fn queued(gateway: &Gateway, stream: bool) -> (u16, Value) {
    let answer = gateway.post("/v1/chat/completions", &chat(stream)).await;
    (
        answer.status().as_u16(),
        answer.json().await.expect("a whole JSON body"),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_end_of_the_drain_queued_clients_and_running_streams_end_with_an_error_and_a_record() {
    let (mut gateway, upstream) = stuck().await;
    let running = gateway.post("/v1/chat/completions", &chat(true)).await;
    assert_eq!(running.status(), 200);
    let mut stream = running.bytes_stream();
    let mut received = stream.next().await.expect("a piece").expect("unbroken").to_vec();
    let waiting = join_all((0..QUEUED).map(|number| queued(&gateway, number % 2 == 0)));
    let stop = async {
        wait_for("queued clients", || async {
            (gateway.admin_json("/queue/status").await["queue_size"] == QUEUED).then_some(())
        })
        .await;
        gateway.signal("TERM");
    };
    let rest = async {
        while let Some(Ok(piece)) = stream.next().await {
            received.extend(piece);
        }
    };
    let (answers, (), ()) = tokio::join!(waiting, stop, rest);
    for (status, body) in answers {
        assert_eq!(
            (status, &body["error"]["code"]),
            (503, &json!("shutting_down")),
            "{body}"
        );
    }
    let received = String::from_utf8(received).expect("text");
    assert!(
        received.contains("begun") && received.contains("shutting_down"),
        "{received}"
    );
    assert!(
        !received.contains("[DONE]"),
        "a broken stream never ends cleanly: {received}"
    );
    assert_eq!(gateway.ended().await, Some(0));
    assert_eq!(
        upstream.requests.lock().expect("no panic").len(),
        1,
        "none of the queued was sent"
    );

    let gateway = Gateway::start_in(gateway.left(), &[]).await;
    let records = gateway.records().await;
    let count = usize::try_from(QUEUED).expect("small") + 1;
    assert_eq!(records.len(), count, "{records:?}");
    assert!(
        records.iter().all(|record| record["reason"] == "shutting_down"),
        "{records:?}"
    );
    let verified = sluice(gateway.dir.path(), &["ledger", "verify"]);
    assert!(verified.status.success(), "{verified:?}");
}

/// A batch and a background response that the end of the drain interrupts lose nothing: the next process runs them again,
/// each is answered once and recorded once.
#[tokio::test(flavor = "multi_thread")]
async fn stored_work_that_the_end_of_the_drain_interrupts_is_done_by_the_next_process() {
    let is_well = Arc::new(AtomicBool::new(false));
    let upstream = stuck_until(Arc::clone(&is_well)).await;
    let dir = config_dir(|name, text| match name {
        "models.yaml" => with_model(&text, "tested", "openai", &upstream.url, ""),
        "gateway.yaml" => text.replace("drain_seconds: 30", "drain_seconds: 1"),
        _ => roomy(name, text),
    });
    let mut gateway = Gateway::start_in(dir, &[]).await;
    let batch = gateway.start_batch("tested", 3).await;
    let body = json!({"model": "tested", "input": "hello", "background": true});
    let queued: Value = gateway.post("/v1/responses", &body).await.json().await.expect("JSON");
    let id = queued["id"].as_str().expect("an id").to_owned();
    // Three restarts, as an upgrade of several steps does: an interrupted attempt is no attempt.
    for restart in 1..=3 {
        wait_for("requests at the server", || async {
            (upstream.requests.lock().expect("no panic").len() == 4 * restart).then_some(())
        })
        .await;
        gateway.signal("TERM");
        assert_eq!(gateway.ended().await, Some(0));
        is_well.store(restart == 3, Relaxed);
        gateway = Gateway::start_in(gateway.left(), &[]).await;
    }
    let ended = gateway.ended_batch(&batch).await;
    assert_eq!(ended["request_counts"]["completed"], 3, "{ended}");
    let response = wait_for("the response", || async {
        let asked = gateway
            .http
            .get(format!("{}/v1/responses/{id}", gateway.proxy))
            .send()
            .await;
        let response: Value = asked.expect("an answer").json().await.expect("JSON");
        (!matches!(response["status"].as_str(), Some("queued" | "in_progress"))).then_some(response)
    })
    .await;
    assert_eq!(response["status"], "completed", "{response}");
    let records = gateway.wait_for_records(4).await;
    assert!(
        records.iter().all(|record| record["status"] == "completed"),
        "{records:?}"
    );
}
