//! Anthropic: messages, and the count of a prompt's tokens.

pub(crate) mod client;
mod history;
pub(crate) mod view;

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
