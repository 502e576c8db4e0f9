//! Response heads, and the part of an answer that goes out once the ledger has the record.

use super::Step;
use super::client::{last, piece, write};
use super::final_part::FinalPart;
use super::recorder::Recorder;
use bytes::Bytes;
use http::StatusCode;
use ledger::Receipt;
use pingora_core::BError;
use pingora_core::protocols::http::{HttpTask, ServerSession};
use pingora_http::ResponseHeader;
use policy::{NanoEuro, RateWindow};
use protocol::error::{ErrorCode, RequestError};
use protocol::unsupported;
use std::time::Duration;

/// The remainder to be written to the client.
pub(crate) struct Reply {
    tasks: Vec<HttpTask>,
    /// True if another request may follow on the same connection.
    keeps_connection: bool,
    /// Of the record, which must be durable before anything is written.
    receipt: Option<Receipt>,
}

impl Reply {
    /// A whole JSON answer that needs no settlement.
    pub(super) fn json(recorder: &Recorder, body: &serde_json::Value) -> Result<Self, BError> {
        let body = Bytes::from(body.to_string());
        let head = head(recorder, 200, b"application/json", Some(body.len()))?;
        Ok(Self {
            tasks: vec![HttpTask::Header(head, false), last(Some(body))],
            keeps_connection: !recorder.head.is_http_1_0,
            receipt: None,
        })
    }

    /// Writes the reply. Returns whether the connection may serve another request.
    pub(super) async fn deliver(self, session: &mut ServerSession) -> bool {
        if let Some(receipt) = self.receipt
            && let Err(error) = receipt.durable().await
        {
            tracing::error!(%error, "a record is not durable; its answer is not completed");
            if session.response_written().is_none() {
                let _ = session.respond_error(503).await;
            }
            return false;
        }
        if self.tasks.is_empty() {
            return self.keeps_connection;
        }
        write(session, self.tasks).await.is_ok() && self.keeps_connection
    }
}

impl Recorder {
    /// Ends a request that was never admitted.
    pub(super) fn reject<T>(mut self: Box<Self>, error: RequestError) -> Step<T> {
        let result = self.conclude(Err(error), None);
        Err(Box::new(build(&mut self, result, false)))
    }
}

/// Makes the reply of a concluded request.
pub(super) fn build(recorder: &mut Recorder, result: Result<FinalPart, RequestError>, head_is_sent: bool) -> Reply {
    let receipt = recorder.take_receipt();
    let (tasks, keeps_connection) = last_tasks(recorder, result, head_is_sent);
    Reply {
        tasks,
        keeps_connection,
        receipt,
    }
}

/// The remainder to be written, and whether the connection may serve another request.
fn last_tasks(
    recorder: &Recorder,
    result: Result<FinalPart, RequestError>,
    head_is_sent: bool,
) -> (Vec<HttpTask>, bool) {
    let closed = (Vec::new(), false);
    let keeps_connection = !recorder.head.is_http_1_0;
    let tasks = match result {
        Ok(FinalPart::StreamEnd(end) | FinalPart::Relayed { rest: end, .. }) => vec![last(end)],
        Ok(
            FinalPart::Body {
                status,
                content_type,
                body,
            }
            | FinalPart::Refused {
                status,
                content_type,
                body,
                ..
            },
        ) => match head(recorder, status, &content_type, Some(body.len())) {
            Ok(head) => vec![HttpTask::Header(head, false), last(Some(body))],
            Err(_) => return closed,
        },
        Err(error) if error.code == ErrorCode::ClientGone => return closed,
        // Bytes of a sound or of an unknown format: only the missing end can tell that it is not whole.
        Err(_) if head_is_sent && recorder.record.operation.is_relayed() => return closed,
        Err(error) if head_is_sent => {
            // An error event and no final chunk: the client must not take the answer for complete.
            let record = &recorder.record;
            let event = Bytes::from(error.event(record.protocol(), &record.request_id));
            return (vec![piece(event)], false);
        }
        Err(error) => {
            let unread = matches!(
                error.code,
                ErrorCode::BodyTooLarge | ErrorCode::RequestTimeout | ErrorCode::NoKey | ErrorCode::InvalidKey
            );
            return match refusal(recorder, &error) {
                Ok(tasks) => (tasks, keeps_connection && !unread),
                Err(_) => closed,
            };
        }
    };
    (tasks, keeps_connection)
}

/// The head of an answer. Without a length it is sent in chunks, or to an HTTP/1.0 client until the connection closes.
pub(super) fn head(
    recorder: &Recorder,
    status: u16,
    content_type: &[u8],
    length: Option<usize>,
) -> Result<Box<ResponseHeader>, BError> {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    let mut head = ResponseHeader::build_no_case(status, Some(16))?;
    head.insert_header("content-type", content_type)?;
    match length {
        Some(length) => head.insert_header("content-length", length)?,
        None => {
            head.insert_header("cache-control", "no-cache")?;
            head.insert_header("x-accel-buffering", "no")?;
            if !recorder.head.is_http_1_0 {
                head.insert_header("transfer-encoding", "chunked")?;
            }
        }
    }
    own_headers(&mut head, recorder, length.is_some())?;
    Ok(Box::new(head))
}

/// Adds the gateway's own headers; `knows_cost`: all that the answer costs is known.
pub(super) fn own_headers(head: &mut ResponseHeader, recorder: &Recorder, knows_cost: bool) -> Result<(), BError> {
    let record = &recorder.record;
    let client_request_id = recorder.head.client_request_id.as_deref();
    head.insert_header("x-request-id", client_request_id.unwrap_or(&record.request_id))?;
    head.insert_header("x-sluice-request-id", record.request_id.as_str())?;
    if record.model.is_some() {
        head.insert_header("x-sluice-model", record.model_name())?;
    }
    if let Some(waited) = record.queue_wait {
        let millis = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
        head.insert_header("x-sluice-queue-ms", millis)?;
    }
    if let Some(degraded) = record.degraded() {
        head.insert_header("x-sluice-degraded", degraded)?;
    }
    if let Some(dropped) = unsupported::dropped_header(&recorder.dropped) {
        head.insert_header("x-sluice-dropped", dropped)?;
    }
    if knows_cost && record.cost.0 > 0 {
        head.insert_header("x-sluice-cost-eur", euros(record.cost))?;
    }
    for (name, value) in &recorder.head.cors {
        head.insert_header(*name, value.as_str())?;
    }
    rate_limits(head, recorder)
}

fn rate_limits(head: &mut ResponseHeader, recorder: &Recorder) -> Result<(), BError> {
    if let Some(window) = &recorder.rate_limits.requests {
        head.insert_header("x-ratelimit-limit-requests", window.limit)?;
        head.insert_header("x-ratelimit-remaining-requests", window.remaining)?;
        head.insert_header("x-ratelimit-reset-requests", reset(window))?;
    }
    if let Some(window) = &recorder.rate_limits.tokens {
        head.insert_header("x-ratelimit-limit-tokens", window.limit)?;
        head.insert_header("x-ratelimit-remaining-tokens", window.remaining)?;
        head.insert_header("x-ratelimit-reset-tokens", reset(window))?;
    }
    Ok(())
}

/// The error of a server whose head cannot become a client's.
pub(super) fn broken_head() -> RequestError {
    RequestError::new(
        ErrorCode::UpstreamError,
        "the model's server sent a response head that cannot be passed on",
    )
}

/// The head and body of a refusal.
fn refusal(recorder: &Recorder, error: &RequestError) -> Result<Vec<HttpTask>, BError> {
    let record = &recorder.record;
    let body = Bytes::from(error.body(record.protocol(), &record.request_id));
    let mut head = head(recorder, error.code.status(), b"application/json", Some(body.len()))?;
    if let Some(after) = error.retry_after_seconds() {
        head.insert_header("retry-after", after)?;
    }
    Ok(vec![HttpTask::Header(head, false), last(Some(body))])
}

fn reset(window: &RateWindow) -> String {
    seconds(window.reset)
}

/// A duration as OpenAI writes it: `1.234s`.
fn seconds(duration: Duration) -> String {
    decimal(duration.as_secs(), u64::from(duration.subsec_millis()), 3, "s")
}

/// Euros with all nine decimals, exactly.
fn euros(cost: NanoEuro) -> String {
    decimal(cost.0 / 1_000_000_000, cost.0 % 1_000_000_000, 9, "")
}

/// A fixed-point number. Every response has some, and formatting floats is slower.
fn decimal(whole: u64, fraction: u64, decimals: usize, unit: &str) -> String {
    let (mut before, mut after) = (itoa::Buffer::new(), itoa::Buffer::new());
    let after = after.format(fraction);
    let zeros = &"000000000"[..decimals.saturating_sub(after.len())];
    [before.format(whole), ".", zeros, after, unit].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_prices_are_written_with_all_their_decimals() {
        assert_eq!(seconds(Duration::from_millis(1_034)), "1.034s");
        assert_eq!(seconds(Duration::ZERO), "0.000s");
        assert_eq!(euros(NanoEuro(33_900)), "0.000033900");
        assert_eq!(euros(NanoEuro(12_000_000_001)), "12.000000001");
    }
}
