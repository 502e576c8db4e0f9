//! What is measured of chat completions, completions, embeddings and what is like them.

use crate::meter::Reported;
use crate::meter::view::{Seen, message};
use crate::wire::json::Cursor;

/// Reads a chunk or a whole answer.
pub(crate) fn view(data: &[u8]) -> Option<Seen<'_>> {
    let mut seen = Seen::default();
    let (mut sentence, mut is_error) = (&b""[..], false);
    Cursor::new(data).object(|key, value| {
        match key {
            b"choices" => value.list(|value| choice(value, &mut seen))?,
            b"usage" => usage(value, &mut seen.reported)?,
            b"error" => seen.told = value.said()?,
            b"object" => is_error = value.word()? == b"error",
            b"message" => sentence = value.said()?,
            _ => value.skip()?,
        }
        Some(())
    })?;
    if is_error && seen.told.is_empty() {
        // vLLM before 0.10 has its errors' fields at the top.
        seen.told = sentence;
    }
    seen.has_failed |= is_error || !seen.told.is_empty();
    Some(seen)
}

/// Reads one choice. Its place in the list is its number where it has none.
fn choice(value: &mut Cursor<'_>, seen: &mut Seen<'_>) -> Option<()> {
    let (mut index, mut reason) = (None, &b""[..]);
    let size = &mut seen.size;
    value.object(|key, value| {
        match key {
            b"index" => index = value.count()?.0,
            b"delta" | b"message" => message(value, size)?,
            b"text" => *size += value.size()?,
            // SGLang's own API has an object here.
            b"finish_reason" => reason = value.said()?,
            _ => value.skip()?,
        }
        Some(())
    })?;
    let bit = 1 << index.unwrap_or_else(|| u64::from(seen.begun.trailing_ones())).min(63);
    seen.has_answers = true;
    seen.begun |= bit;
    if !reason.is_empty() {
        seen.ended |= bit;
    }
    // vLLM and SGLang, when they give a request up.
    seen.has_failed |= matches!(reason, b"\"error\"" | b"\"abort\"");
    Some(())
}

/// Reads `usage`, in the words of chat completions or of responses.
pub(crate) fn usage(value: &mut Cursor<'_>, reported: &mut Reported) -> Option<()> {
    let mut figures = Reported::default();
    value.object(|key, value| {
        match key {
            b"prompt_tokens" | b"input_tokens" => figures.input = value.count()?.0.or(figures.input),
            b"completion_tokens" | b"output_tokens" => figures.output = value.count()?.0.or(figures.output),
            b"total_tokens" => figures.total = value.count()?.0,
            b"prompt_tokens_details" | b"input_tokens_details" => value.object(|key, value| match key {
                b"cached_tokens" => value.count().map(|count| figures.cached = count.0.or(figures.cached)),
                _ => value.skip(),
            })?,
            _ => value.skip()?,
        }
        Some(())
    })?;
    reported.update(figures);
    Some(())
}
