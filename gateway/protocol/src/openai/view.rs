//! Measurement of chat completions, completions, embeddings and similar answers.

use crate::usage::Reported;
use crate::view::{Seen, message};
use crate::wire::json::Cursor;

/// Reads a chunk or a whole answer.
pub(crate) fn view(data: &[u8]) -> Option<Seen<'_>> {
    let mut seen = Seen::default();
    let (mut sentence, mut is_error) = (&b""[..], false);
    let mut timed = Reported::default();
    let (mut alone, mut has_choices) = (&b""[..], false);
    Cursor::new(data).object(|key, value| {
        match key {
            b"choices" => {
                has_choices = true;
                value.list(|value| choice(value, &mut seen))?;
            }
            b"usage" => usage(value, &mut seen.reported)?,
            // Groq's place for it.
            b"x_groq" => value.object(|key, value| match key {
                b"usage" => usage(value, &mut seen.reported),
                _ => value.skip(),
            })?,
            b"timings" => timed = timings(value)?,
            b"error" => seen.failure = value.non_empty()?,
            b"object" => is_error = value.word()? == b"error",
            b"message" => sentence = value.non_empty()?,
            b"detail" | b"msg" => alone = value.non_empty()?,
            _ => value.skip()?,
        }
        Some(())
    })?;
    if is_error && seen.failure.is_empty() {
        // vLLM before 0.10 has its errors' fields at the top.
        seen.failure = sentence;
    }
    // FastAPI's errors, and others' that have no `error`, in the place of an answer.
    if seen.failure.is_empty() && !has_choices && seen.reported.is_empty() {
        seen.failure = alone;
    }
    seen.has_failed |= is_error || !seen.failure.is_empty();
    if seen.reported.is_empty() {
        seen.reported = timed;
    }
    Some(seen)
}

/// Reads llama.cpp's `timings`, which it sends whether usage was asked for or not; what was cached is counted apart.
fn timings(value: &mut Cursor<'_>) -> Option<Reported> {
    let mut figures = Reported::default();
    value.object(|key, value| {
        match key {
            b"prompt_n" => figures.input = value.count()?.0,
            b"predicted_n" => figures.output = value.count()?.0,
            b"cache_n" => figures.cached = value.count()?.0,
            _ => value.skip()?,
        }
        Some(())
    })?;
    let cached = figures.cached.unwrap_or(0);
    figures.input = figures.input.map(|input| input.saturating_add(cached));
    Some(figures)
}

/// Returns whether a reason to end says that the server gave the request up: vLLM and SGLang, and DeepSeek when it is overloaded.
pub(super) fn is_failure(reason: &str) -> bool {
    let words = [
        "error",
        "abort",
        "aborted",
        "cancelled",
        "canceled",
        "insufficient_system_resource",
    ];
    words.iter().any(|word| reason.eq_ignore_ascii_case(word))
}

/// The word of a `finish_reason`, which is an object in SGLang's own API.
fn word(reason: &[u8]) -> &[u8] {
    let mut word = &b""[..];
    let mut cursor = Cursor::new(reason);
    let _ = match reason.first() {
        Some(b'{') => cursor.object(|key, value| match key {
            b"type" => value.word().map(|of_type| word = of_type),
            _ => value.skip(),
        }),
        _ => cursor.word().map(|own| word = own),
    };
    word
}

/// Reads one choice. Its place in the list is its number where it has none.
fn choice(value: &mut Cursor<'_>, seen: &mut Seen<'_>) -> Option<()> {
    let (mut index, mut reason) = (None, &b""[..]);
    let mut figures = Reported::default();
    let size = &mut seen.size;
    value.object(|key, value| {
        match key {
            b"index" => index = value.count()?.0,
            b"delta" | b"message" => message(value, size)?,
            b"text" => *size += value.size()?,
            b"finish_reason" => reason = value.non_empty()?,
            // Moonshot's place for it.
            b"usage" => usage(value, &mut figures)?,
            _ => value.skip()?,
        }
        Some(())
    })?;
    let bit = 1 << index.unwrap_or_else(|| u64::from(seen.begun.trailing_ones())).min(63);
    seen.has_answers = true;
    seen.begun |= bit;
    if !reason.is_empty() {
        seen.ended |= bit;
        seen.has_failed |= std::str::from_utf8(word(reason)).is_ok_and(is_failure);
    }
    if !figures.is_empty() {
        seen.reported.update(figures);
    }
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
            // DeepSeek's and Moonshot's names for it.
            b"prompt_cache_hit_tokens" | b"cached_tokens" => figures.cached = value.count()?.0.or(figures.cached),
            b"prompt_tokens_details" | b"input_tokens_details" => value.object(|key, value| match key {
                b"cached_tokens" => value.count().map(|count| figures.cached = count.0.or(figures.cached)),
                _ => value.skip(),
            })?,
            b"completion_tokens_details" | b"output_tokens_details" => value.object(|key, value| match key {
                b"reasoning_tokens" => value
                    .count()
                    .map(|count| figures.reasoning = count.0.or(figures.reasoning)),
                _ => value.skip(),
            })?,
            // Modal's and Cohere's place for it.
            b"reasoning_tokens" => figures.reasoning = value.count()?.0.or(figures.reasoning),
            _ => value.skip()?,
        }
        Some(())
    })?;
    reported.update(figures);
    Some(())
}
