//! The turns of a conversation so far, in Anthropic's words: messages of blocks, with the results of tools inside the user's.

use crate::error::RequestError;
use crate::hub::{Fields, bad, function, message as plain, simplest, untranslatable};
use crate::unsupported::Dropped;
use serde_json::{Value, json};

/// Blocks of which all are text.
pub(super) fn texts(within: &'static str, blocks: Vec<Value>) -> Result<Vec<Value>, RequestError> {
    let text = |block: Value| match (block["type"].as_str(), &block["text"]) {
        (Some("text"), Value::String(text)) => Ok(json!({"type": "text", "text": text})),
        (other, _) => Err(untranslatable(&format!("{within}{}", other.unwrap_or("type")))),
    };
    blocks.into_iter().map(text).collect()
}

/// The chat messages that one message becomes.
#[derive(Default)]
struct Blocks {
    parts: Vec<Value>,
    calls: Vec<Value>,
    reasoning: String,
}

/// One of Anthropic's messages; a tool's results, which it has inside, are messages of their own elsewhere.
pub(super) fn message(one: Value, turns: &mut Vec<Value>, dropped: &mut Dropped) -> Result<(), RequestError> {
    let mut one = Fields::of("messages.", one)?;
    let role = one.text("role")?.unwrap_or_default();
    let blocks = match one.take("content") {
        Some(Value::Array(blocks)) => blocks,
        Some(Value::String(text)) => {
            one.leave_rest(dropped)?;
            turns.push(plain(&role, text));
            return Ok(());
        }
        _ => return Err(bad("messages.content", "must be a text or a list of blocks")),
    };
    one.leave_rest(dropped)?;
    let mut all = Blocks::default();
    for block in blocks {
        match block["type"].as_str() {
            Some("tool_use") => all.calls.push(function(
                block["name"].as_str().unwrap_or_default(),
                &block["input"].to_string(),
                block["id"].as_str().unwrap_or_default(),
            )),
            Some("tool_result") => turns.push(tool_result(block, &mut all.parts, dropped)?),
            Some("thinking") => all.reasoning += block["thinking"].as_str().unwrap_or_default(),
            _ => part(&block, &mut all.parts, dropped)?,
        }
    }
    let Blocks {
        parts,
        calls,
        reasoning,
    } = all;
    if parts.is_empty() && calls.is_empty() && reasoning.is_empty() {
        return Ok(());
    }
    let content = if parts.is_empty() { Value::Null } else { simplest(parts) };
    let mut to = json!({"role": role, "content": content});
    if !calls.is_empty() {
        to["tool_calls"] = calls.into();
    }
    if !reasoning.is_empty() {
        to["reasoning_content"] = reasoning.into();
    }
    turns.push(to);
    Ok(())
}

/// One block that is read by the model, as OpenAI's parts.
fn part(block: &Value, parts: &mut Vec<Value>, dropped: &mut Dropped) -> Result<(), RequestError> {
    let text = |text: &str| json!({"type": "text", "text": text});
    match block["type"].as_str() {
        Some("text") => parts.push(text(block["text"].as_str().unwrap_or_default())),
        Some("image") => parts.push(image(&block["source"])?),
        // A summary of the earlier turns.
        Some("compaction") if block["content"].is_string() => {
            parts.push(text(block["content"].as_str().unwrap_or_default()));
        }
        Some("document") => document(block, parts, dropped)?,
        Some("search_result") => {
            let heads = ["title", "source"].into_iter().filter_map(|key| block[key].as_str());
            let found = block["content"].as_array().into_iter().flatten();
            let lines: Vec<&str> = heads.chain(found.filter_map(|part| part["text"].as_str())).collect();
            parts.push(text(&lines.join("\n")));
        }
        other => dropped.leave_out(&format!("messages.content.{}", other.unwrap_or("type")))?,
    }
    Ok(())
}

fn image(source: &Value) -> Result<Value, RequestError> {
    let url = match source["type"].as_str() {
        Some("base64") => data_url(source),
        Some("url") => source["url"].as_str().unwrap_or_default().to_owned(),
        other => {
            let kind = other.unwrap_or("type");
            return Err(untranslatable(&format!("messages.content.source.{kind}")));
        }
    };
    Ok(json!({"type": "image_url", "image_url": {"url": url}}))
}

fn data_url(source: &Value) -> String {
    let text = |key: &str| source[key].as_str().unwrap_or_default();
    format!("data:{};base64,{}", text("media_type"), text("data"))
}

/// A document: a text is a text; a file goes as OpenAI's files go, which not every server reads.
fn document(block: &Value, parts: &mut Vec<Value>, dropped: &mut Dropped) -> Result<(), RequestError> {
    let source = &block["source"];
    let heads = ["title", "context"].into_iter().filter_map(|key| block[key].as_str());
    parts.extend(heads.map(|text| json!({"type": "text", "text": text})));
    match source["type"].as_str() {
        Some("text") => parts.push(json!({"type": "text", "text": source["data"].as_str().unwrap_or_default()})),
        Some("content") => match &source["content"] {
            Value::String(text) => parts.push(json!({"type": "text", "text": text})),
            Value::Array(blocks) => blocks.iter().try_for_each(|block| part(block, parts, dropped))?,
            _ => {
                return Err(bad(
                    "messages.content.source.content",
                    "must be a text or a list of blocks",
                ));
            }
        },
        Some("base64") => {
            let name = block["title"].as_str().unwrap_or("document.pdf");
            let file = json!({"filename": name, "file_data": data_url(source)});
            parts.push(json!({"type": "file", "file": file}));
        }
        _ => return Err(untranslatable("messages.content.document")),
    }
    Ok(())
}

/// A tool's result. OpenAI's is text alone: pictures and files follow in a turn of the user.
fn tool_result(mut block: Value, after: &mut Vec<Value>, dropped: &mut Dropped) -> Result<Value, RequestError> {
    let mut parts = Vec::new();
    match block["content"].take() {
        Value::Null => {}
        Value::String(text) => parts.push(json!({"type": "text", "text": text})),
        Value::Array(blocks) => {
            for block in &blocks {
                part(block, &mut parts, dropped)?;
            }
        }
        _ => {
            let name = "messages.content.tool_result.content";
            return Err(bad(name, "must be a text or a list of blocks"));
        }
    }
    let (mut texts, others): (Vec<Value>, Vec<Value>) = parts.into_iter().partition(|part| part["type"] == "text");
    if block["is_error"] == true {
        // The other protocols have no place for it but the text.
        texts.insert(0, json!({"type": "text", "text": "Error:"}));
    }
    if !others.is_empty() {
        let note = format!(
            "From the result of tool call {}:",
            block["tool_use_id"].as_str().unwrap_or_default()
        );
        after.push(json!({"type": "text", "text": note}));
        after.extend(others);
    }
    let content = if texts.is_empty() { "".into() } else { simplest(texts) };
    Ok(json!({"role": "tool", "tool_call_id": block["tool_use_id"], "content": content}))
}
