//! What a request used: the upstream's own figures where it gives them, else what was counted on the
//! way.

use super::{Operation, Protocol, anthropic, responses};
use memchr::memmem::Finder;
use serde::Deserialize;
use std::sync::LazyLock;

/// Tokens of one request.
#[allow(clippy::struct_field_names)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    pub input_tokens: u64,
    pub output_tokens: u64,
    /// Of the input, how many the upstream had in its cache.
    pub cached_input_tokens: u64,
}

/// More tokens than any request has; a server that says so has lost count.
const TOO_MANY: u64 = 100_000_000;

impl Usage {
    /// Whether a request can have used so much.
    fn can_be(&self) -> bool {
        self.input_tokens < TOO_MANY && self.output_tokens < TOO_MANY && self.cached_input_tokens <= self.input_tokens
    }
}

/// Where the figures come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The upstream said so.
    Upstream,
    /// Pieces of the stream were counted.
    Counted,
    /// From the size of the request.
    Estimated,
}

impl Source {
    pub fn name(self) -> &'static str {
        match self {
            Source::Upstream => "upstream",
            Source::Counted => "counted",
            Source::Estimated => "estimated",
        }
    }
}

/// What is to be done with an event of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The client gets it.
    Pass,
    /// Only the gateway had asked for it.
    Strip,
    /// It ends the stream; held until the ledger has the record.
    Last,
}

/// What an event of a protocol without `[DONE]` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    Nothing,
    /// Part of the answer.
    Piece,
    /// It is the last.
    End,
}

/// Watches one answer go by.
#[derive(Debug)]
pub struct Meter {
    call: Operation,
    strips_usage: bool,
    reported: Option<Usage>,
    pieces: u64,
    has_finished: bool,
}

static USAGE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"usage\""));
static FINISH: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"finish_reason\":\""));
static DONE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"done\":true"));
static CHOICE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"choices\":[{"));

#[derive(Deserialize)]
struct OpenAi<'a> {
    usage: Option<OpenAiUsage>,
    #[serde(borrow)]
    choices: Option<Vec<&'a serde_json::value::RawValue>>,
}

#[derive(Deserialize)]
pub(crate) struct OpenAiUsage {
    #[serde(default)]
    prompt_tokens: u64,
    #[serde(default)]
    completion_tokens: u64,
    prompt_tokens_details: Option<PromptDetails>,
}

#[derive(Deserialize)]
struct PromptDetails {
    cached_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct Ollama {
    prompt_eval_count: Option<u64>,
    eval_count: Option<u64>,
}

impl Meter {
    /// `strips_usage`: the stream's usage was asked for by the gateway, not by the client.
    pub fn new(call: Operation, strips_usage: bool) -> Self {
        Self {
            call,
            strips_usage,
            reported: None,
            pieces: 0,
            has_finished: false,
        }
    }

    /// Looks at one whole event of a stream.
    pub fn see(&mut self, event: &[u8]) -> Verdict {
        match self.call.protocol() {
            Protocol::Ollama => self.see_line(event),
            Protocol::OpenAi | Protocol::Generate => self.see_sse(event),
            Protocol::Responses | Protocol::Anthropic => self.see_typed(event),
        }
    }

    fn see_sse(&mut self, event: &[u8]) -> Verdict {
        let Some(data) = event.strip_prefix(b"data:").map(<[u8]>::trim_ascii) else {
            return Verdict::Pass;
        };
        if data == b"[DONE]" {
            self.has_finished = true;
            return Verdict::Last;
        }
        let has_choice = CHOICE.find(data).is_some();
        self.pieces += u64::from(has_choice);
        if has_choice && FINISH.find(data).is_some() {
            self.has_finished = true;
        }
        if USAGE.find(data).is_some()
            && let Ok(chunk) = serde_json::from_slice::<OpenAi<'_>>(data)
            && let Some(usage) = chunk.usage
        {
            self.reported = Some(usage.into());
            let only_usage = chunk.choices.is_none_or(|choices| choices.is_empty());
            if only_usage && self.strips_usage {
                return Verdict::Strip;
            }
        }
        Verdict::Pass
    }

    /// An event that names its type.
    fn see_typed(&mut self, event: &[u8]) -> Verdict {
        let mut lines = event.split(|byte| *byte == b'\n');
        let Some(data) = lines.find_map(|line| line.strip_prefix(b"data:")) else {
            return Verdict::Pass;
        };
        let seen = match self.call.protocol() {
            Protocol::Anthropic => anthropic::see(data, &mut self.reported),
            _ => responses::see(data, &mut self.reported),
        };
        self.pieces += u64::from(seen == Seen::Piece);
        if seen == Seen::End {
            self.has_finished = true;
            return Verdict::Last;
        }
        Verdict::Pass
    }

    fn see_line(&mut self, line: &[u8]) -> Verdict {
        if DONE.find(line).is_none() {
            self.pieces += 1;
            return Verdict::Pass;
        }
        self.has_finished = true;
        self.see_whole(line);
        Verdict::Last
    }

    /// Looks at a whole answer.
    pub fn see_whole(&mut self, body: &[u8]) {
        self.reported = match self.call.protocol() {
            Protocol::Ollama => serde_json::from_slice::<Ollama>(body).ok().and_then(Ollama::usage),
            Protocol::Responses => responses::usage(body),
            Protocol::Anthropic => anthropic::usage(body),
            Protocol::OpenAi | Protocol::Generate => serde_json::from_slice::<OpenAi<'_>>(body)
                .ok()
                .and_then(|whole| whole.usage)
                .map(Usage::from),
        };
    }

    /// Whether the model came to an end, as far as the protocol tells.
    pub fn has_finished(&self) -> bool {
        self.has_finished
    }

    /// What was used, and how that is known. `estimated_input` stands in where the upstream gave
    /// nothing; a finished answer without figures counts its pieces, which for most servers are
    /// tokens.
    pub fn usage(&self, estimated_input: u64) -> (Usage, Source) {
        if let Some(usage) = self.reported.filter(Usage::can_be) {
            return (usage, Source::Upstream);
        }
        let usage = Usage {
            input_tokens: estimated_input,
            output_tokens: self.pieces,
            cached_input_tokens: 0,
        };
        let source = if self.pieces > 0 {
            Source::Counted
        } else {
            Source::Estimated
        };
        (usage, source)
    }
}

impl From<OpenAiUsage> for Usage {
    fn from(usage: OpenAiUsage) -> Self {
        let cached = usage.prompt_tokens_details.and_then(|details| details.cached_tokens);
        Usage {
            input_tokens: usage.prompt_tokens,
            output_tokens: usage.completion_tokens,
            cached_input_tokens: cached.unwrap_or(0),
        }
    }
}

impl Ollama {
    fn usage(self) -> Option<Usage> {
        if self.prompt_eval_count.is_none() && self.eval_count.is_none() {
            return None;
        }
        Some(Usage {
            input_tokens: self.prompt_eval_count.unwrap_or(0),
            output_tokens: self.eval_count.unwrap_or(0),
            cached_input_tokens: 0,
        })
    }
}
