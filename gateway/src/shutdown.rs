//! The two steps of an orderly stop: `stopping` (no new connections; what runs may finish), then, once
//! `timeouts.drain_seconds` have passed, `aborting` (whatever still runs or waits is ended with an error and recorded).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use tokio_util::sync::CancellationToken;

/// The progress of this process's shutdown.
#[derive(Debug, Default)]
pub(crate) struct Shutdown {
    stopping: CancellationToken,
    aborting: CancellationToken,
    /// Another process accepts connections at the same socket.
    handed_over: AtomicBool,
    /// Requests that run without a client connection.
    detached: AtomicUsize,
}

/// Counts a request that runs without a client connection; the drain waits for it.
#[derive(Debug)]
pub(crate) struct Detached(Arc<Shutdown>);

impl Shutdown {
    /// Begins the stop.
    pub(crate) fn begin(&self) {
        self.stopping.cancel();
    }

    /// Ends what still runs.
    pub(crate) fn abort(&self) {
        self.aborting.cancel();
    }

    /// Returns whether the stop has begun.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.is_cancelled()
    }

    /// Returns once the stop has begun.
    pub(crate) async fn stopping(&self) {
        self.stopping.cancelled().await;
    }

    /// Returns once the drain time has passed.
    pub(crate) async fn aborting(&self) {
        self.aborting.cancelled().await;
    }

    /// Notes that another process has taken over the listening socket.
    pub(crate) fn hand_over(&self) {
        self.handed_over.store(true, Relaxed);
    }

    /// Returns whether another process has taken over the listening socket.
    pub(crate) fn is_handed_over(&self) -> bool {
        self.handed_over.load(Relaxed)
    }

    /// Counts a detached request for as long as the guard lives.
    pub(crate) fn detached(self: &Arc<Self>) -> Detached {
        self.detached.fetch_add(1, Relaxed);
        Detached(Arc::clone(self))
    }

    /// Detached requests that are running.
    pub(crate) fn running_detached(&self) -> usize {
        self.detached.load(Relaxed)
    }
}

impl Drop for Detached {
    fn drop(&mut self) {
        self.0.detached.fetch_sub(1, Relaxed);
    }
}
