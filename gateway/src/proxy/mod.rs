//! The proxy listener: pingora's HTTP on one side, a request's way through the gateway on the other.

mod answer;
pub(crate) mod background;
mod client;
mod exchange;
mod files;
mod forward;
mod inbound;
pub(crate) mod listener;
mod lists;
mod locally;
mod outbound;
pub(crate) mod tls;

use crate::batch::Unfinished;
use crate::config::Config;
use crate::gate::Gate;
use crate::identity::Key;
use crate::reload::Reloaded;
use crate::requests::Requests;
use crate::snapshot::Current;
use crate::telemetry::Metrics;
use crate::traces::Traces;
use crate::upstream::Forward;
use ledger::Ledger;
use parking_lot::Mutex;
use protocol::refuse::{ErrorCode, RequestError};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use tokio::sync::watch;

/// Everything that an exchange calls on.
#[derive(Debug)]
pub(crate) struct Gateway {
    pub(crate) current: Current,
    pub(crate) gate: Arc<Gate>,
    pub(crate) forward: Forward,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) requests: Arc<Requests>,
    pub(crate) reloaded: Mutex<Option<Reloaded>>,
    pub(crate) batches: Unfinished,
    /// True once the gateway is told to stop.
    pub(crate) stopping: watch::Receiver<bool>,
    /// Whether another process accepts at the same socket.
    pub(crate) handed_over: AtomicBool,
    /// Requests that run without a client.
    pub(crate) in_background: AtomicUsize,
    /// Bytes of all bodies that wait.
    pub(crate) buffered: AtomicUsize,
    pub(crate) metrics: Metrics,
    /// Where traces go, if anywhere.
    pub(crate) traces: Option<Traces>,
    pub(crate) ids: RequestIds,
    pub(crate) completed: AtomicU64,
    pub(crate) failed: AtomicU64,
}

/// What a client gets where the database has failed.
#[allow(clippy::needless_pass_by_value, reason = "a function for `map_err`")]
fn unavailable(error: ledger::Error) -> RequestError {
    tracing::error!(%error, "the database was not read");
    RequestError::new(
        ErrorCode::LedgerUnavailable,
        "the gateway's database cannot be read now; try again",
    )
}

/// Returns when the gateway is told to stop.
pub(crate) async fn told_to_stop(mut stopping: watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stop| *stop).await;
}

/// Part of the bytes that bodies may hold while they wait; dropping it gives it back.
#[derive(Debug)]
struct Buffered<'a> {
    all: &'a AtomicUsize,
    bytes: usize,
}

impl Gateway {
    /// Takes over changed keys; limits that are a key's own come with them.
    pub(crate) fn take_keys(&self, keys: Vec<Key>) {
        self.current.replace_keys(keys);
        if !self.current.get().config.keys.is_empty() {
            self.gate.reconfigure(|| self.current.rules());
        }
    }

    /// Room for a body that waits.
    fn buffer(&self, config: &Config, bytes: usize) -> Result<Buffered<'_>, RequestError> {
        let before = self.buffered.fetch_add(bytes, Relaxed);
        let buffered = Buffered {
            all: &self.buffered,
            bytes,
        };
        if before.saturating_add(bytes) > config.gateway.max_buffered_bytes {
            return Err(RequestError::new(
                ErrorCode::QueueFull,
                "the requests that wait hold too many bytes",
            ));
        }
        Ok(buffered)
    }
}

impl Drop for Buffered<'_> {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Relaxed);
    }
}

/// Makes request ids: unique over restarts, and cheap.
#[derive(Debug)]
pub(crate) struct RequestIds {
    start: u64,
    next: AtomicU64,
}

impl RequestIds {
    pub(crate) fn new() -> Result<Self, getrandom::Error> {
        Ok(Self {
            start: getrandom::u64()?,
            next: AtomicU64::new(0),
        })
    }

    pub(crate) fn make(&self) -> String {
        format!("req-{:016x}{:08x}", self.start, self.next.fetch_add(1, Relaxed))
    }
}
