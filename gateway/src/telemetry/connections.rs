//! Metrics of client connections.

use super::make::Make;
use prometheus::{IntCounterVec, IntGaugeVec};

/// Open and refused connections, by listener.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionMetrics {
    open: IntGaugeVec,
    refused: IntCounterVec,
    overdue: IntCounterVec,
}

const OPEN: (&str, &str) = ("connections", "Open client connections.");
const REFUSED: (&str, &str) = (
    "connections_refused_total",
    "Client connections that were refused: total (bounds.max_connections or the descriptors' share), address, descriptors, or control_frames (bounds.max_http2_control_frames).",
);
const OVERDUE: (&str, &str) = (
    "connections_head_timeouts_total",
    "Client connections that were closed because their first request head did not arrive within timeouts.head_seconds.",
);

impl ConnectionMetrics {
    pub(super) fn new(make: &Make<'_>) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            open: make.gauges(OPEN.0, OPEN.1, "listener")?,
            refused: make.counters(REFUSED.0, REFUSED.1, &["listener", "reason"])?,
            overdue: make.counters(OVERDUE.0, OVERDUE.1, &["listener"])?,
        };
        for listener in ["proxy", "admin"] {
            metrics.open.with_label_values(&[listener]);
            metrics.overdue.with_label_values(&[listener]);
        }
        Ok(metrics)
    }

    /// Sets the number of open connections.
    pub(crate) fn open(&self, listener: &str, open: usize) {
        let open = i64::try_from(open).unwrap_or(i64::MAX);
        self.open.with_label_values(&[listener]).set(open);
    }

    /// Counts a refused connection.
    pub(crate) fn refused(&self, listener: &str, reason: &str) {
        self.refused.with_label_values(&[listener, reason]).inc();
    }

    /// Counts a connection that is closed before its first head.
    pub(crate) fn head_overdue(&self, listener: &str) {
        self.overdue.with_label_values(&[listener]).inc();
    }

    /// Metrics that nobody reads, for tests.
    #[cfg(test)]
    pub(crate) fn unregistered() -> Self {
        let registry = prometheus::Registry::new();
        Self::new(&Make(&registry)).expect("names that are free")
    }
}
