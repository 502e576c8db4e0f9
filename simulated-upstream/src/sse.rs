//! Server-sent events.

use serde_json::Value;
use std::fmt::Write;

/// An event without a name.
pub(crate) fn data(out: &mut String, data: &Value) {
    let _ = write!(out, "data: {data}\n\n");
}

/// An event with a name, which is its type too.
pub(crate) fn named(out: &mut String, name: &str, data: &Value) {
    let _ = write!(out, "event: {name}\ndata: {data}\n\n");
}
