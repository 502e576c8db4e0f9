//! A client of OpenAI's chat completions or completions whose model's server speaks another protocol.

use crate::error::RequestError;
use crate::hub::{About, Chat, Encoder, Fields, Finish, Part, bad, event, function};
use crate::unsupported::Dropped;
use crate::usage::Usage;
use serde_json::{Map, Value, json};

/// Known fields of a chat completion; others pass if the upstream's side knows them.
const CHAT: &[&str] = &[
    "messages",
    "temperature",
    "top_p",
    "stop",
    "seed",
    "frequency_penalty",
    "presence_penalty",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "response_format",
    "logprobs",
    "top_logprobs",
    "logit_bias",
    "reasoning_effort",
    // Known to the servers themselves, and to their clients.
    "top_k",
    "min_p",
    "typical_p",
    "repeat_penalty",
    "repetition_penalty",
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
    "structured_outputs",
    "grammar",
    "options",
    "keep_alive",
    "think",
    "chat_template_kwargs",
    "prompt",
    "suffix",
];

/// Reads a request. What is meant for OpenAI's own accounting says nothing to another server.
pub(crate) fn request(body: &[u8], dropped: &mut Dropped) -> Result<Chat, RequestError> {
    let mut fields = Fields::read(body)?;
    let mut chat = Map::new();
    fields.pass(CHAT, &mut chat);
    for (key, only) in [
        ("n", json!(1)),
        ("best_of", json!(1)),
        ("echo", json!(false)),
        ("modalities", json!(["text"])),
    ] {
        if fields.take(key).is_some_and(|value| value != only) {
            return Err(bad(key, &format!("can only be {only} with this model's server")));
        }
    }
    fields.leave_rest(dropped)?;
    Ok(chat)
}

/// Writes chat completions.
#[derive(Debug)]
pub(crate) struct ChatEncoder {
    about: About,
    wants_usage: bool,
    has_begun: bool,
    finish: Option<&'static str>,
    usage: Option<Usage>,
}

impl ChatEncoder {
    pub(crate) fn new(about: About, wants_usage: bool) -> Self {
        Self {
            about,
            wants_usage,
            has_begun: false,
            finish: None,
            usage: None,
        }
    }

    fn frame(&self, object: &str, choices: &Value) -> Value {
        json!({
            "id": format!("chatcmpl-{}", self.about.request_id),
            "object": object,
            "created": self.about.created,
            "model": self.about.model,
            "choices": choices,
        })
    }

    fn chunk(&self, delta: &Value, logprobs: &Value, finish: Option<&str>, out: &mut Vec<u8>) {
        let choice = json!([{"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish}]);
        event(out, None, &self.frame("chat.completion.chunk", &choice));
    }
}

impl Encoder for ChatEncoder {
    fn whole(&mut self, part: Part) -> Value {
        let finish = part.finish().openai();
        let calls: Vec<Value> = part
            .tools
            .iter()
            .map(|tool| {
                function(
                    tool.name.as_deref().unwrap_or_default(),
                    &tool.arguments,
                    tool.id.as_deref().unwrap_or_default(),
                )
            })
            .collect();
        let mut message = json!({"role": "assistant", "content": part.text, "refusal": null});
        if !calls.is_empty() {
            message["tool_calls"] = calls.into();
            if part.text.is_empty() {
                message["content"] = Value::Null;
            }
        }
        if !part.reasoning.is_empty() {
            message["reasoning_content"] = part.reasoning.into();
        }
        let choice =
            json!([{"index": 0, "message": message, "logprobs": logprobs(&part.logprobs), "finish_reason": finish}]);
        let mut whole = self.frame("chat.completion", &choice);
        whole["usage"] = usage(part.usage.unwrap_or_default());
        whole
    }

    fn part(&mut self, part: Part, out: &mut Vec<u8>) {
        let mut delta = Map::new();
        if !self.has_begun {
            self.has_begun = true;
            delta.insert("role".to_owned(), "assistant".into());
        }
        if !part.text.is_empty() {
            delta.insert("content".to_owned(), part.text.as_str().into());
        }
        if !part.reasoning.is_empty() {
            delta.insert("reasoning_content".to_owned(), part.reasoning.as_str().into());
        }
        let calls = part.tools.iter().map(|tool| {
            let mut call = json!({"index": tool.index, "function": {"arguments": tool.arguments}});
            if let Some(name) = &tool.name {
                call["id"] = tool.id.clone().unwrap_or_default().into();
                call["type"] = "function".into();
                call["function"]["name"] = name.as_str().into();
            }
            call
        });
        let calls: Vec<Value> = calls.collect();
        if !calls.is_empty() {
            delta.insert("tool_calls".to_owned(), calls.into());
        }
        self.finish = part.finish.map(Finish::openai).or(self.finish);
        self.usage = part.usage.or(self.usage);
        if !delta.is_empty() {
            self.chunk(&delta.into(), &logprobs(&part.logprobs), None, out);
        }
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        self.chunk(&json!({}), &Value::Null, Some(self.finish.unwrap_or("stop")), out);
        if self.wants_usage {
            let mut last = self.frame("chat.completion.chunk", &json!([]));
            last["usage"] = usage(self.usage.unwrap_or_default());
            event(out, None, &last);
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
    }
}

/// Writes completions.
#[derive(Debug)]
pub(crate) struct CompletionEncoder {
    about: About,
    wants_usage: bool,
    finish: Option<&'static str>,
    usage: Option<Usage>,
}

impl CompletionEncoder {
    pub(crate) fn new(about: About, wants_usage: bool) -> Self {
        Self {
            about,
            wants_usage,
            finish: None,
            usage: None,
        }
    }

    fn frame(&self, choices: &Value) -> Value {
        json!({
            "id": format!("cmpl-{}", self.about.request_id),
            "object": "text_completion",
            "created": self.about.created,
            "model": self.about.model,
            "choices": choices,
        })
    }
}

impl Encoder for CompletionEncoder {
    fn whole(&mut self, part: Part) -> Value {
        let finish = part.finish().openai();
        let mut whole =
            self.frame(&json!([{"index": 0, "text": part.text, "logprobs": null, "finish_reason": finish}]));
        whole["usage"] = usage(part.usage.unwrap_or_default());
        whole
    }

    fn part(&mut self, part: Part, out: &mut Vec<u8>) {
        self.finish = part.finish.map(Finish::openai).or(self.finish);
        self.usage = part.usage.or(self.usage);
        if !part.text.is_empty() {
            let choice = json!([{"index": 0, "text": part.text, "logprobs": null, "finish_reason": null}]);
            event(out, None, &self.frame(&choice));
        }
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        let finish = self.finish.unwrap_or("stop");
        let choice = json!([{"index": 0, "text": "", "logprobs": null, "finish_reason": finish}]);
        event(out, None, &self.frame(&choice));
        if self.wants_usage {
            let mut last = self.frame(&json!([]));
            last["usage"] = usage(self.usage.unwrap_or_default());
            event(out, None, &last);
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
    }
}

fn logprobs(content: &[Value]) -> Value {
    if content.is_empty() {
        return Value::Null;
    }
    json!({"content": content, "refusal": null})
}

/// Usage in OpenAI's words.
pub(crate) fn usage(usage: Usage) -> Value {
    json!({
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_input_tokens},
    })
}
