//! Work that a gateway leaves: because it stops, or because it has not heard that the work is its own.

use super::work::{answered_once, directory, id_of, server, taken_over, verified};
use end_to_end::Gateway;
use end_to_end::postgres::Postgres;
use end_to_end::upstream::{Scripted, WHOLE};
use serde_json::json;
use std::time::Duration;

/// A server that takes a second for an answer, and ten for one that is asked to be slow.
async fn slow_when_asked() -> Scripted {
    Scripted::start(|mut connection| async move {
        while connection.read_request().await {
            let is_slow = connection.last_request().contains("slowly");
            tokio::time::sleep(Duration::from_secs(if is_slow { 12 } else { 1 })).await;
            connection.answer("200 OK", WHOLE).await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_stops_leaves_its_batch_to_another_while_it_still_serves_a_request() {
    let postgres = Postgres::start();
    let server = slow_when_asked().await;
    let flags = ["--database-url", &postgres.url];
    let other = Gateway::start_in(directory(&server.url, 4), &flags).await;
    let mut stopping = Gateway::start_in(directory(&server.url, 4), &flags).await;
    let batch = stopping.start_batch("tested", 40).await;
    let body = json!({"model": "tested", "max_tokens": 9, "messages": [{"role": "user", "content": "slowly"}]});
    let request = stopping.http.post(format!("{}/v1/chat/completions", stopping.proxy));
    let slow = tokio::spawn(request.json(&body).send());
    // Both are settled members by then, and the slow request runs.
    tokio::time::sleep(Duration::from_secs(8)).await;
    stopping.signal("TERM");
    taken_over(&postgres, &id_of(&stopping)).await;
    assert!(!slow.is_finished(), "the batch was left only at the end");
    let answer = slow.await.expect("no panic").expect("an answer");
    assert_eq!(answer.status(), 200);
    assert_eq!(stopping.ended().await, Some(0));
    answered_once(&postgres, &other, &batch, 40).await;
    verified(&postgres, &other);
}

#[tokio::test(flavor = "multi_thread")]
async fn work_is_claimed_again_by_a_gateway_that_has_not_heard_that_it_is_its_own() {
    let postgres = Postgres::start();
    let server = server(Duration::from_millis(300)).await;
    let flags = ["--database-url", &postgres.url];
    let other = Gateway::start_in(directory(&server.url, 4), &flags).await;
    let mut killed = Gateway::start_in(directory(&server.url, 4), &flags).await;
    let batch = killed.start_batch("tested", 40).await;
    let job = json!({"model": "tested", "input": "Why?", "max_output_tokens": 9, "background": true});
    assert_eq!(killed.post("/v1/responses", &job).await.status(), 200);
    killed.signal("KILL");
    killed.ended().await;
    // As if the answer to a claim had been lost.
    for table in ["batches", "jobs"] {
        let claim = format!(
            "UPDATE {table} SET owner = '{}', epoch = epoch + 1 WHERE finished_at IS NULL",
            id_of(&other)
        );
        postgres.column(&claim);
    }
    answered_once(&postgres, &other, &batch, 40).await;
    let unfinished = postgres.column("SELECT count(*) FROM jobs WHERE finished_at IS NULL");
    assert_eq!(unfinished, ["0"], "jobs are claimed with the batches");
    verified(&postgres, &other);
}
