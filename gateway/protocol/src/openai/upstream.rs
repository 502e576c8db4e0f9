//! A server that speaks OpenAI's chat completions: how it is asked, and what it says.

use super::view::{is_failure, view};
use crate::Operation;
use crate::calls::CallPiece;
use crate::dialect::{Piece, Server};
use crate::error::{RequestError, failed_in_answer, reports_failure};
use crate::hub::{Chat, Finish, Part, not_an_answer};
use crate::unsupported::Dropped;
use crate::usage::Usage;
use crate::wire::is_json;
use crate::wire::lenient::{self, Count, Each, Object, Text};
use crate::wire::sse::Event;
use serde::Deserialize;
use serde_json::{Value, json};

/// A chunk, or a whole answer.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Completion {
    choices: Each<Vec<Choice>>,
    error: Value,
    object: Value,
    message: Value,
    /// Of an error that has no `error`.
    detail: Value,
    msg: Value,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Choice {
    /// Of a chunk.
    delta: Option<Object<Message>>,
    /// Of a whole answer.
    message: Option<Object<Message>>,
    /// Of a completion.
    text: Text,
    finish_reason: Value,
    /// vLLM's: the stop sequence, or the token, that was met.
    stop_reason: Value,
    /// SGLang's name for the same.
    matched_stop: Value,
    logprobs: Object<Logprobs>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Message {
    content: Value,
    /// The reasoning, under the name that a server prefers; some send it under several.
    reasoning_content: Text,
    reasoning: Text,
    thinking: Text,
    reasoning_text: Text,
    reasoning_details: Text,
    refusal: Text,
    tool_calls: Each<Vec<ToolCall>>,
    /// The older form of a single call.
    function_call: Option<Object<Function>>,
}

impl Message {
    /// The reasoning that stands beside the content.
    fn reasoning(&mut self) -> String {
        let names = [
            &mut self.reasoning_content,
            &mut self.reasoning,
            &mut self.thinking,
            &mut self.reasoning_text,
            &mut self.reasoning_details,
        ];
        let given = names.into_iter().find(|text| !text.0.is_empty());
        given.map(|text| std::mem::take(&mut text.0)).unwrap_or_default()
    }

    fn calls(&mut self) -> Vec<CallPiece> {
        let calls = std::mem::take(&mut self.tool_calls.0).into_iter().map(call);
        // A null among the calls is none.
        let calls: Vec<CallPiece> = calls.filter(|piece| *piece != CallPiece::default()).collect();
        match self.function_call.take() {
            Some(function) if calls.is_empty() => vec![call(ToolCall {
                function,
                ..ToolCall::default()
            })],
            _ => calls,
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ToolCall {
    index: Count,
    id: Text,
    function: Object<Function>,
    /// Of servers that leave `function` out.
    name: Text,
    arguments: Value,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Function {
    name: Text,
    arguments: Value,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Logprobs {
    content: Value,
}

/// The server.
#[derive(Debug)]
pub(super) struct OpenAiServer;

impl Server for OpenAiServer {
    fn request(&self, mut chat: Chat, is_streaming: bool, _: &mut Dropped) -> Result<(Operation, Chat), RequestError> {
        let operation = if chat.contains_key("prompt") {
            Operation::Completions
        } else {
            Operation::ChatCompletions
        };
        if is_streaming {
            chat.insert("stream".to_owned(), true.into());
            chat.insert("stream_options".to_owned(), json!({"include_usage": true}));
        }
        Ok((operation, chat))
    }

    fn embeddings(&self) -> Operation {
        Operation::Embeddings
    }

    fn set_limit(&self, request: &mut Chat, limit: u64) {
        request.insert("max_tokens".to_owned(), limit.into());
    }

    fn record(&self, record: &[u8]) -> Result<Option<Piece>, RequestError> {
        let event = Event::parse(record);
        match event.trimmed() {
            None | Some(b"" | b"[DONE]") => Ok(None),
            // What is no object only keeps the connection open, or is nothing that could be translated.
            Some(data) if !data.starts_with(b"{") => Ok(None),
            Some(data) => read(data).map(Some),
        }
    }

    fn whole(&self, body: &[u8]) -> Result<Piece, RequestError> {
        let answer = read(body)?;
        // An answer has a choice, and so a reason to have ended.
        answer.0.finish.is_some().then_some(answer).ok_or_else(not_an_answer)
    }

    fn is_whole(&self, body: &[u8]) -> bool {
        is_json(body)
    }
}

fn read(data: &[u8]) -> Result<Piece, RequestError> {
    let answer: Completion = lenient::parse(data).ok_or_else(not_an_answer)?;
    if reports_failure(&answer.error) {
        return Err(failed_in_answer(answer.error.to_string().as_bytes()));
    }
    if answer.object == "error" {
        return Err(failed_in_answer(data));
    }
    let Some(choice) = answer.choices.0.into_iter().next() else {
        let says_why = [&answer.detail, &answer.msg].into_iter().any(reports_failure);
        let usage = usage(data);
        if says_why && usage.is_none() {
            return Err(failed_in_answer(data));
        }
        let part = Part {
            usage,
            ..Part::default()
        };
        return Ok((part, Vec::new()));
    };
    let mut part = Part {
        usage: usage(data),
        ..Part::default()
    };
    let is_whole = choice.delta.is_none();
    let mut message = choice.delta.or(choice.message).unwrap_or_default().0;
    (part.text, part.reasoning) = content(message.content.take());
    if part.text.is_empty() {
        part.text = choice.text.0;
    }
    part.text += &message.refusal.0;
    part.reasoning += &message.reasoning();
    let calls = message.calls();
    part.finish = finish(&choice.finish_reason)?;
    let says_something = !part.text.is_empty() || !part.reasoning.is_empty() || !calls.is_empty();
    if is_whole && says_something && part.finish.is_none() {
        part.finish = Some(Finish::Stop);
    }
    let stopped_by = choice.stop_reason.as_str().or(choice.matched_stop.as_str());
    part.stop_sequence = stopped_by.map(str::to_owned);
    if let Value::Array(logprobs) = choice.logprobs.0.content {
        part.logprobs = logprobs;
    }
    Ok((part, calls))
}

/// The figures of usage in an event or a whole answer, under whatever names and in whatever place. Most events have none,
/// and zeros say nothing.
fn usage(data: &[u8]) -> Option<Usage> {
    let data = data.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(data);
    let may_have = |key: &[u8]| memchr::memmem::find(data, key).is_some();
    let seen = (may_have(b"\"usage\"") || may_have(b"\"timings\"")).then(|| view(data))?;
    seen?.reported.usage().filter(|usage| *usage != Usage::default())
}

/// Text and reasoning of a content, which may be a list of parts: Mistral's reasoning is one of them.
fn content(content: Value) -> (String, String) {
    let text = |value: Value| Text::deserialize(value).unwrap_or_default().0;
    let Value::Array(parts) = content else {
        return (text(content), String::new());
    };
    let (mut all, mut reasoning) = (String::new(), String::new());
    for part in parts {
        let is_reasoning = part["type"] == "thinking" || part["type"] == "reasoning";
        let to = if is_reasoning { &mut reasoning } else { &mut all };
        *to += &text(part);
    }
    (all, reasoning)
}

fn finish(reason: &Value) -> Result<Option<Finish>, RequestError> {
    // SGLang's own API has an object here.
    let word = reason.as_str().or_else(|| reason["type"].as_str()).unwrap_or_default();
    match word {
        "" => Ok(None),
        word if is_failure(word) => Err(failed_in_answer(b"it gave the request up")),
        word => Ok(Some(Finish::from_openai(word))),
    }
}

fn call(call: ToolCall) -> CallPiece {
    let function = call.function.0;
    let arguments = if function.arguments.is_null() {
        call.arguments
    } else {
        function.arguments
    };
    CallPiece {
        index: call.index.0,
        id: call.id.some(),
        name: function.name.some().or(call.name.some()),
        arguments: match arguments {
            Value::String(text) => text,
            Value::Null => String::new(),
            arguments => arguments.to_string(),
        },
    }
}
