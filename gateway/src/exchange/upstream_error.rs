//! Answers of servers that are not 200: what the client is told, and whose failure it is.

use crate::record::Record;
use bytes::Bytes;
use http::HeaderMap;
use protocol::Protocol;
use protocol::refuse::{ErrorCode, RequestError};
use std::time::{Duration, SystemTime};

/// The longest wait that a server may ask for with `retry-after`.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// Characters of a server's message that reach the client and the ledger.
const MESSAGE_LENGTH: usize = 500;

/// Whose failure a server's status is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blame {
    /// The request is wrong: asking another server changes nothing.
    Client,
    /// The server is overloaded or broken.
    Server,
}

/// Whose failure an answer is, by its status and body. Servers answer 500 to requests that they cannot take (a picture for
/// a model without vision) and say so in the body.
pub(super) fn blame(status: u16, body: &[u8]) -> Blame {
    match status {
        400 | 404 | 405 | 409 | 413 | 415 | 422 => Blame::Client,
        500 | 501 if names_the_request(body) => Blame::Client,
        _ => Blame::Server,
    }
}

/// Whether a server error says that the request itself is at fault.
fn names_the_request(body: &[u8]) -> bool {
    const TYPES: [&str; 4] = [
        "invalid_request_error",
        "BadRequestError",
        "not_supported_error",
        "exceed_context_size_error",
    ];
    let Ok(body) = serde_json::from_slice::<serde_json::Value>(body) else {
        return false;
    };
    let kind = body.pointer("/error/type").or_else(|| body.get("type"));
    if kind
        .and_then(|kind| kind.as_str())
        .is_some_and(|kind| TYPES.contains(&kind))
    {
        return true;
    }
    let text = message(&body).unwrap_or_default().to_ascii_lowercase();
    [
        "not supported",
        "does not support",
        "unsupported",
        "invalid",
        "too long",
        "exceeds the",
    ]
    .iter()
    .any(|words| text.contains(words))
}

/// What becomes of a server's error: its own bytes where client and server speak the same protocol and the request is at
/// fault; else an error in the client's protocol.
///
/// # Errors
/// The failures of servers, as the gateway's own errors.
pub(super) fn answer(
    record: &Record,
    is_translated: bool,
    upstream: &str,
    status: u16,
    body: Bytes,
    retry_after: Option<Duration>,
) -> Result<(u16, Bytes), RequestError> {
    let blame = blame(status, &body);
    if blame == Blame::Client && !is_translated {
        return Ok((status, body));
    }
    let said = serde_json::from_slice(&body).ok().and_then(|body| message(&body));
    let model = record.model_name();
    let said_or = |default: &str| match &said {
        Some(said) => format!("server {upstream} of model `{model}` answered {status}: {said}"),
        None => format!("server {upstream} of model `{model}` {default}"),
    };
    let error = match status {
        _ if blame == Blame::Client => {
            let message = said.unwrap_or_else(|| format!("the model's server answered {status}"));
            let error = RequestError::new(ErrorCode::BadRequest, message);
            if record.protocol() != Protocol::Generate {
                let body = error.body(record.protocol(), &record.request_id);
                return Ok((if status >= 500 { 400 } else { status }, body.into()));
            }
            error
        }
        429 | 503 => {
            let mut error = RequestError::new(ErrorCode::NoHealthyUpstream, said_or("is overloaded"));
            error.retry_after = retry_after.or(error.retry_after);
            error
        }
        401 | 403 => RequestError::new(
            ErrorCode::UpstreamError,
            said_or("rejected the gateway's credentials; check api_key_env in models.yaml"),
        ),
        504 => RequestError::new(ErrorCode::UpstreamTimeout, said_or("timed out")),
        _ => RequestError::new(ErrorCode::UpstreamError, said_or(&format!("answered {status}"))),
    };
    Err(error)
}

/// The sentence in a server's error, in any of the forms that servers use: `error.message`, `error`, `message`, `detail`.
fn message(body: &serde_json::Value) -> Option<String> {
    let detail = || match body.get("detail")? {
        serde_json::Value::Array(items) => items.first()?.get("msg"),
        detail => Some(detail),
    };
    let said = body
        .pointer("/error/message")
        .or_else(|| body.get("error").filter(|error| error.is_string()))
        .or_else(|| body.get("message"))
        .or_else(detail)?;
    said.as_str().map(|said| said.chars().take(MESSAGE_LENGTH).collect())
}

/// `retry-after` as seconds or as a date (RFC 9110, section 10.2.3), bounded.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get("retry-after")?.to_str().ok()?.trim();
    let after = match value.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let at = jiff::fmt::rfc2822::parse(value).ok()?.timestamp();
            SystemTime::from(at)
                .duration_since(SystemTime::now())
                .unwrap_or_default()
        }
    };
    Some(after.min(LONGEST_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn a_server_error_that_names_the_request_is_the_clients() {
        // llama.cpp's answer to a picture for a model without vision.
        let picture = br#"{"error":{"code":500,"message":"image input is not supported - hint: if this is unexpected, you may need to provide the mmproj","type":"server_error"}}"#;
        assert_eq!(blame(500, picture), Blame::Client);
        assert_eq!(
            blame(
                500,
                br#"{"error":{"message":"CUDA out of memory","type":"server_error"}}"#
            ),
            Blame::Server
        );
        assert_eq!(blame(500, b"<html>"), Blame::Server);
        assert_eq!(blame(503, br#"{"error":{"message":"Loading model"}}"#), Blame::Server);
        assert_eq!(blame(422, b""), Blame::Client);
    }

    #[test]
    fn the_servers_sentence_is_found_in_every_form() {
        for body in [
            r#"{"error":{"message":"why"}}"#,
            r#"{"error":"why"}"#,
            r#"{"object":"error","message":"why","type":"BadRequestError"}"#,
            r#"{"detail":"why"}"#,
            r#"{"detail":[{"loc":["body"],"msg":"why"}]}"#,
        ] {
            let body = serde_json::from_str(body).expect("JSON");
            assert_eq!(message(&body).as_deref(), Some("why"), "{body}");
        }
    }

    #[test]
    fn retry_after_is_read_as_seconds_or_as_a_date_and_bounded() {
        let of = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("retry-after", HeaderValue::from_str(value).expect("a header"));
            retry_after(&headers)
        };
        assert_eq!(of("7"), Some(Duration::from_secs(7)));
        assert_eq!(of("18446744073709551615"), Some(LONGEST_RETRY_AFTER));
        assert_eq!(of("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        assert_eq!(of("Fri, 31 Dec 9999 23:59:59 GMT"), Some(LONGEST_RETRY_AFTER));
        assert_eq!(of("soon"), None);
    }
}
