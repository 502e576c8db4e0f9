//! Pass-through requests: which they are, whether their model opens their path, and what of their head is sent on.

use super::Asked;
use super::head::Passthrough;
use super::recorder::Recorder;
use crate::config::{Config, Model};
use http::HeaderMap;
use http::header::{self, HeaderName, HeaderValue};
use pingora_http::RequestHeader;
use policy::ModelId;
use protocol::error::RequestError;
use protocol::passthrough::{ambiguous, not_opened, target};
use protocol::{Operation, ParsedRequest, Route};
use std::sync::Arc;

/// The header in which a request may name its model.
const MODEL: &str = "x-sluice-model";

/// Headers that are the connection's (RFC 9110, section 7.6.1), the client's credentials, or written anew.
const WITHHELD: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "authorization",
    "proxy-authorization",
    "proxy-authenticate",
    "x-api-key",
    "api-key",
    "cookie",
    "host",
    "content-length",
    // The body is sent decoded.
    "content-encoding",
    "expect",
    "forwarded",
    "x-request-id",
    "x-request-timeout-seconds",
    "x-sluice-ttft-slo-ms",
    "traceparent",
    "tracestate",
];

/// Headers of answers that are the connection's, or the gateway's to give.
const ANSWER_WITHHELD: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "content-length",
    "set-cookie",
    "alt-svc",
    "strict-transport-security",
    "www-authenticate",
    "x-request-id",
];

/// The target of a request for a path of no operation, if a model opens the path. Paths of the gateway's own are never
/// passed through, unless the request's path begins with the prefix of pass-through.
pub(crate) fn asked(config: &Config, head: &RequestHeader, route: &Route<'_>) -> Option<Asked> {
    if !matches!(route, Route::NotFound | Route::Management) {
        return None;
    }
    let target = target(head.uri.path())?;
    let decoded = target.decoded.into_owned();
    let mut models = config.models.iter().filter(|model| model.enabled && !model.is_removed);
    models.find(|model| model.opening(&decoded).is_some())?;
    let of_header = head
        .headers
        .get(MODEL)
        .and_then(|name| name.to_str().ok())
        .map(str::to_owned);
    let conflict = target
        .model
        .clone()
        .zip(of_header.clone())
        .filter(|(one, other)| one != other);
    let query = head.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    Some(Asked {
        operation: Operation::Passthrough,
        model: target.model.or(of_header),
        passthrough: Some(Arc::new(Passthrough {
            method: head.method.clone(),
            path: format!("{}{query}", target.path),
            decoded,
            headers: passed_on(&head.headers, WITHHELD),
            conflict,
        })),
    })
}

/// The headers of an answer that its client gets.
pub(super) fn of_answer(headers: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
    let mut passed = passed_on(headers, ANSWER_WITHHELD);
    passed.retain(|(name, _)| !name.as_str().starts_with("access-control-"));
    passed
}

fn passed_on(headers: &HeaderMap, withheld: &[&str]) -> Vec<(HeaderName, HeaderValue)> {
    // What `connection` names is the connection's too.
    let connection = headers.get_all(header::CONNECTION).into_iter();
    let named: Vec<String> = connection
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    let is_withheld = |name: &str| {
        let is_own =
            name.starts_with("x-sluice-") || name.starts_with("x-forwarded-") || name.starts_with("x-ratelimit-");
        is_own || withheld.contains(&name) || named.iter().any(|named| named == name)
    };
    let given = headers.iter().filter(|(name, _)| !is_withheld(name.as_str()));
    given.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Checks that a request names one model, and that the model opens its path; notes by which pattern.
pub(super) fn check(
    recorder: &mut Recorder,
    (id, model): (ModelId, &Model),
    parsed: &ParsedRequest<'_>,
) -> Result<(), RequestError> {
    let Some(passed) = &recorder.head.passthrough else {
        return Ok(());
    };
    let config = &recorder.record.snapshot.config;
    let is_same = |name: &str| config.model_by_name(name) == Some(id) || model.upstream_name.as_deref() == Some(name);
    if let Some((one, other)) = &passed.conflict
        && !(is_same(one) && is_same(other))
    {
        return Err(ambiguous(one, other));
    }
    if let Some(other) = parsed.model_of_body.as_deref().filter(|name| !is_same(name)) {
        return Err(ambiguous(&parsed.model, other));
    }
    let pattern = model.opening(&passed.decoded);
    let pattern = pattern.ok_or_else(|| not_opened(&passed.decoded, &model.name))?;
    recorder.record.opened_by = Some(pattern.as_str().into());
    Ok(())
}
