//! The client's side: a bounded, timed read of the body, and knowing when the client has gone.

use crate::config::Config;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use pingora_core::protocols::http::ServerSession;
use pingora_timeout::fast_timeout::fast_timeout;
use protocol::refuse::{ErrorCode, RequestError};
use std::time::Duration;

/// Reserved for a body before any of it has arrived, at most.
const FIRST_RESERVE: usize = 1 << 20;

/// Reads the whole body, within the bounds of size and time.
pub(super) async fn body(session: &mut ServerSession, config: &Config) -> Result<Bytes, RequestError> {
    let most = config.gateway.max_body_bytes;
    let declared = declared_length(&session.req_header().headers);
    if declared.is_some_and(|length| length > most) {
        return Err(too_large(most));
    }
    if expects_continue(&session.req_header().headers) {
        session.write_continue_response().await.map_err(|_| gone())?;
    }
    let read = read_all(session, declared.unwrap_or(0), most);
    match fast_timeout(config.gateway.body_timeout, read).await {
        Ok(body) => body,
        Err(_) => Err(RequestError::new(
            ErrorCode::RequestTimeout,
            "the request's body took too long to arrive",
        )),
    }
}

async fn read_all(session: &mut ServerSession, declared: usize, most: usize) -> Result<Bytes, RequestError> {
    let Some(first) = next_chunk(session).await? else {
        return Ok(Bytes::new());
    };
    if first.len() > most {
        return Err(too_large(most));
    }
    if first.len() == declared {
        return Ok(first);
    }
    let mut whole = BytesMut::with_capacity(declared.clamp(first.len() * 2, FIRST_RESERVE.max(first.len())));
    whole.extend_from_slice(&first);
    while let Some(chunk) = next_chunk(session).await? {
        if whole.len() + chunk.len() > most {
            return Err(too_large(most));
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(whole.freeze())
}

async fn next_chunk(session: &mut ServerSession) -> Result<Option<Bytes>, RequestError> {
    session.read_request_body().await.map_err(|error| match error.etype() {
        pingora_core::ErrorType::ReadTimedout => {
            RequestError::new(ErrorCode::RequestTimeout, "the request's body took too long to arrive")
        }
        pingora_core::ErrorType::ConnectionClosed | pingora_core::ErrorType::ReadError => gone(),
        _ => RequestError::new(
            ErrorCode::BadRequest,
            "the request's body is not framed as HTTP requires",
        ),
    })
}

/// Pending while the client is there.
pub(super) async fn client_gone(session: &mut ServerSession) -> RequestError {
    loop {
        if session.read_body_or_idle(true).await.is_err() {
            return gone();
        }
    }
}

pub(super) fn gone() -> RequestError {
    RequestError::new(ErrorCode::ClientGone, "the client went away")
}

fn too_large(most: usize) -> RequestError {
    RequestError::new(
        ErrorCode::BodyTooLarge,
        format!("the request's body is larger than {most} bytes"),
    )
}

fn declared_length(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn expects_continue(headers: &HeaderMap) -> bool {
    headers
        .get(header::EXPECT)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// The caller's request id, if it is one that can be kept.
pub(super) fn sane_request_id(headers: &HeaderMap) -> Option<&str> {
    let id = headers.get("x-request-id")?.to_str().ok()?;
    let is_sane = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (!id.is_empty() && id.len() <= 128 && id.bytes().all(is_sane)).then_some(id)
}

/// How long the client says that it waits, in seconds.
pub(super) fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let seconds: f64 = headers.get("x-request-timeout-seconds")?.to_str().ok()?.parse().ok()?;
    Duration::try_from_secs_f64(seconds)
        .ok()
        .filter(|timeout| !timeout.is_zero())
}
