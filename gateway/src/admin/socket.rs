//! The admin listener's connections: counted and bounded like the proxy's, with a deadline for the first request head,
//! and closed when nothing moves on them.

use crate::connections::{Connection, Connections};
use crate::services::Services;
use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use std::io::{Error, ErrorKind, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, Sleep};

/// The wait after a connection could not be accepted, for descriptors to be closed.
const AFTER_ERROR: Duration = Duration::from_millis(100);

/// The admin listener's socket.
pub(crate) struct Socket {
    pub(crate) listener: TcpListener,
    pub(crate) services: Arc<Services>,
    pub(crate) connections: Arc<Connections>,
}

/// A connection with its deadlines.
pub(crate) struct Timed {
    stream: TcpStream,
    connection: Arc<Connection>,
    timer: Pin<Box<Sleep>>,
    /// The time that it may stay without a byte read or written, once a head has been received.
    idle: Duration,
    /// The deadline is no longer that of the first head.
    is_heard: bool,
}

/// A request's connection.
#[derive(Debug, Clone)]
pub(crate) struct Origin(Arc<Connection>);

impl Origin {
    /// The client's address.
    pub(super) fn address(&self) -> Option<IpAddr> {
        self.0.address()
    }

    /// Notes that a whole request head has arrived.
    pub(super) fn head_received(&self) {
        self.0.head_received();
    }
}

impl Listener for Socket {
    type Io = Timed;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Timed, SocketAddr) {
        loop {
            let Ok((stream, address)) = self.listener.accept().await else {
                tokio::time::sleep(AFTER_ERROR).await;
                continue;
            };
            let snapshot = self.services.current.get();
            let gateway = &snapshot.config.gateway;
            let ip = Some(address.ip().to_canonical());
            let admitted = self.connections.admit(ip, stream.as_raw_fd(), &gateway.connections);
            match admitted {
                Ok(connection) => {
                    let timer = Box::pin(tokio::time::sleep(gateway.head_timeout));
                    let idle = gateway.keepalive + gateway.head_timeout;
                    let timed = Timed {
                        stream,
                        connection,
                        timer,
                        idle,
                        is_heard: false,
                    };
                    return (timed, address);
                }
                Err(refused) => {
                    if let Some(answered) = self.connections.answer_refusal() {
                        tokio::spawn(answered.send(stream, refused));
                    }
                }
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl Connected<IncomingStream<'_, Socket>> for Origin {
    fn connect_info(stream: IncomingStream<'_, Socket>) -> Self {
        Self(Arc::clone(&stream.io().connection))
    }
}

impl Timed {
    /// Returns what a read or write came to, or an error once the deadline has passed. Every byte moves the deadline,
    /// but not before the first head has been received.
    fn within_deadline<T>(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<std::io::Result<T>>,
    ) -> Poll<std::io::Result<T>> {
        let has_head = self.connection.has_head();
        if has_head && (polled.is_ready() || !self.is_heard) {
            self.is_heard = true;
            self.timer.as_mut().reset(Instant::now() + self.idle);
        }
        if polled.is_pending() && self.timer.as_mut().poll(cx).is_ready() {
            self.connection.count_overdue();
            return Poll::Ready(Err(Error::from(ErrorKind::TimedOut)));
        }
        polled
    }
}

impl AsyncRead for Timed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.within_deadline(cx, read)
    }
}

impl AsyncWrite for Timed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.within_deadline(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.within_deadline(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
