//! Ends of records in a stream of bytes: server-sent events and JSON lines.
//!
//! The scanner keeps three bits of state between pieces and never looks at a byte twice, so an event that arrives in
//! ten thousand pieces costs as much as one that arrives whole.

/// The framing of a stream: its division into records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// `text/event-stream`: an event ends with an empty line; lines end with LF, CR or CRLF (WHATWG HTML, 9.2.6).
    EventStream,
    /// `application/x-ndjson`: a record ends with LF.
    JsonLines,
}

/// Finds the ends of records in pieces of a stream.
#[derive(Debug, Clone)]
pub(crate) struct Scanner {
    framing: Framing,
    /// Nothing but its end has been seen of the current line.
    line_is_empty: bool,
    /// A field or comment has been seen in the current event.
    has_lines: bool,
    /// The last byte was a CR, so that an LF right after it ends no line of its own.
    after_cr: bool,
}

impl Scanner {
    pub(crate) fn new(framing: Framing) -> Self {
        Self {
            framing,
            line_is_empty: true,
            has_lines: false,
            after_cr: false,
        }
    }

    /// The end of the current record in `piece`, which follows all that was scanned before. `None`: the whole piece
    /// belongs to a record that has not ended.
    pub(crate) fn end(&mut self, piece: &[u8]) -> Option<usize> {
        match self.framing {
            Framing::JsonLines => memchr::memchr(b'\n', piece).map(|at| at + 1),
            Framing::EventStream => self.event_end(piece),
        }
    }

    /// Returns whether an LF that comes next would belong to the record that has just ended.
    pub(crate) fn is_within_crlf(&self) -> bool {
        self.after_cr
    }

    fn event_end(&mut self, piece: &[u8]) -> Option<usize> {
        let mut line = 0;
        if self.after_cr && !piece.is_empty() {
            self.after_cr = false;
            line = usize::from(piece[0] == b'\n');
        }
        loop {
            let Some(length) = memchr::memchr2(b'\n', b'\r', &piece[line..]) else {
                self.line_is_empty &= line == piece.len();
                return None;
            };
            let end = line + length;
            let is_empty = self.line_is_empty && length == 0;
            self.line_is_empty = true;
            let next = match (piece[end], piece.get(end + 1)) {
                (b'\r', Some(b'\n')) => end + 2,
                (b'\r', None) => {
                    self.after_cr = true;
                    end + 1
                }
                _ => end + 1,
            };
            if !is_empty {
                self.has_lines = true;
            } else if std::mem::take(&mut self.has_lines) {
                return Some(next);
            }
            line = next;
        }
    }
}

/// The records of a body that has arrived whole; the last one may lack its end.
pub(crate) fn records(framing: Framing, body: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut scanner = Scanner::new(framing);
    let mut rest = body;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = scanner.end(rest).unwrap_or(rest.len());
        let (record, after) = rest.split_at(end);
        rest = after;
        Some(record)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn whole(framing: Framing, body: &str) -> Vec<&str> {
        records(framing, body.as_bytes())
            .map(|record| std::str::from_utf8(record).expect("text"))
            .collect()
    }

    #[test]
    fn an_event_ends_with_an_empty_line_whatever_ends_its_lines() {
        for end in ["\n", "\r", "\r\n"] {
            let body = format!("data: a{end}{end}: note{end}data: b{end}{end}data: c{end}");
            let records = whole(Framing::EventStream, &body);
            let expected = [
                format!("data: a{end}{end}"),
                format!(": note{end}data: b{end}{end}"),
                format!("data: c{end}"),
            ];
            assert_eq!(records, expected, "{end:?}");
        }
    }

    #[test]
    fn empty_lines_between_events_are_no_events() {
        assert_eq!(
            whole(Framing::EventStream, "\n\n\ndata: a\n\n\n\ndata: b\n\n"),
            ["\n\n\ndata: a\n\n", "\n\ndata: b\n\n"]
        );
    }

    #[test]
    fn a_json_line_ends_with_its_newline_and_the_last_one_needs_none() {
        assert_eq!(
            whole(Framing::JsonLines, "{}\r\n\n{\"a\":1}"),
            ["{}\r\n", "\n", "{\"a\":1}"]
        );
    }

    /// The lines of a body by the standard's grammar, read with the whole of it in sight.
    fn slow_events(body: &str) -> Vec<Vec<String>> {
        let body = body.replace("\r\n", "\n").replace('\r', "\n");
        let mut events = vec![Vec::new()];
        for line in body.split('\n') {
            if !line.is_empty() {
                events.last_mut().expect("one").push(line.to_owned());
            } else if !events.last().expect("one").is_empty() {
                events.push(Vec::new());
            }
        }
        events.retain(|event| !event.is_empty());
        events
    }

    proptest! {
        #[test]
        fn any_split_of_a_stream_gives_the_events_of_the_standard(
            body in "(data: ?[ab:]{0,3}|event:x|:|\r|\n|\r\n|\n\n){0,24}",
            cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..6),
        ) {
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(body.len() + 1)).collect();
            at.extend([0, body.len()]);
            at.sort_unstable();
            let mut scanner = Scanner::new(Framing::EventStream);
            let (mut events, mut record) = (Vec::new(), String::new());
            for pair in at.windows(2) {
                let mut piece = &body[pair[0]..pair[1]];
                while let Some(end) = scanner.end(piece.as_bytes()) {
                    record += &piece[..end];
                    events.extend(slow_events(&std::mem::take(&mut record)));
                    piece = &piece[end..];
                }
                record += piece;
            }
            events.extend(slow_events(&record));
            prop_assert_eq!(events, slow_events(&body));
        }
    }
}
