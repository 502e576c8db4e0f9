//! Sends the head and the body of an HTTP/1 request in one vectored write. pingora's own way flushes the head by itself, and
//! a connection to a server has no write buffer, so that it takes a system call (and, with `TCP_NODELAY`, a packet) for
//! each.

use bytes::Bytes;
use http::Method;
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::v1::client::{HttpSession, http_req_header_to_wire};
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{BError, Error, ErrorType, OrErr};
use pingora_http::RequestHeader;
use pingora_timeout::fast_timeout::fast_timeout;
use std::io::{self, IoSlice};
use std::time::Duration;
use tokio::io::AsyncWriteExt;

/// Returns whether a request may be sent so. One without a body is a single write anyway; and pingora must have written the
/// head of a `HEAD` request itself, to know that no body follows its answer.
pub(super) fn fits(method: &Method, body: &[Bytes]) -> bool {
    method != Method::HEAD && body.iter().any(|piece| !piece.is_empty())
}

/// Sends a request on a connection, and returns the session that reads its answer.
pub(super) async fn send(
    mut stream: Stream,
    peer: &HttpPeer,
    head: &RequestHeader,
    body: &[Bytes],
    within: Duration,
) -> Result<HttpSession, BError> {
    let Some(head) = http_req_header_to_wire(head) else {
        return Error::e_explain(
            ErrorType::InvalidHTTPHeader,
            "the path has bytes that no request line may have",
        );
    };
    let pieces = std::iter::once(&*head).chain(body.iter().map(|piece| &**piece));
    let mut slices: Vec<IoSlice<'_>> = pieces.filter(|piece| !piece.is_empty()).map(IoSlice::new).collect();
    match fast_timeout(within, write_all(&mut stream, &mut slices)).await {
        Ok(written) => written.or_err(ErrorType::WriteError, "while writing a request")?,
        Err(_) => return Error::e_explain(ErrorType::WriteTimedout, "while writing a request"),
    }
    Ok(HttpSession::new_with_options(stream, peer))
}

async fn write_all(stream: &mut Stream, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
    while !slices.is_empty() {
        match stream.write_vectored(slices).await? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => IoSlice::advance_slices(&mut slices, written),
        }
    }
    stream.flush().await
}
