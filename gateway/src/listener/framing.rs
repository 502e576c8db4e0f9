//! Rules of HTTP/1 framing that pingora leaves to its user, so that a request's end is never in doubt between Sluice and
//! a proxy before it.

use http::{Version, header};
use pingora_core::protocols::http::ServerSession;
use pingora_http::RequestHeader;

/// Returns whether another request may follow on a request's connection. Not after HTTP/1.0, after `Connection: close`
/// or after both `Content-Length` and `Transfer-Encoding` (RFC 9112, section 6.3; pingora has judged these). Not after a
/// chunked body either: pingora accepts any bytes in chunk extensions, line feeds too, which other programs read as an
/// end of line.
pub(super) fn is_unambiguous(session: &ServerSession) -> bool {
    let head = session.req_header();
    session.get_keepalive().is_some()
        && head.version != Version::HTTP_10
        && !head.headers.contains_key(header::TRANSFER_ENCODING)
}

/// Returns whether a request of HTTP/1.1 has no `host` header, which it must have (RFC 9112, section 3.2).
pub(super) fn lacks_host(head: &RequestHeader) -> bool {
    head.version == Version::HTTP_11 && !head.headers.contains_key(header::HOST)
}
