//! Responses that are made in the background: asked for, looked at, cancelled, forgotten; through a stop, too.

use end_to_end::upstream::Scripted;
use end_to_end::{Gateway, wait_for};
use serde_json::{Value, json};

async fn json_of(request: reqwest::RequestBuilder) -> (u16, Value) {
    let answer = request.send().await.expect("an answer");
    (answer.status().as_u16(), answer.json().await.expect("JSON"))
}

fn asking() -> Value {
    json!({"model": "simulated-small", "input": "Why?", "max_output_tokens": 8, "background": true, "metadata": {"a": "b"}})
}

async fn completed(gateway: &Gateway, id: &str) -> Value {
    wait_for("a completed response", || async {
        let (status, shown) = json_of(gateway.http.get(format!("{}/v1/responses/{id}", gateway.proxy))).await;
        assert_eq!(status, 200, "{shown}");
        assert!(shown["metadata"] == json!({"a": "b"}) && shown["id"] == id, "{shown}");
        matches!(shown["status"].as_str(), Some("completed" | "incomplete")).then_some(shown)
    })
    .await
}

#[tokio::test]
async fn a_response_in_the_background_is_told_at_once_made_once_and_forgotten_when_asked() {
    let gateway = Gateway::start().await;
    let answer = gateway.post("/v1/responses", &asking()).await;
    assert_eq!(answer.status(), 200);
    let queued: Value = answer.json().await.expect("JSON");
    assert_eq!(
        (&queued["status"], &queued["background"]),
        (&json!("queued"), &json!(true))
    );
    let id = queued["id"].as_str().expect("an id");
    let done = completed(&gateway, id).await;
    assert!(
        done["output"][0]["content"][0]["text"]
            .as_str()
            .is_some_and(|text| !text.is_empty())
    );
    assert_eq!(
        (&done["usage"]["output_tokens"], &done["background"]),
        (&json!(8), &json!(true))
    );
    let records = gateway.records().await;
    assert_eq!((records.len(), &records[0]["request_type"]), (1, &json!("batch")));
    let url = format!("{}/v1/responses/{id}", gateway.proxy);
    assert_eq!(json_of(gateway.http.delete(&url)).await.1["deleted"], true);
    assert_eq!(json_of(gateway.http.get(&url)).await.0, 404);
    let mut wrong = asking();
    wrong["stream"] = true.into();
    assert_eq!(gateway.post("/v1/responses", &wrong).await.status(), 400);
}

#[tokio::test]
async fn a_response_in_the_background_outlives_a_kill_and_can_be_cancelled() {
    let hangs = Scripted::start(|mut connection| async move {
        connection.read_request().await;
        connection.closed().await;
    })
    .await;
    let mut gateway = Gateway::with_upstream("openai", &hangs.url, "").await;
    let mut slow = asking();
    slow["model"] = "tested".into();
    let first: Value = gateway.post("/v1/responses", &slow).await.json().await.expect("JSON");
    let id = first["id"].as_str().expect("an id").to_owned();
    wait_for("request at the upstream", || async {
        (!hangs.last_request().is_empty()).then_some(())
    })
    .await;
    gateway.signal("KILL");
    gateway.ended().await;
    let gateway = Gateway::start_in(gateway.left(), &[]).await;
    let url = format!("{}/v1/responses/{id}", gateway.proxy);
    let (_, shown) = json_of(gateway.http.get(&url)).await;
    assert!(
        matches!(shown["status"].as_str(), Some("queued" | "in_progress")),
        "{shown}"
    );
    let (_, cancelled) = json_of(gateway.http.post(format!("{url}/cancel"))).await;
    assert_eq!(cancelled["status"], "cancelled");
    wait_for("the end", || async {
        let (_, shown) = json_of(gateway.http.get(&url)).await;
        (shown["status"] == "cancelled" && shown["error"].is_null()).then_some(())
    })
    .await;
}
