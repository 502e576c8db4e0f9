//! Streams: which of the bytes that arrive are parts of an answer, whether it ended, and the server's token counts.

use super::Protocol;
use super::answer::Failure;
use super::chunk::{AnthropicEvent, OllamaLine, OpenAiChunk, Usage};
use super::sse::{EventParser, LineSplitter};
use serde_json::value::RawValue;

/// Reads one stream.
#[derive(Debug)]
pub(crate) struct StreamReader {
    framing: Framing,
    state: State,
}

#[derive(Debug)]
enum Framing {
    Events(EventParser),
    /// A JSON object a line.
    Lines(LineSplitter),
}

#[derive(Debug)]
struct State {
    protocol: Protocol,
    usage: StreamUsage,
    /// Parts of the answer in the bytes that are being read.
    parts: usize,
    /// A reason to finish was given.
    is_finished: bool,
    /// The protocol's own end marker was seen.
    is_terminated: bool,
    failure: Option<Failure>,
    /// The answer so far, where it is needed.
    text: Option<String>,
}

/// Token counts as the server reports them.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct StreamUsage {
    pub(crate) input_tokens: Option<u64>,
    pub(crate) output_tokens: Option<u64>,
}

/// The measurements of a whole stream.
#[derive(Debug, PartialEq)]
pub(crate) struct StreamEnd {
    pub(crate) usage: StreamUsage,
    pub(crate) text: Option<String>,
    pub(crate) failure: Option<Failure>,
}

impl StreamReader {
    /// `keeps_text`: the answer is wanted, not only its timing.
    pub(crate) fn new(protocol: Protocol, keeps_text: bool) -> Self {
        let framing = if matches!(protocol, Protocol::Ollama | Protocol::OllamaGenerate) {
            Framing::Lines(LineSplitter::default())
        } else {
            Framing::Events(EventParser::default())
        };
        let state = State {
            protocol,
            usage: StreamUsage::default(),
            parts: 0,
            is_finished: false,
            is_terminated: false,
            failure: None,
            text: keeps_text.then(String::new),
        };
        Self { framing, state }
    }

    /// Takes bytes; returns how many parts of an answer they complete.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> usize {
        let state = &mut self.state;
        state.parts = 0;
        match &mut self.framing {
            Framing::Events(parser) => parser.push(bytes, |name, data| state.event(name, data)),
            Framing::Lines(lines) => lines.push(bytes, |line| state.ollama(line)),
        }
        state.parts
    }

    /// Ends the reading; `broken` is the reason why the connection ended, if not by the end of the body.
    pub(crate) fn finish(mut self, broken: Option<Failure>) -> StreamEnd {
        match self.framing {
            Framing::Events(parser) => {
                self.state.is_terminated |= parser.unfinished() == b"[DONE]";
            }
            Framing::Lines(lines) => self.state.ollama(lines.rest()),
        }
        let state = self.state;
        let is_complete = state.is_terminated || state.is_finished;
        let truncated =
            || (!is_complete).then(|| Failure::new("stream_truncated", "the stream ended before the answer did"));
        StreamEnd {
            usage: state.usage,
            text: state.text,
            failure: state
                .failure
                .or(broken.filter(|_| !state.is_terminated))
                .or_else(truncated),
        }
    }
}

impl State {
    fn event(&mut self, name: &[u8], data: &[u8]) {
        if data == b"[DONE]" {
            self.is_terminated = true;
        } else if self.protocol == Protocol::Anthropic {
            self.anthropic(data);
        } else {
            self.openai(name, data);
        }
    }

    fn openai(&mut self, name: &[u8], data: &[u8]) {
        let Some(chunk) = self.parse::<OpenAiChunk<'_>>(data) else {
            return;
        };
        if chunk.is_error() || name == b"error" {
            self.failure = Some(Failure::from_body(data, "error_event"));
            return;
        }
        for choice in chunk.choices.iter().flatten() {
            self.parts += usize::from(choice.has_content());
            self.is_finished |= choice.is_last();
            self.add(choice.text());
        }
        self.count(chunk.usage);
    }

    fn ollama(&mut self, line: &[u8]) {
        if line.trim_ascii().is_empty() {
            return;
        }
        let Some(line_of) = self.parse::<OllamaLine<'_>>(line) else {
            return;
        };
        if line_of.is_error() {
            self.failure = Some(Failure::from_body(line, "error_line"));
            return;
        }
        self.parts += usize::from(line_of.has_content());
        self.is_terminated |= line_of.is_last();
        self.usage.input_tokens = line_of.prompt_eval_count.or(self.usage.input_tokens);
        self.usage.output_tokens = line_of.eval_count.or(self.usage.output_tokens);
        self.add(line_of.text());
    }

    fn anthropic(&mut self, data: &[u8]) {
        let Some(event) = self.parse::<AnthropicEvent<'_>>(data) else {
            return;
        };
        if event.is_error() {
            self.failure = Some(Failure::from_body(data, "error_event"));
            return;
        }
        self.parts += usize::from(event.has_content());
        self.is_terminated |= event.is_last();
        self.count(event.message.and_then(|message| message.usage));
        self.count(event.usage);
        self.add(event.delta.and_then(|delta| delta.text));
    }

    /// Reads an object. Data that is none, such as a keep-alive text, is passed over; one that breaks off is a failure.
    fn parse<'a, T: serde::Deserialize<'a>>(&mut self, data: &'a [u8]) -> Option<T> {
        if data.trim_ascii_start().first() != Some(&b'{') {
            return None;
        }
        match serde_json::from_slice(data) {
            Ok(read) => Some(read),
            Err(error) => {
                let message = format!("a part of the stream cannot be read: {error}");
                self.failure
                    .get_or_insert_with(|| Failure::new("malformed_event", &message));
                None
            }
        }
    }

    fn count(&mut self, usage: Option<Usage>) {
        if let Some(usage) = usage {
            self.usage.input_tokens = usage.input().or(self.usage.input_tokens);
            self.usage.output_tokens = usage.output().or(self.usage.output_tokens);
        }
    }

    fn add(&mut self, json: Option<&RawValue>) {
        if let (Some(text), Some(json)) = (&mut self.text, json)
            && let Ok(more) = serde_json::from_str::<std::borrow::Cow<'_, str>>(json.get())
        {
            text.push_str(&more);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPENAI: &str = "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n\
        data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\ndata: {\"choices\":[{\"delta\":{\"content\":\"\\n\"}}]}\n\n\
        data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}\n\ndata: [DONE]\n\n";
    const OLLAMA: &str = "{\"message\":{\"content\":\"a\"},\"done\":false}\n{\"message\":{\"content\":\"\\n\"},\"done\":false}\n\
        {\"message\":{\"content\":\"\"},\"done\":true,\"prompt_eval_count\":3,\"eval_count\":2}\n";
    const ANTHROPIC: &str = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":1,\
        \"cache_read_input_tokens\":2,\"output_tokens\":1}}}\n\n\
        event: content_block_start\ndata: {\"type\":\"content_block_start\",\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n\
        data: {\"type\":\"ping\"}\n\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"a\"}}\n\n\
        data: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"\\n\"}}\n\n\
        data: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"signature_delta\",\"signature\":\"x\"}}\n\n\
        data: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":2}}\n\ndata: {\"type\":\"message_stop\"}\n\n";

    fn read(protocol: Protocol, text: &str, cut: usize) -> (usize, StreamEnd) {
        let mut reader = StreamReader::new(protocol, true);
        let parts = text.as_bytes().chunks(cut).map(|bytes| reader.push(bytes)).sum();
        (parts, reader.finish(None))
    }

    #[test]
    fn streams_of_every_protocol_are_counted_however_they_are_cut() {
        let cases = [
            (Protocol::Openai, OPENAI),
            (Protocol::Ollama, OLLAMA),
            (Protocol::Anthropic, ANTHROPIC),
        ];
        for (protocol, text) in cases {
            for cut in [1, 7, 1000] {
                let (parts, end) = read(protocol, text, cut);
                assert_eq!(parts, 2, "{protocol:?} in pieces of {cut}");
                assert_eq!(end.failure, None);
                assert_eq!(end.text.as_deref(), Some("a\n"));
                assert_eq!((end.usage.input_tokens, end.usage.output_tokens), (Some(3), Some(2)));
            }
        }
    }

    /// Chunks as vLLM, SGLang, llama.cpp, Mistral, OpenRouter and OpenAI send them.
    #[test]
    fn a_part_of_an_answer_is_content_reasoning_a_refusal_or_a_tool_call_and_nothing_else() {
        let parts = |delta: &str| {
            let text = format!("data: {{\"choices\": [{{\"index\": 0, \"delta\": {delta}}}], \"error\": null}}\n\n");
            read(Protocol::Openai, &text, 5).0
        };
        for part in [
            "{\"content\": \"a\"}",
            "{\"reasoning_content\": \"a\"}",
            "{\"content\": null, \"reasoning\": \"a\"}",
            "{\"refusal\": \"no\"}",
            "{\"content\": [{\"type\": \"text\", \"text\": \"a\"}]}",
            "{\"tool_calls\": [{\"index\": 0, \"id\": \"c\", \"function\": {\"name\": \"f\", \"arguments\": \"\"}}]}",
            "{\"tool_calls\": [{\"index\": 0, \"function\": {\"arguments\": \"{\"}}]}",
            "{\"function_call\": {\"arguments\": \"{\"}}",
        ] {
            assert_eq!(parts(part), 1, "{part}");
        }
        for none in [
            "{}",
            "{\"role\": \"assistant\", \"content\": \"\"}",
            "{\"role\": \"assistant\", \"content\": null, \"reasoning_content\": null}",
            "{\"tool_calls\": []}",
            "{\"tool_calls\": [{\"index\": 0, \"function\": {\"arguments\": \"\"}}]}",
        ] {
            assert_eq!(parts(none), 0, "{none}");
        }
    }

    #[test]
    fn an_error_fails_a_stream_and_an_error_that_is_null_does_not() {
        let failure = |text: &str| read(Protocol::Openai, text, 9).1.failure;
        let broken = failure("data: {\"error\":{\"message\":\"broke off\",\"code\":\"upstream_error\"}}\n\n");
        assert_eq!(broken, Some(Failure::new("upstream_error", "broke off")));
        let old =
            failure("data: {\"object\":\"error\",\"message\":\"no\",\"type\":\"BadRequestError\",\"code\":400}\n\n");
        assert_eq!(old, Some(Failure::new("BadRequestError", "no")));
        assert_eq!(
            failure("data: {\"choices\":[],\"error\":null}\n\ndata: [DONE]\n\n"),
            None
        );
        assert_eq!(failure("data: {\"choices\":[{\"finish_reason\":\"stop\"}]}\n\n"), None);
        let reason = |text: &str| failure(text).map(|failure| failure.reason);
        assert_eq!(
            reason("data: {\"choices\":[{\"finish_reason\":null}]}\n\n").as_deref(),
            Some("stream_truncated")
        );
        assert_eq!(
            reason("data: {\"choices\":[}\n\ndata: [DONE]\n\n").as_deref(),
            Some("malformed_event")
        );
    }
}
