//! Server-sent events, read by the rules of the WHATWG HTML Living Standard ("Interpreting an event stream").

/// Splits bytes that arrive in pieces into lines that end in LF, CR LF or CR.
#[derive(Debug, Default)]
pub(crate) struct LineSplitter {
    /// The beginning of a line whose end has not arrived.
    partial: Vec<u8>,
    /// The last byte was a CR: an LF that follows belongs to the same line end.
    is_after_cr: bool,
}

impl LineSplitter {
    /// Passes each line that is complete, without its end, to `on_line`.
    pub(crate) fn push(&mut self, bytes: &[u8], mut on_line: impl FnMut(&[u8])) {
        let mut rest = bytes;
        if self.is_after_cr && !rest.is_empty() {
            rest = rest.strip_prefix(b"\n").unwrap_or(rest);
            self.is_after_cr = false;
        }
        while let Some(end) = memchr::memchr2(b'\n', b'\r', rest) {
            if self.partial.is_empty() {
                on_line(&rest[..end]);
            } else {
                self.partial.extend_from_slice(&rest[..end]);
                on_line(&self.partial);
                self.partial.clear();
            }
            let is_cr = rest[end] == b'\r';
            rest = &rest[end + 1..];
            if is_cr {
                self.is_after_cr = rest.is_empty();
                rest = rest.strip_prefix(b"\n").unwrap_or(rest);
            }
        }
        self.partial.extend_from_slice(rest);
    }

    /// The line that the input ended in, without a line end.
    pub(crate) fn rest(&self) -> &[u8] {
        &self.partial
    }
}

/// Assembles events from lines.
#[derive(Debug, Default)]
pub(crate) struct EventParser {
    lines: LineSplitter,
    event: Event,
    has_begun: bool,
}

/// An event while its lines arrive.
#[derive(Debug, Default)]
struct Event {
    name: Vec<u8>,
    /// Values of `data` fields, each with an LF after it.
    data: Vec<u8>,
}

impl EventParser {
    /// Passes name and data of each event that is complete to `on_event`.
    pub(crate) fn push(&mut self, bytes: &[u8], mut on_event: impl FnMut(&[u8], &[u8])) {
        let Self {
            lines,
            event,
            has_begun,
        } = self;
        lines.push(bytes, |line| {
            let mut line = line;
            if !*has_begun {
                *has_begun = true;
                line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
            }
            if line.is_empty() {
                event.dispatch(&mut on_event);
            } else {
                event.field(line);
            }
        });
    }

    /// Data of an event that the stream ended in. The standard discards it; whether the end marker is in it still tells
    /// a stream that was cut from one without the last blank line.
    pub(crate) fn unfinished(mut self) -> Vec<u8> {
        let rest = std::mem::take(&mut self.lines.partial);
        if !rest.is_empty() {
            self.event.field(&rest);
        }
        self.event.data.pop();
        self.event.data
    }
}

impl Event {
    fn field(&mut self, line: &[u8]) {
        let (name, value) = match memchr::memchr(b':', line) {
            // A comment.
            Some(0) => return,
            Some(at) => {
                let value = &line[at + 1..];
                (&line[..at], value.strip_prefix(b" ").unwrap_or(value))
            }
            None => (line, &b""[..]),
        };
        match name {
            b"data" => {
                self.data.extend_from_slice(value);
                self.data.push(b'\n');
            }
            b"event" => {
                self.name.clear();
                self.name.extend_from_slice(value);
            }
            // llama.cpp before 2025-11 reports an error by a field of this name, which the standard ignores.
            b"error" => {
                name.clone_into(&mut self.name);
                self.data.extend_from_slice(value);
                self.data.push(b'\n');
            }
            _ => {}
        }
    }

    fn dispatch(&mut self, on_event: &mut impl FnMut(&[u8], &[u8])) {
        if let Some((_, data)) = self.data.split_last() {
            on_event(&self.name, data);
        }
        self.data.clear();
        self.name.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(text: &str, cut: usize) -> Vec<(String, String)> {
        let mut parser = EventParser::default();
        let mut events = Vec::new();
        for bytes in text.as_bytes().chunks(cut) {
            parser.push(bytes, |name, data| {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                events.push((text(name), text(data)));
            });
        }
        events
    }

    /// The examples of the standard, section 9.2.6, and the line ends that it allows.
    #[test]
    fn the_examples_of_the_standard_are_read_however_they_are_cut() {
        let data = |texts: &[&str]| {
            let pairs = texts.iter().map(|text| (String::new(), (*text).to_owned()));
            pairs.collect::<Vec<_>>()
        };
        for cut in [1, 2, 3, 7, 1000] {
            assert_eq!(
                events("data: YHOO\ndata: +2\ndata: 10\n\n", cut),
                data(&["YHOO\n+2\n10"])
            );
            assert_eq!(
                events(
                    ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
                    cut
                ),
                data(&["first event", "second event", " third event"])
            );
            assert_eq!(events("data\n\ndata\ndata\n\ndata:", cut), data(&["", "\n"]));
            assert_eq!(events("data:test\n\ndata: test\n\n", cut), data(&["test", "test"]));
            assert_eq!(
                events("\u{feff}event: add\r\ndata: 1\r\n\r\ndata: 2\r\rdata: 3\n\n", cut),
                [("add", "1"), ("", "2"), ("", "3")].map(|(name, data)| (name.to_owned(), data.to_owned()))
            );
        }
    }

    #[test]
    fn an_event_without_its_blank_line_is_not_dispatched_but_can_be_looked_at() {
        let mut parser = EventParser::default();
        parser.push(b"data: 1\n\ndata: [DONE]", |_, data| assert_eq!(data, b"1"));
        assert_eq!(parser.unfinished(), b"[DONE]");
    }
}
