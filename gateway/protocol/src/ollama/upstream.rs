//! A server that speaks Ollama's native API: how it is asked, and what it says.

use super::keep_alive;
use crate::Operation;
use crate::calls::CallPiece;
use crate::dialect::{Piece, Server};
use crate::error::{RequestError, failed_in_answer, reports_failure};
use crate::hub::{Chat, Fields, Finish, Part, arguments, bad, not_an_answer, untranslatable};
use crate::unsupported::{Dropped, Side};
use crate::usage::Usage;
use crate::wire::lenient::{self, Count, Each, Object, Text};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};
use std::collections::HashMap;

/// Fields of a chat completion that Ollama takes among its `options`.
const OPTIONS: &[&str] = &[
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "typical_p",
    "seed",
    "frequency_penalty",
    "presence_penalty",
    "repeat_penalty",
];

/// Writes a chat completion as Ollama's request.
fn request(chat: Chat, is_streaming: bool, dropped: &mut Dropped) -> Result<(Operation, Chat), RequestError> {
    let mut chat = Fields::from_map(chat);
    let mut to = Map::new();
    let call = if let Some(prompt) = chat.take("prompt") {
        to.insert("prompt".to_owned(), one_prompt(prompt)?);
        chat.pass(&["suffix"], &mut to);
        if !to.contains_key("suffix") {
            to.insert("raw".to_owned(), true.into());
        }
        // Of completions it is the number of alternatives.
        if let Some(top) = chat.peek("logprobs").and_then(Value::as_u64) {
            chat.ignore(&["logprobs"]);
            to.insert("logprobs".to_owned(), true.into());
            to.insert("top_logprobs".to_owned(), top.into());
        }
        Operation::OllamaGenerate
    } else {
        let turns = chat.list("messages")?;
        to.insert("messages".to_owned(), messages(turns, dropped)?.into());
        Operation::OllamaChat
    };
    tools(&mut chat, &mut to, dropped)?;
    if let Some(format) = chat.take("response_format") {
        to.extend(response_format(&format)?.map(|format| ("format".to_owned(), format)));
    }
    chat.rename("guided_json", "format", &mut to);
    thinking(&mut chat, &mut to, dropped)?;
    match chat.take("keep_alive") {
        // Other projects use the same model.
        Some(keep_alive) if keep_alive::unloads(&keep_alive) => dropped.leave_out("keep_alive")?,
        Some(keep_alive) => drop(to.insert("keep_alive".to_owned(), keep_alive)),
        None => {}
    }
    chat.pass(&["logprobs", "top_logprobs"], &mut to);
    let mut options = match chat.take("options") {
        None => Map::new(),
        Some(Value::Object(options)) => options,
        Some(_) => return Err(bad("options", "must be an object")),
    };
    chat.rename("repetition_penalty", "repeat_penalty", &mut options);
    chat.pass(OPTIONS, &mut options);
    match chat.take("stop") {
        Some(Value::String(stop)) => options.insert("stop".to_owned(), json!([stop])),
        Some(stops) => options.insert("stop".to_owned(), stops),
        None => None,
    };
    to.insert("options".to_owned(), options.into());
    to.insert("stream".to_owned(), is_streaming.into());
    chat.leave_rest(dropped)?;
    Ok((call, to))
}

/// Translates the amount of reasoning, which the protocols and the chat templates of models name in several ways.
fn thinking(chat: &mut Fields, to: &mut Chat, dropped: &mut Dropped) -> Result<(), RequestError> {
    if let Some(effort) = chat.text("reasoning_effort")? {
        let think = match effort.as_str() {
            "none" | "minimal" => false.into(),
            // Ollama knows three words.
            "low" | "medium" | "high" => Value::from(effort),
            _ => "high".into(),
        };
        to.insert("think".to_owned(), think);
    }
    if let Some(template) = chat.take("chat_template_kwargs") {
        let mut template = Fields::of("chat_template_kwargs.", template)?;
        template.rename("enable_thinking", "think", to);
        template.rename("thinking", "think", to);
        template.leave_rest(dropped)?;
    }
    chat.pass(&["think"], to);
    Ok(())
}

fn one_prompt(prompt: Value) -> Result<Value, RequestError> {
    match prompt {
        Value::String(text) => Ok(text.into()),
        Value::Array(texts) if texts.len() == 1 && texts[0].is_string() => Ok(texts.into_iter().next().into()),
        _ => Err(bad("prompt", "must be one text for this model's server")),
    }
}

/// The parts of a message's content.
#[derive(Default)]
struct Content {
    text: String,
    images: Vec<Value>,
    reasoning: String,
}

/// A text, or parts of text and pictures, as Ollama has them: the text, and the pictures' base64.
fn content(content: Value) -> Result<Content, RequestError> {
    let parts = match content {
        Value::Null => return Ok(Content::default()),
        Value::String(text) => {
            return Ok(Content {
                text,
                ..Content::default()
            });
        }
        Value::Array(parts) => parts,
        _ => return Err(bad("messages.content", "must be a text or a list of parts")),
    };
    let (mut texts, mut images, mut reasoning) = (Vec::new(), Vec::new(), String::new());
    for part in parts {
        match part["type"].as_str() {
            Some("text" | "input_text" | "output_text") => {
                texts.push(part["text"].as_str().unwrap_or_default().to_owned());
            }
            Some("refusal") => texts.push(part["refusal"].as_str().unwrap_or_default().to_owned()),
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
            // Mistral's form of a model's reasoning.
            Some(kind @ ("thinking" | "reasoning")) => {
                reasoning += &Text::deserialize(&part[kind]).unwrap_or_default().0;
            }
            None if part.is_string() => texts.push(part.as_str().unwrap_or_default().to_owned()),
            other => return Err(untranslatable(&format!("messages.content.{}", other.unwrap_or("type")))),
        }
    }
    Ok(Content {
        text: texts.join("\n"),
        images,
        reasoning,
    })
}

fn messages(turns: Vec<Value>, dropped: &mut Dropped) -> Result<Vec<Value>, RequestError> {
    let mut names: HashMap<String, Value> = HashMap::new();
    turns
        .into_iter()
        .map(|message| one(message, &mut names, dropped))
        .collect()
}

/// One message. `names` has the tools that were called, by the calls' ids.
fn one(message: Value, names: &mut HashMap<String, Value>, dropped: &mut Dropped) -> Result<Value, RequestError> {
    let mut message = Fields::of("messages.", message)?;
    let role = message.text("role")?.unwrap_or_default();
    let Content {
        text,
        images,
        reasoning: part,
    } = content(message.take("content").unwrap_or_default())?;
    let role = match role.as_str() {
        "developer" => "system",
        "function" => "tool",
        role => role,
    };
    let refusal = message.text("refusal")?.filter(|_| text.is_empty());
    let mut to = json!({"role": role, "content": refusal.unwrap_or(text)});
    if !images.is_empty() {
        to["images"] = images.into();
    }
    let reasonings = ["reasoning_content", "reasoning", "thinking"].map(|key| message.take(key));
    if let Some(Value::String(reasoning)) = reasonings.into_iter().flatten().find(|reasoning| reasoning != "") {
        to["thinking"] = reasoning.into();
    } else if !part.is_empty() {
        to["thinking"] = part.into();
    }
    let mut called: Vec<Value> = message
        .list("tool_calls")?
        .iter()
        .map(|call| called(call, names))
        .collect();
    if let Some(function) = message.take("function_call") {
        called.push(json!({"function": {"name": function["name"], "arguments": given(&function["arguments"])}}));
    }
    if !called.is_empty() {
        to["tool_calls"] = called.into();
    }
    if role == "tool" {
        let name = message.take("name");
        let id = message.text("tool_call_id")?;
        if let Some(name) = id.and_then(|id| names.get(&id).cloned()).or(name) {
            to["tool_name"] = name;
        }
    }
    message.ignore(&["audio", "annotations", "tool_call_id"]);
    message.leave_rest(dropped)?;
    Ok(to)
}

fn called(call: &Value, names: &mut HashMap<String, Value>) -> Value {
    let function = &call["function"];
    if let Some(id) = call["id"].as_str() {
        names.insert(id.to_owned(), function["name"].clone());
    }
    json!({"function": {"name": function["name"], "arguments": given(&function["arguments"])}})
}

/// The arguments of a call in a history: what a model once wrote, right or wrong.
fn given(text: &Value) -> Value {
    match text {
        Value::String(text) => arguments(text),
        Value::Null => json!({}),
        other => other.clone(),
    }
}

/// Tools. Ollama knows no choice among them; which of them are offered says most of it.
fn tools(chat: &mut Fields, to: &mut Chat, dropped: &mut Dropped) -> Result<(), RequestError> {
    let mut tools = chat.list("tools")?;
    for tool in &tools {
        if tool["type"] != "function" && !tool["function"].is_object() {
            return Err(untranslatable(&format!(
                "tools.{}",
                tool["type"].as_str().unwrap_or("type")
            )));
        }
    }
    let choice = chat.take("tool_choice");
    let is_parallel = chat.take("parallel_tool_calls");
    if tools.is_empty() {
        return Ok(());
    }
    match choice {
        None => {}
        Some(choice) if choice == "auto" => {}
        Some(choice) if choice == "none" => return Ok(()),
        Some(choice) => {
            let name = &choice["function"]["name"];
            if name.is_string() {
                tools.retain(|tool| tool["function"]["name"] == *name);
            }
            dropped.leave_out("tool_choice")?;
        }
    }
    if is_parallel.is_some_and(|parallel| parallel == false) {
        dropped.leave_out("parallel_tool_calls")?;
    }
    if tools.is_empty() {
        return Err(bad("tool_choice", "names a tool that is not among `tools`"));
    }
    to.insert("tools".to_owned(), tools.into());
    Ok(())
}

/// OpenAI's `response_format` as Ollama's `format`.
fn response_format(format: &Value) -> Result<Option<Value>, RequestError> {
    match format["type"].as_str() {
        Some("text") => Ok(None),
        // llama.cpp's clients may give a schema here, too.
        Some("json_object") if format["schema"].is_object() => Ok(Some(format["schema"].clone())),
        Some("json_object") => Ok(Some("json".into())),
        Some("json_schema") => Ok(Some(format["json_schema"]["schema"].clone())),
        _ => Err(untranslatable("response_format.type")),
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Line {
    message: Option<Object<Message>>,
    /// Of `/api/generate`.
    response: Text,
    thinking: Text,
    done: Value,
    done_reason: Text,
    prompt_eval_count: Count,
    eval_count: Count,
    logprobs: Value,
    error: Value,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Message {
    content: Text,
    thinking: Text,
    tool_calls: Each<Vec<ToolCall>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ToolCall {
    id: Text,
    function: Object<Function>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Function {
    name: Text,
    arguments: Value,
}

/// The server.
#[derive(Debug)]
pub(super) struct OllamaServer;

impl Server for OllamaServer {
    fn request(
        &self,
        chat: Chat,
        is_streaming: bool,
        dropped: &mut Dropped,
    ) -> Result<(Operation, Chat), RequestError> {
        dropped.side = Side::OllamaServer;
        request(chat, is_streaming, dropped)
    }

    fn embeddings(&self) -> Operation {
        Operation::OllamaEmbed
    }

    fn set_limit(&self, request: &mut Chat, limit: u64) {
        if request.contains_key("options") {
            request["options"]["num_predict"] = limit.into();
        }
    }

    fn record(&self, record: &[u8]) -> Result<Option<Piece>, RequestError> {
        line(record)
    }

    fn whole(&self, body: &[u8]) -> Result<Piece, RequestError> {
        line(body)?
            .filter(|(part, _)| part.finish.is_some())
            .ok_or_else(not_an_answer)
    }

    /// A line is a whole answer, too.
    fn is_whole(&self, body: &[u8]) -> bool {
        serde_json::from_slice::<IgnoredAny>(body).is_ok()
    }
}

/// Reads a line of a stream, or a whole answer.
fn line(line: &[u8]) -> Result<Option<Piece>, RequestError> {
    if line.trim_ascii().is_empty() {
        return Ok(None);
    }
    let line: Line = lenient::parse(line).ok_or_else(not_an_answer)?;
    if reports_failure(&line.error) {
        return Err(failed_in_answer(line.error.to_string().as_bytes()));
    }
    let message = line.message.map_or_else(
        || Message {
            content: line.response,
            thinking: line.thinking,
            ..Message::default()
        },
        |message| message.0,
    );
    let is_done = line.done == true;
    let usage = is_done.then(|| Usage {
        input_tokens: line.prompt_eval_count.0.unwrap_or(0),
        output_tokens: line.eval_count.0.unwrap_or(0),
        cached_input_tokens: 0,
    });
    let part = Part {
        text: message.content.0,
        reasoning: message.thinking.0,
        logprobs: match line.logprobs {
            Value::Array(logprobs) => logprobs,
            _ => Vec::new(),
        },
        finish: is_done.then(|| Finish::from_openai(&line.done_reason.0)),
        usage,
        ..Part::default()
    };
    let calls = message.tool_calls.0.into_iter().filter(ToolCall::is_one);
    Ok(Some((part, calls.map(piece).collect())))
}

impl ToolCall {
    /// A null among the calls is none.
    fn is_one(&self) -> bool {
        let function = &self.function.0;
        !function.name.0.is_empty() || !function.arguments.is_null()
    }
}

/// Each of Ollama's calls is whole; the index that it gives says nothing more.
fn piece(call: ToolCall) -> CallPiece {
    let function = call.function.0;
    CallPiece {
        index: None,
        id: call.id.some(),
        name: Some(function.name.0),
        arguments: match function.arguments {
            Value::Null => "{}".to_owned(),
            Value::String(text) => text,
            arguments => arguments.to_string(),
        },
    }
}
