//! The turns of a conversation so far, as a list of items: messages, reasoning, tool calls and their results.

use crate::error::RequestError;
use crate::hub::{Fields, bad, function, message as plain, simplest, untranslatable};
use crate::unsupported::Dropped;
use serde_json::{Value, json};

/// Reads the items of `input`.
pub(super) fn items(items: Vec<Value>, turns: &mut Vec<Value>, dropped: &mut Dropped) -> Result<(), RequestError> {
    let mut pictures = Vec::new();
    for one in items {
        let is_output = one["type"].as_str().is_some_and(|kind| kind.ends_with("_output"));
        if !is_output {
            flush(&mut pictures, turns);
        }
        item(one, turns, &mut pictures, dropped)?;
    }
    flush(&mut pictures, turns);
    Ok(())
}

/// Pictures in the results of tools follow in a turn of the user, after all results of the same turn.
fn flush(pictures: &mut Vec<Value>, turns: &mut Vec<Value>) {
    if !pictures.is_empty() {
        turns.push(plain("user", std::mem::take(pictures)));
    }
}

fn item(
    one: Value,
    turns: &mut Vec<Value>,
    pictures: &mut Vec<Value>,
    dropped: &mut Dropped,
) -> Result<(), RequestError> {
    let kind = one["type"].as_str().unwrap_or("message").to_owned();
    let mut one = Fields::of("input.", one)?;
    one.ignore(&["type", "id", "status", "phase"]);
    match kind.as_str() {
        "message" => message(&mut one, turns)?,
        "function_call" | "custom_tool_call" => {
            let mut text = |key: &str| one.text(key).map(Option::unwrap_or_default);
            let (name, id) = (text("name")?, text("call_id")?);
            let arguments = if kind == "function_call" {
                text("arguments")?
            } else {
                json!({"input": text("input")?}).to_string()
            };
            call(function(&name, &arguments, &id), turns);
        }
        "function_call_output" | "custom_tool_call_output" => output(&mut one, turns, pictures)?,
        "reasoning" => {
            let reasonings = one.list("content")?;
            let reasoning: Vec<&str> = reasonings.iter().filter_map(|part| part["text"].as_str()).collect();
            one.ignore(&["summary", "encrypted_content"]);
            if !reasoning.is_empty() {
                turns.push(json!({"role": "assistant", "content": null, "reasoning_content": reasoning.join("\n")}));
            }
        }
        other => return dropped.leave_out(&format!("input.{other}")),
    }
    one.leave_rest(dropped)
}

fn message(one: &mut Fields, turns: &mut Vec<Value>) -> Result<(), RequestError> {
    let role = one.text("role")?.unwrap_or_default();
    // Not every server knows the newer name.
    let role = if role == "developer" { "system".to_owned() } else { role };
    let content = match one.take("content") {
        None => Value::Null,
        Some(Value::String(text)) => text.into(),
        Some(Value::Array(parts)) => simplest(parts.iter().map(part).collect::<Result<_, _>>()?),
        _ => return Err(bad("input.content", "must be a text or a list of parts")),
    };
    // Reasoning and the text after it are one message elsewhere.
    match turns
        .last_mut()
        .filter(|last| is_reasoning(last) && role == "assistant")
    {
        Some(last) => last["content"] = content,
        None => turns.push(plain(&role, content)),
    }
    Ok(())
}

/// Calls of one turn are one message elsewhere.
fn call(call: Value, turns: &mut Vec<Value>) {
    match turns.last_mut().filter(|last| last["role"] == "assistant") {
        Some(last) => match last["tool_calls"].as_array_mut() {
            Some(calls) => calls.push(call),
            None => last["tool_calls"] = json!([call]),
        },
        None => turns.push(json!({"role": "assistant", "content": null, "tool_calls": [call]})),
    }
}

fn output(one: &mut Fields, turns: &mut Vec<Value>, pictures: &mut Vec<Value>) -> Result<(), RequestError> {
    let id = one.take("call_id").unwrap_or_default();
    let output = match one.take("output") {
        None => "".into(),
        Some(Value::String(text)) => text.into(),
        Some(Value::Array(parts)) => {
            let parts: Vec<Value> = parts.iter().map(part).collect::<Result<_, _>>()?;
            let (texts, others): (Vec<Value>, Vec<Value>) = parts.into_iter().partition(|part| part["type"] == "text");
            if !others.is_empty() {
                let note = format!("From the result of tool call {}:", id.as_str().unwrap_or_default());
                pictures.push(json!({"type": "text", "text": note}));
                pictures.extend(others);
            }
            if texts.is_empty() { "".into() } else { simplest(texts) }
        }
        // Codex before 2026 sent `{"content": …, "success": …}`.
        Some(other) => other["content"]
            .as_str()
            .map_or_else(|| other.to_string(), str::to_owned)
            .into(),
    };
    turns.push(json!({"role": "tool", "tool_call_id": id, "content": output}));
    Ok(())
}

fn is_reasoning(message: &Value) -> bool {
    message["content"].is_null() && message["reasoning_content"].is_string()
}

/// A part of a content, as chat completions have it.
fn part(part: &Value) -> Result<Value, RequestError> {
    match part["type"].as_str() {
        Some("input_text" | "output_text" | "text" | "summary_text" | "reasoning_text") => {
            Ok(json!({"type": "text", "text": part["text"]}))
        }
        Some("refusal") => Ok(json!({"type": "text", "text": part["refusal"]})),
        Some("input_image") if part["image_url"].is_string() => {
            let mut image = json!({"url": part["image_url"]});
            if part["detail"].is_string() {
                image["detail"] = part["detail"].clone();
            }
            Ok(json!({"type": "image_url", "image_url": image}))
        }
        Some("input_file") if part["file_data"].is_string() => {
            Ok(json!({"type": "file", "file": {"filename": part["filename"], "file_data": part["file_data"]}}))
        }
        Some("input_audio") => Ok(json!({"type": "input_audio", "input_audio": part["input_audio"]})),
        other => Err(untranslatable(&format!("input.content.{}", other.unwrap_or("type")))),
    }
}
