//! Stored responses and `previous_response_id`: what the model reads is what a client that sends everything would have
//! had it read, on every kind of server; what is stored outlives a restart, belongs to its project, and expires.

mod background;
mod conversations;
mod restart;

use end_to_end::upstream::Scripted;
use end_to_end::{Gateway, config_dir, roomy, with_model};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A configuration that stores responses, with one model more at an upstream of the test's.
fn storing(settings: &str, backend: &str, url: &str, more: &str) -> TempDir {
    config_dir(|name, text| match name {
        "gateway.yaml" => format!("{text}\nstored_responses: {{{settings}}}\n"),
        "models.yaml" => format!("{}{more}", with_model(&text, "tested", backend, url, "")),
        _ => roomy(name, text),
    })
}

/// An Ollama server's answer.
const OLLAMA: &str = "{\"model\":\"m\",\"created_at\":\"2026-01-01T00:00:00Z\",\"message\":{\"role\":\"assistant\",\
    \"content\":\"hello\"},\"done\":true,\"done_reason\":\"stop\",\"prompt_eval_count\":11,\"eval_count\":7}";

/// The body of the last request that an upstream has got.
fn last_body(upstream: &Scripted) -> Value {
    let request = upstream
        .requests
        .lock()
        .expect("no panic")
        .last()
        .cloned()
        .expect("a request");
    let (_, body) = request.split_once("\r\n\r\n").expect("a body");
    serde_json::from_str(body).expect("JSON")
}

async fn respond(gateway: &Gateway, body: &Value) -> Value {
    let answer = gateway.post("/v1/responses", body).await;
    let (status, body) = (answer.status(), answer.text().await.expect("text"));
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).expect("JSON")
}

async fn get(gateway: &Gateway, path: &str) -> (u16, Value) {
    let answer = gateway
        .http
        .get(format!("{}{path}", gateway.proxy))
        .send()
        .await
        .expect("an answer");
    (answer.status().as_u16(), answer.json().await.expect("JSON"))
}

/// Three turns: a text, an answered tool call, and parts.
fn turns() -> [Value; 3] {
    [
        json!("Why is the sky blue?"),
        json!([{"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "it is blue"}]),
        json!([{"role": "user", "content": [{"type": "input_text", "text": "And \"at\" night?\u{0}"}]}]),
    ]
}

/// A turn's own input as a list of items.
fn items(input: &Value) -> Vec<Value> {
    match input {
        Value::Array(items) => items.clone(),
        text => vec![json!({"role": "user", "content": text})],
    }
}
