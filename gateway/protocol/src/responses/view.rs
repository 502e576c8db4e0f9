//! Measurement of OpenAI's responses.

use crate::openai::view::usage;
use crate::tokens::TextSize;
use crate::view::{Seen, part};
use crate::wire::json::Cursor;

/// Reads an event, or a whole response.
pub(crate) fn view(data: &[u8]) -> Option<Seen<'_>> {
    let mut seen = Seen {
        has_answers: true,
        ..Seen::default()
    };
    let (mut kind, mut delta) = (&b""[..], TextSize::default());
    let mut sentence = &b""[..];
    Cursor::new(data).object(|key, value| {
        match key {
            b"type" => kind = value.word()?,
            // vLLM's first version had an object here.
            b"delta" => delta = value.size()?,
            b"response" => response(value, &mut seen)?,
            b"usage" => usage(value, &mut seen.reported)?,
            b"output" => value.list(|item| part(item, &mut seen.size))?,
            b"status" => seen.has_failed |= value.word()? == b"failed",
            b"error" => seen.failure = value.non_empty()?,
            b"message" => sentence = value.non_empty()?,
            _ => value.skip()?,
        }
        Some(())
    })?;
    // Audio in base64 is no text.
    if kind.ends_with(b".delta") && !kind.starts_with(b"response.audio") && !kind.starts_with(b"response.output_audio.")
    {
        seen.size += delta;
    }
    seen.is_last = matches!(kind, b"response.completed" | b"response.incomplete");
    seen.has_failed |=
        matches!(kind, b"error" | b"response.failed" | b"response.cancelled") || !seen.failure.is_empty();
    if seen.failure.is_empty() && seen.has_failed {
        seen.failure = sentence;
    }
    Some(seen)
}

/// Reads the response within an event.
fn response<'a>(value: &mut Cursor<'a>, seen: &mut Seen<'a>) -> Option<()> {
    value.object(|key, value| {
        match key {
            b"usage" => usage(value, &mut seen.reported)?,
            b"output" => value.list(|item| part(item, &mut seen.repeated))?,
            b"error" => seen.failure = value.non_empty()?,
            _ => value.skip()?,
        }
        Some(())
    })
}
