//! The common form between two protocols: a request is OpenAI's chat completion, since every other maps onto it; an
//! answer is a [`Part`], or a stream of them. So a protocol knows only itself and this.
//!
//! A field that the other protocol cannot express is left out and named, or refused, by the table of
//! [`crate::unsupported`].

use super::error::{Contact, ErrorCode, RequestError};
pub(crate) use super::unsupported::untranslatable;
use super::unsupported::{Dropped, Unsupported};
use super::usage::Usage;
use crate::wire::lenient;
use serde_json::{Map, Value, json};

/// A request between two protocols: a chat completion without model and limit.
pub(crate) type Chat = Map<String, Value>;

/// Leaves `top_logprobs` out of a request that does not ask for `logprobs`: Ollama and the responses API ignore it then,
/// and servers of chat completions refuse it.
pub(crate) fn without_lone_top_logprobs(chat: &mut Chat) {
    if chat.get("logprobs").is_none_or(|logprobs| *logprobs != true) {
        chat.remove("top_logprobs");
    }
}

/// Part of an answer; a whole answer is one part.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Part {
    /// Text of the answer itself.
    pub text: String,
    /// The reasoning before the answer.
    pub reasoning: String,
    /// Tool calls, or parts of them.
    pub tools: Vec<ToolPart>,
    /// As OpenAI's `logprobs.content`.
    pub logprobs: Vec<Value>,
    /// Finish reason, once the answer has ended.
    pub finish: Option<Finish>,
    /// The stop sequence that ended it, where the server says.
    pub stop_sequence: Option<String>,
    /// Usage that the server reports with this part.
    pub usage: Option<Usage>,
}

/// Part of a tool's call. The first of a call has its id and name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ToolPart {
    /// Which call of the answer, from 0.
    pub index: usize,
    /// Identifier of the call, in its first part.
    pub id: Option<String>,
    /// Name of the tool, in the call's first part.
    pub name: Option<String>,
    /// Part of a JSON object's text.
    pub arguments: String,
}

/// Why an answer has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// The model ended its turn, or wrote a stop sequence.
    Stop,
    /// The token limit was reached.
    Length,
    /// The model calls tools.
    Tools,
    /// A content filter ended it.
    Filter,
}

impl Finish {
    /// Reads a `finish_reason`: OpenAI's words, and those of TGI, Mistral, Gemini and Anthropic, which proxies pass on in
    /// OpenAI's field.
    pub(crate) fn from_openai(word: &str) -> Self {
        let word = word.to_ascii_lowercase();
        match word.as_str() {
            "length" | "max_tokens" | "model_length" | "max_output_tokens" | "max_new_tokens" | "max_length"
            | "context_length" => Finish::Length,
            "tool_calls" | "tool_call" | "tool_use" | "function_call" => Finish::Tools,
            "content_filter" | "content-filter" | "safety" | "recitation" | "prohibited_content" | "blocklist" => {
                Finish::Filter
            }
            _ => Finish::Stop,
        }
    }

    pub(crate) fn openai(self) -> &'static str {
        match self {
            Finish::Stop => "stop",
            Finish::Length => "length",
            Finish::Tools => "tool_calls",
            Finish::Filter => "content_filter",
        }
    }
}

impl Part {
    /// Why it ended; an answer with tool calls in it has ended for them, whatever its server says.
    pub(crate) fn finish(&self) -> Finish {
        match self.finish {
            None | Some(Finish::Stop) if !self.tools.is_empty() => Finish::Tools,
            finish => finish.unwrap_or(Finish::Stop),
        }
    }
}

/// Properties of a request and its model that a translation uses.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// Identifier of the request, from which the answer's identifier is made.
    pub request_id: String,
    /// The model's name as the client gave it.
    pub model: String,
    /// Seconds since 1970.
    pub created: i64,
    /// Tokens of prompt and answer that the model has room for.
    pub context: u64,
    /// The estimated tokens of the prompt.
    pub prompt_tokens: u64,
    /// Treatment of hints that the server's protocol cannot express.
    pub unsupported: Unsupported,
    /// The stored response that it goes on from.
    pub previous_response_id: Option<String>,
    /// True if its response is stored.
    pub store: bool,
}

/// Writes answers in a client's protocol.
pub trait Encoder: Send + Sync + std::fmt::Debug {
    /// A whole answer.
    fn whole(&mut self, part: Part) -> Value;

    /// Part of a stream.
    fn part(&mut self, part: Part, out: &mut Vec<u8>);

    /// The end of a stream.
    fn finish(&mut self, out: &mut Vec<u8>);
}

/// An event as server-sent events have it.
pub(crate) fn event(out: &mut Vec<u8>, name: Option<&str>, data: &Value) {
    if let Some(name) = name {
        out.extend_from_slice(b"event: ");
        out.extend_from_slice(name.as_bytes());
        out.push(b'\n');
    }
    out.extend_from_slice(b"data: ");
    // A value of strings, numbers and lists can be written, always.
    let _ = serde_json::to_writer(&mut *out, data);
    out.extend_from_slice(b"\n\n");
}

/// An object's fields, taken one by one; what is left at the end cannot be translated.
#[derive(Debug)]
pub(crate) struct Fields {
    /// Where it stands in the body, such as `options.`.
    within: &'static str,
    map: Map<String, Value>,
}

impl Fields {
    pub(crate) fn read(body: &[u8]) -> Result<Self, RequestError> {
        match lenient::value(body) {
            Some(Value::Object(map)) => Ok(Self { within: "", map }),
            Some(_) => Err(bad("", "must be a JSON object")),
            None => Err(unreadable(body)),
        }
    }

    pub(crate) fn of(within: &'static str, value: Value) -> Result<Self, RequestError> {
        match value {
            Value::Object(map) => Ok(Self { within, map }),
            _ => Err(bad(within, "must be an object")),
        }
    }

    pub(crate) fn from_map(map: Map<String, Value>) -> Self {
        Self { within: "", map }
    }

    /// A field's value, which stays.
    pub(crate) fn peek(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// A field's value, unless it is absent or null.
    pub(crate) fn take(&mut self, key: &str) -> Option<Value> {
        self.map.remove(key).filter(|value| !value.is_null())
    }

    pub(crate) fn text(&mut self, key: &str) -> Result<Option<String>, RequestError> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(bad(&self.path(key), "must be a string")),
        }
    }

    pub(crate) fn list(&mut self, key: &str) -> Result<Vec<Value>, RequestError> {
        match self.take(key) {
            None => Ok(Vec::new()),
            Some(Value::Array(items)) => Ok(items),
            Some(_) => Err(bad(&self.path(key), "must be a list")),
        }
    }

    /// Removes fields that carry nothing about the answer, or were read already.
    pub(crate) fn ignore(&mut self, keys: &[&str]) {
        for key in keys {
            self.map.remove(*key);
        }
    }

    /// Moves fields over as they are, under their own names.
    pub(crate) fn pass(&mut self, keys: &[&str], to: &mut Map<String, Value>) {
        for key in keys {
            self.rename(key, key, to);
        }
    }

    /// Moves a field over under another name.
    pub(crate) fn rename(&mut self, key: &str, name: &str, to: &mut Map<String, Value>) {
        if let Some(value) = self.take(key) {
            to.insert(name.to_owned(), value);
        }
    }

    /// Leaves out whatever else there is, as the table says.
    pub(crate) fn leave_rest(self, dropped: &mut Dropped) -> Result<(), RequestError> {
        let says_something = |value: &Value| !(value.is_null() || *value == json!([]) || *value == json!({}));
        self.map
            .iter()
            .filter(|(_, value)| says_something(value))
            .try_for_each(|(key, _)| dropped.leave_out(&self.path(key)))
    }

    pub(crate) fn path(&self, key: &str) -> String {
        format!("{}{key}", self.within)
    }
}

/// A field that is wrong; the body itself, if it has no name.
pub(crate) fn bad(name: &str, why: &str) -> RequestError {
    match name.trim_end_matches('.') {
        "" => RequestError::new(ErrorCode::BadRequest, format!("the body {why}")),
        name => RequestError::param(ErrorCode::BadRequest, name.to_owned(), format!("`{name}` {why}")),
    }
}

fn unreadable(body: &[u8]) -> RequestError {
    let error = serde_json::from_slice::<Value>(body).err();
    let why = error.map_or_else(String::new, |error| format!(": {error}"));
    bad("", &format!("cannot be read as JSON{why}"))
}

/// The answer of an upstream that is not what its protocol says.
pub(crate) fn not_an_answer() -> RequestError {
    RequestError::new(
        ErrorCode::UpstreamError,
        "the model's server answered with something that is not its protocol's",
    )
    .at(Contact::Answered(200))
}

/// A message of plain text.
pub(crate) fn message(role: &str, content: impl Into<Value>) -> Value {
    json!({"role": role, "content": content.into()})
}

/// Joins parts of which all are text to one text, which every server understands.
pub(crate) fn simplest(parts: Vec<Value>) -> Value {
    let texts: Option<Vec<&str>> = parts
        .iter()
        .map(|part| part["text"].as_str().filter(|_| part["type"] == "text"))
        .collect();
    match texts {
        Some(texts) => texts.join("\n").into(),
        None => parts.into(),
    }
}

/// A function as chat completions have it.
pub(crate) fn function(name: &str, arguments: &str, id: &str) -> Value {
    json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}})
}

/// The arguments of a call as a JSON object; some servers encode them twice. What the model wrote is no object where its
/// answer was cut; a client must not take that for a call without arguments, so it gets the text under a name that no
/// schema has.
pub(crate) fn arguments(text: &str) -> Value {
    match lenient::value(text.as_bytes()) {
        Some(arguments @ Value::Object(_)) => arguments,
        Some(Value::Null) => json!({}),
        Some(Value::String(inner)) => match lenient::value(inner.as_bytes()) {
            Some(arguments @ Value::Object(_)) => arguments,
            _ => json!({"invalid_json": inner}),
        },
        None if text.trim().is_empty() => json!({}),
        _ => json!({"invalid_json": text}),
    }
}

/// The tools of a request: functions, and what can only be left out.
#[derive(Debug, Default)]
pub(crate) struct Offered {
    pub(crate) functions: Vec<Value>,
    /// OpenAI's `tool_choice`.
    pub(crate) choice: Option<Value>,
    /// Path and name of the built-in tools that were left out.
    left_out: Vec<(String, String)>,
}

impl Offered {
    /// Leaves out a built-in tool of another protocol.
    pub(crate) fn leave_out(&mut self, name: &str, path: &str, dropped: &mut Dropped) -> Result<(), RequestError> {
        dropped.leave_out(path)?;
        self.left_out.push((path.to_owned(), name.to_owned()));
        Ok(())
    }

    /// OpenAI's choice of a tool by name.
    pub(crate) fn named(&self, name: &str) -> Result<Value, RequestError> {
        match self.left_out.iter().find(|(_, other)| other == name) {
            Some((path, _)) => Err(untranslatable(path)),
            None => Ok(json!({"type": "function", "function": {"name": name}})),
        }
    }

    /// Writes them into the chat completion.
    ///
    /// # Errors
    /// All that was offered was left out.
    pub(crate) fn write(self, chat: &mut Chat) -> Result<(), RequestError> {
        if self.functions.is_empty() {
            // A choice among no tools says nothing.
            return self
                .left_out
                .first()
                .map_or(Ok(()), |(path, _)| Err(untranslatable(path)));
        }
        chat.insert("tools".to_owned(), self.functions.into());
        chat.extend(self.choice.map(|choice| ("tool_choice".to_owned(), choice)));
        Ok(())
    }
}
