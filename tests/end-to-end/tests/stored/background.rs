//! Background responses that are stored, over kills too.

use super::{get, last_body, respond, storing};
use end_to_end::upstream::{Scripted, WHOLE};
use end_to_end::{Gateway, wait_for};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use tempfile::TempDir;

/// What each message of the last request to an upstream says.
fn last_contents(upstream: &Scripted) -> Vec<Value> {
    let body = last_body(upstream);
    let messages = body["messages"].as_array().expect("a list");
    messages.iter().map(|message| message["content"].clone()).collect()
}

#[tokio::test]
async fn a_background_response_is_stored_too_and_continues_a_conversation() {
    let upstream = Scripted::answering(WHOLE).await;
    let gateway = Gateway::start_in(storing("keep_days: 30", "openai", &upstream.url, ""), &[]).await;
    let first = respond(&gateway, &json!({"model": "tested", "input": "a", "store": true})).await;
    let body = json!({"model": "tested", "input": "b", "store": true, "background": true, "previous_response_id": first["id"]});
    let queued = respond(&gateway, &body).await;
    assert_eq!(
        (&queued["status"], &queued["previous_response_id"]),
        (&json!("queued"), &first["id"])
    );
    let id = queued["id"].as_str().expect("an id");
    let done = wait_for("the end", || async {
        let (_, shown) = get(&gateway, &format!("/v1/responses/{id}")).await;
        (shown["status"] == "completed").then_some(shown)
    })
    .await;
    assert_eq!(
        (&done["store"], &done["previous_response_id"]),
        (&json!(true), &first["id"])
    );
    let third = respond(
        &gateway,
        &json!({"model": "tested", "input": "c", "previous_response_id": id}),
    )
    .await;
    assert_eq!(third["store"], false);
    assert_eq!(last_contents(&upstream), ["a", "hello", "b", "hello", "c"]);
    let (_, listed) = get(&gateway, &format!("/v1/responses/{id}/input_items?order=asc")).await;
    assert_eq!(listed["data"].as_array().expect("a list").len(), 3);
    // Forgotten everywhere at once.
    let deleted = gateway
        .http
        .delete(format!("{}/v1/responses/{id}", gateway.proxy))
        .send()
        .await
        .expect("an answer");
    assert_eq!(deleted.status(), 200);
    assert_eq!(get(&gateway, &format!("/v1/responses/{id}")).await.0, 404);
}

#[tokio::test]
async fn a_background_response_that_a_kill_cut_off_is_made_again_and_stored() {
    let has_hung = Arc::new(AtomicBool::new(false));
    let upstream = Scripted::start(move |mut connection| {
        let has_hung = Arc::clone(&has_hung);
        async move {
            while connection.read_request().await {
                if connection.last_request().contains("cut off") && !has_hung.swap(true, Relaxed) {
                    return connection.closed().await;
                }
                connection.answer("200 OK", WHOLE).await;
            }
        }
    })
    .await;
    let mut gateway = Gateway::start_in(storing("keep_days: 30", "openai", &upstream.url, ""), &[]).await;
    let first = respond(&gateway, &json!({"model": "tested", "input": "a", "store": true})).await;
    let body = json!({"model": "tested", "input": "cut off", "store": true, "background": true,
        "previous_response_id": first["id"]});
    let queued = respond(&gateway, &body).await;
    let path = format!("/v1/responses/{}", queued["id"].as_str().expect("an id"));
    wait_for("the request at the server", || async {
        (get(&gateway, &path).await.1["status"] == "in_progress").then_some(())
    })
    .await;
    wait_for("the request at the server", || async {
        let requests = upstream.requests.lock().expect("no panic").len();
        (requests == 2).then_some(())
    })
    .await;
    gateway.signal("KILL");
    gateway.ended().await;
    let gateway = Gateway::start_in(gateway.left(), &[]).await;
    let done = wait_for("the end", || async {
        let (_, shown) = get(&gateway, &path).await;
        (shown["status"] == "completed").then_some(shown)
    })
    .await;
    assert_eq!(
        (&done["store"], &done["previous_response_id"]),
        (&json!(true), &first["id"])
    );
    assert_eq!(last_contents(&upstream), ["a", "hello", "cut off"]);
    let (_, listed) = get(&gateway, &format!("{path}/input_items?order=asc")).await;
    let texts: Vec<&Value> = listed["data"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|item| &item["content"][0]["text"])
        .collect();
    assert_eq!(texts, ["a", "hello", "cut off"]);
}

/// A server whose answers are numbered.
async fn numbered() -> Scripted {
    let answers = Arc::new(AtomicUsize::new(0));
    Scripted::start(move |mut connection| {
        let answers = Arc::clone(&answers);
        async move {
            while connection.read_request().await {
                let number = answers.fetch_add(1, Relaxed) + 1;
                let body = WHOLE.replace("hello", &format!("answer {number}"));
                connection.answer("200 OK", &body).await;
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_was_stored_just_before_a_kill_is_replaced_by_the_one_that_counts() {
    let upstream = numbered().await;
    let faults = TempDir::new().expect("a directory");
    let file = faults.path().join("fault");
    let variables = [("SLUICE_FAULT_FILE", file.to_str().expect("text"))];
    let dir = storing("keep_days: 30", "openai", &upstream.url, "");
    let mut gateway = Gateway::start_with(dir, &[], &variables).await;
    std::fs::write(&file, "hold recording").expect("writable");
    let body = json!({"model": "tested", "input": "a", "store": true, "background": true});
    let queued = respond(&gateway, &body).await;
    let id = queued["id"].as_str().expect("an id");
    let reached = faults.path().join("fault.reached");
    wait_for("a stored response without its end", || async {
        reached.exists().then_some(())
    })
    .await;
    gateway.signal("KILL");
    gateway.ended().await;
    std::fs::remove_file(reached).expect("held");
    let gateway = Gateway::start_with(gateway.left(), &[], &variables).await;
    let path = format!("/v1/responses/{id}");
    let done = wait_for("the end", || async {
        let (_, shown) = get(&gateway, &path).await;
        (!matches!(shown["status"].as_str(), Some("queued" | "in_progress"))).then_some(shown)
    })
    .await;
    assert_eq!(
        (&done["output"][0]["content"][0]["text"], &done["store"]),
        (&json!("answer 2"), &json!(true)),
        "{done}"
    );
    respond(
        &gateway,
        &json!({"model": "tested", "input": "b", "previous_response_id": id}),
    )
    .await;
    let sent = upstream
        .requests
        .lock()
        .expect("no panic")
        .last()
        .cloned()
        .expect("a request");
    assert!(sent.contains("answer 2") && !sent.contains("answer 1"), "{sent}");
    let records = gateway.wait_for_records(2).await;
    assert_eq!(records.len(), 2, "one record each: {records:?}");
}
