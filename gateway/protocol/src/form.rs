//! `multipart/form-data` (RFC 7578, RFC 2046 section 5.1.1): the parts of a body, by their spans in it. Parsers differ in
//! what they make of an odd form, so whatever two of them could read in two ways is refused: what the gateway has read
//! is what the server reads.

use crate::error::{ErrorCode, RequestError};
use crate::request::Spans;
use memchr::memmem;
use std::borrow::Cow;
use std::ops::Range;

/// Parts of a form, at most.
const MOST_PARTS: usize = 1000;

/// Bytes of a part's headers, at most.
const LONGEST_HEADERS: usize = 8 << 10;

/// Characters of a boundary, at most; the standard says 70.
const LONGEST_BOUNDARY: usize = 256;

/// A form.
#[derive(Debug)]
pub(crate) struct Form<'a> {
    parts: Vec<Part<'a>>,
    /// Where its first delimiter begins.
    start: usize,
}

/// A part of a form.
#[derive(Debug)]
pub(crate) struct Part<'a> {
    name: Cow<'a, str>,
    is_file: bool,
    is_encoded: bool,
    pub(crate) value: &'a [u8],
    range: Range<usize>,
    /// The value of a header `content-length` of its own.
    length: Option<Range<usize>>,
}

/// The boundary of a request with this content type; `None` if it is no form.
///
/// # Errors
/// The boundary is missing, given twice or malformed, or the form's text is not UTF-8.
pub(crate) fn boundary(content_type: Option<&str>) -> Result<Option<String>, RequestError> {
    let Some(parameters) = content_type.and_then(|value| strip_word(value.trim_start(), "multipart/form-data")) else {
        return Ok(None);
    };
    let mut boundary = None;
    for parameter in Parameters(parameters) {
        let (name, value) = parameter.ok_or_else(|| malformed("the content type cannot be read"))?;
        match name.to_ascii_lowercase().as_str() {
            "boundary" if boundary.is_some() => return Err(malformed("the boundary is given twice")),
            "boundary" => boundary = Some(value.into_owned()),
            "charset" if !value.eq_ignore_ascii_case("utf-8") => {
                return Err(malformed("its text must be UTF-8"));
            }
            _ => {}
        }
    }
    let boundary = boundary.ok_or_else(|| malformed("the content type has no `boundary`"))?;
    let is_sane = (1..=LONGEST_BOUNDARY).contains(&boundary.len())
        && boundary.bytes().all(|byte| (b' '..=b'~').contains(&byte))
        && !boundary.ends_with(' ');
    if is_sane {
        Ok(Some(boundary))
    } else {
        Err(malformed("the boundary must have 1 to 256 printable characters"))
    }
}

impl<'a> Form<'a> {
    /// Reads a form.
    ///
    /// # Errors
    /// The content type is another, or the body is malformed or ambiguous.
    pub(crate) fn parse(content_type: Option<&str>, body: &'a [u8]) -> Result<Self, RequestError> {
        let boundary = boundary(content_type)?.ok_or_else(|| {
            let message = "send the body as multipart/form-data with a `file`";
            RequestError::new(ErrorCode::UnsupportedMediaType, message)
        })?;
        let delimiter = format!("\r\n--{boundary}");
        let finder = memmem::Finder::new(&delimiter);
        let start = if body.starts_with(&delimiter.as_bytes()[2..]) {
            0
        } else {
            let found = finder.find(body);
            found.ok_or_else(|| malformed("its boundary does not occur in the body"))? + 2
        };
        let mut at = start + delimiter.len() - 2;
        let mut parts = Vec::new();
        while let Some(begin) = after_delimiter(body, at)? {
            if parts.len() == MOST_PARTS {
                return Err(malformed("it has more than 1000 parts"));
            }
            let headers = Headers::read(body, begin)?;
            // The delimiter's line break may be the one that ends the headers.
            let end = next_delimiter(body, headers.end - 2, &finder, delimiter.len())?;
            at = end + delimiter.len();
            let range = headers.end..end.max(headers.end);
            parts.push(headers.part(&body[range.clone()], range)?);
        }
        Ok(Self { parts, start })
    }

    /// The part of a name.
    ///
    /// # Errors
    /// It is given twice.
    pub(crate) fn part(&self, name: &'static str) -> Result<Option<&Part<'a>>, RequestError> {
        let mut named = self.parts.iter().filter(|part| part.name == name);
        match (named.next(), named.next()) {
            (first, None) => Ok(first),
            _ => Err(RequestError::invalid(name, format!("`{name}` is given twice"))),
        }
    }

    /// All parts of a name, or of the name with `[]`, as lists are sent.
    pub(crate) fn list(&self, name: &'static str) -> impl Iterator<Item = &Part<'a>> {
        let is_named = move |part: &&Part<'_>| part.name.strip_suffix("[]").unwrap_or(&part.name) == name;
        self.parts.iter().filter(is_named)
    }

    /// The text of a field.
    ///
    /// # Errors
    /// It is given twice, is a file, or is no plain UTF-8.
    pub(crate) fn text(&self, name: &'static str) -> Result<Option<&'a str>, RequestError> {
        let Some(part) = self.part(name)? else {
            return Ok(None);
        };
        if part.is_file {
            return Err(RequestError::invalid(
                name,
                format!("`{name}` must be a field, not a file"),
            ));
        }
        let text = std::str::from_utf8(part.value).ok().filter(|_| !part.is_encoded);
        text.map(Some)
            .ok_or_else(|| RequestError::invalid(name, format!("`{name}` must be plain UTF-8 text")))
    }

    /// The name of the model, empty where the form has none, and the spans by which another is written.
    ///
    /// # Errors
    /// As of [`Self::text`].
    pub(crate) fn model(&self) -> Result<(&'a str, Spans), RequestError> {
        let part = self.part("model")?;
        let spans = Spans {
            model: part.map(|part| part.range.clone()),
            model_length: part.and_then(|part| part.length.clone()),
            form_start: Some(self.start),
            ..Spans::default()
        };
        Ok((self.text("model")?.unwrap_or_default(), spans))
    }
}

/// A field more, to be put before the first delimiter, which begins at `start`.
pub(crate) fn field(body: &[u8], start: usize, name: &str, value: &str) -> String {
    let line = &body[start..];
    let line = &line[..memmem::find(line, b"\r\n").unwrap_or(line.len())];
    let delimiter = String::from_utf8_lossy(line.trim_ascii_end());
    format!("{delimiter}\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
}

/// Where the part after a delimiter begins; `None` after the last one.
fn after_delimiter(body: &[u8], at: usize) -> Result<Option<usize>, RequestError> {
    let rest = &body[at..];
    if rest.starts_with(b"--") {
        return Ok(None);
    }
    let padding = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    if rest[padding..].starts_with(b"\r\n") {
        Ok(Some(at + padding + 2))
    } else {
        Err(malformed("a boundary is not followed by a line break"))
    }
}

/// Where the next delimiter begins. The boundary's characters in the midst of a longer line are content.
fn next_delimiter(body: &[u8], from: usize, finder: &memmem::Finder<'_>, length: usize) -> Result<usize, RequestError> {
    let mut from = from;
    loop {
        let found = finder.find(&body[from..]).map(|found| from + found);
        let found = found.ok_or_else(|| malformed("it ends without its closing boundary"))?;
        let after = &body[found + length..];
        let padding = after.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        if after.starts_with(b"--") || after[padding..].starts_with(b"\r\n") {
            return Ok(found);
        }
        from = found + 2;
    }
}

/// The headers of a part.
struct Headers<'a> {
    disposition: Option<&'a str>,
    is_encoded: bool,
    length: Option<Range<usize>>,
    /// Where the value begins.
    end: usize,
}

impl<'a> Headers<'a> {
    fn read(body: &'a [u8], begin: usize) -> Result<Self, RequestError> {
        let mut headers = Self {
            disposition: None,
            is_encoded: false,
            length: None,
            end: begin,
        };
        loop {
            let rest = &body[headers.end..];
            let rest = &rest[..rest.len().min(LONGEST_HEADERS)];
            let line = memmem::find(rest, b"\r\n").map(|length| &rest[..length]);
            let line = line.ok_or_else(|| malformed("a part's headers do not end"))?;
            let start = headers.end;
            headers.end += line.len() + 2;
            if line.is_empty() {
                return Ok(headers);
            }
            if headers.end - begin > LONGEST_HEADERS {
                return Err(malformed("a part's headers are too long"));
            }
            headers.note(line, start)?;
        }
    }

    fn note(&mut self, line: &'a [u8], start: usize) -> Result<(), RequestError> {
        let line = std::str::from_utf8(line).map_err(|_| malformed("a part's headers are not UTF-8"))?;
        let (name, value) = line
            .split_once(':')
            .filter(|(name, _)| !name.is_empty() && !name.contains([' ', '\t']))
            .filter(|_| !line.contains(['\r', '\n', '\0']))
            .ok_or_else(|| malformed("a part's header cannot be read"))?;
        match name.to_ascii_lowercase().as_str() {
            "content-disposition" if self.disposition.is_some() => {
                return Err(malformed("a part has two headers `content-disposition`"));
            }
            "content-disposition" => self.disposition = Some(value),
            "content-length" => {
                let at = start + line.len() - value.trim_start().len();
                self.length = Some(at..at + value.trim().len());
            }
            "content-transfer-encoding" => {
                let plain = ["7bit", "8bit", "binary"];
                self.is_encoded = !plain.iter().any(|plain| value.trim().eq_ignore_ascii_case(plain));
            }
            _ => {}
        }
        Ok(())
    }

    fn part(self, value: &'a [u8], range: Range<usize>) -> Result<Part<'a>, RequestError> {
        let unnamed = || malformed("a part has no name: its `content-disposition` must be `form-data; name=\"…\"`");
        let parameters = self.disposition.and_then(|value| strip_word(value.trim(), "form-data"));
        let (mut name, mut is_file) = (None, false);
        for parameter in Parameters(parameters.ok_or_else(unnamed)?) {
            let (key, value) = parameter.ok_or_else(|| malformed("a part's `content-disposition` cannot be read"))?;
            match key.to_ascii_lowercase().as_str() {
                "name" if name.is_some() => return Err(malformed("a part has two names")),
                "name" => name = Some(value),
                "name*" => return Err(malformed("a part's name must not be encoded as `name*`")),
                "filename" | "filename*" => is_file = true,
                _ => {}
            }
        }
        Ok(Part {
            name: name.ok_or_else(unnamed)?,
            is_file,
            is_encoded: self.is_encoded,
            value,
            range,
            length: self.length,
        })
    }
}

/// The text after a word that stands alone, in any case.
fn strip_word<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let (head, rest) = text.split_at_checked(word.len())?;
    let is_alone = rest.is_empty() || rest.starts_with([';', ' ', '\t']);
    (head.eq_ignore_ascii_case(word) && is_alone).then_some(rest)
}

/// Parameters of a header's value, each after a `;`; `None` for one that cannot be read, which ends them.
struct Parameters<'a>(&'a str);

impl<'a> Iterator for Parameters<'a> {
    type Item = Option<(&'a str, Cow<'a, str>)>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.0.trim_start_matches([';', ' ', '\t']).trim_end();
        let has_begun = self.0.trim_start().starts_with(';');
        self.0 = "";
        if rest.is_empty() {
            return None;
        }
        if !has_begun {
            return Some(None);
        }
        let Some((name, value)) = rest.split_once('=') else {
            return Some(None);
        };
        let (value, rest) = match value.strip_prefix('"') {
            Some(quoted) => match unquoted(quoted) {
                Some(read) => read,
                None => return Some(None),
            },
            None => {
                let end = value.find(';').unwrap_or(value.len());
                (Cow::Borrowed(value[..end].trim()), &value[end..])
            }
        };
        self.0 = rest;
        Some(Some((name.trim(), value)))
    }
}

/// The text before a closing quote, and what follows it. Browsers write a quote as `%22`, other clients as `\"`.
fn unquoted(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let mut escaped = false;
    let end = text.find(|next: char| {
        let ends = next == '"' && !escaped;
        escaped = next == '\\' && !escaped;
        ends
    })?;
    let (inner, rest) = (&text[..end], &text[end + 1..]);
    let inner = if inner.contains('\\') {
        Cow::Owned(inner.replace('\\', ""))
    } else {
        Cow::Borrowed(inner)
    };
    Some((inner, rest))
}

fn malformed(why: &str) -> RequestError {
    RequestError::new(ErrorCode::BadRequest, format!("invalid multipart body: {why}"))
}

#[cfg(test)]
#[path = "form_tests.rs"]
mod tests;
