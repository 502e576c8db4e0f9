//! Recorded answers, byte for byte: the n-th request that asks for one gets the n-th, the last is repeated.

use crate::{Server, generation};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue};
use axum::http::{Response as Head, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use base64::Engine;
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use futures_util::stream;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// A recording.
#[derive(Debug, Default)]
pub struct Recording {
    answers: Vec<Recorded>,
    next: AtomicUsize,
}

/// One recorded answer. `docs/simulated-upstream.md` has the form.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Recorded {
    /// Only for requests to this path; any if it is left out.
    path: Option<String>,
    #[serde(default = "ok")]
    status: u16,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// Written as it is if it is a text, else as JSON.
    body: Option<Value>,
    /// Texts, seconds of waiting, and `{"b64": …}`.
    #[serde(default)]
    chunks: Vec<Chunk>,
    /// True if the body is compressed and labeled so.
    #[serde(default)]
    gzip: bool,
    /// The framing of the answer's end.
    #[serde(default)]
    framing: Framing,
    /// The connection breaks after the last chunk; JSON's null is true, as in a recording that has nothing to say of
    /// it.
    #[serde(default, deserialize_with = "is_present")]
    abort: bool,
}

/// Between the last chunk and the break of the connection.
const BEFORE_BREAK: Duration = Duration::from_millis(20);

fn ok() -> u16 {
    200
}

fn is_present<'de, D: serde::Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    Ok(Value::deserialize(from)? != Value::Bool(false))
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Chunk {
    Text(String),
    Seconds(f64),
    Bytes { b64: String },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Framing {
    #[default]
    Chunked,
    /// The end of the connection, as after a proxy that has lost the end of the chunks.
    Close,
    Length,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum File {
    Answers(Vec<Recorded>),
    Case { upstream: Vec<Recorded> },
}

impl Recording {
    /// Reads a list of answers, or an object that has it as `upstream`.
    ///
    /// # Errors
    /// A text that is neither.
    pub fn parse(text: &str) -> Result<Self, String> {
        let file = serde_json::from_str(text).map_err(|error| error.to_string());
        let answers = match file {
            Ok(File::Answers(answers)) => answers,
            Ok(File::Case { upstream }) => upstream,
            Err(error) => {
                return Err(format!(
                    "{error} (expected a list of answers, or {{\"upstream\": [answers]}})"
                ));
            }
        };
        if answers.is_empty() {
            return Err("there is no answer in it".to_owned());
        }
        Ok(Self {
            answers,
            next: AtomicUsize::new(0),
        })
    }

    fn next(&self, path: &str) -> Option<&Recorded> {
        let fitting = |recorded: &&Recorded| recorded.path.as_deref().is_none_or(|known| known == path);
        let all: Vec<&Recorded> = self.answers.iter().filter(fitting).collect();
        let last = all.len().checked_sub(1)?;
        all.get(self.next.fetch_add(1, Relaxed).min(last)).copied()
    }
}

/// Answers a POST from the recording, where there is one.
pub(crate) async fn or_next(State(server): State<Server>, request: Request, next: Next) -> Response {
    if request.method() != axum::http::Method::POST {
        return next.run(request).await;
    }
    match server.0.recording.next(request.uri().path()).cloned() {
        Some(recorded) => {
            // A client may write all of its request before it reads.
            let _ = axum::body::to_bytes(request.into_body(), usize::MAX).await;
            respond(recorded)
        }
        None => next.run(request).await,
    }
}

fn respond(recorded: Recorded) -> Response {
    if recorded.abort && recorded.body.is_none() && recorded.chunks.is_empty() {
        generation::close_the_connection();
    }
    let is_stream = recorded.body.is_none();
    let mut response = Head::builder().status(StatusCode::from_u16(recorded.status).unwrap_or(StatusCode::OK));
    if let Some(headers) = response.headers_mut() {
        let kind = if is_stream {
            "text/event-stream"
        } else {
            "application/json"
        };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        for (name, value) in &recorded.headers {
            if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse()) {
                headers.insert(name, value);
            }
        }
    }
    if recorded.gzip
        && let Some(headers) = response.headers_mut()
    {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    let body = match recorded.body {
        Some(body) => {
            let text = body.as_str().map_or_else(|| body.to_string(), str::to_owned);
            if recorded.gzip {
                Body::from(compressed(&text))
            } else {
                Body::from(text)
            }
        }
        None if recorded.framing == Framing::Length => {
            Body::from(recorded.chunks.iter().filter_map(bytes).flatten().collect::<Vec<u8>>())
        }
        None => pieces(recorded.chunks, recorded.abort || recorded.framing == Framing::Close),
    };
    response.body(body).unwrap_or_default()
}

fn compressed(text: &str) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    // Writing into a vector does not fail.
    let _ = packed.write_all(text.as_bytes());
    packed.finish().unwrap_or_default()
}

fn bytes(chunk: &Chunk) -> Option<Bytes> {
    match chunk {
        Chunk::Text(text) => Some(Bytes::from(text.clone())),
        Chunk::Bytes { b64 } => {
            let decoded = base64::engine::general_purpose::STANDARD.decode(b64);
            decoded.ok().map(Bytes::from)
        }
        Chunk::Seconds(_) => None,
    }
}

/// The chunks one by one, and then the end, or a broken connection.
fn pieces(chunks: Vec<Chunk>, breaks: bool) -> Body {
    let start = (chunks.into_iter(), breaks);
    Body::from_stream(stream::unfold(start, |(mut chunks, breaks)| async move {
        for chunk in chunks.by_ref() {
            if let Chunk::Seconds(seconds) = chunk {
                tokio::time::sleep(Duration::try_from_secs_f64(seconds).unwrap_or_default()).await;
                continue;
            }
            if let Some(bytes) = bytes(&chunk) {
                return Some((Ok(bytes), (chunks, breaks)));
            }
        }
        if !breaks {
            return None;
        }
        // Written bytes must have left before the connection closes.
        tokio::time::sleep(BEFORE_BREAK).await;
        Some((Err(std::io::Error::other("the recording breaks off")), (chunks, false)))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_in_their_order_by_path_and_the_last_is_repeated() {
        let text = r#"{"id": "a case", "upstream": [{"body": {"a": 1}}, {"path": "/v1/messages", "chunks": ["x", 0.1, {"b64": "eQ=="}]}]}"#;
        let recording = Recording::parse(text).expect("a case");
        let body = |path| recording.next(path).and_then(|recorded| recorded.body.clone());
        assert_eq!(body("/v1/chat/completions"), Some(serde_json::json!({"a": 1})));
        assert_eq!(body("/v1/messages"), None, "the second, which has chunks");
        assert_eq!(
            body("/v1/chat/completions"),
            Some(serde_json::json!({"a": 1})),
            "the last again"
        );
        assert!(Recording::default().next("/v1/chat/completions").is_none());
        assert!(Recording::parse("[]").is_err() && Recording::parse("{}").is_err());
        assert!(Recording::parse(r#"[{"bdoy": 1}]"#).is_err());
    }
}
