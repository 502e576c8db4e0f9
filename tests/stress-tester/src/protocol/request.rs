//! Bodies of requests.

use super::Protocol;
use crate::workload::message::{Message, Role};
use serde::Serialize;
use serde_json::{Map, Value};

/// The contents of a request's body.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) model: &'a str,
    /// The conversation so far, the question last.
    pub(crate) messages: &'a [Message],
    pub(crate) max_tokens: u64,
    pub(crate) user: &'a str,
    pub(crate) project: Option<&'a str>,
    /// `interactive` or `batch`.
    pub(crate) kind: &'a str,
    pub(crate) is_streaming: bool,
}

#[derive(Serialize)]
struct Generate<'a> {
    user_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    project_id: Option<&'a str>,
    model: &'a str,
    prompt: String,
    max_tokens: u64,
    request_type: &'a str,
}

#[derive(Serialize)]
struct Chat<'a> {
    model: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    system: Option<String>,
    messages: Vec<&'a Message>,
    max_tokens: u64,
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_options: Option<StreamOptions>,
}

#[derive(Serialize)]
struct Completion<'a> {
    model: &'a str,
    prompt: String,
    max_tokens: u64,
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_options: Option<StreamOptions>,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

#[derive(Serialize)]
struct Embedding<'a> {
    model: &'a str,
    input: String,
}

#[derive(Serialize)]
struct Ollama<'a> {
    model: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    messages: Option<&'a [Message]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt: Option<String>,
    stream: bool,
    options: Options,
}

#[derive(Serialize)]
struct Options {
    num_predict: u64,
}

/// Writes a body; `extra` are fields that are added, or put in the place of others.
pub(crate) fn body(protocol: Protocol, request: &Request<'_>, extra: &Map<String, Value>) -> Vec<u8> {
    let Request {
        model,
        messages,
        max_tokens,
        is_streaming: stream,
        ..
    } = *request;
    let usage = stream.then_some(StreamOptions { include_usage: true });
    let written = match protocol {
        Protocol::Generate => serde_json::to_vec(&Generate {
            user_id: request.user,
            project_id: request.project,
            model,
            prompt: prompt(messages),
            max_tokens,
            request_type: request.kind,
        }),
        Protocol::Openai => serde_json::to_vec(&Chat {
            model,
            system: None,
            messages: messages.iter().collect(),
            max_tokens,
            stream,
            stream_options: usage,
        }),
        Protocol::Anthropic => {
            let (system, messages): (Vec<&Message>, _) = messages.iter().partition(|message| message.is(Role::System));
            serde_json::to_vec(&Chat {
                model,
                system: (!system.is_empty()).then(|| prompt(system)),
                messages,
                max_tokens,
                stream,
                stream_options: None,
            })
        }
        Protocol::Completions => serde_json::to_vec(&Completion {
            model,
            prompt: prompt(messages),
            max_tokens,
            stream,
            stream_options: usage,
        }),
        Protocol::Embeddings => serde_json::to_vec(&Embedding {
            model,
            input: prompt(messages),
        }),
        Protocol::Ollama | Protocol::OllamaGenerate => {
            let is_chat = protocol == Protocol::Ollama;
            serde_json::to_vec(&Ollama {
                model,
                messages: is_chat.then_some(messages),
                prompt: (!is_chat).then(|| prompt(messages)),
                stream,
                options: Options {
                    num_predict: max_tokens,
                },
            })
        }
    };
    // Texts and numbers can always be written.
    let written = written.unwrap_or_default();
    if extra.is_empty() {
        written
    } else {
        extended(&written, extra)
    }
}

/// All texts as one.
fn prompt<'a>(messages: impl IntoIterator<Item = &'a Message>) -> String {
    let mut text = String::new();
    for message in messages {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&message.text());
    }
    text
}

/// Adds fields; objects are merged field by field, and `null` removes a field.
fn extended(body: &[u8], extra: &Map<String, Value>) -> Vec<u8> {
    fn merge(into: &mut Map<String, Value>, extra: &Map<String, Value>) {
        for (name, value) in extra {
            match (into.get_mut(name), value) {
                (_, Value::Null) => {
                    into.remove(name);
                }
                (Some(Value::Object(inner)), Value::Object(more)) => merge(inner, more),
                _ => {
                    into.insert(name.clone(), value.clone());
                }
            }
        }
    }
    let mut fields: Map<String, Value> = serde_json::from_slice(body).unwrap_or_default();
    merge(&mut fields, extra);
    serde_json::to_vec(&fields).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn written(protocol: Protocol, extra: &Value) -> Value {
        let messages = [Message::new(Role::System, "s"), Message::new(Role::User, "q")];
        let request = Request {
            model: "m",
            messages: &messages,
            max_tokens: 7,
            user: "u",
            project: None,
            kind: "batch",
            is_streaming: protocol.has_streams(),
        };
        let extra = extra.as_object().cloned().unwrap_or_default();
        serde_json::from_slice(&body(protocol, &request, &extra)).expect("JSON")
    }

    /// Against the published API references of OpenAI, Anthropic and Ollama.
    #[test]
    fn every_protocol_has_its_own_body() {
        let messages = json!([{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]);
        let usage = json!({"include_usage": true});
        for (protocol, expected) in [
            (
                Protocol::Openai,
                json!({"model": "m", "messages": messages, "max_tokens": 7, "stream": true, "stream_options": usage}),
            ),
            (
                Protocol::Completions,
                json!({"model": "m", "prompt": "s\nq", "max_tokens": 7, "stream": true, "stream_options": usage}),
            ),
            (Protocol::Embeddings, json!({"model": "m", "input": "s\nq"})),
            (
                Protocol::Anthropic,
                json!({"model": "m", "system": "s", "messages": [messages[1]], "max_tokens": 7, "stream": true}),
            ),
            (
                Protocol::Ollama,
                json!({"model": "m", "messages": messages, "stream": true, "options": {"num_predict": 7}}),
            ),
            (
                Protocol::OllamaGenerate,
                json!({"model": "m", "prompt": "s\nq", "stream": true, "options": {"num_predict": 7}}),
            ),
            (
                Protocol::Generate,
                json!({"user_id": "u", "model": "m", "prompt": "s\nq", "max_tokens": 7, "request_type": "batch"}),
            ),
        ] {
            assert_eq!(written(protocol, &Value::Null), expected, "{protocol:?}");
        }
    }

    #[test]
    fn extra_fields_are_merged_into_a_body() {
        let extra = json!({"ignore_eos": true, "options": {"seed": 1}, "stream": null});
        assert_eq!(
            written(Protocol::OllamaGenerate, &extra),
            json!({"model": "m", "prompt": "s\nq", "options": {"num_predict": 7, "seed": 1}, "ignore_eos": true})
        );
    }
}
