//! Anthropic: messages, and the count of a prompt's tokens.

pub(crate) mod client;

use super::meter::{Seen, Usage};
use super::refuse::RequestError;
use super::scan::{Places, Raw, Splices, model_named, top_level};
use super::{Changes, Lowered, ParsedRequest, splice_limit, splice_model};
use serde::Deserialize;

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow, default)]
    model: Raw<'a>,
    #[serde(borrow, default)]
    stream: Raw<'a>,
    #[serde(borrow, default)]
    max_tokens: Raw<'a>,
    #[serde(borrow, default)]
    messages: Raw<'a>,
    #[serde(borrow, default)]
    system: Raw<'a>,
    #[serde(borrow, default)]
    tools: Raw<'a>,
}

pub(crate) fn parse(body: &[u8]) -> Result<ParsedRequest<'_>, RequestError> {
    let head: Head<'_> = top_level(body)?;
    let parts = [head.messages, head.system, head.tools];
    Ok(ParsedRequest {
        model: model_named(head.model)?,
        is_streaming: head.stream.truth("stream")?.unwrap_or(false),
        max_tokens: head.max_tokens.count("max_tokens")?,
        answers: 1,
        prompt_bytes: parts.into_iter().map(Raw::len).sum(),
        wants_usage: true,
        user_id: None,
        project_id: None,
        lowered: Lowered::default(),
        in_background: false,
        prompt: head.messages.text(),
        places: Places {
            model: head.model.place(body),
            max_tokens: head.max_tokens.place(body),
            options: None,
            background: None,
        },
    })
}

pub(crate) fn changes(body: &[u8], parsed: &ParsedRequest<'_>, changes: &Changes<'_>, splices: &mut Splices) {
    splice_model(parsed, changes, splices);
    splice_limit("max_tokens", body, parsed, changes, splices);
}

#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    message: Option<Whole>,
    usage: Option<Figures>,
}

#[derive(Deserialize)]
struct Whole {
    usage: Option<Figures>,
}

#[derive(Default, Deserialize)]
struct Figures {
    input_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
    output_tokens: Option<u64>,
}

/// What an event of a server's own stream says; its figures come at the beginning and at the end.
pub(crate) fn see(data: &[u8], reported: &mut Option<Usage>) -> Seen {
    let Ok(event) = serde_json::from_slice::<Event>(data) else {
        return Seen::Nothing;
    };
    let figures = event.usage.or(event.message.and_then(|message| message.usage));
    if let Some(figures) = figures {
        figures.add_to(reported);
    }
    match event.kind.as_str() {
        "content_block_delta" => Seen::Piece,
        "message_stop" => Seen::End,
        _ => Seen::Nothing,
    }
}

/// The figures of a whole answer.
pub(crate) fn usage(body: &[u8]) -> Option<Usage> {
    let mut usage = None;
    serde_json::from_slice::<Whole>(body).ok()?.usage?.add_to(&mut usage);
    usage
}

impl Figures {
    fn add_to(self, reported: &mut Option<Usage>) {
        let usage = reported.get_or_insert_with(Usage::default);
        let cached = self.cache_read_input_tokens.unwrap_or(0);
        if let Some(input) = self.input_tokens.filter(|input| *input > 0) {
            usage.input_tokens = input + cached + self.cache_creation_input_tokens.unwrap_or(0);
            usage.cached_input_tokens = cached;
        }
        usage.output_tokens = self.output_tokens.unwrap_or(usage.output_tokens);
    }
}
