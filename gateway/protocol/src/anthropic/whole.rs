//! A whole message as a stream, and a stream as a whole one.

use crate::hub::event;
use crate::wire::merge::add;
use serde_json::{Value, json};

/// Writes the stream.
pub(crate) fn write_stream(mut whole: Value, out: &mut Vec<u8>) {
    let blocks = whole["content"].take();
    let (reason, sequence) = (whole["stop_reason"].take(), whole["stop_sequence"].take());
    let usage = whole["usage"].clone();
    whole["content"] = json!([]);
    event(
        out,
        Some("message_start"),
        &json!({"type": "message_start", "message": whole}),
    );
    for (index, block) in blocks.as_array().into_iter().flatten().enumerate() {
        let mut start = block.clone();
        let delta = match block["type"].as_str() {
            Some("text") => {
                start["text"] = "".into();
                json!({"type": "text_delta", "text": block["text"]})
            }
            Some("thinking") => {
                start["thinking"] = "".into();
                json!({"type": "thinking_delta", "thinking": block["thinking"]})
            }
            Some("tool_use") => {
                start["input"] = json!({});
                json!({"type": "input_json_delta", "partial_json": block["input"].to_string()})
            }
            _ => Value::Null,
        };
        let begun = json!({"type": "content_block_start", "index": index, "content_block": start});
        event(out, Some("content_block_start"), &begun);
        if !delta.is_null() {
            let delta = json!({"type": "content_block_delta", "index": index, "delta": delta});
            event(out, Some("content_block_delta"), &delta);
        }
        let ended = json!({"type": "content_block_stop", "index": index});
        event(out, Some("content_block_stop"), &ended);
    }
    let delta = json!({"stop_reason": reason, "stop_sequence": sequence});
    let last = json!({"type": "message_delta", "delta": delta, "usage": usage});
    event(out, Some("message_delta"), &last);
    event(out, Some("message_stop"), &json!({"type": "message_stop"}));
}

/// Puts the events of a stream together.
pub(crate) fn gathered(events: impl Iterator<Item = Value>) -> Option<Value> {
    let mut whole = Value::Null;
    let mut inputs: Vec<String> = Vec::new();
    for mut event in events {
        let index = usize::try_from(event["index"].as_u64().unwrap_or(0)).ok()?;
        match event["type"].as_str() {
            Some("message_start") => whole = event["message"].take(),
            Some("content_block_start") => {
                whole["content"].as_array_mut()?.push(event["content_block"].take());
                inputs.push(String::new());
            }
            Some("content_block_delta") => {
                let delta = event["delta"].take();
                if let Some(json) = delta["partial_json"].as_str() {
                    *inputs.get_mut(index)? += json;
                }
                for key in ["text", "thinking", "signature"] {
                    if delta[key].is_string() {
                        add(whole["content"].get_mut(index)?.get_mut(key)?, delta[key].clone());
                    }
                }
            }
            Some("message_delta") => {
                whole["stop_reason"] = event["delta"]["stop_reason"].take();
                whole["stop_sequence"] = event["delta"]["stop_sequence"].take();
                add_usage(&mut whole["usage"], event["usage"].take());
            }
            _ => {}
        }
    }
    for (block, input) in whole["content"].as_array_mut()?.iter_mut().zip(&inputs) {
        if !input.is_empty() {
            block["input"] = crate::hub::arguments(input);
        }
    }
    Some(whole)
}

/// The figures of the end replace those of the beginning.
fn add_usage(usage: &mut Value, newer: Value) {
    match (usage, newer) {
        (Value::Object(usage), Value::Object(newer)) => usage.extend(newer),
        (usage, newer) => *usage = newer,
    }
}
