//! Takes connections in, and lets go of them when the gateway stops. HTTP itself is pingora's.

use super::{Gateway, exchange, lists};
use crate::protocol::{self, Route};
use async_trait::async_trait;
use parking_lot::Mutex;
use pingora_core::apps::{HttpPersistentSettings, HttpServerApp, HttpServerOptions, ReusedHttpStream};
use pingora_core::listeners::tls::TlsSettings;
use pingora_core::protocols::http::ServerSession;
use pingora_core::server::{Fds, ShutdownWatch};
use pingora_core::services::Service as _;
use pingora_core::services::listening::Service;
use pingora_timeout::fast_timeout::fast_timeout;
use std::net::TcpListener;
use std::os::fd::IntoRawFd;
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

/// Accepts until told to stop; then waits, `drain` at most, for what runs.
///
/// The socket is ours, so that its port is known before anyone is let in; pingora is handed it as it would
/// be by the process before, and does the rest.
pub(crate) async fn serve(
    gateway: Arc<Gateway>,
    listener: TcpListener,
    tls: Option<TlsSettings>,
    stop: ShutdownWatch,
    drain: Duration,
) {
    let Ok(address) = listener.local_addr().map(|address| address.to_string()) else {
        return;
    };
    let mut options = HttpServerOptions::default();
    options.h2c = true;
    let connections = Arc::new(AtomicUsize::new(0));
    let proxy = Proxy {
        gateway: Arc::clone(&gateway),
        options,
        connections: Arc::clone(&connections),
    };
    let mut sockets = Fds::new();
    sockets.add(address.clone(), listener.into_raw_fd());
    let mut service = Service::new("proxy".to_owned(), proxy);
    match tls {
        Some(tls) => service.add_tls_with_settings(&address, None, tls),
        None => service.add_tcp(&address),
    }
    service
        .start_service(Some(Arc::new(Mutex::new(sockets))), stop, 1)
        .await;
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
        tokio::select! {
            biased;
            read = fast_timeout(within, session.read_request()) => match read {
                Ok(Ok(is_there)) => is_there,
                Ok(Err(_)) => {
                    let _ = session.respond_error(400).await;
                    false
                }
                Err(_) => {
                    let _ = session.respond_error(408).await;
                    false
                }
            },
            // An idle connection ends when the gateway stops.
            () = told(stop.clone()) => false,
        }
    }
}

/// Returns when the gateway is told to stop.
async fn told(mut stop: ShutdownWatch) {
    let _ = stop.wait_for(|stop| *stop).await;
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
        let path = session.req_header().uri.path().to_owned();
        let is_clean = match protocol::route(session.req_header().method.as_str(), &path) {
            Route::Call(call) => exchange::serve(&self.gateway, &mut session, call).await,
            route => lists::answer(&self.gateway, &mut session, &route, protocol::protocol_of(&path))
                .await
                .is_ok(),
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
