//! Lines of batches and background responses give their slots to a request of high priority, and lose nothing.

#![allow(clippy::cast_precision_loss)]

use end_to_end::upstream::{Connection, FINISH, Scripted, USAGE, WHOLE, delta};
use end_to_end::{Gateway, config_dir, roomy, wait_for, with_model};
use futures_util::StreamExt;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// A server whose whole answers come once they are released, and whose streams come at once.
struct Server {
    scripted: Scripted,
    release: watch::Sender<bool>,
    aborted: Arc<AtomicUsize>,
}

impl Server {
    async fn start() -> Self {
        let (release, released) = watch::channel(false);
        let aborted = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&aborted);
        let scripted =
            Scripted::start(move |connection| serve(connection, released.clone(), Arc::clone(&counted))).await;
        Self {
            scripted,
            release,
            aborted,
        }
    }

    fn received(&self) -> usize {
        self.scripted.requests.lock().expect("no panic").len()
    }

    /// Waits until it has got so many requests.
    async fn wait_for(&self, requests: usize) {
        wait_for("requests at the server", || async {
            (self.received() >= requests).then_some(())
        })
        .await;
    }
}

async fn serve(mut connection: Connection, mut released: watch::Receiver<bool>, aborted: Arc<AtomicUsize>) {
    while connection.read_request().await {
        if connection.own_request.contains("\"stream\":true") {
            connection.begin_stream().await;
            for piece in [&delta("hello"), FINISH, USAGE, "data: [DONE]\n\n"] {
                connection.chunk(piece).await;
            }
            connection.write("0\r\n\r\n").await;
            continue;
        }
        let is_released = tokio::select! {
            released = released.wait_for(|released| *released) => released.is_ok(),
            () = connection.closed() => false,
        };
        if !is_released {
            aborted.fetch_add(1, SeqCst);
            return;
        }
        connection.answer("200 OK", WHOLE).await;
    }
}

/// A gateway with the model `tested` of so many slots.
async fn gateway(server: &Server, slots: usize, evict_for: &str) -> Gateway {
    let dir = config_dir(|name, text| match name {
        "models.yaml" => {
            let slots = format!(", max_concurrent_requests: {slots}");
            with_model(&text, "tested", "openai", &server.scripted.url, &slots)
        }
        "limits.yaml" => roomy(name, text).replace("evict_batch_for: high", &format!("evict_batch_for: {evict_for}")),
        _ => roomy(name, text),
    });
    Gateway::start_in(dir, &[]).await
}

/// A stream of a user: from its request to the first piece; read to its end.
async fn first_piece(gateway: &Gateway, user: &str) -> Duration {
    let body =
        json!({"model": "tested", "stream": true, "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]});
    let request = gateway.http.post(format!("{}/v1/chat/completions", gateway.proxy));
    let since = Instant::now();
    let answer = request
        .header("x-sluice-user", user)
        .json(&body)
        .send()
        .await
        .expect("an answer");
    assert_eq!(answer.status(), 200);
    let mut pieces = answer.bytes_stream();
    pieces.next().await.expect("a piece").expect("unbroken");
    let first = since.elapsed();
    while let Some(piece) = pieces.next().await {
        piece.expect("unbroken");
    }
    first
}

/// The number of evictions and the time lost, by metrics and by records; both must be the same.
async fn evictions(gateway: &Gateway, records: &[Value]) -> (f64, f64) {
    let sum = |field: &str| records.iter().filter_map(|record| record[field].as_f64()).sum::<f64>();
    let (number, lost) = (sum("evictions"), sum("evicted_seconds"));
    let counted = gateway.metric("sluice_evictions_total{").await;
    let counted_seconds = gateway.metric("sluice_evicted_seconds_total{").await;
    assert!(
        (number - counted).abs() < 0.5,
        "{number} evictions in the ledger, {counted} in metrics"
    );
    assert!(
        (lost - counted_seconds).abs() < 1e-6,
        "{lost} s in the ledger, {counted_seconds} s in metrics"
    );
    (number, lost)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vip_gets_the_slot_of_a_line_and_no_line_is_lost_or_doubled_or_charged_twice() {
    let server = Server::start().await;
    let gateway = gateway(&server, 4, "high").await;
    let batch = gateway.start_batch("tested", 8).await;
    server.wait_for(4).await;
    let mut waits = Vec::new();
    for round in 0..5 {
        waits.push(first_piece(&gateway, "user_vip_01").await);
        // The line that was aborted, or another, is sent again.
        server.wait_for(4 + 2 * (round + 1)).await;
    }
    println!("first pieces of VIPs while lines hold every slot: {waits:?}");
    assert_eq!(server.aborted.load(SeqCst), 5, "one line for each VIP");
    let status = gateway.admin_json("/queue/status").await;
    assert_eq!(status["active_requests"], 4, "{status}");

    server.release.send(true).expect("a receiver");
    let ended = gateway.ended_batch(&batch).await;
    assert_eq!(
        ended["request_counts"],
        json!({"total": 8, "completed": 8, "failed": 0})
    );
    let rows = gateway.batch_rows(&ended).await;
    let lines: HashSet<&str> = rows.iter().filter_map(|row| row["custom_id"].as_str()).collect();
    assert_eq!((rows.len(), lines.len()), (8, 8), "each line has one answer");
    let records = gateway.wait_for_records(13).await;
    let ids: HashSet<&str> = records
        .iter()
        .filter_map(|record| record["request_id"].as_str())
        .collect();
    assert_eq!((records.len(), ids.len()), (13, 13), "one record each");
    assert!(
        records.iter().all(|record| record["status"] == "completed"),
        "{records:?}"
    );
    let (number, lost) = evictions(&gateway, &records).await;
    assert!((number - 5.0).abs() < 0.5 && lost > 0.0, "{number} evictions, {lost} s");

    // What quotas count is what the ledger says: eight lines, each once.
    let limits = gateway.admin_json("/limits/project/standard_project").await;
    let tokens = limits["allowances"].as_array().expect("a list").iter();
    let tokens = tokens.filter(|one| one["window"] == "month" && one["measure"] == "tokens");
    let tokens = tokens.collect::<Vec<_>>()[0];
    assert_eq!(
        (&tokens["used"], &tokens["reserved"]),
        (&json!(8 * 18), &json!(0)),
        "{limits}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_background_response_gives_its_slot_and_is_made_later_once() {
    let server = Server::start().await;
    let gateway = gateway(&server, 1, "high").await;
    let asking = json!({"model": "tested", "input": "Why?", "max_output_tokens": 8, "background": true});
    let queued: Value = gateway.post("/v1/responses", &asking).await.json().await.expect("JSON");
    server.wait_for(1).await;
    let first = first_piece(&gateway, "user_vip_01").await;
    println!("first piece of a VIP while a background response holds the slot: {first:?}");
    server.wait_for(3).await;
    assert_eq!(server.aborted.load(SeqCst), 1);
    server.release.send(true).expect("a receiver");
    let url = format!(
        "{}/v1/responses/{}",
        gateway.proxy,
        queued["id"].as_str().expect("an id")
    );
    let done = wait_for("the response", || async {
        let shown: Value = gateway
            .http
            .get(&url)
            .send()
            .await
            .expect("an answer")
            .json()
            .await
            .expect("JSON");
        matches!(shown["status"].as_str(), Some("completed" | "incomplete" | "failed")).then_some(shown)
    })
    .await;
    assert_eq!(done["status"], "completed", "{done}");
    let records = gateway.wait_for_records(2).await;
    assert_eq!(records.len(), 2);
    let (number, _) = evictions(&gateway, &records).await;
    assert!((number - 1.0).abs() < 0.5, "{number} evictions");
}

#[tokio::test(flavor = "multi_thread")]
async fn interactive_requests_are_never_evicted_nor_lines_where_it_is_off() {
    for (evict_for, is_batch) in [("high", false), ("none", true)] {
        let server = Server::start().await;
        let gateway = gateway(&server, 1, evict_for).await;
        let batch = if is_batch {
            Some(gateway.start_batch("tested", 1).await)
        } else {
            let body = json!({"model": "tested", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]});
            let request = gateway.http.post(format!("{}/v1/chat/completions", gateway.proxy));
            tokio::spawn(request.json(&body).send());
            None
        };
        server.wait_for(1).await;
        let vip = first_piece(&gateway, "user_vip_01");
        let released = async {
            wait_for("a VIP that waits", || async {
                (gateway.admin_json("/queue/status").await["queue_size"] == 1).then_some(())
            })
            .await;
            tokio::time::sleep(Duration::from_millis(600)).await;
            assert_eq!(server.aborted.load(SeqCst), 0);
            server.release.send(true).expect("a receiver");
        };
        tokio::join!(vip, released);
        assert!(gateway.metric("sluice_evictions_total{").await.abs() < 0.5);
        if let Some(batch) = batch {
            assert_eq!(gateway.ended_batch(&batch).await["status"], "completed");
        }
    }
}
