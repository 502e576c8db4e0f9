//! The four APIs: how a request is said in each, and what is read of an answer.

use crate::plan::Planned;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// An API of the gateway's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Protocol {
    Generate,
    Openai,
    Ollama,
    Anthropic,
}

impl Protocol {
    pub(crate) fn path(self) -> &'static str {
        match self {
            Protocol::Generate => "/generate",
            Protocol::Openai => "/v1/chat/completions",
            Protocol::Ollama => "/api/chat",
            Protocol::Anthropic => "/v1/messages",
        }
    }

    /// The body of a request.
    pub(crate) fn body(self, planned: &Planned, project: Option<&str>, is_streaming: bool) -> Vec<u8> {
        let (model, max_tokens) = (planned.model.as_str(), planned.max_tokens);
        let messages = || {
            let said = planned.said.iter().enumerate();
            let turns = said.flat_map(|(at, content)| {
                // What was answered in between is short, and the same every time.
                let answered = Message {
                    role: "assistant",
                    content: "I see.",
                };
                let question = Message { role: "user", content };
                (at > 0).then_some(answered).into_iter().chain([question])
            });
            turns.collect::<Vec<_>>()
        };
        let body = match self {
            Protocol::Generate => serde_json::to_vec(&Generate {
                user_id: &planned.user,
                project_id: project,
                model,
                prompt: &planned.said.join("\n"),
                max_tokens,
                request_type: &planned.kind,
            }),
            Protocol::Ollama => serde_json::to_vec(&Ollama {
                model,
                messages: messages(),
                stream: is_streaming,
                options: Options {
                    num_predict: max_tokens,
                },
            }),
            Protocol::Openai | Protocol::Anthropic => serde_json::to_vec(&Chat {
                model,
                messages: messages(),
                max_tokens,
                stream: is_streaming,
                stream_options: (self == Protocol::Openai && is_streaming)
                    .then_some(StreamOptions { include_usage: true }),
            }),
        };
        // Texts and numbers can be written, always.
        body.unwrap_or_default()
    }
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: &'a str,
}

#[derive(Serialize)]
struct Generate<'a> {
    user_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    project_id: Option<&'a str>,
    model: &'a str,
    prompt: &'a str,
    max_tokens: u64,
    request_type: &'a str,
}

#[derive(Serialize)]
struct Ollama<'a> {
    model: &'a str,
    messages: Vec<Message<'a>>,
    stream: bool,
    options: Options,
}

#[derive(Serialize)]
struct Options {
    num_predict: u64,
}

#[derive(Serialize)]
struct Chat<'a> {
    model: &'a str,
    messages: Vec<Message<'a>>,
    max_tokens: u64,
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_options: Option<StreamOptions>,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

/// What is read of an answer, or of part of one.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Read {
    pub(crate) input_tokens: Option<u64>,
    pub(crate) output_tokens: Option<u64>,
    /// `/generate`'s own status and id.
    pub(crate) status: Option<String>,
    pub(crate) request_id: Option<String>,
    /// Why it was refused.
    pub(crate) reason: Option<String>,
    pub(crate) message: Option<String>,
}

/// Whatever an answer of any of the APIs may say that counts here.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Answer {
    usage: Option<Usage>,
    prompt_eval_count: Option<u64>,
    eval_count: Option<u64>,
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    status: Option<String>,
    request_id: Option<String>,
    detail: Option<String>,
    error: Option<Value>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Usage {
    #[serde(alias = "prompt_tokens")]
    input_tokens: Option<u64>,
    #[serde(alias = "completion_tokens")]
    output_tokens: Option<u64>,
}

/// Reads a whole answer, or an error.
pub(crate) fn whole(body: &[u8]) -> Read {
    let Ok(answer) = serde_json::from_slice::<Answer>(body) else {
        return Read::default();
    };
    let usage = answer.usage.unwrap_or_default();
    let error = answer.error.unwrap_or_default();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    Read {
        input_tokens: usage.input_tokens.or(answer.prompt_eval_count).or(answer.input_tokens),
        output_tokens: usage.output_tokens.or(answer.eval_count).or(answer.output_tokens),
        status: answer.status,
        request_id: answer.request_id,
        reason: text(&error["code"])
            .or_else(|| text(&error["type"]))
            .or_else(|| answer.detail.clone())
            .or_else(|| text(&error)),
        message: text(&error["message"]).or_else(|| text(&error)).or(answer.detail),
    }
}

/// A stream as it is read: counts pieces of an answer, and keeps the last figures.
#[derive(Debug)]
pub(crate) struct Stream {
    protocol: Protocol,
    partial: Vec<u8>,
    pub(crate) read: Read,
    /// Whether it came to its proper end.
    pub(crate) is_complete: bool,
    pub(crate) error: Option<String>,
}

impl Stream {
    pub(crate) fn new(protocol: Protocol) -> Self {
        Self {
            protocol,
            partial: Vec::new(),
            read: Read::default(),
            is_complete: false,
            error: None,
        }
    }

    /// Takes bytes; pieces of an answer that are in them.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> usize {
        let mut pieces = 0;
        let joined;
        let mut rest = if self.partial.is_empty() {
            bytes
        } else {
            self.partial.extend_from_slice(bytes);
            joined = std::mem::take(&mut self.partial);
            &joined[..]
        };
        while let Some(end) = memchr::memchr(b'\n', rest) {
            pieces += usize::from(self.line(&rest[..end]));
            rest = &rest[end + 1..];
        }
        self.partial = rest.to_vec();
        pieces
    }

    /// Whether a line has part of an answer in it.
    fn line(&mut self, line: &[u8]) -> bool {
        let line = line.strip_prefix(b"data:").unwrap_or(line).trim_ascii();
        if line == b"[DONE]" {
            self.is_complete = true;
            return false;
        }
        if !line.starts_with(b"{") {
            return false;
        }
        let has = |needle: &[u8]| memchr::memmem::find(line, needle).is_some();
        if has(b"\"error\"") {
            let read = whole(line);
            self.error = read.message.or(read.reason).or(Some("an error event".to_owned()));
            return false;
        }
        let (is_piece, is_last) = match self.protocol {
            Protocol::Ollama => (has(b"\"done\":false"), has(b"\"done\":true")),
            Protocol::Anthropic => (
                has(b"\"content_block_delta\""),
                has(b"\"message_delta\"") || has(b"\"message_stop\""),
            ),
            Protocol::Openai | Protocol::Generate => (has(b"\"content\":"), has(b"\"usage\":{")),
        };
        if is_last {
            let read = whole(line);
            self.read.input_tokens = read.input_tokens.or(self.read.input_tokens);
            self.read.output_tokens = read.output_tokens.or(self.read.output_tokens);
            self.is_complete |= self.protocol != Protocol::Openai;
        }
        is_piece
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_of_every_protocol_are_counted_however_they_are_cut() {
        for (protocol, text) in [
            (
                Protocol::Openai,
                "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\ndata: {\"choices\":[{\"delta\":{\"content\":\"b\"}}]}\n\n\
                 data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}\n\ndata: [DONE]\n\n",
            ),
            (
                Protocol::Ollama,
                "{\"message\":{\"content\":\"a\"},\"done\":false}\n{\"message\":{\"content\":\"b\"},\"done\":false}\n\
                 {\"done\":true,\"prompt_eval_count\":3,\"eval_count\":2}\n",
            ),
            (
                Protocol::Anthropic,
                "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"text\":\"a\"}}\n\n\
                 data: {\"type\":\"content_block_delta\",\"delta\":{\"text\":\"b\"}}\n\n\
                 data: {\"type\":\"message_delta\",\"usage\":{\"input_tokens\":3,\"output_tokens\":2}}\n\ndata: {\"type\":\"message_stop\"}\n\n",
            ),
        ] {
            for cut in [1, 7, 1000] {
                let mut stream = Stream::new(protocol);
                let pieces: usize = text.as_bytes().chunks(cut).map(|bytes| stream.push(bytes)).sum();
                assert_eq!(pieces, 2, "{protocol:?} in pieces of {cut}");
                assert!(stream.is_complete && stream.error.is_none());
                assert_eq!(
                    (stream.read.input_tokens, stream.read.output_tokens),
                    (Some(3), Some(2))
                );
            }
        }
        let mut stream = Stream::new(Protocol::Openai);
        stream.push(b"data: {\"error\":{\"message\":\"broke off\",\"code\":\"upstream_error\"}}\n\n");
        assert_eq!(stream.error.as_deref(), Some("broke off"));
    }
}
