//! How answers are framed on the wire: server-sent events, JSON lines, and JSON that is not quite as it should be.
//!
//! Nothing here knows a protocol's fields; [`crate::meter`] and the protocols' own modules do.

pub(crate) mod json;
pub(crate) mod lenient;
pub(crate) mod records;
pub(crate) mod sse;

pub(crate) use records::{Framing, Scanner, records};
