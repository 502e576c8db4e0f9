//! Takes connections in, and lets go of them when the gateway stops. HTTP itself is pingora's.

use super::{Gateway, exchange, lists};
use crate::protocol::{self, Route};
use async_trait::async_trait;
use pingora_core::apps::{HttpPersistentSettings, HttpServerApp, HttpServerOptions, ReusedHttpStream};
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::l4::stream::Stream;
use pingora_core::server::ShutdownWatch;
use pingora_core::services::listening::Service;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// The HTTP application behind the proxy listener.
pub(crate) struct Proxy {
    gateway: Arc<Gateway>,
    options: HttpServerOptions,
    connections: AtomicUsize,
}

/// Marks a connection that has served a request before.
struct Served;

/// Counts a connection for as long as it is served.
struct Counted(Arc<Proxy>);

impl Proxy {
    pub(crate) fn new(gateway: Arc<Gateway>) -> Arc<Self> {
        let mut options = HttpServerOptions::default();
        options.h2c = true;
        Arc::new(Self {
            gateway,
            options,
            connections: AtomicUsize::new(0),
        })
    }

    /// Accepts until told to stop; then waits, `drain` at most, for what runs.
    pub(crate) async fn run(self: Arc<Self>, listener: TcpListener, stop: watch::Receiver<bool>, drain: Duration) {
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => self.take(stream, stop.clone()),
                    Err(error) => {
                        // Too many open files, most likely: the next accept fails at once, too.
                        tracing::warn!(%error, "connection not accepted");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
                () = told(stop.clone()) => break,
            }
        }
        drop(listener);
        let drained = async {
            while self.connections.load(Relaxed) > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(drain, drained).await.is_err() {
            tracing::warn!(
                connections = self.connections.load(Relaxed),
                "stopped with requests still running"
            );
        }
    }

    fn take(self: &Arc<Self>, stream: TcpStream, stop: ShutdownWatch) {
        let _ = stream.set_nodelay(true);
        self.connections.fetch_add(1, Relaxed);
        let counted = Counted(Arc::clone(self));
        tokio::spawn(async move {
            let stream: Stream = stream.into();
            Service::handle_event(Box::new(stream), Arc::clone(&counted.0), stop).await;
        });
    }

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
            read = tokio::time::timeout(within, session.read_request()) => match read {
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
        self.0.connections.fetch_sub(1, Relaxed);
    }
}

#[async_trait]
impl HttpServerApp for Proxy {
    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        stop: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
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
