//! A server that speaks OpenAI's chat completions: how it is asked, and what it says.

use crate::Operation;
use crate::calls::CallPiece;
use crate::error::RequestError;
use crate::hub::{Chat, Finish, Part, not_an_answer};
use crate::meter::Usage;
use crate::upstream_error;
use crate::wire::lenient::{self, Count, Each, Object, Text};
use crate::wire::sse::Event;
use serde::Deserialize;
use serde_json::{Value, json};

/// A chunk, or a whole answer.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Completion {
    choices: Each<Vec<Choice>>,
    usage: Value,
    error: Value,
    object: Value,
    message: Value,
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
    logprobs: Object<Logprobs>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Message {
    content: Text,
    /// The thought, under the name that a server prefers; some send both.
    reasoning_content: Text,
    reasoning: Text,
    refusal: Text,
    tool_calls: Each<Vec<ToolCall>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ToolCall {
    index: Count,
    id: Text,
    function: Object<Function>,
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

#[derive(Default, Deserialize)]
#[serde(default)]
struct Tokens {
    prompt_tokens: Count,
    completion_tokens: Count,
    total_tokens: Count,
    prompt_tokens_details: Object<Details>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Details {
    cached_tokens: Count,
}

/// What is asked of it, and where.
pub(crate) fn request(mut chat: Chat, is_streaming: bool) -> (Operation, Chat) {
    let call = if chat.contains_key("prompt") {
        Operation::Completions
    } else {
        Operation::ChatCompletions
    };
    if is_streaming {
        chat.insert("stream".to_owned(), true.into());
        chat.insert("stream_options".to_owned(), json!({"include_usage": true}));
    }
    (call, chat)
}

/// Reads an event of a stream; `None` where it says nothing.
pub(crate) fn event(event: &[u8]) -> Result<Option<(Part, Vec<CallPiece>)>, RequestError> {
    let event = Event::parse(event);
    match event.trimmed() {
        None | Some(b"" | b"[DONE]") => Ok(None),
        Some(data) => read(data).map(Some),
    }
}

/// Reads a whole answer.
pub(crate) fn whole(body: &[u8]) -> Result<(Part, Vec<CallPiece>), RequestError> {
    let answer = read(body)?;
    // An answer has a choice, and so a reason to have ended.
    answer.0.finish.is_some().then_some(answer).ok_or_else(not_an_answer)
}

fn read(data: &[u8]) -> Result<(Part, Vec<CallPiece>), RequestError> {
    let said: Completion = lenient::parse(data).ok_or_else(not_an_answer)?;
    let has_failed = !matches!(&said.error, Value::Null | Value::Bool(false)) && said.error != "";
    if has_failed || said.object == "error" {
        let told = if has_failed { said.error } else { said.message };
        return Err(upstream_error::failed(
            upstream_error::message(told.to_string().as_bytes()).as_deref(),
        ));
    }
    let mut part = Part {
        usage: usage(said.usage),
        ..Part::default()
    };
    let Some(choice) = said.choices.0.into_iter().next() else {
        return Ok((part, Vec::new()));
    };
    let is_whole = choice.delta.is_none();
    let message = choice.delta.or(choice.message).unwrap_or_default().0;
    part.text = message.content.some().unwrap_or(choice.text.0);
    part.text += &message.refusal.0;
    part.thought = message.reasoning_content.some().unwrap_or(message.reasoning.0);
    let calls: Vec<CallPiece> = message.tool_calls.0.into_iter().map(call).collect();
    part.finish = finish(&choice.finish_reason)?;
    let says_something = !part.text.is_empty() || !part.thought.is_empty() || !calls.is_empty();
    if is_whole && says_something && part.finish.is_none() {
        part.finish = Some(Finish::Stop);
    }
    part.stop_sequence = choice.stop_reason.as_str().map(str::to_owned);
    if let Value::Array(logprobs) = choice.logprobs.0.content {
        part.logprobs = logprobs;
    }
    Ok((part, calls))
}

fn finish(reason: &Value) -> Result<Option<Finish>, RequestError> {
    match reason {
        Value::String(word) if word == "error" || word == "abort" => {
            Err(upstream_error::failed(Some("it gave the request up")))
        }
        Value::String(word) if !word.is_empty() => Ok(Some(Finish::from_openai(word))),
        Value::Object(reason) => Ok(Some(Finish::from_openai(
            reason.get("type").and_then(Value::as_str).unwrap_or_default(),
        ))),
        _ => Ok(None),
    }
}

fn call(call: ToolCall) -> CallPiece {
    let function = call.function.0;
    CallPiece {
        index: call.index.0,
        id: call.id.some(),
        name: function.name.some(),
        arguments: match function.arguments {
            Value::String(text) => text,
            Value::Null => String::new(),
            arguments => arguments.to_string(),
        },
    }
}

fn usage(usage: Value) -> Option<Usage> {
    if !usage.is_object() {
        return None;
    }
    let tokens = Tokens::deserialize(usage).ok()?;
    let (input, output, total) = (
        tokens.prompt_tokens.0,
        tokens.completion_tokens.0,
        tokens.total_tokens.0.unwrap_or(0),
    );
    let input_tokens = input.unwrap_or_else(|| total.saturating_sub(output.unwrap_or(0)));
    Some(Usage {
        input_tokens,
        output_tokens: output.unwrap_or_else(|| total.saturating_sub(input_tokens)),
        cached_input_tokens: tokens.prompt_tokens_details.0.cached_tokens.0.unwrap_or(0),
    })
}
