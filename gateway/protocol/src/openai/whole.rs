//! A whole chat completion or completion as a stream, and a stream as a whole one.

use crate::hub::event;
use crate::wire::merge::add;
use serde_json::{Map, Value, json};

/// Writes the stream.
pub(crate) fn write_stream(mut whole: Map<String, Value>, wants_usage: bool, out: &mut Vec<u8>) {
    let usage = whole.remove("usage").filter(|usage| wants_usage && usage.is_object());
    if whole.get("object").is_some_and(|object| object == "chat.completion") {
        whole["object"] = "chat.completion.chunk".into();
    }
    for choice in whole
        .get_mut("choices")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        let Some(choice) = choice.as_object_mut() else { continue };
        let Some(mut message) = choice.remove("message") else {
            continue;
        };
        let calls = message.get_mut("tool_calls").and_then(Value::as_array_mut);
        for (index, call) in calls.into_iter().flatten().enumerate() {
            if let Some(call) = call.as_object_mut() {
                call.entry("index").or_insert_with(|| index.into());
            }
        }
        choice.insert("delta".to_owned(), message);
    }
    let mut whole = Value::Object(whole);
    event(out, None, &whole);
    if let Some(usage) = usage {
        whole["choices"] = json!([]);
        whole["usage"] = usage;
        event(out, None, &whole);
    }
    out.extend_from_slice(b"data: [DONE]\n\n");
}

/// Puts the chunks of a stream together.
pub(crate) fn gathered(events: impl Iterator<Item = Value>) -> Option<Value> {
    let mut whole: Option<Value> = None;
    for mut event in events {
        let usage = event["usage"].take();
        let choices = event["choices"].take();
        let whole = whole.get_or_insert_with(|| {
            event["choices"] = json!([]);
            event
        });
        if usage.is_object() {
            whole["usage"] = usage;
        }
        add(&mut whole["choices"], choices);
    }
    let mut whole = whole?;
    if whole["object"] == "chat.completion.chunk" {
        whole["object"] = "chat.completion".into();
    }
    for choice in whole["choices"].as_array_mut()? {
        let mut message = choice.as_object_mut()?.remove("delta").unwrap_or(Value::Null);
        if message.is_object() {
            for call in message["tool_calls"].as_array_mut().into_iter().flatten() {
                call.as_object_mut()?.remove("index");
            }
            if message["tool_calls"].is_null() {
                message.as_object_mut()?.remove("tool_calls");
            }
            choice["message"] = message;
        }
    }
    Some(whole)
}
