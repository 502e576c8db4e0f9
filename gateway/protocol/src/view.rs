//! Measurements of an event, or of a whole answer, for the meter. The views stand in the protocols' own
//! folders; each goes past the JSON once and measures texts where they stand.

use crate::tokens::TextSize;
use crate::usage::Reported;
use crate::wire::json::Cursor;

/// Measurements of an event, or of a whole answer.
#[derive(Debug, Default)]
pub(crate) struct Seen<'a> {
    /// Text, reasoning and calls of tools.
    pub(crate) size: TextSize,
    pub(crate) reported: Reported,
    /// It is about answers, not only about usage.
    pub(crate) has_answers: bool,
    /// The answers (OpenAI's choices) that it belongs to, and those that it ends, as bits.
    pub(crate) begun: u64,
    pub(crate) ended: u64,
    /// It is the last of its stream.
    pub(crate) is_last: bool,
    /// The answer ended by a failure.
    pub(crate) has_failed: bool,
    /// The failure as JSON; empty where there is none.
    pub(crate) failure: &'a [u8],
    /// The size of an answer that the last event repeats.
    pub(crate) repeated: TextSize,
}

/// The size of a chat's message, whole or a delta, in OpenAI's words or Ollama's.
pub(crate) fn message(value: &mut Cursor<'_>, all: &mut TextSize) -> Option<()> {
    // Some servers send the reasoning under two names.
    let mut reasoning = TextSize::default();
    value.object(|key, value| {
        match key {
            b"content" => *all += value.content()?,
            b"refusal" => *all += value.size()?,
            b"reasoning_content" | b"reasoning" | b"thinking" | b"reasoning_text" | b"reasoning_details" => {
                let size = value.content()?;
                if size.bytes > reasoning.bytes {
                    reasoning = size;
                }
            }
            b"tool_calls" => value.list(|call| {
                call.object(|key, value| match key {
                    b"function" => function(value, all),
                    b"name" | b"arguments" => value.size().map(|size| *all += size),
                    _ => value.skip(),
                })
            })?,
            b"function_call" => function(value, all)?,
            _ => value.skip()?,
        }
        Some(())
    })?;
    *all += reasoning;
    Some(())
}

fn function(value: &mut Cursor<'_>, all: &mut TextSize) -> Option<()> {
    value.object(|key, value| match key {
        b"name" | b"arguments" => value.size().map(|size| *all += size),
        _ => value.skip(),
    })
}

/// The size of a part of a content, or of an item of an output, in Anthropic's words or in those of responses.
pub(crate) fn part(value: &mut Cursor<'_>, all: &mut TextSize) -> Option<()> {
    value.object(|key, value| match key {
        b"text" | b"refusal" | b"thinking" | b"name" | b"input" | b"arguments" => value.size().map(|size| *all += size),
        b"content" | b"summary" => value.content().map(|size| *all += size),
        _ => value.skip(),
    })
}
