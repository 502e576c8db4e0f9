//! The client's side of a connection: a bounded, timed read of a request's body, and noticing that a client has gone.

use super::encoding::{self, too_large};
use crate::config::Config;
use crate::services::{BufferedBytes, Services};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use pingora_core::protocols::http::ServerSession;
use pingora_timeout::fast_timeout::fast_timeout;
use protocol::error::{ErrorCode, RequestError};
use std::sync::Arc;

/// Memory reserved for a body before any of it has arrived, at most.
const FIRST_RESERVE: usize = 1 << 20;

/// Reads and decodes a whole body within `bounds.max_body_bytes` and `timeouts.body_seconds`. What has arrived of it counts
/// in `bounds.max_buffered_bytes`, for as long as the second part of the answer is held.
pub(crate) async fn body(
    services: &Arc<Services>,
    session: &mut ServerSession,
    config: &Config,
) -> Result<(Bytes, BufferedBytes), RequestError> {
    let limit = config.gateway.max_body_bytes;
    let headers = &session.req_header().headers;
    let coding = encoding::of(headers)?;
    let declared = declared_length(headers);
    if declared.is_some_and(|length| length > limit) {
        return Err(too_large(limit));
    }
    services.check_buffer(config, declared.unwrap_or(0))?;
    let mut buffered = services.buffer(config, 0)?;
    if expects_continue(headers) {
        session.write_continue_response().await.map_err(|_| client_gone())?;
    }
    let read = read_all(session, declared.unwrap_or(0), config, &mut buffered);
    let body = match fast_timeout(config.gateway.body_timeout, read).await {
        Ok(body) => body?,
        Err(_) => return Err(too_slow()),
    };
    let body = encoding::decode(coding, body, limit)?;
    buffered.resize(body.len());
    Ok((body, buffered))
}

/// The body's declared length, for reserving memory before it is read.
fn declared_length(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

async fn read_all(
    session: &mut ServerSession,
    declared: usize,
    config: &Config,
    buffered: &mut BufferedBytes,
) -> Result<Bytes, RequestError> {
    let limit = config.gateway.max_body_bytes;
    let Some(first) = next_chunk(session).await? else {
        return Ok(Bytes::new());
    };
    if first.len() > limit {
        return Err(too_large(limit));
    }
    buffered.grow(config, first.len())?;
    if first.len() == declared {
        return Ok(first);
    }
    let mut whole = BytesMut::with_capacity(declared.clamp(first.len() * 2, FIRST_RESERVE.max(first.len() * 2)));
    whole.extend_from_slice(&first);
    while let Some(chunk) = next_chunk(session).await? {
        if whole.len() + chunk.len() > limit {
            return Err(too_large(limit));
        }
        buffered.grow(config, chunk.len())?;
        if whole.capacity() - whole.len() < chunk.len() {
            // After this much, the declared length is trusted: a large body is moved once, and not at each doubling.
            let rest = declared.saturating_sub(whole.len());
            whole.reserve(rest.max(chunk.len()));
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(whole.freeze())
}

async fn next_chunk(session: &mut ServerSession) -> Result<Option<Bytes>, RequestError> {
    let error = match session.read_request_body().await {
        Ok(chunk) => return Ok(chunk),
        Err(error) => error,
    };
    // Where this request ends and the next begins is not known any more.
    session.set_keepalive(None);
    Err(match error.etype() {
        pingora_core::ErrorType::ReadTimedout => too_slow(),
        pingora_core::ErrorType::ConnectionClosed | pingora_core::ErrorType::ReadError => client_gone(),
        _ => RequestError::new(
            ErrorCode::BadRequest,
            "invalid request body: its HTTP framing (content-length or chunks) is broken",
        ),
    })
}

/// Returns once the client has disconnected; pending until then.
pub(super) async fn disconnected(session: &mut ServerSession) -> RequestError {
    loop {
        if session.read_body_or_idle(true).await.is_err() {
            return client_gone();
        }
    }
}

/// The error of a request whose client has disconnected.
pub(super) fn client_gone() -> RequestError {
    RequestError::new(ErrorCode::ClientGone, "the client disconnected")
}

fn too_slow() -> RequestError {
    RequestError::new(
        ErrorCode::RequestTimeout,
        "the request body did not arrive within timeouts.body_seconds",
    )
}

fn expects_continue(headers: &HeaderMap) -> bool {
    headers
        .get(header::EXPECT)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}
