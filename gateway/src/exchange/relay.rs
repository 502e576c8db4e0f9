//! Answers that are passed on as they come, without being read: sounds, streams of images, and whatever a pass-through
//! path returns.

use super::admit::Admitted;
use super::client::{Client, piece};
use super::final_part::FinalPart;
use super::recorder::Recorder;
use super::reply;
use super::{passthrough, retry_after};
use crate::upstream::Answer;
use bytes::BytesMut;
use http::header::{CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use pingora_core::BError;
use pingora_core::protocols::http::HttpTask;
use pingora_http::ResponseHeader;
use protocol::error::{ErrorCode, RequestError};

/// Bytes of a refusal that are read for its message.
const MESSAGE: usize = 16 << 10;

/// Passes an answer on: every piece at once, but for the one that completes it, which waits for the record.
pub(super) async fn relay(
    admitted: &mut Admitted<'_>,
    client: &mut Client<'_>,
    mut answer: Answer,
    status: u16,
) -> Result<FinalPart, RequestError> {
    let empty = HeaderMap::new();
    let headers = answer.session.response_header().map_or(&empty, |head| &head.headers);
    let retry_after = retry_after::read(headers);
    let mut left = length(headers);
    let head = head(&admitted.recorder, headers, status, left).map_err(|_| reply::broken_head())?;
    let mut head = Some(head);
    let (mut message, mut rest) = (BytesMut::new(), None);
    loop {
        let arrived = tokio::select! {
            biased;
            arrived = answer.session.read_response_body() => arrived,
            error = client.gone() => return Err(error),
        };
        let arrived = arrived.map_err(|error| answer.broke_off(&error))?;
        let record = &mut admitted.recorder.record;
        if record.first_token.is_none() {
            record.first_token = Some(record.started.elapsed());
            if status < 400 {
                answer.first_token_received();
            }
        }
        let Some(bytes) = arrived else { break };
        left = left.map(|left| left.saturating_sub(bytes.len() as u64));
        if status >= 400 && message.len() < MESSAGE {
            message.extend_from_slice(&bytes[..bytes.len().min(MESSAGE)]);
        }
        if left == Some(0) {
            rest = Some(bytes);
        } else {
            let mut tasks: Vec<HttpTask> = head
                .take()
                .map(|head| HttpTask::Header(head, false))
                .into_iter()
                .collect();
            tasks.push(piece(bytes));
            client.write(tasks).await?;
        }
        if answer.session.response_done() {
            break;
        }
    }
    if left.is_some_and(|left| left > 0) && has_body(admitted, status) {
        let message = "the model's server ended its answer before its content-length";
        answer.in_flight.failed(message);
        return Err(RequestError::new(ErrorCode::UpstreamError, message));
    }
    if let Some(head) = head {
        client.write(vec![HttpTask::Header(head, false)]).await?;
    }
    let model = admitted.recorder.record.model_name();
    let error = (status >= 400).then(|| answer.refused(status, &message, model, retry_after));
    admitted.recorder.services.connector.keep(answer).await;
    Ok(FinalPart::Relayed { status, rest, error })
}

/// Returns whether an answer has a body (RFC 9110, section 6.4.1).
fn has_body(admitted: &Admitted<'_>, status: u16) -> bool {
    let passed = admitted.recorder.head.passthrough.as_ref();
    let is_head = passed.is_some_and(|passed| passed.method == Method::HEAD);
    !is_head && !matches!(status, 204 | 304)
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The head of an answer: the server's, as far as it is not the connection's, and the gateway's own headers.
fn head(
    recorder: &Recorder,
    headers: &HeaderMap,
    status: u16,
    length: Option<u64>,
) -> Result<Box<ResponseHeader>, BError> {
    let status_code = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    let mut head = ResponseHeader::build_no_case(status_code, Some(24))?;
    let passed: Vec<(HeaderName, HeaderValue)> = if recorder.head.passthrough.is_some() {
        passthrough::of_answer(headers)
    } else {
        let known = [CONTENT_TYPE, CONTENT_DISPOSITION, CONTENT_ENCODING];
        let given = headers.iter().filter(|(name, _)| known.contains(name));
        given.map(|(name, value)| (name.clone(), value.clone())).collect()
    };
    for (name, value) in passed {
        head.append_header(name, value)?;
    }
    match length {
        Some(length) => head.insert_header("content-length", length)?,
        None if matches!(status, 204 | 304) || recorder.head.is_http_1_0 => {}
        None => head.insert_header("transfer-encoding", "chunked")?,
    }
    if length.is_none() && !head.headers.contains_key("cache-control") {
        head.insert_header("cache-control", "no-cache")?;
        head.insert_header("x-accel-buffering", "no")?;
    }
    reply::own_headers(&mut head, recorder, false)?;
    Ok(Box::new(head))
}
