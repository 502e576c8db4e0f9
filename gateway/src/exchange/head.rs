//! The parts of a request's head that an exchange uses after the connection has moved on to its body.

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;
use std::time::Duration;

/// Request headers that go on to a server that speaks the client's own protocol.
const FORWARDED: [&str; 3] = ["anthropic-version", "anthropic-beta", "openai-beta"];

/// Additional response headers.
pub(crate) type Headers = Vec<(&'static str, String)>;

/// The relevant headers of a request.
#[derive(Debug, Clone, Default)]
pub(super) struct RequestHead {
    /// The caller's `x-request-id`, if it is printable and short: echoed, logged, searchable, and never a key.
    pub(super) client_request_id: Option<String>,
    /// W3C trace context, for the upstream.
    pub(super) traceparent: Option<HeaderValue>,
    /// The client's own time limit (`x-request-timeout-seconds`).
    pub(super) timeout: Option<Duration>,
    /// The time within which the client wants the first token (`x-sluice-ttft-slo-ms`).
    pub(super) first_token_objective: Option<Duration>,
    /// Hash of `x-sluice-session`: requests of one session go to one server.
    pub(super) session_hash: Option<u64>,
    /// The content type of the body.
    pub(super) content_type: Option<HeaderValue>,
    /// Of a pass-through request: what is sent beside the body.
    pub(super) passthrough: Option<Arc<Passthrough>>,
    /// Headers that a server of the same protocol understands.
    pub(super) forwarded: Vec<(HeaderName, HeaderValue)>,
    /// Response headers that the client's web page needs.
    pub(super) cors: Headers,
    /// HTTP/1.0 knows no chunked transfer coding and closes its connection.
    pub(super) is_http_1_0: bool,
}

/// The parts of a pass-through request that are sent beside its body.
#[derive(Debug)]
pub(crate) struct Passthrough {
    pub(super) method: Method,
    /// The server's path and the query, as they came.
    pub(super) path: String,
    /// The path, cleaned and decoded.
    pub(super) decoded: String,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// The models that path and header name, where both do and differ.
    pub(super) conflict: Option<(String, String)>,
}

impl Passthrough {
    /// Returns whether a server may get the request twice without harm (RFC 9110, section 9.2.2).
    pub(super) fn is_repeatable(&self) -> bool {
        self.method.is_idempotent()
    }
}

impl RequestHead {
    pub(super) fn read(headers: &HeaderMap, version: http::Version, cors: Headers) -> Self {
        Self {
            client_request_id: client_request_id(headers).map(str::to_owned),
            traceparent: headers.get("traceparent").cloned(),
            timeout: timeout(headers),
            first_token_objective: first_token_objective(headers),
            session_hash: session_hash(headers),
            content_type: headers.get(CONTENT_TYPE).cloned(),
            passthrough: None,
            forwarded: forwarded(headers),
            cors,
            is_http_1_0: version == http::Version::HTTP_10,
        }
    }
}

/// The caller's `x-request-id`: 1 to 128 letters, digits, `-`, `_` and `.`, else none.
pub(crate) fn client_request_id(headers: &HeaderMap) -> Option<&str> {
    let id = headers.get("x-request-id")?.to_str().ok()?;
    let is_sane = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (!id.is_empty() && id.len() <= 128 && id.bytes().all(is_sane)).then_some(id)
}

/// `x-request-timeout-seconds`: a positive number of seconds.
fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let seconds: f64 = headers.get("x-request-timeout-seconds")?.to_str().ok()?.parse().ok()?;
    Duration::try_from_secs_f64(seconds)
        .ok()
        .filter(|timeout| !timeout.is_zero())
}

/// `x-sluice-ttft-slo-ms`: a positive number of milliseconds.
fn first_token_objective(headers: &HeaderMap) -> Option<Duration> {
    let millis: f64 = headers.get("x-sluice-ttft-slo-ms")?.to_str().ok()?.parse().ok()?;
    Duration::try_from_secs_f64(millis / 1000.0)
        .ok()
        .filter(|objective| !objective.is_zero())
}

fn session_hash(headers: &HeaderMap) -> Option<u64> {
    let session = headers.get("x-sluice-session")?;
    Some(BuildHasherDefault::<DefaultHasher>::default().hash_one(session.as_bytes()))
}

fn forwarded(headers: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
    let is_forwarded = |name: &HeaderName| FORWARDED.contains(&name.as_str());
    let given = headers.iter().filter(|(name, _)| is_forwarded(name));
    given.map(|(name, value)| (name.clone(), value.clone())).collect()
}
