//! The answer's side: response heads, and the last bytes, once the ledger has the record.

use super::answer::FinalPart;
use super::exchange::Exchange;
use super::inbound;
use bytes::Bytes;
use http::StatusCode;
use pingora_core::BError;
use pingora_core::protocols::http::{HttpTask, ServerSession};
use pingora_http::ResponseHeader;
use policy::{Figure, NanoEuro};
use protocol::refuse::{ErrorCode, RequestError};
use std::time::Duration;

/// The head of an answer. Without a length it is sent in chunks.
pub(super) fn head(
    exchange: &Exchange,
    status: u16,
    content_type: &[u8],
    length: Option<usize>,
) -> Result<Box<ResponseHeader>, BError> {
    let record = &exchange.record;
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    let mut head = ResponseHeader::build_no_case(status, Some(14))?;
    head.insert_header("content-type", content_type)?;
    match length {
        Some(length) => head.insert_header("content-length", length)?,
        None => head.insert_header("transfer-encoding", "chunked")?,
    }
    head.insert_header("x-request-id", record.request_id.as_str())?;
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
    if length.is_some() && record.cost.0 > 0 {
        head.insert_header("x-sluice-cost-eur", euros(record.cost))?;
    }
    if let Some(figure) = &exchange.standing.requests {
        head.insert_header("x-ratelimit-limit-requests", figure.limit)?;
        head.insert_header("x-ratelimit-remaining-requests", figure.remaining)?;
        head.insert_header("x-ratelimit-reset-requests", reset(figure))?;
    }
    if let Some(figure) = &exchange.standing.tokens {
        head.insert_header("x-ratelimit-limit-tokens", figure.limit)?;
        head.insert_header("x-ratelimit-remaining-tokens", figure.remaining)?;
        head.insert_header("x-ratelimit-reset-tokens", reset(figure))?;
    }
    Ok(Box::new(head))
}

/// The head and body of a refusal.
fn refusal(exchange: &Exchange, stop: &RequestError) -> Result<Vec<HttpTask>, BError> {
    let body = Bytes::from(stop.body(exchange.record.protocol(), &exchange.record.request_id));
    let mut head = head(exchange, stop.code.status(), b"application/json", Some(body.len()))?;
    if let Some(after) = stop.retry_after_seconds() {
        head.insert_header("retry-after", after)?;
    }
    Ok(vec![HttpTask::Header(head, false), last(Some(body))])
}

/// The last bytes. Returns whether the connection may serve another request.
pub(super) async fn deliver(
    session: &mut ServerSession,
    exchange: &Exchange,
    rest: Result<FinalPart, RequestError>,
) -> bool {
    let tasks = match rest {
        Ok(FinalPart::StreamEnd(tail)) => vec![last(tail)],
        Ok(FinalPart::Body {
            status,
            content_type,
            body,
        }) => {
            let Ok(head) = head(exchange, status, &content_type, Some(body.len())) else {
                return false;
            };
            vec![HttpTask::Header(head, false), last(Some(body))]
        }
        Err(stop) if stop.code == ErrorCode::ClientGone => return false,
        Err(stop) if exchange.head_is_sent => {
            // An error event, and then no clean end: the connection closes without the last chunk.
            let event = Bytes::from(stop.event(exchange.record.protocol(), &exchange.record.request_id));
            let _ = write(session, vec![piece(event)]).await;
            return false;
        }
        Err(stop) => {
            let Ok(tasks) = refusal(exchange, &stop) else {
                return false;
            };
            tasks
        }
    };
    let stop = exchange.record.stop.as_ref();
    let reads_on = stop.is_none_or(|stop| !matches!(stop.code, ErrorCode::BodyTooLarge | ErrorCode::RequestTimeout));
    write(session, tasks).await.is_ok() && reads_on
}

fn reset(figure: &Figure) -> String {
    seconds(figure.reset)
}

/// As OpenAI writes it: `1.234s`.
fn seconds(duration: Duration) -> String {
    decimal(duration.as_secs(), u64::from(duration.subsec_millis()), 3, "s")
}

/// Euros with all nine decimals, exactly.
fn euros(cost: NanoEuro) -> String {
    decimal(cost.0 / 1_000_000_000, cost.0 % 1_000_000_000, 9, "")
}

/// A number of so many decimals; every answer has some, and formatting floats is slow.
fn decimal(whole: u64, fraction: u64, decimals: usize, unit: &str) -> String {
    let (mut before, mut after) = (itoa::Buffer::new(), itoa::Buffer::new());
    let after = after.format(fraction);
    let zeros = &"000000000"[..decimals.saturating_sub(after.len())];
    [before.format(whole), ".", zeros, after, unit].concat()
}

/// Writes tasks with one flush.
pub(super) async fn write(session: &mut ServerSession, tasks: Vec<HttpTask>) -> Result<(), RequestError> {
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
