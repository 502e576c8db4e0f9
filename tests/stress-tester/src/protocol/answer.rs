//! Answers that are not streamed: token counts, the original's status and ids, and why a request was refused.

use super::chunk::{Delta, Usage, count, is_error};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// The cause of an unsuccessful request: a word to count by, and the server's own message.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Failure {
    pub(crate) reason: String,
    pub(crate) message: String,
}

/// The contents of an answer that are measured.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Answer {
    pub(crate) input_tokens: Option<u64>,
    pub(crate) output_tokens: Option<u64>,
    /// Status and id of `/generate` and `/requests/{id}`.
    pub(crate) status: Option<String>,
    pub(crate) request_id: Option<String>,
    pub(crate) project: Option<String>,
    pub(crate) backend: Option<String>,
    /// The answer's text, if it is wanted.
    pub(crate) text: Option<String>,
}

/// All fields that count, of whatever protocol.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Body<'a> {
    usage: Option<Usage>,
    #[serde(deserialize_with = "count")]
    prompt_eval_count: Option<u64>,
    #[serde(deserialize_with = "count")]
    eval_count: Option<u64>,
    #[serde(deserialize_with = "count")]
    input_tokens: Option<u64>,
    #[serde(deserialize_with = "count")]
    output_tokens: Option<u64>,
    #[serde(borrow)]
    status: Option<&'a RawValue>,
    #[serde(borrow)]
    request_id: Option<&'a RawValue>,
    #[serde(borrow)]
    project_id: Option<&'a RawValue>,
    #[serde(borrow)]
    backend_name: Option<&'a RawValue>,
    #[serde(borrow)]
    backend: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    #[serde(borrow)]
    choices: Option<&'a RawValue>,
    /// Ollama's object, or the text of `/generate`.
    #[serde(borrow)]
    message: Option<&'a RawValue>,
    #[serde(borrow)]
    response: Option<&'a RawValue>,
    #[serde(borrow)]
    content: Option<&'a RawValue>,
}

/// Characters of a server's message that are kept.
const LONGEST_MESSAGE: usize = 500;

/// A server's text for terminals and tables: without control characters, with an end.
fn plain(text: &str) -> String {
    let is_unseen =
        |letter: char| letter.is_control() || matches!(letter, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let letters = text.chars().map(|letter| if is_unseen(letter) { ' ' } else { letter });
    letters.take(LONGEST_MESSAGE).collect()
}

/// Returns whether a text is a word to count by, and not a sentence or markup.
fn is_word(text: &str) -> bool {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || " _-.:".contains(letter);
    text.len() <= 60 && text.chars().all(is_plain)
}

impl Failure {
    pub(crate) fn new(reason: &str, message: &str) -> Self {
        Self {
            reason: reason.to_owned(),
            message: plain(message),
        }
    }

    /// Reads an error body of OpenAI's, Anthropic's, Ollama's, FastAPI's or vLLM's shape; `otherwise` is the reason if
    /// none is given.
    pub(crate) fn from_body(body: &[u8], otherwise: &str) -> Self {
        let value: Value = serde_json::from_slice(body).unwrap_or_default();
        let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        let (error, detail) = (&value["error"], &value["detail"]);
        let reason = [
            &error["code"],
            &error["type"],
            &value["code"],
            &value["error_type"],
            &value["type"],
            detail,
        ]
        .into_iter()
        .find_map(text)
        .filter(|reason| is_word(reason));
        let message = [&error["message"], error, &value["message"], detail]
            .into_iter()
            .find_map(text);
        let given = || match detail {
            Value::Null => None,
            detail => Some(detail.to_string()),
        };
        let raw = || {
            let text = String::from_utf8_lossy(body);
            text.chars().take(200).collect::<String>()
        };
        Self {
            reason: reason.unwrap_or_else(|| otherwise.to_owned()),
            message: plain(&message.or_else(given).unwrap_or_else(raw)),
        }
    }
}

/// Reads a successful answer.
///
/// # Errors
/// The failure that the body reports in spite of its status, or that it is not a JSON object.
pub(crate) fn read(body: &[u8], keeps_text: bool) -> Result<Answer, Failure> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii_start();
    let malformed = |error: &str| {
        let text = String::from_utf8_lossy(body);
        let begins: String = text.chars().take(80).collect();
        Failure::new(
            "malformed_answer",
            &format!("the answer cannot be read: {error}: {begins}"),
        )
    };
    // A list would be read as the fields of an object in their order.
    if body.first() != Some(&b'{') {
        return Err(malformed("not a JSON object"));
    }
    let parsed: Body<'_> = serde_json::from_slice(body).map_err(|error| malformed(&error.to_string()))?;
    if is_error(parsed.error) {
        return Err(Failure::from_body(body, "error_in_answer"));
    }
    let usage = parsed.usage.unwrap_or_default();
    Ok(Answer {
        input_tokens: usage.input().or(parsed.prompt_eval_count).or(parsed.input_tokens),
        output_tokens: usage.output().or(parsed.eval_count).or(parsed.output_tokens),
        text: keeps_text.then(|| text(&parsed)).flatten(),
        status: parsed.status.and_then(string),
        request_id: parsed.request_id.and_then(string),
        project: parsed.project_id.and_then(string),
        backend: parsed.backend_name.or(parsed.backend).and_then(string),
    })
}

/// A string, or nothing for a value of another type.
fn string(json: &RawValue) -> Option<String> {
    serde_json::from_str(json.get()).ok()
}

/// The text of an answer.
fn text(body: &Body<'_>) -> Option<String> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Choice<'a> {
        #[serde(borrow)]
        message: Option<Delta<'a>>,
        #[serde(borrow)]
        text: Option<&'a RawValue>,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Block {
        text: String,
    }
    if let Some(choices) = body.choices {
        let choices: Vec<Choice<'_>> = serde_json::from_str(choices.get()).ok()?;
        let first = choices.first()?;
        let message = || first.message.as_ref()?.content;
        return string(first.text.or_else(message)?);
    }
    if let Some(content) = body.content {
        let blocks: Vec<Block> = serde_json::from_str(content.get()).ok()?;
        return Some(blocks.into_iter().map(|block| block.text).collect());
    }
    let message = body.response.or(body.message)?;
    string(message).or_else(|| {
        let message: Delta<'_> = serde_json::from_str(message.get()).ok()?;
        string(message.content?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_an_answer_is_found_in_every_protocol() {
        for body in [
            "{\"choices\": [{\"message\": {\"role\": \"assistant\", \"content\": \"hi\"}}], \"error\": null}",
            "{\"choices\": [{\"text\": \"hi\"}]}",
            "{\"message\": {\"role\": \"assistant\", \"content\": \"hi\"}, \"done\": true}",
            "{\"response\": \"hi\"}",
            "{\"content\": [{\"type\": \"text\", \"text\": \"hi\"}]}",
            "{\"status\": \"completed\", \"message\": \"hi\"}",
        ] {
            let answer = read(body.as_bytes(), true).expect(body);
            assert_eq!(answer.text.as_deref(), Some("hi"), "{body}");
        }
        assert_eq!(read(b"<html>", false).expect_err("no JSON").reason, "malformed_answer");
    }

    /// Bodies of OpenAI, Anthropic, Ollama, vLLM 0.6 and since 0.10, FastAPI, and a proxy's page.
    #[test]
    fn a_refusal_has_a_reason_in_every_shape() {
        for (body, reason, message) in [
            (
                "{\"error\":{\"message\":\"m\",\"type\":\"t\",\"code\":\"c\"}}",
                "c",
                "m",
            ),
            (
                "{\"type\":\"error\",\"error\":{\"type\":\"t\",\"message\":\"m\"}}",
                "t",
                "m",
            ),
            ("{\"error\":\"m\"}", "http_404", "m"),
            (
                "{\"object\":\"error\",\"message\":\"m\",\"type\":\"NotFoundError\",\"code\":404}",
                "NotFoundError",
                "m",
            ),
            (
                "{\"error\":{\"message\":\"m\",\"type\":\"NotFoundError\",\"param\":null,\"code\":404}}",
                "NotFoundError",
                "m",
            ),
            ("{\"detail\":\"rate_limited\"}", "rate_limited", "rate_limited"),
            ("{\"detail\":[{\"msg\":\"m\"}]}", "http_404", "[{\"msg\":\"m\"}]"),
            ("<html>no</html>", "http_404", "<html>no</html>"),
            (
                "{\"error\":{\"message\":\"a\\u001b[31m\\r\\nb\\u202e\",\"type\":\"<b>|t\"}}",
                "http_404",
                "a [31m  b ",
            ),
        ] {
            assert_eq!(
                Failure::from_body(body.as_bytes(), "http_404"),
                Failure::new(reason, message),
                "{body}"
            );
        }
    }
}
