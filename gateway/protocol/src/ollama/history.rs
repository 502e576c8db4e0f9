//! The turns of a conversation so far, in Ollama's words: calls without ids, answered in their order or by the tool's name.

use crate::error::RequestError;
use crate::hub::Fields;
use crate::unsupported::Dropped;
use serde_json::{Value, json};
use std::collections::VecDeque;

/// The calls that have no answer yet, and how many there were.
#[derive(Default)]
struct Calls {
    open: VecDeque<(String, Value)>,
    made: usize,
}

/// Reads `messages` as OpenAI's.
pub(super) fn messages(turns: Vec<Value>, dropped: &mut Dropped) -> Result<Vec<Value>, RequestError> {
    let mut calls = Calls::default();
    turns
        .into_iter()
        .map(|message| one(message, &mut calls, dropped))
        .collect()
}

fn one(message: Value, calls: &mut Calls, dropped: &mut Dropped) -> Result<Value, RequestError> {
    let mut message = Fields::of("messages.", message)?;
    let role = message.text("role")?.unwrap_or_default();
    let text = message.text("content")?.unwrap_or_default();
    let images = message.list("images")?;
    let mut to = json!({"role": role, "content": with_images(text, &images)});
    if let Some(reasoning) = message.text("thinking")? {
        to["reasoning_content"] = reasoning.into();
    }
    let called: Vec<Value> = message
        .list("tool_calls")?
        .iter()
        .map(|call| calls.made(call))
        .collect();
    if !called.is_empty() {
        to["tool_calls"] = called.into();
    }
    let given = message.text("tool_call_id")?;
    let name = message.take("tool_name");
    if role == "tool" {
        // Clients before Ollama 0.9 name the tool here.
        let name = name.or_else(|| message.take("name"));
        to["tool_call_id"] = calls.answered(given, name.as_ref()).into();
    }
    message.leave_rest(dropped)?;
    Ok(to)
}

impl Calls {
    /// A call as OpenAI has it.
    fn made(&mut self, call: &Value) -> Value {
        let function = &call["function"];
        let given = call["id"].as_str().filter(|id| !id.is_empty());
        let id = given.map_or_else(|| format!("call_{}", self.made), str::to_owned);
        self.made += 1;
        self.open.push_back((id.clone(), function["name"].clone()));
        let arguments = match &function["arguments"] {
            Value::Null => "{}".to_owned(),
            Value::String(text) => text.clone(),
            arguments => arguments.to_string(),
        };
        json!({"id": id, "type": "function", "function": {"name": function["name"], "arguments": arguments}})
    }

    /// The id of the call that is answered: by its own id, by the tool's name, or the first that is open.
    fn answered(&mut self, given: Option<String>, name: Option<&Value>) -> String {
        let at = self.open.iter().position(|(id, of)| {
            given
                .as_ref()
                .map_or_else(|| name.is_none() || name == Some(of), |given| given == id)
        });
        let open = at.and_then(|at| self.open.remove(at)).map(|(id, _)| id);
        open.or(given).unwrap_or_else(|| {
            // Ollama takes an answer to nothing; the other server may, too.
            self.made += 1;
            format!("call_{}", self.made - 1)
        })
    }
}

/// A text and pictures as parts; a text alone stays one.
pub(super) fn with_images(text: String, images: &[Value]) -> Value {
    if images.is_empty() {
        return text.into();
    }
    let mut parts = Vec::with_capacity(images.len() + 1);
    if !text.is_empty() {
        parts.push(json!({"type": "text", "text": text}));
    }
    parts.extend(images.iter().map(|image| {
        let base64 = image.as_str().unwrap_or_default();
        let url = if base64.starts_with("data:") {
            base64.to_owned()
        } else {
            format!("data:{};base64,{base64}", picture_type(base64))
        };
        json!({"type": "image_url", "image_url": {"url": url}})
    }));
    parts.into()
}

/// The type of a picture, by its first bytes, since Ollama's API does not carry it.
fn picture_type(base64: &str) -> &'static str {
    match base64.get(..4) {
        Some("/9j/") => "image/jpeg",
        Some("R0lG") => "image/gif",
        Some("UklG") => "image/webp",
        _ => "image/png",
    }
}
