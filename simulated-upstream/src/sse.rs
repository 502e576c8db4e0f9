//! Server-sent events.

use serde_json::Value;
use std::fmt::Write;

/// An event with a name, which is its type too.
pub(crate) fn named(out: &mut String, name: &str, data: &Value) {
    let _ = write!(out, "event: {name}\ndata: {data}\n\n");
}
