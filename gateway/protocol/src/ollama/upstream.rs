//! A server that speaks Ollama's native API: how it is asked, and what it says.

use crate::Operation;
use crate::hub::{Chat, Fields, Finish, Part, ToolPart, bad, not_an_answer, untranslatable};
use crate::meter::Usage;
use crate::refuse::{ErrorCode, RequestError};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::HashMap;

/// What a chat completion says beside its messages and Ollama takes among its `options`.
const OPTIONS: &[&str] = &[
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "seed",
    "frequency_penalty",
    "presence_penalty",
    "repeat_penalty",
];

/// What is asked of it, and where.
pub(crate) fn request(chat: Chat, is_streaming: bool) -> Result<(Operation, Chat), RequestError> {
    let mut chat = Fields::from_map(chat);
    let mut to = Map::new();
    let call = if let Some(prompt) = chat.take("prompt") {
        to.insert("prompt".to_owned(), one_prompt(prompt)?);
        chat.pass(&["suffix"], &mut to);
        if !to.contains_key("suffix") {
            to.insert("raw".to_owned(), true.into());
        }
        Operation::OllamaGenerate
    } else {
        let said = chat.list("messages")?;
        to.insert("messages".to_owned(), messages(said)?.into());
        Operation::OllamaChat
    };
    tools(&mut chat, &mut to)?;
    if let Some(format) = chat.take("response_format") {
        to.extend(response_format(&format)?.map(|format| ("format".to_owned(), format)));
    }
    if let Some(effort) = chat.text("reasoning_effort")? {
        let think = match effort.as_str() {
            "none" | "minimal" => false.into(),
            _ => Value::from(effort),
        };
        to.insert("think".to_owned(), think);
    }
    chat.pass(&["think", "keep_alive", "logprobs", "top_logprobs"], &mut to);
    let mut options = match chat.take("options") {
        None => Map::new(),
        Some(Value::Object(options)) => options,
        Some(_) => return Err(bad("options", "must be an object")),
    };
    chat.pass(OPTIONS, &mut options);
    match chat.take("stop") {
        Some(Value::String(stop)) => options.insert("stop".to_owned(), json!([stop])),
        Some(stops) => options.insert("stop".to_owned(), stops),
        None => None,
    };
    to.insert("options".to_owned(), options.into());
    to.insert("stream".to_owned(), is_streaming.into());
    chat.nothing_else()?;
    Ok((call, to))
}

fn one_prompt(prompt: Value) -> Result<Value, RequestError> {
    match prompt {
        Value::String(text) => Ok(text.into()),
        Value::Array(texts) if texts.len() == 1 && texts[0].is_string() => Ok(texts.into_iter().next().into()),
        _ => Err(bad("prompt", "must be one text for this model's server")),
    }
}

/// A text, or parts of text and pictures, as Ollama has them: the text, and the pictures' base64.
fn content(content: Value) -> Result<(String, Vec<Value>), RequestError> {
    let parts = match content {
        Value::Null => return Ok((String::new(), Vec::new())),
        Value::String(text) => return Ok((text, Vec::new())),
        Value::Array(parts) => parts,
        _ => return Err(bad("messages.content", "must be a text or a list of parts")),
    };
    let (mut texts, mut images) = (Vec::new(), Vec::new());
    for part in parts {
        match part["type"].as_str() {
            Some("text" | "refusal") => texts.push(part["text"].as_str().unwrap_or_default().to_owned()),
            Some("image_url") => {
                let url = part["image_url"]["url"].as_str().or(part["image_url"].as_str());
                let base64 = url.and_then(|url| url.strip_prefix("data:")?.split_once(";base64,"));
                let (_, base64) = base64.ok_or_else(|| {
                    bad(
                        "image_url",
                        "must be a data: address, since this model's server fetches no pictures",
                    )
                })?;
                images.push(base64.into());
            }
            other => return Err(untranslatable(&format!("messages.content.{}", other.unwrap_or("type")))),
        }
    }
    Ok((texts.join("\n"), images))
}

fn messages(said: Vec<Value>) -> Result<Vec<Value>, RequestError> {
    let mut names: HashMap<String, Value> = HashMap::new();
    let mut messages = Vec::with_capacity(said.len());
    for message in said {
        let mut message = Fields::of("messages.", message)?;
        let role = message.text("role")?.unwrap_or_default();
        let (text, images) = content(message.take("content").unwrap_or_default())?;
        let role = if role == "developer" { "system" } else { &role };
        let mut to = json!({"role": role, "content": text});
        if !images.is_empty() {
            to["images"] = images.into();
        }
        if let Some(thought) = message.text("reasoning_content")? {
            to["thinking"] = thought.into();
        }
        let calls = message.list("tool_calls")?;
        let mut called = Vec::with_capacity(calls.len());
        for call in calls {
            let arguments = call["function"]["arguments"].as_str().unwrap_or("{}");
            let arguments: Value = serde_json::from_str(arguments).map_err(|_| {
                bad(
                    "messages.tool_calls.function.arguments",
                    "must be the text of a JSON object",
                )
            })?;
            let name = &call["function"]["name"];
            if let Some(id) = call["id"].as_str() {
                names.insert(id.to_owned(), name.clone());
            }
            called.push(json!({"function": {"name": name, "arguments": arguments}}));
        }
        if !called.is_empty() {
            to["tool_calls"] = called.into();
        }
        if let Some(id) = message.text("tool_call_id")?
            && let Some(name) = names.get(&id)
        {
            to["tool_name"] = name.clone();
        }
        message.ignore(&["refusal", "audio"]);
        message.nothing_else()?;
        messages.push(to);
    }
    Ok(messages)
}

fn tools(chat: &mut Fields, to: &mut Chat) -> Result<(), RequestError> {
    let tools = chat.list("tools")?;
    for tool in &tools {
        if tool["type"] != "function" {
            return Err(untranslatable(&format!(
                "tools.{}",
                tool["type"].as_str().unwrap_or("type")
            )));
        }
    }
    match chat.take("tool_choice") {
        None => {}
        Some(choice) if choice == "auto" => {}
        Some(choice) if choice == "none" => return Ok(()),
        Some(_) if tools.is_empty() => {}
        Some(_) => return Err(untranslatable("tool_choice")),
    }
    if chat
        .take("parallel_tool_calls")
        .is_some_and(|parallel| parallel == false && !tools.is_empty())
    {
        return Err(untranslatable("parallel_tool_calls"));
    }
    if !tools.is_empty() {
        to.insert("tools".to_owned(), tools.into());
    }
    Ok(())
}

/// OpenAI's `response_format` as Ollama's `format`.
fn response_format(format: &Value) -> Result<Option<Value>, RequestError> {
    match format["type"].as_str() {
        Some("text") => Ok(None),
        Some("json_object") => Ok(Some("json".into())),
        Some("json_schema") => Ok(Some(format["json_schema"]["schema"].clone())),
        _ => Err(untranslatable("response_format.type")),
    }
}

#[derive(Deserialize)]
struct Line {
    message: Option<Message>,
    /// Of `/api/generate`.
    response: Option<String>,
    thinking: Option<String>,
    #[serde(default)]
    done: bool,
    done_reason: Option<String>,
    prompt_eval_count: Option<u64>,
    eval_count: Option<u64>,
    logprobs: Option<Vec<Value>>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    content: String,
    thinking: Option<String>,
    tool_calls: Option<Vec<ToolCall>>,
}

#[derive(Deserialize)]
struct ToolCall {
    id: Option<String>,
    function: Function,
}

#[derive(Deserialize)]
struct Function {
    name: String,
    #[serde(default)]
    arguments: Value,
}

/// Reads a line of a stream, or a whole answer. `calls` counts the tools that were called before.
pub(crate) fn line(line: &[u8], request_id: &str, calls: &mut usize) -> Result<Option<Part>, RequestError> {
    if line.trim_ascii().is_empty() {
        return Ok(None);
    }
    let line: Line = serde_json::from_slice(line).map_err(|_| not_an_answer())?;
    if let Some(error) = line.error {
        let why: String = error.chars().take(500).collect();
        return Err(RequestError::new(
            ErrorCode::UpstreamError,
            format!("the model's server failed: {why}"),
        ));
    }
    let message = line.message.unwrap_or(Message {
        content: line.response.unwrap_or_default(),
        thinking: line.thinking,
        tool_calls: None,
    });
    let tools = message.tool_calls.unwrap_or_default().into_iter().map(|call| {
        let index = *calls;
        *calls += 1;
        ToolPart {
            index,
            id: call.id.or_else(|| Some(format!("call_{request_id}_{index}"))),
            name: Some(call.function.name),
            arguments: match call.function.arguments {
                Value::Null => "{}".to_owned(),
                arguments => arguments.to_string(),
            },
        }
    });
    let usage = line.done.then(|| Usage {
        input_tokens: line.prompt_eval_count.unwrap_or(0),
        output_tokens: line.eval_count.unwrap_or(0),
        cached_input_tokens: 0,
    });
    Ok(Some(Part {
        text: message.content,
        thought: message.thinking.unwrap_or_default(),
        tools: tools.collect(),
        logprobs: line.logprobs.unwrap_or_default(),
        finish: line
            .done
            .then(|| Finish::from_openai(line.done_reason.as_deref().unwrap_or_default())),
        usage,
    }))
}

/// Reads a whole answer.
pub(crate) fn whole(body: &[u8], request_id: &str) -> Result<Part, RequestError> {
    let part = line(body, request_id, &mut 0)?;
    part.filter(|part| part.finish.is_some()).ok_or_else(not_an_answer)
}
