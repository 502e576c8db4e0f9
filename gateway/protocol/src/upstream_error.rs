//! What a model's server says when it fails: `{"error": {"message": …}}`, `{"error": "…"}`, `{"message": …}` (vLLM before
//! 0.10), `{"detail": …}` (FastAPI), or plain text.

use crate::error::{ErrorCode, RequestError};
use crate::wire::lenient;
use serde_json::Value;

/// Characters of a server's sentence that are passed on.
const LONGEST: usize = 500;

/// The sentence in a server's error, if there is one.
pub fn message(body: &[u8]) -> Option<String> {
    sentence(&lenient::value(body)?).map(|text| text.chars().take(LONGEST).collect())
}

/// A failure of the model's server, with its own sentence where it gives one.
pub fn failed(message: Option<&str>) -> RequestError {
    let why = message.unwrap_or("no reason was given");
    RequestError::new(ErrorCode::UpstreamError, format!("the model's server failed: {why}"))
}

fn sentence(error: &Value) -> Option<&str> {
    match error {
        Value::String(text) => Some(text).filter(|text| !text.is_empty()).map(String::as_str),
        Value::Array(items) => items.iter().find_map(sentence),
        Value::Object(fields) => ["error", "message", "detail", "msg", "reason"]
            .into_iter()
            .find_map(|key| sentence(fields.get(key)?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentence_is_found_in_every_form_that_servers_use() {
        for body in [
            r#"{"error":{"message":"out of memory","type":"server_error","code":500}}"#,
            r#"{"error":"out of memory"}"#,
            r#"{"object":"error","message":"out of memory","code":400}"#,
            r#"{"detail":"out of memory"}"#,
            r#"{"detail":[{"loc":["body"],"msg":"out of memory","type":"missing"}]}"#,
            r#"{"type":"error","error":{"type":"api_error","message":"out of memory"}}"#,
            r#"{"error":{"error":{"message":"out of memory"}},"message":null}"#,
            r#""out of memory""#,
        ] {
            assert_eq!(message(body.as_bytes()).as_deref(), Some("out of memory"), "{body}");
        }
        for body in ["", "<html>", "{}", r#"{"error":null}"#, r#"{"error":{"code":5}}"#] {
            assert_eq!(message(body.as_bytes()), None, "{body}");
        }
        let long = format!("{{\"error\":\"{}\"}}", "ä".repeat(900));
        assert_eq!(message(long.as_bytes()).map(|text| text.chars().count()), Some(500));
    }
}
