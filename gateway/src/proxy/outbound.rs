//! The answer's side: response heads, and writes that gather what is ready into one flush.

use super::inbound;
use crate::ledger::Record;
use crate::protocol::refuse::Stop;
use bytes::Bytes;
use http::StatusCode;
use pingora_core::BError;
use pingora_core::protocols::http::{HttpTask, ServerSession};
use pingora_http::ResponseHeader;
use policy::Standing;
use std::time::Duration;

/// What is common to the heads of all answers of one request.
#[derive(Debug, Default)]
pub(super) struct Extras {
    pub(super) standing: Standing,
    pub(super) queue_wait: Option<Duration>,
}

/// The head of an answer. Without a length it is sent in chunks.
pub(super) fn head(
    record: &Record,
    extras: &Extras,
    status: u16,
    content_type: &[u8],
    length: Option<usize>,
) -> Result<Box<ResponseHeader>, BError> {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    let mut head = ResponseHeader::build(status, Some(10))?;
    head.insert_header("content-type", content_type)?;
    match length {
        Some(length) => head.insert_header("content-length", length)?,
        None => head.insert_header("transfer-encoding", "chunked")?,
    }
    head.insert_header("x-request-id", record.request_id.as_str())?;
    if record.model.is_some() {
        head.insert_header("x-sluice-model", record.model_name())?;
    }
    if let Some(waited) = extras.queue_wait {
        let millis = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
        head.insert_header("x-sluice-queue-ms", millis)?;
    }
    let standing = &extras.standing;
    if standing.limit > 0 {
        head.insert_header("x-ratelimit-limit-requests", standing.limit)?;
        head.insert_header("x-ratelimit-remaining-requests", standing.remaining)?;
        head.insert_header("x-ratelimit-reset-requests", seconds(standing.reset))?;
    }
    Ok(Box::new(head))
}

/// The head and body of a refusal.
pub(super) fn refusal(record: &Record, extras: &Extras, stop: &Stop) -> Result<Vec<HttpTask>, BError> {
    let body = Bytes::from(stop.body(record.protocol()));
    let mut head = head(
        record,
        extras,
        stop.reason.status(),
        b"application/json",
        Some(body.len()),
    )?;
    if let Some(after) = stop.retry_after_seconds() {
        head.insert_header("retry-after", after)?;
    }
    Ok(vec![HttpTask::Header(head, false), last(Some(body))])
}

/// As OpenAI writes it: `1.234s`.
fn seconds(duration: Duration) -> String {
    let mut millis = itoa::Buffer::new();
    let fraction = format!("{:03}", duration.subsec_millis());
    [millis.format(duration.as_secs()), ".", &fraction, "s"].concat()
}

/// Writes tasks with one flush.
pub(super) async fn write(session: &mut ServerSession, tasks: Vec<HttpTask>) -> Result<(), Stop> {
    match session.response_duplex_vec(tasks).await {
        Ok(_) => Ok(()),
        Err(_) => Err(inbound::gone()),
    }
}

/// A piece of a body.
pub(super) fn piece(bytes: Bytes) -> HttpTask {
    HttpTask::Body(Some(bytes), false)
}

/// The last piece of a body.
pub(super) fn last(bytes: Option<Bytes>) -> HttpTask {
    HttpTask::Body(bytes, true)
}
