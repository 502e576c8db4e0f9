//! What is measured of OpenAI's responses.

use crate::meter::view::{Seen, part};
use crate::openai::view::usage;
use crate::tokens::TextSize;
use crate::wire::json::Cursor;

/// Reads an event, or a whole response.
pub(crate) fn view(data: &[u8]) -> Option<Seen<'_>> {
    let mut seen = Seen {
        has_answers: true,
        ..Seen::default()
    };
    let (mut kind, mut delta) = (&b""[..], TextSize::default());
    let (mut told, mut sentence, mut has_failed) = (None, None, false);
    Cursor::new(data).object(|key, value| {
        match key {
            b"type" => kind = value.word()?,
            // vLLM's first version had an object here.
            b"delta" => delta = value.size()?,
            b"response" => told = response(value, &mut seen)?.or(told),
            b"usage" => usage(value, &mut seen.reported)?,
            b"output" => value.list(|item| part(item, &mut seen.size))?,
            b"status" => has_failed |= value.word()? == b"failed",
            b"error" => told = value.said()?.or(told),
            b"message" => sentence = value.said()?,
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
    has_failed |= matches!(kind, b"error" | b"response.failed" | b"response.cancelled") || told.is_some();
    seen.failure = has_failed.then(|| told.or(sentence));
    Some(seen)
}

/// Reads the response within an event; gives its error.
fn response<'a>(value: &mut Cursor<'a>, seen: &mut Seen<'_>) -> Option<Option<&'a [u8]>> {
    let mut told = None;
    value.object(|key, value| {
        match key {
            b"usage" => usage(value, &mut seen.reported)?,
            b"output" => value.list(|item| part(item, &mut seen.repeated))?,
            b"error" => told = value.said()?,
            _ => value.skip()?,
        }
        Some(())
    })?;
    Some(told)
}
