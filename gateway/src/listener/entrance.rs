//! The way of a connection into the proxy: it is counted, or refused with an answer; it has a deadline for its first
//! request head, TLS handshake and HTTP/2 preface included; and its first bytes tell whether it speaks HTTP/2.

use super::Proxy;
use super::control_frames::{BoundedControlFrames, PREFACE};
use crate::connections::{Connection, Connections};
use async_trait::async_trait;
use parking_lot::Mutex;
use pingora_core::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp};
use pingora_core::listeners::PreTlsProcess;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::l4::stream::Stream as TcpStream;
use pingora_core::protocols::{ALPN, GetSocketDigest, Stream, UniqueID};
use pingora_core::server::ShutdownWatch;
use pingora_core::upstreams::peer::{Tracer, Tracing};
use pingora_core::{Error, ErrorType};
use std::collections::HashMap;
use std::net::IpAddr;
use std::os::fd::RawFd;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::io::AsyncReadExt;

/// The application behind the proxy's listening socket.
pub(super) struct Entrance {
    proxy: Arc<Proxy>,
    connections: Arc<Connections>,
    handshakes: Arc<Handshakes>,
}

/// Connections during their TLS handshake, by descriptor.
#[derive(Debug, Default)]
struct Handshakes(Mutex<HashMap<RawFd, Arc<Connection>>>);

/// Counts connections before their TLS handshake.
pub(super) struct BeforeTls {
    proxy: Arc<Proxy>,
    connections: Arc<Connections>,
    handshakes: Arc<Handshakes>,
}

/// Learns, from pingora, that a TLS connection's descriptor is about to be closed.
#[derive(Debug, Clone)]
struct ClosingNotice {
    handshakes: Arc<Handshakes>,
    descriptor: RawFd,
    connection: Arc<Connection>,
}

/// One connection's requests.
struct Requests {
    proxy: Arc<Proxy>,
    connection: Arc<Connection>,
    options: HttpServerOptions,
}

impl Entrance {
    /// The application, and what counts connections before their TLS handshake.
    pub(super) fn new(proxy: Proxy, connections: Arc<Connections>) -> (Self, BeforeTls) {
        let (proxy, handshakes) = (Arc::new(proxy), Arc::<Handshakes>::default());
        let before = BeforeTls {
            proxy: Arc::clone(&proxy),
            connections: Arc::clone(&connections),
            handshakes: Arc::clone(&handshakes),
        };
        let entrance = Self {
            proxy,
            connections,
            handshakes,
        };
        (entrance, before)
    }

    /// Serves a connection that is counted.
    async fn serve(&self, stream: Stream, connection: &Arc<Connection>, shutdown: &ShutdownWatch) {
        let (head_timeout, keepalive) = self.proxy.timeouts();
        let served = async {
            let Some((stream, h2c)) = told_apart(stream).await else {
                return;
            };
            let stream = self.bounded(stream, h2c, connection);
            let mut options = HttpServerOptions::default();
            options.h2c = h2c;
            options.h2_idle_timeout = Some(keepalive);
            let requests = Arc::new(Requests {
                proxy: Arc::clone(&self.proxy),
                connection: Arc::clone(connection),
                options,
            });
            requests.process_new(stream, shutdown).await;
        };
        tokio::select! {
            () = served => {}
            () = connection.overdue(head_timeout + GRACE) => {}
        }
    }

    /// Bounds the control frames of a connection in HTTP/2; others are as they were.
    fn bounded(&self, stream: Stream, h2c: bool, connection: &Arc<Connection>) -> Stream {
        if !h2c && !matches!(stream.selected_alpn_proto(), Some(ALPN::H2)) {
            return stream;
        }
        let bound = self.proxy.bounds().control_frames;
        Box::new(BoundedControlFrames::new(stream, Arc::clone(connection), bound))
    }
}

/// An HTTP/1 connection is told that its head is overdue; others are closed this much later.
const GRACE: Duration = Duration::from_millis(100);

#[async_trait]
impl ServerApp for Entrance {
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let descriptor = stream.id();
        let secured = self.handshakes.0.lock().remove(&descriptor);
        let admitted = match secured {
            Some(connection) => Ok(connection),
            None => {
                let bounds = self.proxy.bounds();
                self.connections.admit(address(&*stream), descriptor, &bounds)
            }
        };
        match admitted {
            Ok(connection) => self.serve(stream, &connection, shutdown).await,
            Err(refused) => {
                if let Some(answered) = self.connections.answer_refusal() {
                    answered.send(stream, refused).await;
                }
            }
        }
        None
    }
}

/// Reads a connection's first bytes as far as they agree with HTTP/2's preface, and puts them back; whether they are
/// all of it. `None` if the connection ends before.
async fn told_apart(stream: Stream) -> Option<(Stream, bool)> {
    // Over TLS the handshake has decided.
    if !stream.as_any().is::<TcpStream>() {
        return Some((stream, false));
    }
    let mut stream = stream.into_any().downcast::<TcpStream>().ok()?;
    let mut first = [0; PREFACE.len()];
    let mut length = 0;
    while length < PREFACE.len() && first[..length] == PREFACE[..length] {
        match stream.read(&mut first[length..]).await {
            Ok(count) if count > 0 => length += count,
            _ => return None,
        }
    }
    stream.rewind(&first[..length]);
    let h2c = first == PREFACE;
    Some((stream, h2c))
}

/// The address of a connection's client.
fn address(stream: &(impl GetSocketDigest + ?Sized)) -> Option<IpAddr> {
    let digest = stream.get_socket_digest()?;
    digest.peer_addr()?.as_inet().map(|address| address.ip().to_canonical())
}

#[async_trait]
impl PreTlsProcess for BeforeTls {
    async fn process(&self, stream: &mut TcpStream) -> pingora_core::Result<()> {
        let descriptor = stream.id();
        let bounds = self.proxy.bounds();
        let admitted = self.connections.admit(address(stream), descriptor, &bounds);
        let connection =
            admitted.map_err(|refused| Error::explain(ErrorType::new("ConnectionRefused"), refused.message()))?;
        self.handshakes.0.lock().insert(descriptor, Arc::clone(&connection));
        stream.tracer = Some(Tracer(Box::new(ClosingNotice {
            handshakes: Arc::clone(&self.handshakes),
            descriptor,
            connection: Arc::clone(&connection),
        })));
        tokio::spawn(end_if_overdue(
            Arc::downgrade(&connection),
            self.proxy.timeouts().0 + GRACE,
        ));
        Ok(())
    }
}

/// Ends a connection whose TLS handshake and first head are overdue.
async fn end_if_overdue(connection: Weak<Connection>, timeout: Duration) {
    tokio::time::sleep(timeout).await;
    if let Some(connection) = connection.upgrade()
        && connection.count_overdue()
    {
        connection.disconnect();
    }
}

impl Tracing for ClosingNotice {
    fn on_connected(&self) {}

    fn on_disconnected(&self) {
        self.connection.closing();
        self.handshakes.0.lock().remove(&self.descriptor);
    }

    fn boxed_clone(&self) -> Box<dyn Tracing> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl HttpServerApp for Requests {
    async fn process_new_http(self: &Arc<Self>, session: ServerSession, _: &ShutdownWatch) -> Option<ReusedHttpStream> {
        self.proxy.serve_request(session, &self.connection).await
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.options)
    }
}
