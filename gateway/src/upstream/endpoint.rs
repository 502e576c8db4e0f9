//! One server: its address, its key, what it has to do, and how it is.

use super::tls;
use crate::config::{self, Backend};
use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::Mutex;
use pingora_core::upstreams::peer::HttpPeer;
use policy::{Breaker, BreakerDecision, BreakerRules, Candidate, Failure, ServerLoad, Time};
use protocol::error::{Contact, ErrorCode, RequestError};
use std::collections::HashSet;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The age at which an address is resolved again.
const ADDRESS_LASTS: Duration = Duration::from_secs(30);

/// Above so many thousandths of its cache in use, a server counts twice.
const CACHE_IS_FULL: u64 = 900;

/// Assumed tokens of another client's request, where this gateway has sent none of its own to average.
const FOREIGN_TOKENS: u64 = 512;

/// A server that models are asked at.
#[derive(Debug)]
pub(crate) struct Endpoint {
    /// `host:port`, also the `host` header.
    pub(crate) authority: Arc<str>,
    pub(crate) path_prefix: String,
    pub(crate) backend: Backend,
    /// The whole `authorization` header.
    pub(crate) authorization: Option<String>,
    /// The same over restarts.
    hash: u64,
    pub(super) under_way: AtomicUsize,
    /// Tokens of what is under way, at most.
    pub(super) tokens: AtomicU64,
    slots: Option<Arc<Semaphore>>,
    most: Option<usize>,
    connect: Duration,
    tls: Option<config::EndpointTls>,
    /// Forgotten when a connection fails or it is old, so that a name is looked up again.
    peer: ArcSwapOption<Address>,
    breaker: Mutex<Breaker>,
    /// It asked to be left alone until then, in nanoseconds.
    paused_until: AtomicU64,
    pub(super) seen: Seen,
}

/// The state that a server reports of itself.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// It was found to be away.
    pub(super) is_unreachable: AtomicBool,
    /// Requests of others that it has, running and waiting.
    pub(super) foreign: AtomicU64,
    /// Thousandths of its cache in use.
    pub(super) cache: AtomicU64,
    /// The load that it reported last, if the last probe returned one.
    pub(super) load: ArcSwapOption<ServerLoad>,
    /// Models in its memory, where it says so.
    pub(super) loaded: ArcSwapOption<HashSet<String>>,
    /// Why it failed last.
    pub(super) last_failure: ArcSwap<String>,
}

#[derive(Debug)]
struct Address {
    peer: Arc<HttpPeer>,
    since: Instant,
}

/// A request's place at an endpoint; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct InFlight {
    pub(crate) endpoint: Arc<Endpoint>,
    tokens: u64,
    /// True if the breaker knows how it went.
    is_told: bool,
    /// Held only to be given back.
    #[allow(dead_code)]
    slot: Option<OwnedSemaphorePermit>,
}

/// Time for breakers, which never goes back.
pub(crate) fn now() -> Time {
    static STARTED: LazyLock<Instant> = LazyLock::new(Instant::now);
    Time::after_epoch(STARTED.elapsed())
}

impl Endpoint {
    pub(crate) fn new(
        configured: &config::Endpoint,
        backend: Backend,
        connect: Duration,
        breaker: BreakerRules,
    ) -> Self {
        let key = configured
            .api_key_env
            .as_ref()
            .and_then(|name| std::env::var(name).ok());
        let hasher = BuildHasherDefault::<DefaultHasher>::default();
        Self {
            authority: configured.authority.as_str().into(),
            path_prefix: configured.path_prefix.clone(),
            backend,
            authorization: key.map(|key| format!("Bearer {key}")),
            hash: hasher.hash_one((&configured.authority, &configured.path_prefix)),
            under_way: AtomicUsize::new(0),
            tokens: AtomicU64::new(0),
            slots: configured
                .max_concurrent_requests
                .map(|count| Arc::new(Semaphore::new(count))),
            most: configured.max_concurrent_requests,
            connect,
            tls: configured.tls.clone(),
            peer: ArcSwapOption::empty(),
            breaker: Mutex::new(Breaker::new(breaker)),
            paused_until: AtomicU64::new(0),
            seen: Seen::default(),
        }
    }

    /// The bundled simulated upstream.
    pub(crate) fn bundled(address: SocketAddr, connect: Duration, breaker: BreakerRules) -> Self {
        let configured = config::Endpoint {
            authority: address.to_string(),
            path_prefix: String::new(),
            api_key_env: None,
            weight: 1,
            max_concurrent_requests: None,
            tls: None,
        };
        Self::new(&configured, Backend::Simulated, connect, breaker)
    }

    /// Returns whether it is configured as another one is.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        (&self.authority, &self.path_prefix, &self.authorization)
            == (&other.authority, &other.path_prefix, &other.authorization)
            && (self.backend, self.connect, self.most, &self.tls)
                == (other.backend, other.connect, other.most, &other.tls)
    }

    /// Takes over changed rules for its breaker.
    pub(crate) fn reconfigure(&self, breaker: BreakerRules) {
        self.breaker.lock().reconfigure(breaker);
    }

    /// The decision of its circuit breaker.
    pub(super) fn passage(&self, now: Time, is_only: bool) -> BreakerDecision {
        self.breaker.lock().passage(now, is_only)
    }

    /// Lets a request through if the breaker allows one now.
    pub(super) fn enter(&self, now: Time, is_only: bool) -> bool {
        self.breaker.lock().enter(now, is_only)
    }

    pub(super) fn breaker_state_name(&self) -> &'static str {
        self.breaker.lock().word()
    }

    /// Returns whether requests are sent to it as usual.
    pub(crate) fn is_healthy(&self) -> bool {
        self.passage(now(), false) == BreakerDecision::Allow
    }

    pub(super) fn is_paused(&self, now: Time) -> bool {
        self.paused_until.load(Relaxed) > now.nanos()
    }

    /// It asked to be left alone for so long.
    pub(crate) fn pause(&self, how_long: Duration) {
        let until = now() + how_long.min(Duration::from_secs(60));
        self.paused_until.fetch_max(until.nanos(), Relaxed);
    }

    /// As the choice between servers sees it.
    pub(super) fn candidate(&self, weight: u64, now: Time) -> Candidate {
        let (tokens, under_way) = (self.tokens.load(Relaxed), self.under_way.load(Relaxed) as u64);
        let each = tokens.checked_div(under_way).unwrap_or(FOREIGN_TOKENS);
        let load = tokens + self.seen.foreign.load(Relaxed) * each;
        let cache_is_full = self.seen.cache.load(Relaxed) > CACHE_IS_FULL;
        Candidate {
            hash: self.hash,
            load: if cache_is_full { load * 2 } else { load },
            weight: weight * self.breaker.lock().share(now),
        }
    }

    /// Returns whether the model is known to be in its memory; a server that says nothing of it keeps its models there.
    pub(crate) fn has_loaded(&self, model: &str) -> bool {
        let loaded = self.seen.loaded.load();
        match (&*loaded, self.backend) {
            (Some(loaded), _) => loaded.contains(model) || loaded.contains(&format!("{model}:latest")),
            (None, backend) => backend != Backend::Ollama,
        }
    }

    /// Takes a place, waiting while all are taken.
    pub(crate) async fn in_flight(self: &Arc<Self>, tokens: u64) -> InFlight {
        self.under_way.fetch_add(1, Relaxed);
        self.tokens.fetch_add(tokens, Relaxed);
        let mut in_flight = InFlight {
            endpoint: Arc::clone(self),
            tokens,
            is_told: false,
            slot: None,
        };
        if let Some(slots) = &self.slots {
            in_flight.slot = Arc::clone(slots).acquire_owned().await.ok();
        }
        in_flight
    }

    /// It did not answer as it should.
    pub(super) fn failed(&self, failure: Failure, why: &str) {
        self.seen.last_failure.store(Arc::new(why.to_owned()));
        let (now, jitter) = (now(), jitter());
        if self.breaker.lock().failed(failure, now, jitter) {
            tracing::warn!(upstream = %self.authority, why, "circuit breaker opened after consecutive failures");
        }
    }

    pub(super) fn succeeded(&self) {
        self.breaker.lock().succeeded(now());
    }

    /// Asked how it is, it did not say.
    pub(super) fn mark_unreachable(&self, why: &str) {
        self.seen.last_failure.store(Arc::new(why.to_owned()));
        if !self.seen.is_unreachable.swap(true, Relaxed) {
            tracing::warn!(upstream = %self.authority, why, "upstream is unreachable");
        }
        self.breaker.lock().mark_unreachable(now(), jitter());
        self.forget_address();
    }

    /// Asked how it is, it answered.
    pub(super) fn mark_reachable(&self) {
        if self.seen.is_unreachable.swap(false, Relaxed) {
            tracing::info!(upstream = %self.authority, "upstream is reachable again");
            self.succeeded();
        }
    }

    /// Records the load that its metrics report; `None` if they report none.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub(super) fn report(&self, load: Option<ServerLoad>) {
        let requests = load.map_or(0, |load| load.running.saturating_add(load.waiting));
        let foreign = requests.saturating_sub(self.under_way.load(Relaxed));
        let kv_used = load.and_then(|load| load.kv_used).unwrap_or(0.0);
        self.seen.foreign.store(foreign as u64, Relaxed);
        self.seen.cache.store((kv_used * 1000.0) as u64, Relaxed);
        self.seen.load.store(load.map(Arc::new));
    }

    /// The peer to connect to; looks the name up if it is not known.
    pub(crate) async fn peer(&self) -> Result<Arc<HttpPeer>, RequestError> {
        let known = self.peer.load_full();
        if let Some(known) = &known
            && known.since.elapsed() < ADDRESS_LASTS
        {
            return Ok(Arc::clone(&known.peer));
        }
        let found = tokio::net::lookup_host(&*self.authority).await;
        let address = found.ok().and_then(|mut found| found.next());
        let address = match (address, &known) {
            (Some(address), _) => address,
            // Its name cannot be looked up just now: it is where it was.
            (None, Some(known)) => return Ok(Arc::clone(&known.peer)),
            (None, None) => {
                let message = format!("the upstream's name `{}` cannot be resolved", self.authority);
                return Err(RequestError::new(ErrorCode::NoHealthyUpstream, message));
            }
        };
        let mut peer = tls::peer(address, self.tls.as_ref())?;
        peer.options.connection_timeout = Some(self.connect);
        peer.options.total_connection_timeout = Some(self.connect);
        let peer = Arc::new(peer);
        self.peer.store(Some(Arc::new(Address {
            peer: Arc::clone(&peer),
            since: Instant::now(),
        })));
        Ok(peer)
    }

    /// Forgets the address, so that the next request looks it up.
    pub(crate) fn forget_address(&self) {
        self.peer.store(None);
    }
}

impl InFlight {
    /// The server answered as it should, be it that the request is wrong; unless it has failed before.
    pub(crate) fn succeeded(&mut self) {
        if !self.is_told {
            self.is_told = true;
            self.endpoint.succeeded();
        }
    }

    /// The server did not answer, or not to the end.
    pub(crate) fn failed(&mut self, why: &str) {
        self.is_told = true;
        self.endpoint.failed(Failure::NoAnswer, why);
    }

    /// The server answered with an error of its own.
    pub(crate) fn answered_error(&mut self, why: &str) {
        self.is_told = true;
        self.endpoint.failed(Failure::AnsweredError, why);
    }

    /// The answer ended by an error. One that the server itself reports shows that it is reachable; one that the request
    /// caused says nothing against it.
    pub(crate) fn ended_by(&mut self, error: &RequestError) {
        match error.contact {
            _ if !error.counts_against_server() => self.succeeded(),
            Contact::Answered(_) => self.answered_error(&error.message),
            _ => self.failed(&error.message),
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.endpoint.under_way.fetch_sub(1, Relaxed);
        self.endpoint.tokens.fetch_sub(self.tokens, Relaxed);
        if !self.is_told {
            self.endpoint.breaker.lock().withdrawn(now());
        }
    }
}

/// 0 to 1, another one each time.
#[allow(clippy::cast_precision_loss)]
fn jitter() -> f64 {
    (now().nanos() / 1000 % 1000) as f64 / 1000.0
}
