//! Answers of the form that was not asked for, in one protocol: a whole answer as the stream that the client wants, and a
//! stream as a whole answer. Some servers ignore `stream`.

use crate::Operation;
use crate::wire::sse::Event;
use crate::wire::{Framing, is_json, lenient, records};
use serde_json::Value;

/// A whole answer as the stream that was asked for. What is no JSON object is given back as it is.
pub(crate) fn as_stream(call: Operation, wants_usage: bool, body: &[u8]) -> Vec<u8> {
    let stream = match lenient::value(body) {
        Some(Value::Object(whole)) => call.protocol().dialect().as_stream(whole, wants_usage),
        _ => None,
    };
    stream.unwrap_or_else(|| body.to_vec())
}

/// A stream as the whole answer that was asked for; `None` where it is one, or cannot be put together.
pub fn from_stream(call: Operation, body: &[u8]) -> Option<Vec<u8>> {
    let dialect = call.protocol().dialect();
    let framing = dialect.framing();
    if framing == Framing::EventStream && is_json(body) {
        return None;
    }
    let mut events = records(framing, body).filter_map(|record| match framing {
        Framing::JsonLines => lenient::value(record),
        Framing::EventStream => lenient::value(Event::parse(record).trimmed()?),
    });
    let whole = dialect.gathered(&mut events)?;
    Some(whole.to_string().into_bytes())
}

#[cfg(test)]
mod tests;
