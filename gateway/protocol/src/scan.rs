//! Finds values in a JSON body without building a tree, and puts new ones in their place.
//!
//! serde_json reads the top level once and hands out borrowed slices ([`Raw`]); a slice's address
//! tells its place. A key that is given twice is an error of its derive.

use super::refuse::{ErrorCode, RequestError};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::ops::Range;

/// A value as it stands in the body, `null` too; empty where the key is not there.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Raw<'a>(Option<&'a str>);

impl<'de: 'a, 'a> Deserialize<'de> for Raw<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw: &'de RawValue = Deserialize::deserialize(deserializer)?;
        Ok(Raw(Some(raw.get())))
    }
}

impl<'a> Raw<'a> {
    /// Bytes of the value's text.
    pub(crate) fn len(self) -> usize {
        self.0.map_or(0, str::len)
    }

    /// The value's text; `None` where it is absent or null.
    pub(crate) fn text(self) -> Option<&'a str> {
        self.0.filter(|text| *text != "null")
    }

    /// Where the value stands in `body`, null or not.
    pub(crate) fn place(self, body: &[u8]) -> Option<Range<usize>> {
        let text = self.0?;
        let start = (text.as_ptr() as usize).checked_sub(body.as_ptr() as usize)?;
        Some(start..start + text.len())
    }

    /// The value as a string.
    pub(crate) fn string(self, key: &'static str) -> Result<Option<Cow<'a, str>>, RequestError> {
        let Some(text) = self.text() else { return Ok(None) };
        if !text.starts_with('"') {
            return Err(RequestError::param(
                ErrorCode::BadRequest,
                key,
                format!("`{key}` must be a string"),
            ));
        }
        let inner = &text[1..text.len() - 1];
        if !inner.contains('\\') {
            return Ok(Some(Cow::Borrowed(inner)));
        }
        serde_json::from_str(text)
            .map(|owned: String| Some(Cow::Owned(owned)))
            .map_err(|_| RequestError::param(ErrorCode::BadRequest, key, format!("`{key}` is not a valid string")))
    }

    /// The value as a count, 1 or more.
    pub(crate) fn count(self, key: &'static str) -> Result<Option<u64>, RequestError> {
        let Some(text) = self.text() else { return Ok(None) };
        match text.parse::<u64>() {
            Ok(count) if count > 0 => Ok(Some(count)),
            _ => Err(RequestError::param(
                ErrorCode::BadRequest,
                key,
                format!("`{key}` must be a whole number of at least 1, not {}", shortened(text)),
            )),
        }
    }

    /// The value as true or false.
    pub(crate) fn truth(self, key: &'static str) -> Result<Option<bool>, RequestError> {
        match self.text() {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(other) => Err(RequestError::param(
                ErrorCode::BadRequest,
                key,
                format!("`{key}` must be true or false, not {}", shortened(other)),
            )),
        }
    }
}

fn shortened(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(40) {
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

/// Where the values stand that policy may change.
#[derive(Debug, Default)]
pub(crate) struct Places {
    pub(crate) model: Option<Range<usize>>,
    pub(crate) max_tokens: Option<Range<usize>>,
    /// OpenAI's `stream_options`, Ollama's `options`.
    pub(crate) options: Option<Range<usize>>,
    /// Of a response, that it is to be made in the background.
    pub(crate) background: Option<Range<usize>>,
}

/// Reads a body's top level.
pub(crate) fn top_level<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, RequestError> {
    if body.is_empty() {
        return Err(RequestError::new(
            ErrorCode::BadRequest,
            "the body is empty; send a JSON object",
        ));
    }
    // serde would take a list's items for the fields in their order.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(RequestError::new(
            ErrorCode::BadRequest,
            "a JSON object is expected, beginning with `{`",
        ));
    }
    serde_json::from_slice(body).map_err(|error| {
        RequestError::new(
            ErrorCode::BadRequest,
            format!("the body is not what is expected here: {error}"),
        )
    })
}

/// The model that must be named.
pub(crate) fn model_named(model: Raw<'_>) -> Result<Cow<'_, str>, RequestError> {
    model.string("model")?.filter(|name| !name.is_empty()).ok_or_else(|| {
        RequestError::param(
            ErrorCode::BadRequest,
            "model",
            "`model` is missing; name the model to ask",
        )
    })
}

/// Changes to a body, in any order; they never overlap.
#[derive(Debug, Default)]
pub(crate) struct Splices(Vec<(Range<usize>, String)>);

impl Splices {
    pub(crate) fn replace(&mut self, place: Range<usize>, new: impl Into<String>) {
        self.0.push((place, new.into()));
    }

    /// Adds a key to the object that begins at or after `from`.
    pub(crate) fn add_key(&mut self, body: &[u8], from: usize, key: &str, value: &str) {
        let Some(brace) = memchr::memchr(b'{', &body[from..]).map(|at| from + at + 1) else {
            return;
        };
        let is_empty = body[brace..].iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'}');
        let comma = if is_empty { "" } else { "," };
        self.0.push((brace..brace, format!("\"{key}\":{value}{comma}")));
    }

    /// The changed body; `None` if nothing changes.
    pub(crate) fn apply(mut self, body: &[u8]) -> Option<Vec<u8>> {
        if self.0.is_empty() {
            return None;
        }
        self.0.sort_by_key(|(place, _)| place.start);
        let added: usize = self.0.iter().map(|(_, new)| new.len()).sum();
        let mut out = Vec::with_capacity(body.len() + added);
        let mut copied = 0;
        for (place, new) in self.0 {
            out.extend_from_slice(&body[copied..place.start]);
            out.extend_from_slice(new.as_bytes());
            copied = place.end;
        }
        out.extend_from_slice(&body[copied..]);
        Some(out)
    }
}

/// A string as JSON.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// What a prompt begins with, for as long as its conversation goes on: of a list of messages all to the end of the
/// first one by the user; of a text the first [`BEGINNING`] bytes.
pub fn beginning(prompt: &str) -> &str {
    struct Until<'a>(&'a mut Option<usize>);
    impl<'de> serde::de::Visitor<'de> for Until<'_> {
        type Value = ();
        fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            formatter.write_str("messages")
        }
        fn visit_seq<S: serde::de::SeqAccess<'de>>(self, mut items: S) -> Result<(), S::Error> {
            while let Some(item) = items.next_element::<&'de RawValue>()? {
                let text = item.get();
                *self.0 = Some(text.as_ptr() as usize + text.len());
                let role = serde_json::from_str::<Role<'_>>(text).ok().and_then(|item| item.role);
                if role == Some("user") {
                    break;
                }
            }
            // The rest is not read.
            Err(serde::de::Error::custom("enough"))
        }
    }
    #[derive(Deserialize)]
    struct Role<'a> {
        #[serde(borrow)]
        role: Option<&'a str>,
    }
    let mut end = None;
    if prompt.starts_with('[') {
        let _ = serde_json::Deserializer::from_str(prompt).deserialize_seq(Until(&mut end));
    }
    let most = if end.is_some() { LONGEST_BEGINNING } else { BEGINNING };
    let end = end.map_or(prompt.len(), |end| end - prompt.as_ptr() as usize);
    let at = (0..=end.min(most)).rev().find(|at| prompt.is_char_boundary(*at));
    &prompt[..at.unwrap_or(0)]
}

/// Bytes of a text that tell conversations apart.
const BEGINNING: usize = 512;

/// No more of messages than this.
const LONGEST_BEGINNING: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversation_begins_the_same_however_long_it_has_become() {
        let first = r#"[{"role":"system","content":"Be kind"}, {"role":"user","content":"Hi"}"#;
        let more = format!(r#"{first},{{"role":"assistant","content":"Hello"}},{{"role":"user","content":"So?"}}]"#);
        assert_eq!(beginning(&format!("{first}]")), first);
        assert_eq!(beginning(&more), first);
        assert_eq!(
            beginning(r#"[{"role":"system","content":"a"}]"#),
            r#"[{"role":"system","content":"a"}"#
        );
        let text = format!("\"{}\"", "ä".repeat(600));
        assert!(beginning(&text).len() <= BEGINNING);
        assert_eq!(beginning("[1,2"), "[1,2");
        assert_eq!(beginning("["), "[");
    }
}
