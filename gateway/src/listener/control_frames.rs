//! A bound on the control frames of an HTTP/2 connection. Each PING and SETTINGS wants an answer and the others a look at
//! the connection's state, so a client that sends nothing else keeps a core busy with a few bytes. The frames of each
//! direction are counted on the byte stream, below the library that answers them; a flood ends the connection with GOAWAY
//! and ENHANCE_YOUR_CALM (RFC 9113, sections 5.4.1 and 10.5).

use crate::connections::Connection;
use async_trait::async_trait;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::tls::SslDigest;
use pingora_core::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream, TimingDigest,
    UniqueID, UniqueIDType,
};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The first bytes of every HTTP/2 connection (RFC 9113, section 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes of a frame's head (RFC 9113, section 4.1).
const HEAD: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;

/// Control frames that go with each HEADERS frame, and with each DATA frame of an answer: clients update two windows for
/// a frame they have read, and set priorities. Envoy allows ten, too.
const PER_FRAME: u32 = 10;

/// The time after which the whole bound may be used again.
const PERIOD: Duration = Duration::from_secs(10);

/// A connection in HTTP/2 whose client's control frames are bounded.
#[derive(Debug)]
pub(super) struct BoundedControlFrames {
    stream: Stream,
    connection: Arc<Connection>,
    received: Frames,
    sent: Frames,
    budget: Budget,
    /// The newest stream that the client has opened.
    last_stream: u32,
    is_flooded: bool,
}

/// Finds the heads of frames in one direction of a connection.
#[derive(Debug)]
struct Frames {
    /// Bytes until the next head begins.
    until_head: usize,
    head: [u8; HEAD],
    /// Bytes of the head that have been seen.
    seen: usize,
}

/// The head of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Head {
    length: usize,
    kind: u8,
    stream: u32,
}

/// The control frames of a client beyond those that its requests and their answers allow.
#[derive(Debug)]
struct Budget {
    bound: u32,
    used: u32,
    refilled: Instant,
}

impl Frames {
    /// Frames that begin after some other bytes.
    fn after(other: usize) -> Self {
        Self {
            until_head: other,
            head: [0; HEAD],
            seen: 0,
        }
    }

    /// Takes the connection's next bytes; calls `each` for each head that is whole with them.
    fn read(&mut self, mut bytes: &[u8], mut each: impl FnMut(Head)) {
        while !bytes.is_empty() {
            let skipped = self.until_head.min(bytes.len());
            self.until_head -= skipped;
            bytes = &bytes[skipped..];
            let taken = (HEAD - self.seen).min(bytes.len());
            self.head[self.seen..self.seen + taken].copy_from_slice(&bytes[..taken]);
            self.seen += taken;
            bytes = &bytes[taken..];
            if self.seen == HEAD {
                let head = Head::of(self.head);
                self.until_head = head.length;
                self.seen = 0;
                each(head);
            }
        }
    }

    /// Returns whether a frame that is written now is not inside another.
    fn is_between(&self) -> bool {
        self.until_head == 0 && self.seen == 0
    }
}

impl Head {
    fn of(head: [u8; HEAD]) -> Self {
        let [length @ .., kind, _flags, _, _, _, _] = head;
        let [_, _, _, _, _, stream @ ..] = head;
        Self {
            length: length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)),
            kind,
            stream: u32::from_be_bytes(stream) & !(1 << 31),
        }
    }
}

impl Budget {
    /// Counts a frame of the client. The library bounds heads in many frames and data in tiny ones itself.
    fn received(&mut self, head: Head) {
        match head.kind {
            HEADERS => self.used = self.used.saturating_sub(PER_FRAME),
            DATA if head.length > 0 => self.used = self.used.saturating_sub(1),
            DATA | CONTINUATION => {}
            _ => self.used = self.used.saturating_add(1),
        }
    }

    /// Counts a frame of an answer.
    fn sent(&mut self, head: Head) {
        if matches!(head.kind, DATA | HEADERS) {
            self.used = self.used.saturating_sub(PER_FRAME);
        }
    }

    /// Returns whether the client has sent too many. The clock is asked only when it seems so.
    fn is_exceeded(&mut self, now: impl FnOnce() -> Instant) -> bool {
        if self.used <= self.bound {
            return false;
        }
        let now = now();
        let passed = now.saturating_duration_since(self.refilled).min(PERIOD);
        let refill = u128::from(self.bound) * passed.as_millis() / PERIOD.as_millis();
        // What is less than a frame is not lost.
        if refill > 0 {
            self.refilled = now;
        }
        self.used = self.used.saturating_sub(u32::try_from(refill).unwrap_or(self.bound));
        self.used > self.bound
    }
}

impl BoundedControlFrames {
    /// Bounds the control frames of a connection whose first bytes are HTTP/2's preface.
    pub(super) fn new(stream: Stream, connection: Arc<Connection>, bound: u32) -> Self {
        Self {
            stream,
            connection,
            received: Frames::after(PREFACE.len()),
            sent: Frames::after(0),
            budget: Budget {
                bound,
                used: 0,
                refilled: Instant::now(),
            },
            last_stream: 0,
            is_flooded: false,
        }
    }

    fn count_received(&mut self, bytes: &[u8]) {
        let (budget, last_stream) = (&mut self.budget, &mut self.last_stream);
        self.received.read(bytes, |head| {
            budget.received(head);
            if head.kind == HEADERS {
                *last_stream = head.stream;
            }
        });
        if !self.is_flooded && self.budget.is_exceeded(Instant::now) {
            self.is_flooded = true;
            self.connection.refuse_control_frames();
        }
    }

    fn count_sent(&mut self, bytes: &[u8]) {
        let budget = &mut self.budget;
        self.sent.read(bytes, |head| budget.sent(head));
    }

    /// Tells the client why the connection ends, if it takes it at once.
    fn go_away(&mut self, context: &mut Context<'_>) {
        const GOAWAY: [u8; HEAD] = [0, 0, 8, 7, 0, 0, 0, 0, 0];
        const ENHANCE_YOUR_CALM: u32 = 0xb;
        if self.sent.is_between() {
            let payload = [self.last_stream.to_be_bytes(), ENHANCE_YOUR_CALM.to_be_bytes()].concat();
            let frame = [&GOAWAY[..], &payload].concat();
            let _ = Pin::new(&mut self.stream).poll_write(context, &frame);
            let _ = Pin::new(&mut self.stream).poll_flush(context);
        }
    }
}

impl AsyncRead for BoundedControlFrames {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        if !this.is_flooded {
            ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
            this.count_received(&buffer.filled()[before..]);
            if !this.is_flooded {
                return Poll::Ready(Ok(()));
            }
            buffer.set_filled(before);
            this.go_away(context);
        }
        Poll::Ready(Err(io::Error::other("too many control frames")))
    }
}

impl AsyncWrite for BoundedControlFrames {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.stream).poll_write_vectored(context, parts))?;
        let mut left = written;
        for part in parts {
            let taken = left.min(part.len());
            this.count_sent(&part[..taken]);
            left -= taken;
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

#[async_trait]
impl Shutdown for BoundedControlFrames {
    async fn shutdown(&mut self) {
        Shutdown::shutdown(&mut *self.stream).await;
    }
}

#[async_trait]
impl Peek for BoundedControlFrames {
    async fn try_peek(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        self.stream.try_peek(buffer).await
    }
}

impl UniqueID for BoundedControlFrames {
    fn id(&self) -> UniqueIDType {
        self.stream.id()
    }
}

impl Ssl for BoundedControlFrames {
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.stream.get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.stream.selected_alpn_proto()
    }
}

impl GetTimingDigest for BoundedControlFrames {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.stream.get_timing_digest()
    }
}

impl GetProxyDigest for BoundedControlFrames {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.stream.get_proxy_digest()
    }
}

impl GetSocketDigest for BoundedControlFrames {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.stream.get_socket_digest()
    }
}

#[cfg(test)]
mod tests;
