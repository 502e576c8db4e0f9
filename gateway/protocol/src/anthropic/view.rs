//! Measurement of Anthropic's messages.

use crate::usage::Reported;
use crate::view::{Seen, part};
use crate::wire::json::Cursor;

/// Reads an event, or a whole message.
pub(crate) fn view(data: &[u8]) -> Option<Seen<'_>> {
    let mut seen = Seen {
        has_answers: true,
        ..Seen::default()
    };
    Cursor::new(data).object(|key, value| {
        match key {
            b"type" => match value.word()? {
                b"message_stop" => seen.is_last = true,
                b"error" => seen.has_failed = true,
                _ => {}
            },
            b"message" => start(value, &mut seen.reported)?,
            b"usage" => seen.reported.update(usage(value)?),
            b"delta" => delta(value, &mut seen)?,
            b"content_block" => part(value, &mut seen.size)?,
            b"content" => value.list(|block| part(block, &mut seen.size))?,
            b"error" => seen.failure = value.non_empty()?,
            _ => value.skip()?,
        }
        Some(())
    })?;
    seen.has_failed |= !seen.failure.is_empty();
    Some(seen)
}

/// Reads the message that a stream begins with, whose figure of the output is a placeholder.
fn start(value: &mut Cursor<'_>, reported: &mut Reported) -> Option<()> {
    value.object(|key, value| match key {
        b"usage" => usage(value).map(|figures| {
            reported.update(Reported {
                output: None,
                ..figures
            });
        }),
        _ => value.skip(),
    })
}

fn delta(value: &mut Cursor<'_>, seen: &mut Seen<'_>) -> Option<()> {
    value.object(|key, value| match key {
        b"text" | b"thinking" | b"partial_json" => value.size().map(|size| seen.size += size),
        // Some servers send no `message_stop`; why the model stopped says that it did.
        b"stop_reason" => value.word().map(|reason| {
            let bit = u64::from(!reason.is_empty());
            seen.begun |= bit;
            seen.ended |= bit;
        }),
        _ => value.skip(),
    })
}

/// Reads `usage`. What came from a cache, or went into one, is counted apart there.
fn usage(value: &mut Cursor<'_>) -> Option<Reported> {
    let mut reported = Reported::default();
    let mut input: Option<u64> = None;
    value.object(|key, value| {
        match key {
            b"input_tokens" | b"cache_creation_input_tokens" | b"cache_read_input_tokens" => {
                let count = value.count()?.0;
                if key == b"cache_read_input_tokens" {
                    reported.cached = count;
                }
                input = count.map(|count| input.unwrap_or(0).saturating_add(count)).or(input);
            }
            b"output_tokens" => reported.output = value.count()?.0,
            _ => value.skip()?,
        }
        Some(())
    })?;
    reported.input = input;
    Some(reported)
}
