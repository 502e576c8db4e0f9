//! Finds values in a JSON body without building a tree, and puts new ones in their place.
//!
//! serde_json reads the top level once and hands out borrowed slices ([`Raw`]); a slice's address tells its position.
//! Servers disagree on a key that stands twice (the first counts, or the last) and on its case (Go's decoder takes
//! `Model` for `model`), so a key that matters and is given in two ways is refused.

use crate::error::{ErrorCode, RequestError};
use bytes::Bytes;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;

/// A value as it stands in the body, `null` too; empty where the key is absent.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Raw<'a>(Option<&'a str>);

impl<'a> Raw<'a> {
    /// The value's JSON; `None` where it is absent or null.
    pub(crate) fn text(self) -> Option<&'a str> {
        self.0.filter(|text| *text != "null")
    }

    /// Returns whether the key is there, null or not.
    pub(crate) fn is_given(self) -> bool {
        self.0.is_some()
    }

    /// The value's bytes in `body`, null or not.
    pub(crate) fn range(self, body: &[u8]) -> Option<Range<usize>> {
        let text = self.0?;
        let start = (text.as_ptr() as usize).checked_sub(body.as_ptr() as usize)?;
        Some(start..start + text.len())
    }

    /// The value as a string.
    pub(crate) fn string(self, key: &'static str) -> Result<Option<Cow<'a, str>>, RequestError> {
        let Some(text) = self.text() else { return Ok(None) };
        if !text.starts_with('"') {
            return Err(RequestError::invalid(
                key,
                format!("`{key}` must be a string, not {}", shortened(text)),
            ));
        }
        let inner = &text[1..text.len() - 1];
        if !inner.contains('\\') {
            return Ok(Some(Cow::Borrowed(inner)));
        }
        serde_json::from_str(text)
            .map(|owned: String| Some(Cow::Owned(owned)))
            .map_err(|_| RequestError::invalid(key, format!("`{key}` is not a valid string")))
    }

    /// The value as a number: `8`, `8.0` and `"8"` are 8, as servers in Python and C++ read them, and 8.5 is 9 at most.
    pub(crate) fn number(self, key: &'static str) -> Result<Option<Number>, RequestError> {
        let Some(text) = self.text() else { return Ok(None) };
        Number::read(text).map(Some).ok_or_else(|| {
            RequestError::invalid(key, format!("`{key}` must be a whole number, not {}", shortened(text)))
        })
    }

    /// The value as a count, 1 or more.
    pub(crate) fn count(self, key: &'static str) -> Result<Option<u64>, RequestError> {
        match self.number(key)?.map(|number| number.value) {
            None => Ok(None),
            Some(Some(count)) if count > 0 => Ok(Some(count)),
            Some(_) => {
                let text = shortened(self.text().unwrap_or_default()).into_owned();
                Err(RequestError::invalid(
                    key,
                    format!("`{key}` must be at least 1, not {text}"),
                ))
            }
        }
    }

    /// The value as true or false, also in the words and numbers that servers in Python take for it. `None` for any
    /// other value: whether that is refused is the server's decision.
    pub(crate) fn truth(self) -> Option<bool> {
        let text = self.text()?.trim_matches('"');
        let is_any_of = |words: &[&str]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
        if is_any_of(&["true", "1", "1.0", "t", "yes", "y", "on"]) {
            Some(true)
        } else if is_any_of(&["false", "0", "0.0", "f", "no", "n", "off"]) {
            Some(false)
        } else {
            None
        }
    }

    /// Shows each item of a list to `see`; a value that is no list is its own only item.
    pub(crate) fn each(self, mut see: impl FnMut(&'a str)) {
        let Some(text) = self.text() else { return };
        if !text.starts_with('[') {
            return see(text);
        }
        // A value that was read once can be read again.
        let _ = serde_json::Deserializer::from_str(text).deserialize_seq(Items(&mut see));
    }
}

struct Items<'f, F>(&'f mut F);

impl<'de, F: FnMut(&'de str)> Visitor<'de> for Items<'_, F> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list")
    }

    fn visit_seq<S: serde::de::SeqAccess<'de>>(self, mut items: S) -> Result<(), S::Error> {
        while let Some(item) = items.next_element::<&'de RawValue>()? {
            (self.0)(item.get());
        }
        Ok(())
    }
}

/// A number of tokens or answers as a client gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Number {
    /// `None`: below 0, which servers read as no limit.
    pub(crate) value: Option<u64>,
    /// True if it stands there as a number: some servers ignore a string.
    pub(crate) is_number: bool,
}

impl Number {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    fn read(text: &str) -> Option<Self> {
        let is_number = !text.starts_with('"');
        let digits = if is_number {
            text
        } else {
            text.get(1..text.len() - 1)?.trim()
        };
        let value = if let Ok(count) = digits.parse::<u64>() {
            Some(count)
        } else {
            let number: f64 = digits.parse().ok().filter(|number: &f64| number.is_finite())?;
            // A server that takes a fraction rounds it down. Too large for the type is the type's largest.
            (number >= 0.0).then_some(number.ceil() as u64)
        };
        Some(Self { value, is_number })
    }
}

fn shortened(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(40) {
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

/// The fields that a dialect reads of an object, by name.
pub(crate) trait Fields<'a>: Default {
    /// Their names.
    const KEYS: &'static [&'static str];

    /// The field of a name.
    fn field(&mut self, key: &str) -> Option<&mut Raw<'a>>;
}

/// Declares a struct of [`Raw`] fields that are read under their own names.
macro_rules! fields {
    ($(#[$doc:meta])* struct $name:ident { $($field:ident),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Default, Clone, Copy)]
        struct $name<'a> { $($field: $crate::scan::Raw<'a>),* }

        impl<'a> $crate::scan::Fields<'a> for $name<'a> {
            const KEYS: &'static [&'static str] = &[$(stringify!($field)),*];

            fn field(&mut self, key: &str) -> Option<&mut $crate::scan::Raw<'a>> {
                match key {
                    $(stringify!($field) => Some(&mut self.$field),)*
                    _ => None,
                }
            }
        }
    };
}
pub(crate) use fields;

struct Object<T>(PhantomData<T>);

impl<'de, T: Fields<'de>> Visitor<'de> for Object<T> {
    type Value = T;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<T, M::Error> {
        let mut fields = T::default();
        while let Some(Key(key)) = map.next_key::<Key<'de>>()? {
            let value = map.next_value::<&'de RawValue>()?.get();
            if let Some(field) = fields.field(&key) {
                if field.is_given() {
                    return Err(M::Error::custom(format_args!("`{key}` is given twice")));
                }
                *field = Raw(Some(value));
            } else if let Some(known) = T::KEYS.iter().find(|known| is_the_same_in_go(&key, known)) {
                return Err(M::Error::custom(format_args!("`{key}` must be written as `{known}`")));
            }
        }
        Ok(fields)
    }
}

/// Returns whether Go's decoder, with which Ollama and LocalAI read, takes a key for another: it folds case, the long s and
/// the Kelvin sign.
fn is_the_same_in_go(key: &str, known: &str) -> bool {
    if key.is_ascii() {
        return key.eq_ignore_ascii_case(known);
    }
    key.replace('ſ', "s")
        .replace('\u{212a}', "k")
        .eq_ignore_ascii_case(known)
}

struct Key<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Key<'de>;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a key")
            }
            fn visit_borrowed_str<E: Error>(self, key: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(key)))
            }
            fn visit_str<E: Error>(self, key: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(key.to_owned())))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A body without the byte order mark with which some clients begin it.
pub fn without_byte_order_mark(body: Bytes) -> Bytes {
    if body.starts_with(BYTE_ORDER_MARK) {
        return body.slice(BYTE_ORDER_MARK.len()..);
    }
    body
}

/// Reads a body's top level.
pub(crate) fn top_level<'a, T: Fields<'a>>(body: &'a [u8]) -> Result<T, RequestError> {
    let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
    let bad = |message: String| RequestError::new(ErrorCode::BadRequest, message);
    let text = body.trim_ascii_start();
    if text.is_empty() {
        return Err(bad("invalid request: the body is empty; send a JSON object".to_owned()));
    }
    if text[0] != b'{' {
        return Err(bad(
            "invalid request: the body must be a JSON object, which begins with `{`".to_owned(),
        ));
    }
    object(body).map_err(|error| bad(format!("invalid request: {error}")))
}

/// Reads the fields of a value that should be an object; of another value, none.
pub(crate) fn inner<'a, T: Fields<'a>>(raw: Raw<'a>, key: &'static str) -> Result<T, RequestError> {
    let Some(text) = raw.text().filter(|text| text.starts_with('{')) else {
        return Ok(T::default());
    };
    object(text.as_bytes()).map_err(|error| RequestError::invalid(key, format!("invalid `{key}`: {error}")))
}

fn object<'a, T: Fields<'a>>(json: &'a [u8]) -> serde_json::Result<T> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let fields = deserializer.deserialize_map(Object(PhantomData))?;
    deserializer.end()?;
    Ok(fields)
}

/// Changes to a body, in any order; they never overlap.
#[derive(Debug, Default)]
pub(crate) struct Splices(Vec<(Range<usize>, String)>);

impl Splices {
    /// Puts new JSON in the place of a range.
    pub(crate) fn replace(&mut self, range: Range<usize>, new: impl Into<String>) {
        self.0.push((range, new.into()));
    }

    /// Adds a key to the object that begins at or after `from`.
    pub(crate) fn add_key(&mut self, body: &[u8], from: usize, key: &str, value: &str) {
        let Some(brace) = memchr::memchr(b'{', &body[from..]).map(|at| from + at + 1) else {
            return;
        };
        let is_empty = body[brace..].iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'}');
        // Several keys may be added to an empty object; only the last has no comma behind it.
        let has_more = self.0.iter().any(|(range, _)| *range == (brace..brace));
        let comma = if is_empty && !has_more { "" } else { "," };
        self.0.insert(0, (brace..brace, format!("\"{key}\":{value}{comma}")));
    }

    /// The changed body in pieces, of which the client's are not copied; `None` if nothing changes.
    pub(crate) fn pieces(mut self, body: &Bytes) -> Option<Vec<Bytes>> {
        if self.0.is_empty() {
            return None;
        }
        self.0.sort_by_key(|(range, _)| range.start);
        let mut pieces = Vec::with_capacity(self.0.len() * 2 + 1);
        let mut copied = 0;
        for (range, new) in self.0 {
            pieces.push(body.slice(copied..range.start));
            pieces.push(new.into());
            copied = range.end;
        }
        pieces.push(body.slice(copied..));
        pieces.retain(|piece| !piece.is_empty());
        Some(pieces)
    }

    /// Removes the key that has the value at `value` from its object, and the comma beside it.
    pub(crate) fn remove_key(&mut self, body: &[u8], value: Range<usize>) {
        let before = |end: usize| body[..end].trim_ascii_end();
        let Some(colon) = before(value.start).strip_suffix(b":") else {
            return;
        };
        let Some(quoted) = before(colon.len()).strip_suffix(b"\"") else {
            return;
        };
        let Some(start) = memchr::memrchr(b'"', quoted) else {
            return;
        };
        if let Some(others) = before(start).strip_suffix(b",") {
            return self.0.push((others.len()..value.end, String::new()));
        }
        let after = body[value.end..].trim_ascii_start();
        let end = if after.first() == Some(&b',') {
            body.len() - after.len() + 1
        } else {
            value.end
        };
        self.0.push((start..end, String::new()));
    }

    /// The changed body; `None` if nothing changes.
    pub(crate) fn apply(mut self, body: &[u8]) -> Option<Vec<u8>> {
        if self.0.is_empty() {
            return None;
        }
        // What is added at a place comes before what is removed from there on.
        self.0.sort_by_key(|(range, _)| (range.start, range.end));
        let added: usize = self.0.iter().map(|(_, new)| new.len()).sum();
        let mut out = Vec::with_capacity(body.len() + added);
        let mut copied = 0;
        for (range, new) in self.0 {
            out.extend_from_slice(&body[copied..range.start]);
            out.extend_from_slice(new.as_bytes());
            copied = range.end;
        }
        out.extend_from_slice(&body[copied..]);
        Some(out)
    }
}

/// A string as JSON.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
