//! Framing of answers on the wire: server-sent events, JSON lines, and JSON that deviates from its schema.
//!
//! Nothing here knows a protocol's fields; [`crate::meter`] and the protocols' own modules do.

pub(crate) mod json;
pub(crate) mod lenient;
pub(crate) mod merge;
pub(crate) mod records;
pub(crate) mod sse;

pub(crate) use records::{Framing, Scanner, records};

/// Returns whether a body begins as JSON does, and not as a stream.
pub(crate) fn is_json(body: &[u8]) -> bool {
    let body = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
    matches!(body.trim_ascii_start().first(), Some(b'{' | b'['))
}
