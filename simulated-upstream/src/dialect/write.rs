//! The bytes of an event or a line.

use super::{Dialect, Quirk};
use serde::Serialize;
use serde_json::Value;
use serde_json::ser::Formatter;
use std::fmt::Write as _;
use std::io;

/// JSON as Python's `json.dumps` writes it.
struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, is_first: bool) -> io::Result<()> {
        if is_first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, is_first: bool) -> io::Result<()> {
        if is_first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}

impl Dialect {
    /// A value as this server writes it.
    pub(crate) fn json(&self, value: &Value) -> String {
        if !self.has(Quirk::Spaces) {
            return value.to_string();
        }
        let mut bytes = Vec::new();
        let written = value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, Spaced));
        debug_assert!(written.is_ok(), "a value and a vector do not fail");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// An event without a name.
    pub(crate) fn event(&self, out: &mut String, data: &Value) {
        let start = out.len();
        if self.has(Quirk::Comments) {
            out.push_str(": ping\n\n");
        }
        if self.has(Quirk::EventLines) {
            out.push_str("event: message\nid: 7\n");
        }
        if self.has(Quirk::CommentWithin) {
            out.push_str(": ping\n");
        }
        let field = if self.has(Quirk::NoColonSpace) {
            "data:"
        } else {
            "data: "
        };
        if self.has(Quirk::Multiline) {
            for line in format!("{data:#}").lines() {
                let _ = writeln!(out, "{field}{line}");
            }
            out.push('\n');
        } else {
            let _ = write!(out, "{field}{}\n\n", self.json(data));
        }
        self.end_lines(out, start);
    }

    /// The event that ends a stream, where there is one.
    pub(crate) fn done(&self, out: &mut String) {
        if self.has(Quirk::NoDone) {
            return;
        }
        let start = out.len();
        out.push_str(if self.has(Quirk::NoColonSpace) {
            "data:[DONE]\n\n"
        } else {
            "data: [DONE]\n\n"
        });
        self.end_lines(out, start);
    }

    /// An error after a stream has begun.
    pub(crate) fn error_event(&self, out: &mut String, error: &Value) {
        let start = out.len();
        let text = self.json(error);
        let _ = match (self.has(Quirk::ErrorEvent), self.has(Quirk::ErrorField)) {
            (true, _) => write!(out, "event: error\ndata: {text}\n\n"),
            (false, true) => write!(out, "error: {text}\n\n"),
            (false, false) => write!(out, "data: {text}\n\n"),
        };
        self.end_lines(out, start);
        if self.has(Quirk::ErrorThenDone) {
            self.done(out);
        }
    }

    /// Line ends from `start` on. No JSON text has a line end in itself.
    fn end_lines(&self, out: &mut String, start: usize) {
        let end = match (self.has(Quirk::Crlf), self.has(Quirk::Cr)) {
            (true, _) => "\r\n",
            (false, true) => "\r",
            (false, false) => return,
        };
        let ended = out[start..].replace('\n', end);
        out.truncate(start);
        out.push_str(&ended);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn event(quirks: &str) -> String {
        let mut out = String::new();
        let dialect = Dialect::parse(quirks).expect(quirks);
        dialect.event(&mut out, &json!({"a": [1, {"b": "x\ny"}]}));
        dialect.done(&mut out);
        out
    }

    #[test]
    fn events_have_the_bytes_of_their_quirks() {
        for (quirks, expected) in [
            ("vllm", "data: {\"a\":[1,{\"b\":\"x\\ny\"}]}\n\ndata: [DONE]\n\n"),
            ("spaces", "data: {\"a\": [1, {\"b\": \"x\\ny\"}]}\n\ndata: [DONE]\n\n"),
            ("spaces,no-done,crlf", "data: {\"a\": [1, {\"b\": \"x\\ny\"}]}\r\n\r\n"),
            ("no-done,cr", "data: {\"a\":[1,{\"b\":\"x\\ny\"}]}\r\r"),
            (
                "no-colon-space",
                "data:{\"a\":[1,{\"b\":\"x\\ny\"}]}\n\ndata:[DONE]\n\n",
            ),
            ("no-done,comments", ": ping\n\ndata: {\"a\":[1,{\"b\":\"x\\ny\"}]}\n\n"),
            (
                "no-done,event-lines,comment-within",
                "event: message\nid: 7\n: ping\ndata: {\"a\":[1,{\"b\":\"x\\ny\"}]}\n\n",
            ),
            (
                "no-done,multiline",
                "data: {\ndata:   \"a\": [\ndata:     1,\ndata:     {\ndata:       \"b\": \"x\\ny\"\ndata:     }\ndata:   ]\ndata: }\n\n",
            ),
        ] {
            assert_eq!(event(quirks), expected, "{quirks}");
        }
    }
}
