//! The parts of an answer that its measurement needs, as borrowed views that serde fills in one pass and without
//! allocating: texts are measured where they stand, everything else is skipped.

use super::usage::Reported;
use crate::tokens::TextSize;
use crate::wire::lenient::{Count, Each, Fold, Object};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::marker::PhantomData;

/// What an event, or a whole answer, says.
#[derive(Debug, Default)]
pub(super) struct Seen<'a> {
    /// Text, thoughts and calls of tools.
    pub(super) size: TextSize,
    pub(super) reported: Reported,
    /// It is about answers, not only about usage.
    pub(super) has_answers: bool,
    /// The answers (OpenAI's choices) that it belongs to, and those that it ends, as bits.
    pub(super) begun: u64,
    pub(super) ended: u64,
    /// It is the last of its stream.
    pub(super) is_last: bool,
    /// The answer ended by a failure, which may be told as JSON.
    pub(super) failure: Option<Option<&'a str>>,
    /// The size of an answer that the last event repeats.
    pub(super) repeated: TextSize,
}

/// A value's JSON; empty where it is absent.
#[derive(Debug, Default, Clone, Copy)]
struct Json<'a>(&'a str);

impl<'de: 'a, 'a> Deserialize<'de> for Json<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&'de RawValue>::deserialize(deserializer).map(|raw| Json(raw.get()))
    }
}

impl<'a> Json<'a> {
    /// The inside of a string; `None` of anything else.
    fn string(self) -> Option<&'a str> {
        self.0.strip_prefix('"')?.strip_suffix('"')
    }

    fn is(self, word: &str) -> bool {
        self.string() == Some(word)
    }

    /// The value, unless it says nothing.
    fn said(self) -> Option<&'a str> {
        Some(self.0).filter(|json| !matches!(*json, "" | "null" | "false" | "\"\"" | "{}" | "[]"))
    }

    /// The size of a string's text; of a list or object, all of its JSON.
    fn size(self) -> TextSize {
        match self.string() {
            Some("") => TextSize::default(),
            Some(text) => TextSize::of_escaped(text),
            None => self
                .said()
                .filter(|json| json.starts_with(['{', '[']))
                .map_or(TextSize::default(), TextSize::of),
        }
    }
}

/// The size of a string's text, or of any other value's JSON.
#[derive(Debug, Default, Clone, Copy)]
struct Size(TextSize);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Json::deserialize(deserializer).map(|json| Size(json.size()))
    }
}

/// The size of a text that may be a list of parts, of which only the texts count.
#[derive(Debug, Clone, Copy)]
struct Content<T>(TextSize, PhantomData<T>);

impl<T> Default for Content<T> {
    fn default() -> Self {
        Content(TextSize::default(), PhantomData)
    }
}

impl<'de, T> Deserialize<'de> for Content<T>
where
    T: Fold + Into<TextSize>,
    T::Item: DeserializeOwned,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = Json::deserialize(deserializer)?;
        let parts = json.0.starts_with('[').then(|| serde_json::from_str::<Each<T>>(json.0));
        Ok(match parts {
            Some(Ok(parts)) => Content(parts.0.into(), PhantomData),
            _ => Content(json.size(), PhantomData),
        })
    }
}

/// A part of a content, or an item of an output.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Part {
    text: Size,
    refusal: Size,
    thinking: Size,
    /// Of a call of a tool.
    name: Size,
    input: Size,
    arguments: Size,
    content: Content<Leaves>,
    summary: Content<Leaves>,
}

/// A part within an item.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Leaf {
    text: Size,
    refusal: Size,
}

#[derive(Debug, Default, Clone, Copy)]
struct Leaves(TextSize);

impl Fold for Leaves {
    type Item = Leaf;

    fn add(&mut self, leaf: Leaf) {
        self.0 += leaf.text.0;
        self.0 += leaf.refusal.0;
    }
}

impl From<Leaves> for TextSize {
    fn from(leaves: Leaves) -> Self {
        leaves.0
    }
}

impl From<Parts> for TextSize {
    fn from(parts: Parts) -> Self {
        parts.0
    }
}

#[derive(Debug, Default, Clone, Copy)]
struct Parts(TextSize);

impl Fold for Parts {
    type Item = Part;

    fn add(&mut self, part: Part) {
        for size in [
            part.text,
            part.refusal,
            part.thinking,
            part.name,
            part.input,
            part.arguments,
        ] {
            self.0 += size.0;
        }
        self.0 += part.content.0;
        self.0 += part.summary.0;
    }
}

/// Why an answer ended.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// Null, empty or absent: it has not.
    #[default]
    None,
    Clean,
    Failed,
}

impl<'de> Deserialize<'de> for Ending {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = Json::deserialize(deserializer)?;
        Ok(match json.string() {
            // vLLM and SGLang, when a request is given up.
            Some("error" | "abort") => Ending::Failed,
            Some("") => Ending::None,
            Some(_) => Ending::Clean,
            // SGLang's own API has an object here.
            None if json.0.starts_with('{') => Ending::Clean,
            None => Ending::None,
        })
    }
}

/// A chat completion or completion, whole or a chunk.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Completion<'a> {
    #[serde(borrow)]
    object: Json<'a>,
    choices: Each<Choices>,
    usage: Object<OpenAiUsage>,
    #[serde(borrow)]
    error: Json<'a>,
    #[serde(borrow)]
    message: Json<'a>,
}

#[derive(Default)]
struct Choices {
    count: u32,
    size: TextSize,
    begun: u64,
    ended: u64,
    has_failed: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Choice {
    index: Count,
    delta: Object<Message>,
    message: Object<Message>,
    text: Size,
    finish_reason: Ending,
}

impl Fold for Choices {
    type Item = Choice;

    fn add(&mut self, choice: Choice) {
        let index = choice.index.0.unwrap_or(u64::from(self.count)).min(63);
        self.count += 1;
        self.begun |= 1 << index;
        self.ended |= u64::from(choice.finish_reason != Ending::None) << index;
        self.has_failed |= choice.finish_reason == Ending::Failed;
        for size in [choice.delta.0.size(), choice.message.0.size(), choice.text.0] {
            self.size += size;
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Message {
    content: Content<Parts>,
    reasoning_content: Size,
    /// The same under its other name; some servers send both.
    reasoning: Size,
    thinking: Size,
    refusal: Size,
    tool_calls: Each<Calls>,
    function_call: Object<Function>,
}

impl Message {
    fn size(&self) -> TextSize {
        let thoughts = [self.reasoning_content.0, self.reasoning.0, self.thinking.0];
        let mut size = thoughts.into_iter().max_by_key(|size| size.bytes).unwrap_or_default();
        for part in [
            self.content.0,
            self.refusal.0,
            self.tool_calls.0.0,
            self.function_call.0.size(),
        ] {
            size += part;
        }
        size
    }
}

#[derive(Default)]
struct Calls(TextSize);

#[derive(Default, Deserialize)]
#[serde(default)]
struct Call {
    function: Object<Function>,
}

#[derive(Default, Clone, Copy, Deserialize)]
#[serde(default)]
struct Function {
    name: Size,
    arguments: Size,
}

impl Function {
    fn size(self) -> TextSize {
        let mut size = self.name.0;
        size += self.arguments.0;
        size
    }
}

impl Fold for Calls {
    type Item = Call;

    fn add(&mut self, call: Call) {
        self.0 += call.function.0.size();
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct OpenAiUsage {
    prompt_tokens: Count,
    completion_tokens: Count,
    total_tokens: Count,
    prompt_tokens_details: Object<Details>,
    /// The names that responses use, and some servers of embeddings.
    input_tokens: Count,
    output_tokens: Count,
    input_tokens_details: Object<Details>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Details {
    cached_tokens: Count,
}

impl OpenAiUsage {
    fn reported(&self) -> Reported {
        let cached = self.prompt_tokens_details.0.cached_tokens.0;
        Reported {
            input: self.prompt_tokens.0.or(self.input_tokens.0),
            output: self.completion_tokens.0.or(self.output_tokens.0),
            total: self.total_tokens.0,
            cached: cached.or(self.input_tokens_details.0.cached_tokens.0),
            is_nothing: false,
        }
    }
}

/// Reads OpenAI's completions, chat completions, embeddings and what is like them.
pub(super) fn openai(data: &str) -> Option<Seen<'_>> {
    let said: Completion<'_> = serde_json::from_str(data).ok()?;
    let choices = said.choices.0;
    let told = said.error.said();
    // vLLM before 0.10 has its errors' fields at the top.
    let failure = match told {
        None if said.object.is("error") => Some(said.message.said()),
        None => choices.has_failed.then_some(None),
        told => Some(told),
    };
    Some(Seen {
        size: choices.size,
        reported: said.usage.0.reported(),
        has_answers: choices.count > 0,
        begun: choices.begun,
        ended: choices.ended,
        failure,
        ..Seen::default()
    })
}

/// A line of Ollama's, which may be the whole answer.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Line<'a> {
    message: Object<Message>,
    response: Size,
    thinking: Size,
    #[serde(borrow)]
    done: Json<'a>,
    #[serde(borrow)]
    done_reason: Json<'a>,
    prompt_eval_count: Count,
    eval_count: Count,
    #[serde(borrow)]
    error: Json<'a>,
}

/// Reads a line of Ollama's.
pub(super) fn ollama(data: &str) -> Option<Seen<'_>> {
    let line: Line<'_> = serde_json::from_str(data).ok()?;
    let mut size = line.message.0.size();
    size += line.response.0;
    size += line.thinking.0;
    let is_last = line.done.0 == "true";
    Some(Seen {
        size,
        reported: Reported {
            input: line.prompt_eval_count.0,
            output: line.eval_count.0,
            is_nothing: is_last && (line.done_reason.is("load") || line.done_reason.is("unload")),
            ..Reported::default()
        },
        has_answers: true,
        is_last,
        failure: line.error.said().map(Some),
        ..Seen::default()
    })
}

/// An event of Anthropic's messages, or a whole message.
#[derive(Default, Deserialize)]
#[serde(default)]
struct MessageEvent<'a> {
    #[serde(borrow, rename = "type")]
    kind: Json<'a>,
    message: Object<MessageStart>,
    usage: Object<AnthropicUsage>,
    delta: Object<Delta>,
    content_block: Object<Part>,
    content: Each<Parts>,
    #[serde(borrow)]
    error: Json<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct MessageStart {
    usage: Object<AnthropicUsage>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Delta {
    text: Size,
    thinking: Size,
    partial_json: Size,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct AnthropicUsage {
    input_tokens: Count,
    cache_creation_input_tokens: Count,
    cache_read_input_tokens: Count,
    output_tokens: Count,
}

impl AnthropicUsage {
    /// What came from a cache is counted apart there.
    fn reported(&self) -> Reported {
        let cached = self.cache_read_input_tokens.0;
        let parts = [self.input_tokens.0, cached, self.cache_creation_input_tokens.0];
        let has_input = parts.iter().any(Option::is_some);
        let input = parts.into_iter().flatten().fold(0, u64::saturating_add);
        Reported {
            input: has_input.then_some(input),
            output: self.output_tokens.0,
            cached,
            ..Reported::default()
        }
    }
}

/// Reads an event of Anthropic's messages, or a whole message.
pub(super) fn anthropic(data: &str) -> Option<Seen<'_>> {
    let event: MessageEvent<'_> = serde_json::from_str(data).ok()?;
    // The output at the start is a placeholder.
    let mut reported = Reported {
        output: None,
        ..event.message.0.usage.0.reported()
    };
    reported.update(event.usage.0.reported());
    let mut parts = event.content.0;
    parts.add(event.content_block.0);
    for size in [event.delta.0.text, event.delta.0.thinking, event.delta.0.partial_json] {
        parts.0 += size.0;
    }
    let has_failed = event.kind.is("error") || event.error.said().is_some();
    Some(Seen {
        size: parts.0,
        reported,
        has_answers: true,
        is_last: event.kind.is("message_stop"),
        failure: has_failed.then(|| event.error.said()),
        ..Seen::default()
    })
}

/// An event of a response's stream, or a whole response.
#[derive(Default, Deserialize)]
#[serde(default)]
struct ResponseEvent<'a> {
    #[serde(borrow, rename = "type")]
    kind: Json<'a>,
    delta: Size,
    #[serde(borrow)]
    response: Object<Response<'a>>,
    #[serde(borrow)]
    message: Json<'a>,
    usage: Object<OpenAiUsage>,
    output: Each<Parts>,
    #[serde(borrow)]
    status: Json<'a>,
    #[serde(borrow)]
    error: Json<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Response<'a> {
    usage: Object<OpenAiUsage>,
    output: Each<Parts>,
    #[serde(borrow)]
    error: Json<'a>,
}

/// Reads an event of a response's stream, or a whole response.
pub(super) fn responses(data: &str) -> Option<Seen<'_>> {
    let event: ResponseEvent<'_> = serde_json::from_str(data).ok()?;
    let kind = event.kind.string().unwrap_or_default();
    let mut reported = event.response.0.usage.0.reported();
    reported.update(event.usage.0.reported());
    let told = event.error.said().or(event.response.0.error.said());
    let has_failed = matches!(kind, "error" | "response.failed" | "response.cancelled")
        || event.status.is("failed")
        || told.is_some();
    let mut size = event.output.0.0;
    // Audio in base64 is no text.
    if kind.ends_with(".delta") && !kind.contains("audio.") {
        size += event.delta.0;
    }
    Some(Seen {
        size,
        reported,
        has_answers: true,
        is_last: matches!(kind, "response.completed" | "response.incomplete"),
        failure: has_failed.then(|| told.or(event.message.said())),
        repeated: event.response.0.output.0.0,
        ..Seen::default()
    })
}
