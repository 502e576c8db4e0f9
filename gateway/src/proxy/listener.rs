//! Takes connections in, and lets go of them when the gateway stops. HTTP itself is pingora's.

use super::{Gateway, exchange, lists, told_to_stop};
use async_trait::async_trait;
use parking_lot::Mutex;
use pingora_core::apps::{HttpPersistentSettings, HttpServerApp, HttpServerOptions, ReusedHttpStream};
use pingora_core::listeners::tls::TlsSettings;
use pingora_core::protocols::http::ServerSession;
use pingora_core::server::{Fds, ShutdownWatch};
use pingora_core::services::Service as _;
use pingora_core::services::listening::Service;
use pingora_timeout::fast_timeout::fast_timeout;
use protocol::{self, Route};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::IntoRawFd;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// The HTTP application behind the proxy listener.
struct Proxy {
    gateway: Arc<Gateway>,
    options: HttpServerOptions,
    connections: Arc<AtomicUsize>,
}

/// Marks a connection that has served a request before.
struct Served;

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
            .map_err(|error| format!("the gateway before hands nothing over at {path}: {error}"))?;
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
            .map_err(|error| format!("nobody takes the socket at {path}: {error}"))
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

/// Accepts until told to stop; then waits, `drain` at most, for what runs.
pub(crate) async fn serve(
    gateway: Arc<Gateway>,
    socket: Socket,
    tls: Option<TlsSettings>,
    stop: ShutdownWatch,
    drain: Duration,
) {
    let address = socket.address.to_string();
    let mut options = HttpServerOptions::default();
    options.h2c = true;
    let connections = Arc::new(AtomicUsize::new(0));
    let proxy = Proxy {
        gateway: Arc::clone(&gateway),
        options,
        connections: Arc::clone(&connections),
    };
    let mut service = Service::new("proxy".to_owned(), proxy);
    match tls {
        Some(tls) => service.add_tls_with_settings(&address, None, tls),
        None => service.add_tcp(&address),
    }
    service.start_service(Some(socket.sockets), stop, 1).await;
    let drained = async {
        while connections.load(Relaxed) + gateway.in_background.load(Relaxed) > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    if tokio::time::timeout(drain, drained).await.is_err() {
        let connections = connections.load(Relaxed);
        tracing::warn!(connections, "stopped with requests still running");
    }
}

impl Counted {
    fn one_more(connections: &Arc<AtomicUsize>) -> Self {
        connections.fetch_add(1, Relaxed);
        Self(Arc::clone(connections))
    }
}

impl Proxy {
    /// Reads a request's head: within the head's deadline, or, on a connection that has served
    /// before, after at most the keep-alive time.
    async fn read_head(&self, session: &mut ServerSession, stop: &ShutdownWatch) -> bool {
        let gateway = &self.gateway.current.get().config.gateway;
        let mut within = gateway.head_timeout;
        if session.take_connection_user_context().is_some() {
            within += gateway.keepalive;
        }
        let read = {
            let mut read = pin!(fast_timeout(within, session.read_request()));
            tokio::select! {
                biased;
                read = &mut read => read.ok(),
                // An idle connection ends when the gateway stops; where another has taken its place, it may still bring
                // the request that its client is about to send, so that none meets a closed door.
                () = told_to_stop(stop.clone()) => {
                    if !self.gateway.handed_over.load(Relaxed) {
                        return false;
                    }
                    match fast_timeout(gateway.drain / 2, read).await {
                        Ok(Ok(read)) => Some(read),
                        Ok(Err(_)) | Err(_) => return false,
                    }
                }
            }
        };
        match read {
            Some(Ok(is_there)) => is_there,
            Some(Err(_)) => {
                let _ = session.respond_error(400).await;
                false
            }
            None => {
                let _ = session.respond_error(408).await;
                false
            }
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[async_trait]
impl HttpServerApp for Proxy {
    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        stop: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        let _counted = Counted::one_more(&self.connections);
        if !self.read_head(&mut session, stop).await {
            return None;
        }
        let config = &self.gateway.current.get().config.gateway;
        session.set_keepalive((!*stop.borrow()).then_some(config.keepalive.as_secs()));
        session.set_pipelining_enabled(true);
        session.set_write_timeout(Some(Duration::from_secs(60)));
        session.set_total_drain_timeout(Some(Duration::from_secs(1)));
        let given = session.req_header().uri.path().to_owned();
        let path = protocol::clean_path(&given);
        let is_clean = match protocol::route(session.req_header().method.as_str(), &path.path) {
            Route::Operation(call) => exchange::serve(&self.gateway, &mut session, call, path.model.as_deref()).await,
            route => {
                let is_anthropics = session.req_header().headers.contains_key("anthropic-version");
                let protocol = protocol::protocol_of(&path.path, is_anthropics);
                lists::answer(&self.gateway, &mut session, &route, protocol)
                    .await
                    .is_ok()
            }
        };
        if !is_clean {
            session.shutdown().await;
            return None;
        }
        let mut settings = HttpPersistentSettings::for_session(&session);
        settings.set_user_context(Box::new(Served));
        let stream = session.finish().await.ok().flatten()?;
        Some(ReusedHttpStream::from_reusable_stream(stream, settings))
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.options)
    }
}
