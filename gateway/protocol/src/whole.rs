//! Answers of the form that was not asked for, in one protocol: a whole answer as the stream that the client wants, and a
//! stream as a whole answer. Some servers ignore `stream`.

use crate::hub::event;
use crate::meter::is_json;
use crate::wire::lenient;
use crate::wire::sse::Event;
use crate::wire::{Framing, records};
use crate::{Operation, Protocol};
use serde_json::{Map, Value, json};

/// A whole answer as the stream that was asked for. What is no JSON object is given back as it is.
pub(crate) fn as_stream(call: Operation, wants_usage: bool, body: &[u8]) -> Vec<u8> {
    let Some(Value::Object(whole)) = lenient::value(body) else {
        return body.to_vec();
    };
    let mut out = Vec::new();
    match call.protocol() {
        Protocol::OpenAi | Protocol::Generate => completion_stream(whole, wants_usage, &mut out),
        Protocol::Responses => response_stream(&whole.into(), None, &mut out),
        Protocol::Anthropic => message_stream(whole.into(), &mut out),
        // A line of JSON is a stream of one.
        Protocol::Ollama => return body.to_vec(),
    }
    out
}

fn completion_stream(mut whole: Map<String, Value>, wants_usage: bool, out: &mut Vec<u8>) {
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

/// A whole response as a stream, without the events up to the sequence number `after`.
pub(crate) fn response_stream(whole: &Value, after: Option<u64>, out: &mut Vec<u8>) {
    let mut sequence = 0;
    let mut write = |name: &str, mut data: Value| {
        data["type"] = name.into();
        data["sequence_number"] = sequence.into();
        if after.is_none_or(|after| sequence > after) {
            event(out, Some(name), &data);
        }
        sequence += 1;
    };
    let mut begun = whole.clone();
    begun["status"] = "in_progress".into();
    begun["output"] = json!([]);
    write("response.created", json!({"response": begun}));
    for (index, item) in whole["output"].as_array().into_iter().flatten().enumerate() {
        write(
            "response.output_item.added",
            json!({"output_index": index, "item": item}),
        );
        for (part, content) in item["content"].as_array().into_iter().flatten().enumerate() {
            if content["type"] == "output_text" {
                let at = json!({"item_id": item["id"], "output_index": index, "content_index": part});
                let mut delta = at.clone();
                delta["delta"] = content["text"].clone();
                write("response.output_text.delta", delta);
                let mut done = at;
                done["text"] = content["text"].clone();
                write("response.output_text.done", done);
            }
        }
        write(
            "response.output_item.done",
            json!({"output_index": index, "item": item}),
        );
    }
    let name = if whole["status"] == "incomplete" {
        "response.incomplete"
    } else {
        "response.completed"
    };
    write(name, json!({"response": whole}));
}

fn message_stream(mut whole: Value, out: &mut Vec<u8>) {
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

/// A stream as the whole answer that was asked for; `None` where it is one, or cannot be put together.
pub fn from_stream(call: Operation, body: &[u8]) -> Option<Vec<u8>> {
    let framing = Framing::of(call.protocol());
    if framing == Framing::EventStream && is_json(body) {
        return None;
    }
    let events = records(framing, body).filter_map(|record| match framing {
        Framing::JsonLines => lenient::value(record),
        Framing::EventStream => lenient::value(Event::parse(record).trimmed()?),
    });
    let whole = match call.protocol() {
        Protocol::OpenAi | Protocol::Generate => completion(events)?,
        Protocol::Responses => events.filter(|event| event["response"]["output"].is_array()).last()?["response"].take(),
        Protocol::Anthropic => message(events)?,
        Protocol::Ollama => lines(events)?,
    };
    Some(whole.to_string().into_bytes())
}

/// Adds a delta to what came before it: texts and lists grow, objects are merged, other values are replaced.
fn add(all: &mut Value, delta: Value) {
    match (all, delta) {
        (_, Value::Null) => {}
        (Value::String(all), Value::String(more)) => *all += &more,
        (Value::Array(all), Value::Array(more)) => {
            for item in more {
                let index = item["index"].as_u64();
                match all
                    .iter_mut()
                    .find(|known| index.is_some() && known["index"].as_u64() == index)
                {
                    Some(known) => add(known, item),
                    None => all.push(item),
                }
            }
        }
        (Value::Object(all), Value::Object(more)) => {
            for (key, value) in more {
                match all.get_mut(&key) {
                    // Said once, however often it is repeated.
                    Some(known) if matches!(&*key, "role" | "id" | "type" | "name" | "index") && !known.is_null() => {}
                    Some(known) => add(known, value),
                    None => drop(all.insert(key, value)),
                }
            }
        }
        (all, other) => *all = other,
    }
}

fn completion(events: impl Iterator<Item = Value>) -> Option<Value> {
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

fn message(events: impl Iterator<Item = Value>) -> Option<Value> {
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

fn lines(lines: impl Iterator<Item = Value>) -> Option<Value> {
    let (mut message, mut texts) = (json!({}), json!({}));
    let mut last = Value::Null;
    let mut count = 0;
    for mut line in lines {
        count += 1;
        add(&mut message, line["message"].take());
        for key in ["response", "thinking"] {
            if let Some(text) = line.get_mut(key) {
                add(&mut texts, json!({key: text.take()}));
            }
        }
        last = line;
    }
    if count < 2 {
        return None;
    }
    let fields = last.as_object_mut()?;
    fields.remove("message");
    if message != json!({}) {
        fields.insert("message".to_owned(), message);
    }
    if let Value::Object(texts) = texts {
        fields.extend(texts);
    }
    Some(last)
}

#[cfg(test)]
mod tests;
