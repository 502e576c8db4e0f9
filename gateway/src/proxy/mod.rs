//! The proxy listener: pingora's HTTP on one side, a request's way through the gateway on the other.

mod exchange;
mod inbound;
pub(crate) mod listener;
mod lists;
mod outbound;

use crate::gate::Gate;
use crate::ledger::Ledger;
use crate::snapshot::Current;
use crate::telemetry::Metrics;
use crate::upstream::{Forward, Upstreams};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Everything that an exchange calls on.
#[derive(Debug)]
pub(crate) struct Gateway {
    pub(crate) current: Current,
    pub(crate) gate: Arc<Gate>,
    pub(crate) upstreams: Upstreams,
    pub(crate) forward: Forward,
    pub(crate) ledger: Ledger,
    pub(crate) metrics: Metrics,
    pub(crate) ids: RequestIds,
    pub(crate) completed: AtomicU64,
    pub(crate) failed: AtomicU64,
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

    fn make(&self) -> String {
        format!("req-{:016x}{:08x}", self.start, self.next.fetch_add(1, Relaxed))
    }
}
