//! A server that speaks OpenAI's chat completions: how it is asked, and what it says.

use crate::Operation;
use crate::hub::{Chat, Finish, Part, ToolPart, not_an_answer};
use crate::meter::OpenAiUsage;
use crate::refuse::{ErrorCode, RequestError};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Said {
    #[serde(default)]
    choices: Vec<Choice>,
    usage: Option<OpenAiUsage>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Choice {
    /// Of a chunk.
    delta: Option<Message>,
    /// Of a whole answer.
    message: Option<Message>,
    /// Of a completion.
    text: Option<String>,
    finish_reason: Option<String>,
    logprobs: Option<Logprobs>,
}

#[derive(Default, Deserialize)]
struct Message {
    content: Option<String>,
    #[serde(alias = "reasoning")]
    reasoning_content: Option<String>,
    refusal: Option<String>,
    tool_calls: Option<Vec<ToolCall>>,
}

#[derive(Deserialize)]
struct ToolCall {
    index: Option<usize>,
    id: Option<String>,
    function: Option<Function>,
}

#[derive(Deserialize)]
struct Function {
    name: Option<String>,
    arguments: Option<String>,
}

#[derive(Deserialize)]
struct Logprobs {
    content: Option<Vec<Value>>,
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
pub(crate) fn event(event: &[u8]) -> Result<Option<Part>, RequestError> {
    let Some(data) = event.strip_prefix(b"data:").map(<[u8]>::trim_ascii) else {
        return Ok(None);
    };
    if data == b"[DONE]" {
        return Ok(None);
    }
    part(data).map(Some)
}

/// Reads a whole answer.
pub(crate) fn whole(body: &[u8]) -> Result<Part, RequestError> {
    let part = part(body)?;
    // An answer has a choice, and so a reason to have ended.
    part.finish.is_some().then_some(part).ok_or_else(not_an_answer)
}

fn part(data: &[u8]) -> Result<Part, RequestError> {
    let said: Said = serde_json::from_slice(data).map_err(|_| not_an_answer())?;
    if let Some(error) = said.error {
        let why = error["message"]
            .as_str()
            .or(error.as_str())
            .unwrap_or("it does not say why");
        let why: String = why.chars().take(500).collect();
        return Err(RequestError::new(
            ErrorCode::UpstreamError,
            format!("the model's server failed: {why}"),
        ));
    }
    let mut part = Part {
        usage: said.usage.map(Into::into),
        ..Part::default()
    };
    let Some(choice) = said.choices.into_iter().next() else {
        return Ok(part);
    };
    let is_whole = choice.delta.is_none() && choice.message.is_some();
    let message = choice.delta.or(choice.message).unwrap_or_default();
    part.text = message.content.or(choice.text).unwrap_or_default();
    part.text += &message.refusal.unwrap_or_default();
    part.thought = message.reasoning_content.unwrap_or_default();
    part.finish = choice.finish_reason.as_deref().map(Finish::from_openai);
    if is_whole {
        part.finish = part.finish.or(Some(Finish::Stop));
    }
    part.logprobs = choice.logprobs.and_then(|all| all.content).unwrap_or_default();
    let calls = message.tool_calls.unwrap_or_default().into_iter().enumerate();
    part.tools = calls
        .map(|(at, call)| {
            let function = call.function.unwrap_or(Function {
                name: None,
                arguments: None,
            });
            ToolPart {
                index: call.index.unwrap_or(at),
                id: call.id,
                name: function.name,
                arguments: function.arguments.unwrap_or_default(),
            }
        })
        .collect();
    Ok(part)
}
