//! The contents of answers in any protocol, streamed or whole.

use serde_json::Value;

/// What an answer says, and how it ends.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Contents {
    text: String,
    /// Names and arguments of called tools, one after the other, without blanks.
    calls: String,
    /// Why it ends, in the protocol's word.
    finish: Option<String>,
    output_tokens: Option<u64>,
}

impl Contents {
    /// The contents of a body of one JSON value, of server-sent events, or of a JSON value a line.
    pub(crate) fn of(body: &str) -> Self {
        let events = events(body);
        let calls: String = events.iter().map(calls_of_event).collect();
        let last = |pointers: &[&str]| {
            let values = events
                .iter()
                .flat_map(|event| pointers.iter().map(|pointer| event.pointer(pointer)));
            values.flatten().rfind(|value| !value.is_null()).cloned()
        };
        let finish = last(&[
            "/choices/0/finish_reason",
            "/delta/stop_reason",
            "/stop_reason",
            "/done_reason",
            "/response/status",
            "/status",
        ]);
        let tokens = last(&[
            "/usage/completion_tokens",
            "/usage/output_tokens",
            "/response/usage/output_tokens",
            "/eval_count",
        ]);
        Self {
            text: events.iter().map(text_of_event).collect(),
            calls: calls.split_whitespace().collect(),
            // vLLM's Messages API does not say that a stop sequence was met.
            finish: finish
                .as_ref()
                .and_then(Value::as_str)
                .map(|word| word.replace("stop_sequence", "end_turn")),
            output_tokens: tokens.as_ref().and_then(Value::as_u64),
        }
    }
}

fn events(body: &str) -> Vec<Value> {
    if let Ok(whole) = serde_json::from_str(body) {
        return vec![whole];
    }
    let data = body
        .lines()
        .map(|line| line.strip_prefix("data:").unwrap_or(line).trim());
    data.filter_map(|data| serde_json::from_str(data).ok()).collect()
}

/// A text as it is, and anything else as JSON.
fn string(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text_of_event(event: &Value) -> String {
    let texts = |parts: &Value| -> String { list(parts).map(|part| string(&part["text"])).collect() };
    let choice = &event["choices"][0];
    match event["type"].as_str() {
        Some("response.output_text.delta") => return string(&event["delta"]),
        Some("content_block_delta") => return string(&event["delta"]["text"]),
        Some("message") => return texts(&event["content"]),
        Some(_) => return String::new(),
        None => {}
    }
    let output: String = list(&event["output"]).map(|item| texts(&item["content"])).collect();
    // The object of a streamed response is beside a `type`.
    let response = if event["response"].is_string() {
        string(&event["response"])
    } else {
        String::new()
    };
    [
        string(&choice["message"]["content"]),
        string(&choice["delta"]["content"]),
        string(&choice["text"]),
        string(&event["message"]["content"]),
        response,
        output,
    ]
    .concat()
}

fn calls_of_event(event: &Value) -> String {
    let call = |call: &Value| string(&call["name"]) + &string(&call["arguments"]);
    let functions = |calls: &Value| -> String { list(calls).map(|item| call(&item["function"])).collect() };
    let items = |output: &Value| -> String {
        let calls = list(output).filter(|item| item["type"] == "function_call");
        calls.map(call).collect()
    };
    match event["type"].as_str() {
        Some("content_block_start") => string(&event["content_block"]["name"]),
        Some("content_block_delta") => string(&event["delta"]["partial_json"]),
        Some("message") => list(&event["content"])
            .filter(|block| block["type"] == "tool_use")
            .map(|block| string(&block["name"]) + &string(&block["input"]))
            .collect(),
        Some("response.completed" | "response.incomplete") => items(&event["response"]["output"]),
        Some(_) => String::new(),
        None => {
            let choice = &event["choices"][0];
            let parts = [&choice["message"], &choice["delta"], &event["message"]];
            items(&event["output"]) + &parts.map(|part| functions(&part["tool_calls"])).concat()
        }
    }
}
