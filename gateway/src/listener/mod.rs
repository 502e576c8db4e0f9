//! The proxy listener: accepts connections, reads request heads and routes them, and drains at the stop. HTTP itself is
//! pingora's.

mod control_frames;
mod entrance;
mod framing;
pub(crate) mod tls;
mod web;

use crate::config::ConnectionBounds;
use crate::connections::{Connection, Connections};
use crate::endpoints::{self, Endpoints};
use crate::exchange::{self, Asked, passthrough};
use crate::shutdown::Shutdown;
use entrance::Entrance;
use parking_lot::Mutex;
use pingora_core::apps::{HttpPersistentSettings, ReusedHttpStream};
use pingora_core::listeners::tls::TlsSettings;
use pingora_core::listeners::{L4BufferSettings, ListenerConfig};
use pingora_core::protocols::http::ServerSession;
use pingora_core::server::Fds;
use pingora_core::services::Service as _;
use pingora_core::services::listening::Service;
use pingora_timeout::fast_timeout::fast_timeout;
use protocol::error::{ErrorCode, RequestError};
use protocol::{self, Protocol, Route};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::IntoRawFd;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::watch;
use web::Access;

/// The HTTP application behind the proxy listener.
struct Proxy {
    endpoints: Endpoints,
    /// Connections that wait for a request head or serve a request.
    connections: Arc<AtomicUsize>,
}

/// Counts a connection while it is served.
struct Counted(Arc<AtomicUsize>);

/// The proxy's listening socket, of this process's own or handed over by the one before.
///
/// The socket is ours, so that its port is known before anyone is let in; pingora is handed it as it would
/// be by the process before, and does the rest.
#[derive(Clone)]
pub(crate) struct Socket {
    address: SocketAddr,
    sockets: Arc<Mutex<Fds>>,
}

/// The time that requests which are aborted at the end of the drain have for their last bytes.
const ABORT_WITHIN: Duration = Duration::from_secs(2);

/// Buffers of a client's connection. A head and an ordinary answer fit into the write buffer and go out in one send; the
/// default of 1,460 bytes made two of them. The read buffer is held as long as a stream runs, and most requests are smaller
/// than it; a larger one takes more reads. The default is 64 KiB ([decision 29](docs/decisions/029-one-send-for-a-request-and-for-an-answer.md)).
const BUFFERS: L4BufferSettings = L4BufferSettings {
    read: Some(8 << 10),
    write: Some(8 << 10),
};

/// The longest path of a Unix socket that Linux takes, and one byte for its end.
const LONGEST_PATH: usize = 107;

impl Socket {
    pub(crate) fn of(listener: TcpListener) -> std::io::Result<Self> {
        let address = listener.local_addr()?;
        let mut sockets = Fds::new();
        sockets.add(address.to_string(), listener.into_raw_fd());
        Ok(Self {
            address,
            sockets: Arc::new(Mutex::new(sockets)),
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits, some seconds, for the process before to hand its socket over at a path. Blocks.
    pub(crate) fn inherit(path: &Path) -> Result<Self, String> {
        let path = fitting(path)?;
        let mut sockets = Fds::new();
        sockets
            .get_from_sock(path)
            .map_err(|error| format!("the running gateway did not hand over its socket at {path}: {error}"))?;
        let (addresses, _) = sockets.serialize();
        let address = addresses.first().and_then(|address| address.parse().ok());
        Ok(Self {
            address: address.ok_or_else(|| "the gateway before hands over no socket".to_owned())?,
            sockets: Arc::new(Mutex::new(sockets)),
        })
    }

    /// Hands it to the process that waits at a path. Both accept from then on. Blocks.
    pub(crate) fn hand_over(&self, path: &Path) -> Result<(), String> {
        let path = fitting(path)?;
        let sent = self.sockets.lock().send_to_sock(path);
        sent.map(drop)
            .map_err(|error| format!("the newer gateway did not take the socket at {path}: {error}"))
    }
}

fn fitting(path: &Path) -> Result<&str, String> {
    path.to_str().filter(|path| path.len() <= LONGEST_PATH).ok_or_else(|| {
        format!(
            "{} is too long for a Unix socket; use a shorter data_dir",
            path.display()
        )
    })
}

/// Accepts connections until the stop begins; then waits, `drain_seconds` at most, for running requests, and ends the
/// rest with an error and a record.
pub(crate) async fn serve(endpoints: Endpoints, socket: Socket, tls: Option<TlsSettings>, open: Arc<Connections>) {
    let shutdown = Arc::clone(&endpoints.services.shutdown);
    let address = socket.address.to_string();
    let drain = endpoints.services.current.get().config.gateway.startup.drain;
    let connections = Arc::new(AtomicUsize::new(0));
    let proxy = Proxy {
        endpoints,
        connections: Arc::clone(&connections),
    };
    let (entrance, before_tls) = Entrance::new(proxy, open);
    let mut service = Service::new("proxy".to_owned(), entrance);
    service.endpoints().set_pre_tls_callback(Arc::new(before_tls));
    let listener = ListenerConfig::tcp(address).l4_buffer(BUFFERS);
    service.add_listener(match tls {
        Some(tls) => listener.tls(tls),
        None => listener,
    });
    let (stop, stopping) = watch::channel(false);
    let accepting = Arc::clone(&shutdown);
    tokio::spawn(async move {
        accepting.stopping().await;
        let _ = stop.send(true);
    });
    service.start_service(Some(socket.sockets), stopping, 1).await;
    if !drained(&connections, &shutdown, drain).await {
        tracing::warn!(
            connections = connections.load(Relaxed),
            "drain time is over: ending the requests that still run or wait"
        );
        shutdown.abort();
        drained(&connections, &shutdown, ABORT_WITHIN).await;
    }
}

/// Waits until no connection and no detached request is left; false if `limit` passes first.
async fn drained(connections: &AtomicUsize, shutdown: &Shutdown, limit: Duration) -> bool {
    let drained = async {
        while connections.load(Relaxed) + shutdown.running_detached() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(limit, drained).await.is_ok()
}

impl Counted {
    fn one_more(connections: &Arc<AtomicUsize>) -> Self {
        connections.fetch_add(1, Relaxed);
        Self(Arc::clone(connections))
    }
}

impl Proxy {
    /// The time for a connection's first head, and for the next request.
    fn timeouts(&self) -> (Duration, Duration) {
        let gateway = &self.endpoints.services.current.get().config.gateway;
        (gateway.head_timeout, gateway.keepalive)
    }

    /// The bounds on connections in force.
    fn bounds(&self) -> ConnectionBounds {
        self.endpoints.services.current.get().config.gateway.connections
    }

    /// Reads a request's head: within the connection's deadline, or, on one that has served before, after at most the
    /// keep-alive time.
    async fn read_head(&self, session: &mut ServerSession, connection: &Connection) -> bool {
        let shutdown = &self.endpoints.services.shutdown;
        let gateway = &self.endpoints.services.current.get().config.gateway;
        let within = if connection.has_head() {
            gateway.head_timeout + gateway.keepalive
        } else {
            connection.head_due(gateway.head_timeout)
        };
        let read = {
            let mut read = pin!(fast_timeout(within, session.read_request()));
            tokio::select! {
                biased;
                read = &mut read => read.ok(),
                // An idle connection ends when the gateway stops; where another has taken its place, it may still bring
                // the request that its client is about to send, so that none meets a closed door.
                () = shutdown.stopping() => {
                    if !shutdown.is_handed_over() {
                        return false;
                    }
                    match fast_timeout(gateway.startup.drain / 2, read).await {
                        Ok(Ok(read)) => Some(read),
                        Ok(Err(_)) | Err(_) => return false,
                    }
                }
            }
        };
        match read {
            Some(Ok(is_there)) => {
                connection.head_received();
                is_there
            }
            Some(Err(_)) => {
                let _ = session.respond_error(400).await;
                false
            }
            None => {
                connection.count_overdue();
                let _ = session.respond_error(408).await;
                false
            }
        }
    }
}

impl Proxy {
    /// Serves a connection's next request. Returns the connection if it may serve another.
    async fn serve_request(&self, mut session: ServerSession, connection: &Connection) -> Option<ReusedHttpStream> {
        let _counted = Counted::one_more(&self.connections);
        if session.is_http2() {
            connection.head_received();
        }
        if !self.read_head(&mut session, connection).await {
            return None;
        }
        let config = &self.endpoints.services.current.get().config.gateway;
        let is_stopping = self.endpoints.services.shutdown.is_stopping();
        let may_stay = !is_stopping && framing::is_unambiguous(&session);
        session.set_keepalive(may_stay.then_some(config.keepalive.as_secs()));
        session.set_pipelining_enabled(true);
        session.set_write_timeout(Some(Duration::from_secs(60)));
        session.set_total_drain_timeout(Some(Duration::from_secs(1)));
        if !self.dispatch(&mut session).await {
            session.shutdown().await;
            return None;
        }
        let settings = HttpPersistentSettings::for_session(&session);
        let stream = session.finish().await.ok().flatten()?;
        Some(ReusedHttpStream::from_reusable_stream(stream, settings))
    }

    /// Serves the request whose head has been read. Returns whether the connection may serve another.
    async fn dispatch(&self, session: &mut ServerSession) -> bool {
        let services = &self.endpoints.services;
        let head = session.req_header();
        let given = head.uri.path().to_owned();
        if framing::lacks_host(head) {
            let error = RequestError::new(
                ErrorCode::BadRequest,
                "invalid request: an HTTP/1.1 request needs a `host` header",
            );
            let _ = endpoints::refuse(session, Protocol::OpenAi, &error, Vec::new()).await;
            return false;
        }
        let path = protocol::clean_path(&given);
        let is_anthropics = head.headers.contains_key("anthropic-version");
        let protocol = protocol::protocol_of(&path.path, is_anthropics);
        let cors = match web::access(&services.current.get().config, &head.method, &head.uri, &head.headers) {
            Access::Granted(cors) => cors,
            Access::Preflight(cors) => return endpoints::answer_preflight(session, cors).await.is_ok(),
            Access::Refused(error) => {
                let _ = endpoints::refuse(session, protocol, &error, Vec::new()).await;
                return false;
            }
        };
        match protocol::route(session.req_header().method.as_str(), &path.path) {
            Route::Operation(operation) => {
                let asked = Asked {
                    operation,
                    model: path.model,
                    passthrough: None,
                };
                exchange::serve(services, session, asked, cors).await
            }
            route => {
                let snapshot = services.current.get();
                if let Some(asked) = passthrough::asked(&snapshot.config, session.req_header(), &route) {
                    return exchange::serve(services, session, asked, cors).await;
                }
                let answered = endpoints::answer(&self.endpoints, session, &route, protocol, cors);
                answered.await.is_ok()
            }
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
