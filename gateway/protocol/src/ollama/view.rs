//! Measurement of Ollama's answers.

use crate::view::{Seen, message};
use crate::wire::json::Cursor;

/// Reads a line, which may be the whole answer.
pub(crate) fn view(data: &[u8]) -> Option<Seen<'_>> {
    let mut seen = Seen {
        has_answers: true,
        ..Seen::default()
    };
    let mut is_load = false;
    Cursor::new(data).object(|key, value| {
        match key {
            b"message" => message(value, &mut seen.size)?,
            b"response" | b"thinking" => seen.size += value.size()?,
            b"done" => seen.is_last = value.raw()? == b"true",
            b"done_reason" => is_load = matches!(value.word()?, b"load" | b"unload"),
            b"prompt_eval_count" => seen.reported.input = value.count()?.0,
            b"eval_count" => seen.reported.output = value.count()?.0,
            b"error" => seen.failure = value.non_empty()?,
            _ => value.skip()?,
        }
        Some(())
    })?;
    seen.reported.is_nothing = seen.is_last && is_load;
    seen.has_failed = !seen.failure.is_empty();
    Some(seen)
}
