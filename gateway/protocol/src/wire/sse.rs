//! One server-sent event: its name and its data, by the WHATWG HTML standard, 9.2.6.

use std::borrow::Cow;

/// The fields of an event.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Event<'a> {
    /// Empty where there is no `event` field.
    pub(crate) name: &'a [u8],
    /// `None` where there is no `data` field, as in a comment.
    pub(crate) data: Option<Cow<'a, [u8]>>,
}

impl<'a> Event<'a> {
    /// Reads an event; it borrows unless its data stands in several lines.
    pub(crate) fn parse(event: &'a [u8]) -> Self {
        // Nearly every event of a model's answer: one line of data, an empty one after it.
        if let Some(data) = event.strip_prefix(b"data:")
            && let Some(data) = data.strip_suffix(b"\n\n")
            && memchr::memchr2(b'\n', b'\r', data).is_none()
        {
            return Self {
                name: b"",
                data: Some(Cow::Borrowed(without_space(data))),
            };
        }
        Self::by_lines(event)
    }

    fn by_lines(event: &'a [u8]) -> Self {
        let mut parsed = Self::default();
        let event = event.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(event);
        let mut rest = event;
        while !rest.is_empty() {
            let end = memchr::memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
            let line = &rest[..end];
            rest = rest.get(end + 1..).unwrap_or_default();
            // The names of fields are shorter than a search by vectors.
            let (field, value) = match line.iter().position(|byte| *byte == b':') {
                Some(colon) => (&line[..colon], without_space(&line[colon + 1..])),
                None => (line, &line[line.len()..]),
            };
            match field {
                b"data" => match &mut parsed.data {
                    None => parsed.data = Some(Cow::Borrowed(value)),
                    Some(data) => {
                        let data = data.to_mut();
                        data.push(b'\n');
                        data.extend_from_slice(value);
                    }
                },
                b"event" => parsed.name = value,
                // llama.cpp's server before 2025 wrote `error: {…}`.
                b"error" => {
                    parsed.name = field;
                    parsed.data = Some(Cow::Borrowed(value));
                }
                // A comment has an empty name; `id` and `retry` are for reconnecting; others are to be ignored.
                _ => {}
            }
        }
        parsed
    }

    /// The data without white space around it, which JSON does not need.
    pub(crate) fn trimmed(&self) -> Option<&[u8]> {
        self.data.as_deref().map(<[u8]>::trim_ascii)
    }
}

fn without_space(value: &[u8]) -> &[u8] {
    value.strip_prefix(b" ").unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(event: &str) -> (String, Option<String>) {
        let event = Event::parse(event.as_bytes());
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
        (text(event.name), event.data.as_deref().map(text))
    }

    /// The examples of the standard's section 9.2.6, and what it says of each field.
    #[test]
    fn events_are_read_as_the_standard_says() {
        let data = |text: &str| (String::new(), Some(text.to_owned()));
        assert_eq!(parsed("data: YHOO\ndata: +2\ndata: 10\n\n"), data("YHOO\n+2\n10"));
        assert_eq!(parsed(": test stream\n\n"), (String::new(), None));
        assert_eq!(parsed("data: first event\nid: 1\n\n"), data("first event"));
        assert_eq!(parsed("data:second event\nid\n\n"), data("second event"));
        assert_eq!(parsed("data:  third event\n\n"), data(" third event"));
        assert_eq!(parsed("data\n\n"), data(""));
        assert_eq!(parsed("data\ndata\n\n"), data("\n"));
        assert_eq!(parsed("data:\n"), data(""));
        assert_eq!(
            parsed("event: add\r\ndata: 73857293\r\n\r\n"),
            ("add".to_owned(), Some("73857293".to_owned()))
        );
        assert_eq!(parsed("\u{feff}data: a\r\r"), data("a"));
        assert_eq!(parsed("retry: 10\n:note\ndata: x:y\nunknown: z\n\n"), data("x:y"));
        assert_eq!(parsed("\ndata: a\n\n"), data("a"));
    }
}
