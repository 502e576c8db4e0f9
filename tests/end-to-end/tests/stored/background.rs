//! Background responses that are stored, over kills too.

use super::{get, last_body, respond, storing};
use end_to_end::upstream::{Scripted, WHOLE};
use end_to_end::{Gateway, wait_for};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

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

#[tokio::test]
async fn a_background_response_that_was_stored_just_before_a_kill_is_not_lost() {
    let upstream = Scripted::answering(WHOLE).await;
    let mut gateway = Gateway::start_in(storing("keep_days: 30", "openai", &upstream.url, ""), &[]).await;
    let body = json!({"model": "tested", "input": "a", "store": true, "background": true});
    let queued = respond(&gateway, &body).await;
    let path = format!("/v1/responses/{}", queued["id"].as_str().expect("an id"));
    let done = wait_for("the end", || async {
        let (_, shown) = get(&gateway, &path).await;
        (shown["status"] == "completed").then_some(shown)
    })
    .await;
    gateway.signal("TERM");
    gateway.ended().await;
    // As if the gateway had been killed between the storing of the response and the end of the job.
    let script = "import sqlite3; c = sqlite3.connect('data/usage.db'); \
        c.execute('UPDATE jobs SET finished_at = NULL, answer = NULL'); c.commit()";
    let python = std::process::Command::new("python3")
        .args(["-c", script])
        .current_dir(gateway.dir.path())
        .status();
    assert!(python.expect("python runs").success());
    let gateway = Gateway::start_in(gateway.left(), &[]).await;
    let again = wait_for("the end", || async {
        let (_, shown) = get(&gateway, &path).await;
        (!matches!(shown["status"].as_str(), Some("queued" | "in_progress"))).then_some(shown)
    })
    .await;
    assert_eq!(again, done);
    let sent = upstream.requests.lock().expect("no panic").len();
    assert_eq!(sent, 1, "it is not made twice");
}
