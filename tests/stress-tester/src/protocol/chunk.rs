//! Chunks of streams, by protocol: whether part of an answer is in one, and the server's token counts.
//! Strings stay where they are in the received bytes; only their emptiness matters.

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// A chunk of OpenAI's chat completions or completions.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct OpenAiChunk<'a> {
    #[serde(borrow)]
    pub(super) choices: Option<Vec<Choice<'a>>>,
    pub(super) usage: Option<Usage>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    /// `error` in the error events of older vLLM versions.
    #[serde(borrow)]
    object: Option<&'a RawValue>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Choice<'a> {
    #[serde(borrow)]
    delta: Option<Delta<'a>>,
    #[serde(borrow)]
    text: Option<&'a RawValue>,
    #[serde(borrow)]
    finish_reason: Option<&'a RawValue>,
}

/// The part of a message that a chunk adds; a whole message has the same fields.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Delta<'a> {
    #[serde(borrow)]
    pub(super) content: Option<&'a RawValue>,
    /// vLLM, DeepSeek, llama.cpp.
    #[serde(borrow)]
    reasoning_content: Option<&'a RawValue>,
    /// vLLM since 0.12, OpenRouter.
    #[serde(borrow)]
    reasoning: Option<&'a RawValue>,
    /// Ollama.
    #[serde(borrow)]
    thinking: Option<&'a RawValue>,
    /// OpenRouter.
    #[serde(borrow)]
    reasoning_details: Option<&'a RawValue>,
    #[serde(borrow)]
    audio: Option<&'a RawValue>,
    #[serde(borrow)]
    refusal: Option<&'a RawValue>,
    #[serde(borrow)]
    tool_calls: Option<Vec<ToolCall<'a>>>,
    #[serde(borrow)]
    function_call: Option<Function<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ToolCall<'a> {
    #[serde(borrow)]
    function: Option<Function<'a>>,
    #[serde(borrow)]
    custom: Option<Function<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Function<'a> {
    #[serde(borrow)]
    name: Option<&'a RawValue>,
    #[serde(borrow)]
    arguments: Option<&'a RawValue>,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
}

/// Token counts, in the names of OpenAI and of Anthropic; some servers send both.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
pub(super) struct Usage {
    #[serde(deserialize_with = "count")]
    prompt_tokens: Option<u64>,
    #[serde(deserialize_with = "count")]
    completion_tokens: Option<u64>,
    #[serde(deserialize_with = "count")]
    input_tokens: Option<u64>,
    #[serde(deserialize_with = "count")]
    output_tokens: Option<u64>,
    /// Anthropic counts prompt tokens that its cache served or stored apart from the others.
    #[serde(deserialize_with = "count")]
    cache_read_input_tokens: Option<u64>,
    #[serde(deserialize_with = "count")]
    cache_creation_input_tokens: Option<u64>,
}

/// A line of Ollama's `/api/chat` or `/api/generate`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct OllamaLine<'a> {
    #[serde(borrow)]
    pub(super) message: Option<Delta<'a>>,
    #[serde(borrow)]
    pub(super) response: Option<&'a RawValue>,
    #[serde(borrow)]
    thinking: Option<&'a RawValue>,
    #[serde(borrow)]
    done: Option<&'a RawValue>,
    #[serde(deserialize_with = "count")]
    pub(super) prompt_eval_count: Option<u64>,
    #[serde(deserialize_with = "count")]
    pub(super) eval_count: Option<u64>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

/// An event of Anthropic's messages.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct AnthropicEvent<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) delta: Option<Block<'a>>,
    #[serde(borrow)]
    content_block: Option<Block<'a>>,
    pub(super) message: Option<Message>,
    pub(super) usage: Option<Usage>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Message {
    pub(super) usage: Option<Usage>,
}

/// A content block as it begins, or what is added to it. A signature is no part of the answer.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Block<'a> {
    #[serde(borrow)]
    pub(super) text: Option<&'a RawValue>,
    #[serde(borrow)]
    thinking: Option<&'a RawValue>,
    #[serde(borrow)]
    partial_json: Option<&'a RawValue>,
    /// The tool of a `tool_use` block.
    #[serde(borrow)]
    name: Option<&'a RawValue>,
}

/// Returns whether a value has something in it: text, a list with parts, an object with fields.
fn has_content(value: Option<&RawValue>) -> bool {
    value.is_some_and(|value| !matches!(value.get(), "\"\"" | "[]" | "{}"))
}

/// Returns whether a value of `error` reports one: some servers send an empty one with every chunk.
pub(super) fn is_error(value: Option<&RawValue>) -> bool {
    has_content(value) && value.is_some_and(|value| value.get() != "false")
}

/// Returns whether a value is this string, which has nothing to escape.
fn is(value: Option<&RawValue>, text: &str) -> bool {
    let unquoted = |value: &'_ RawValue| Some(value.get().strip_prefix('"')?.strip_suffix('"')? == text);
    value.and_then(unquoted).unwrap_or(false)
}

/// Reads a count. Servers in JavaScript or Python may send `3.0` or `"3"`; what is no count is absent.
pub(super) fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let value = <&RawValue>::deserialize(deserializer)?.get().trim_matches('"');
    let whole = value.strip_suffix(".0").unwrap_or(value);
    Ok(whole.parse().ok())
}

impl OpenAiChunk<'_> {
    pub(super) fn is_error(&self) -> bool {
        is_error(self.error) || is(self.object, "error")
    }
}

impl Choice<'_> {
    /// Returns whether part of an answer is in it.
    pub(super) fn has_content(&self) -> bool {
        has_content(self.text) || self.delta.as_ref().is_some_and(Delta::has_content)
    }

    pub(super) fn is_last(&self) -> bool {
        has_content(self.finish_reason)
    }

    /// The JSON string of the text that it adds to the answer.
    pub(super) fn text(&self) -> Option<&RawValue> {
        self.text.or(self.delta.as_ref().and_then(|delta| delta.content))
    }
}

impl Delta<'_> {
    /// Returns whether it has text, reasoning, a refusal, or the name or an argument of a tool call.
    pub(super) fn has_content(&self) -> bool {
        let texts = [
            self.content,
            self.reasoning_content,
            self.reasoning,
            self.thinking,
            self.reasoning_details,
            self.audio,
            self.refusal,
        ];
        let calls = self.tool_calls.as_deref().unwrap_or_default();
        texts.into_iter().any(has_content)
            || calls.iter().any(ToolCall::has_content)
            || self.function_call.as_ref().is_some_and(Function::has_content)
    }
}

impl ToolCall<'_> {
    fn has_content(&self) -> bool {
        let mut functions = self.function.iter().chain(&self.custom);
        functions.any(Function::has_content)
    }
}

impl Function<'_> {
    fn has_content(&self) -> bool {
        [self.name, self.arguments, self.input].into_iter().any(has_content)
    }
}

impl OllamaLine<'_> {
    pub(super) fn is_error(&self) -> bool {
        is_error(self.error)
    }

    pub(super) fn is_last(&self) -> bool {
        self.done.is_some_and(|done| done.get() == "true")
    }

    pub(super) fn has_content(&self) -> bool {
        let message = self.message.as_ref().is_some_and(Delta::has_content);
        message || has_content(self.response) || has_content(self.thinking)
    }

    pub(super) fn text(&self) -> Option<&RawValue> {
        self.response
            .or(self.message.as_ref().and_then(|message| message.content))
    }
}

impl AnthropicEvent<'_> {
    pub(super) fn is_error(&self) -> bool {
        is(self.kind, "error") || is_error(self.error)
    }

    pub(super) fn is_last(&self) -> bool {
        is(self.kind, "message_stop")
    }

    pub(super) fn has_content(&self) -> bool {
        let mut blocks = self.delta.iter().chain(&self.content_block);
        blocks.any(|block| {
            let parts = [block.text, block.thinking, block.partial_json, block.name];
            parts.into_iter().any(has_content)
        })
    }
}

impl Usage {
    pub(super) fn input(&self) -> Option<u64> {
        let cached = self.cache_read_input_tokens.unwrap_or(0) + self.cache_creation_input_tokens.unwrap_or(0);
        self.prompt_tokens.or(self.input_tokens.map(|tokens| tokens + cached))
    }

    pub(super) fn output(&self) -> Option<u64> {
        self.completion_tokens.or(self.output_tokens)
    }
}
