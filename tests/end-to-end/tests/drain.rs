//! The end of the drain: what still runs or waits is ended with an error and a record, and the gateway exits with 0.

use end_to_end::upstream::{Scripted, delta};
use end_to_end::{Gateway, config_dir, roomy, sluice, wait_for, with_model};
use futures_util::StreamExt;
use futures_util::future::join_all;
use serde_json::{Value, json};

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
