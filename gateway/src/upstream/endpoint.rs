//! One server: its address, its key, how many requests it has.

use crate::config;
use crate::protocol::refuse::{Reason, Stop};
use arc_swap::ArcSwapOption;
use pingora_core::upstreams::peer::HttpPeer;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A server that models are asked at.
#[derive(Debug)]
pub(crate) struct Endpoint {
    /// `host:port`, also the `host` header.
    pub(crate) authority: Arc<str>,
    pub(crate) path_prefix: String,
    /// The whole `authorization` header.
    pub(crate) authorization: Option<String>,
    weight: usize,
    under_way: AtomicUsize,
    slots: Option<Arc<Semaphore>>,
    most: Option<usize>,
    connect: Duration,
    /// Forgotten when a connection fails, so that a name is looked up again.
    peer: ArcSwapOption<HttpPeer>,
}

/// A request's place at an endpoint; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) endpoint: Arc<Endpoint>,
    /// Held only to be given back.
    #[allow(dead_code)]
    slot: Option<OwnedSemaphorePermit>,
}

impl Endpoint {
    pub(crate) fn new(configured: &config::Endpoint, connect: Duration) -> Self {
        let key = configured
            .api_key_env
            .as_ref()
            .and_then(|name| std::env::var(name).ok());
        Self {
            authority: configured.authority.as_str().into(),
            path_prefix: configured.path_prefix.clone(),
            authorization: key.map(|key| format!("Bearer {key}")),
            weight: usize::try_from(configured.weight).unwrap_or(1).max(1),
            under_way: AtomicUsize::new(0),
            slots: configured
                .max_concurrent_requests
                .map(|count| Arc::new(Semaphore::new(count))),
            most: configured.max_concurrent_requests,
            connect,
            peer: ArcSwapOption::empty(),
        }
    }

    /// The bundled simulated upstream.
    pub(crate) fn bundled(address: SocketAddr, connect: Duration) -> Self {
        let configured = config::Endpoint {
            authority: address.to_string(),
            path_prefix: String::new(),
            api_key_env: None,
            weight: 1,
            max_concurrent_requests: None,
        };
        Self::new(&configured, connect)
    }

    /// Whether it is configured as another one is.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        (&self.authority, &self.path_prefix, &self.authorization)
            == (&other.authority, &other.path_prefix, &other.authorization)
            && (self.weight, self.connect, self.most) == (other.weight, other.connect, other.most)
    }

    /// Requests under way for the weight, in thousandths.
    pub(crate) fn load(&self) -> usize {
        (self.under_way.load(Relaxed) + 1) * 1000 / self.weight
    }

    /// Takes a place, waiting while all are taken.
    pub(crate) async fn lease(self: &Arc<Self>) -> Lease {
        self.under_way.fetch_add(1, Relaxed);
        let mut lease = Lease {
            endpoint: Arc::clone(self),
            slot: None,
        };
        if let Some(slots) = &self.slots {
            lease.slot = Arc::clone(slots).acquire_owned().await.ok();
        }
        lease
    }

    /// The peer to connect to; looks the name up if it is not known.
    pub(crate) async fn peer(&self) -> Result<Arc<HttpPeer>, Stop> {
        if let Some(peer) = self.peer.load_full() {
            return Ok(peer);
        }
        let address = tokio::net::lookup_host(&*self.authority)
            .await
            .ok()
            .and_then(|mut found| found.next());
        let address = address.ok_or_else(|| {
            Stop::new(
                Reason::NoHealthyUpstream,
                format!("the upstream's name `{}` cannot be resolved", self.authority),
            )
        })?;
        let mut peer = HttpPeer::new(address, false, String::new());
        peer.options.connection_timeout = Some(self.connect);
        peer.options.total_connection_timeout = Some(self.connect);
        let peer = Arc::new(peer);
        self.peer.store(Some(Arc::clone(&peer)));
        Ok(peer)
    }

    /// Forgets the address, so that the next request looks it up.
    pub(crate) fn forget_address(&self) {
        self.peer.store(None);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.endpoint.under_way.fetch_sub(1, Relaxed);
    }
}
