//! A cursor over JSON text that goes past every byte once and allocates nothing: for what is read of each event of a
//! stream that passes. Values of a type that was not expected are skipped.
//!
//! It takes for granted that the text is JSON; where it is not, it stops, or reads something of it.

use crate::tokens::TextSize;
use crate::wire::lenient::Count;

/// A place in JSON text, at the beginning of a value.
#[derive(Debug)]
pub(crate) struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0 }
    }

    /// The next byte that is no white space.
    #[inline]
    fn peek(&mut self) -> Option<u8> {
        loop {
            let byte = *self.text.get(self.at)?;
            if !is_space(byte) {
                return Some(byte);
            }
            self.at += 1;
        }
    }

    #[inline]
    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    /// Goes past a key. `None` where it has escapes.
    #[inline]
    fn key(&mut self) -> Option<&'a [u8]> {
        self.expect(b'"')?;
        let rest = &self.text[self.at..];
        let length = quote_or_escape(rest)?;
        self.at += length + 1;
        (rest[length] == b'"').then(|| &rest[..length])
    }

    /// Goes past a string; gives what is between its quotes, escapes as they are.
    fn string(&mut self) -> Option<&'a [u8]> {
        self.expect(b'"')?;
        let start = self.at;
        loop {
            self.at += quote_or_escape(&self.text[self.at..])?;
            if self.text[self.at] == b'"' {
                self.at += 1;
                return Some(&self.text[start..self.at - 1]);
            }
            // The escaped byte is neither the end nor an escape.
            self.at += 2;
            if self.at > self.text.len() {
                return None;
            }
        }
    }

    /// Reads an object; `field` must go past each value. Anything else is skipped. `None` where the text is no JSON, or
    /// has a key with escapes.
    #[inline]
    pub(crate) fn object(&mut self, mut field: impl FnMut(&'a [u8], &mut Self) -> Option<()>) -> Option<()> {
        if self.peek()? != b'{' {
            return self.skip();
        }
        self.at += 1;
        if self.peek()? == b'}' {
            self.at += 1;
            return Some(());
        }
        loop {
            let key = self.key()?;
            self.expect(b':')?;
            field(key, self)?;
            if self.ends(b'}')? {
                return Some(());
            }
        }
    }

    /// Reads a list; `item` must go past each value. A single object is a list of one, anything else is skipped.
    pub(crate) fn list(&mut self, mut item: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        match self.peek()? {
            b'[' => self.at += 1,
            b'{' => return item(self),
            _ => return self.skip(),
        }
        if self.peek()? == b']' {
            self.at += 1;
            return Some(());
        }
        loop {
            item(self)?;
            if self.ends(b']')? {
                return Some(());
            }
        }
    }

    /// Returns whether the object or list ends here (true) or goes on after a comma.
    fn ends(&mut self, close: u8) -> Option<bool> {
        let byte = self.peek()?;
        self.at += 1;
        match byte {
            b',' => Some(false),
            byte => (byte == close).then_some(true),
        }
    }

    /// Goes past a value of any kind.
    pub(crate) fn skip(&mut self) -> Option<()> {
        match self.peek()? {
            b'"' => self.string().map(drop),
            b'{' | b'[' => self.skip_nested(),
            _ => {
                let rest = &self.text[self.at..];
                let is_end = |byte: &u8| matches!(byte, b',' | b'}' | b']') || is_space(*byte);
                let length = rest.iter().position(is_end).unwrap_or(rest.len());
                self.at += length;
                (length > 0).then_some(())
            }
        }
    }

    fn skip_nested(&mut self) -> Option<()> {
        let mut depth = 0_usize;
        loop {
            match self.text.get(self.at)? {
                b'"' => {
                    self.string()?;
                    continue;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth -= 1,
                _ => {}
            }
            self.at += 1;
            if depth == 0 {
                return Some(());
            }
        }
    }

    /// Goes past a value, and gives its text.
    pub(crate) fn raw(&mut self) -> Option<&'a [u8]> {
        self.peek()?;
        let start = self.at;
        self.skip()?;
        Some(&self.text[start..self.at])
    }

    /// Goes past a value, and gives its text; nothing where it says nothing.
    pub(crate) fn non_empty(&mut self) -> Option<&'a [u8]> {
        let raw = self.raw()?;
        let says_nothing = matches!(raw, b"null" | b"false" | b"\"\"" | b"{}" | b"[]");
        Some(if says_nothing { b"" } else { raw })
    }

    /// Goes past a value, and gives its text if it is a string.
    pub(crate) fn word(&mut self) -> Option<&'a [u8]> {
        match self.peek()? {
            b'"' => self.string(),
            _ => self.skip().map(|()| &b""[..]),
        }
    }

    /// Goes past a value; the size of a string's text, or of the JSON of an object or list.
    pub(crate) fn size(&mut self) -> Option<TextSize> {
        Some(match self.peek()? {
            b'"' => TextSize::of_escaped(self.string()?),
            b'{' | b'[' => TextSize::of_bytes(self.non_empty()?),
            _ => {
                self.skip()?;
                TextSize::default()
            }
        })
    }

    /// Goes past a value; the size of a text that may be a list of parts, of which the texts count.
    pub(crate) fn content(&mut self) -> Option<TextSize> {
        // The reasoning that is a part of Mistral's content is itself a list of parts.
        self.content_of(2)
    }

    /// The size of a content with so many levels of lists; what is nested deeper counts as JSON.
    fn content_of(&mut self, levels: u8) -> Option<TextSize> {
        if levels == 0 || self.peek()? != b'[' {
            return self.size();
        }
        let mut all = TextSize::default();
        self.list(|part| match part.peek()? {
            b'{' => part.object(|key, value| match key {
                b"text" | b"refusal" | b"thinking" => value.content_of(levels - 1).map(|size| all += size),
                _ => value.skip(),
            }),
            _ => part.size().map(|size| all += size),
        })?;
        Some(all)
    }

    /// Goes past a value; a whole number, or one that is written as a float or in quotes. What is negative or no number
    /// is none.
    pub(crate) fn count(&mut self) -> Option<Count> {
        // An index, most often.
        if let (digit @ b'0'..=b'9', Some(b',' | b'}')) = (self.peek()?, self.text.get(self.at + 1)) {
            self.at += 1;
            return Some(Count(Some(u64::from(digit - b'0'))));
        }
        let raw = match self.peek()? {
            b'"' => self.string()?,
            _ => self.raw()?,
        };
        let Ok(text) = std::str::from_utf8(raw) else {
            return Some(Count(None));
        };
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let float = || {
            text.parse::<f64>()
                .ok()
                .filter(|number| *number >= 0.0)
                .map(|number| number.ceil() as u64)
        };
        Some(Count(text.parse().ok().or_else(float)))
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\n' | b'\r' | b'\t')
}

/// Bytes that are looked at by words of eight; most strings of an event end before, and a longer search has a start that
/// costs as much as these.
const SHORT: usize = 32;

/// The position of the first quote or backslash.
#[inline]
fn quote_or_escape(text: &[u8]) -> Option<usize> {
    let (words, rest) = text[..text.len().min(SHORT)].as_chunks::<8>();
    for (at, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let found = zero_bytes(word ^ repeated(b'"')) | zero_bytes(word ^ repeated(b'\\'));
        if found != 0 {
            return Some(at * 8 + found.trailing_zeros() as usize / 8);
        }
    }
    if text.len() > SHORT {
        return memchr::memchr2(b'"', b'\\', &text[SHORT..]).map(|at| SHORT + at);
    }
    let at = rest.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
    Some(words.len() * 8 + at)
}

const fn repeated(byte: u8) -> u64 {
    u64::from_le_bytes([byte; 8])
}

/// The high bit of each byte that is zero, up to the first of them; what is set above it says nothing (Warren, Hacker's
/// Delight, 6-1).
const fn zero_bytes(word: u64) -> u64 {
    word.wrapping_sub(repeated(1)) & !word & repeated(0x80)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn counts(text: &str) -> Vec<Option<u64>> {
        let mut counts = Vec::new();
        Cursor::new(text.as_bytes())
            .list(|item| item.count().map(|count| counts.push(count.0)))
            .expect("JSON");
        counts
    }

    #[test]
    fn a_count_is_read_in_whatever_form_it_is_written() {
        assert_eq!(
            counts(r#"[ 3, 3.0 ,2.5,"7",-1,null,true,{"a":[1]},[2],"x",1e3,1e300, 0]"#),
            [
                Some(3),
                Some(3),
                Some(3),
                Some(7),
                None,
                None,
                None,
                None,
                None,
                None,
                Some(1000),
                Some(u64::MAX),
                Some(0)
            ]
        );
    }

    #[test]
    fn of_a_content_its_texts_count_and_nothing_around_them() {
        for (content, bytes) in [
            (r#""hello""#, 5),
            (r#"[{"type":"text","text":"hel"},{"type":"text","text":"lo"},null]"#, 5),
            (
                r#"[{"type":"thinking","thinking":[{"type":"text","text":"hello"}],"closed":true}]"#,
                5,
            ),
            (r#"["hel","lo"]"#, 5),
            // Deeper than any server nests them.
            (r#"[{"text":[{"text":["hello"]}]}]"#, 9),
        ] {
            let size = Cursor::new(content.as_bytes()).content().expect(content);
            assert_eq!(size.bytes, bytes, "{content}");
        }
    }

    #[test]
    fn values_that_are_not_expected_are_skipped() {
        let text = br#" {"a" : "x\"}{", "b":{"c":[{"d":"]"}]}, "e":7 ,"b":null,"f":[] } "#;
        let mut keys = Vec::new();
        let mut cursor = Cursor::new(text);
        cursor
            .object(|key, value| {
                keys.push(std::str::from_utf8(key).expect("text"));
                value.list(Cursor::skip)
            })
            .expect("JSON");
        assert_eq!(keys, ["a", "b", "e", "b", "f"]);
        assert_eq!(
            Cursor::new(br#"{"\u0061":1}"#).object(|_, value| value.skip()),
            None,
            "left to serde"
        );
        for broken in [
            "",
            "{",
            "{\"a\"",
            "{\"a\":",
            "{\"a\":1",
            "[1",
            "\"a",
            "\"a\\",
            "{]",
            "{\"a\":1 2}",
        ] {
            let read = Cursor::new(broken.as_bytes()).object(|_, value| value.skip());
            assert!(read.is_none(), "{broken}");
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from)
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec(("[a-z]{0,3}", inner), 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_fields_of_any_object_are_serdes(value in any_json(), is_pretty in any::<bool>()) {
            let value = json!({"a": value, "b": 1});
            let text = if is_pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.expect("JSON");
            let mut seen = serde_json::Map::new();
            Cursor::new(text.as_bytes()).object(|key, value| {
                let raw = value.raw()?;
                seen.insert(String::from_utf8(key.to_vec()).expect("text"), serde_json::from_slice(raw).expect("a value"));
                Some(())
            }).expect("an object");
            prop_assert_eq!(Value::Object(seen), value);
        }

        #[test]
        fn the_first_quote_or_backslash_is_found_wherever_it_stands(
            text in prop::collection::vec(prop_oneof![8 => any::<u8>(), 1 => Just(b'"'), 1 => Just(b'#'), 1 => Just(b'\\')], 0..90),
        ) {
            let expected = text.iter().position(|byte| *byte == b'"' || *byte == b'\\');
            prop_assert_eq!(quote_or_escape(&text), expected);
        }

        #[test]
        fn no_text_makes_the_cursor_panic(text in r#"[{}\[\]",:\\ a1]{0,40}"#) {
            let mut cursor = Cursor::new(text.as_bytes());
            let _ = cursor.object(|_, value| value.content().map(drop));
            let _ = Cursor::new(text.as_bytes()).count();
            let _ = Cursor::new(text.as_bytes()).list(|item| item.size().map(drop));
        }
    }
}
