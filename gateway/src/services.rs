//! Services of the process that every request uses: configuration, admission, connections, ledger, telemetry, shutdown.
//! Built once by `sluice serve`; the layers above (exchange, batch, endpoints, listener, admin) share it.

use crate::api_key::Key;
use crate::config::Config;
use crate::gate::Gate;
use crate::incidents::Incidents;
use crate::peers::Peers;
use crate::registry::Registry;
use crate::shutdown::Shutdown;
use crate::snapshot::Current;
use crate::strangers::Strangers;
use crate::telemetry::Metrics;
use crate::traces::Traces;
use crate::upstream::Connector;
use ledger::Ledger;
use protocol::error::{ErrorCode, RequestError};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The parts of a running gateway that requests use.
#[derive(Debug)]
pub(crate) struct Services {
    pub(crate) current: Arc<Current>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) connector: Arc<Connector>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) peers: Peers,
    pub(crate) strangers: Strangers,
    pub(crate) incidents: Incidents,
    pub(crate) metrics: Arc<Metrics>,
    /// `None` unless a collector is configured.
    pub(crate) traces: Option<Traces>,
    pub(crate) shutdown: Arc<Shutdown>,
    /// Bytes of all request bodies held in memory.
    pub(crate) buffered: AtomicUsize,
}

/// A share of the bytes that request bodies may hold together (`bounds.max_buffered_bytes`); dropping it returns it.
#[derive(Debug)]
pub(crate) struct BufferedBytes {
    services: Arc<Services>,
    bytes: usize,
}

impl Services {
    /// Replaces the API keys in force, and the limits that belong to keys with them.
    pub(crate) fn replace_keys(&self, keys: Vec<Key>) {
        self.current.replace_keys(keys);
        if !self.current.get().config.keys.is_empty() {
            self.gate.reconfigure(|| self.current.rules());
        }
    }

    /// Reserves memory for a request body.
    ///
    /// # Errors
    /// `queue_full` when all bodies together would exceed `bounds.max_buffered_bytes`.
    pub(crate) fn buffer(self: &Arc<Self>, config: &Config, bytes: usize) -> Result<BufferedBytes, RequestError> {
        let mut buffered = BufferedBytes {
            services: Arc::clone(self),
            bytes: 0,
        };
        buffered.grow(config, bytes)?;
        Ok(buffered)
    }

    /// Checks that a body of this size could be held now; nothing is reserved, because it may never arrive.
    ///
    /// # Errors
    /// `queue_full`, as for [`Self::buffer`].
    pub(crate) fn check_buffer(&self, config: &Config, bytes: usize) -> Result<(), RequestError> {
        within_buffers(config, self.buffered.load(Relaxed), bytes)
    }
}

/// Refuses bytes that would exceed `bounds.max_buffered_bytes` together with those that are held.
fn within_buffers(config: &Config, held: usize, bytes: usize) -> Result<(), RequestError> {
    let limit = config.gateway.max_buffered_bytes;
    if held.saturating_add(bytes) <= limit {
        return Ok(());
    }
    let message =
        format!("request bodies in memory would exceed bounds.max_buffered_bytes ({limit} bytes); try again later");
    Err(RequestError::new(ErrorCode::QueueFull, message))
}

impl BufferedBytes {
    /// Reserves memory for more of the body.
    ///
    /// # Errors
    /// `queue_full` when all bodies together would exceed `bounds.max_buffered_bytes`.
    pub(crate) fn grow(&mut self, config: &Config, bytes: usize) -> Result<(), RequestError> {
        let held = self.services.buffered.fetch_add(bytes, Relaxed);
        self.bytes += bytes;
        within_buffers(config, held, bytes)
    }

    /// Changes the reservation to the size that the body turned out to have.
    pub(crate) fn resize(&mut self, bytes: usize) {
        if bytes > self.bytes {
            self.services.buffered.fetch_add(bytes - self.bytes, Relaxed);
        } else {
            self.services.buffered.fetch_sub(self.bytes - bytes, Relaxed);
        }
        self.bytes = bytes;
    }
}

impl Drop for BufferedBytes {
    fn drop(&mut self) {
        self.services.buffered.fetch_sub(self.bytes, Relaxed);
    }
}
