//! The tokens that a model's servers have room for in their KV caches.
//!
//! A server whose KV cache is full preempts requests and computes them again. The cache's size in tokens follows from
//! the part in use that the servers report, and the tokens in flight at that time; most of it is used, not all.

use super::ServerLoad;
use crate::Time;
use std::time::Duration;

/// The part of the KV cache that is used.
const TARGET: f64 = 0.8;

/// The least use of the cache from which its size can be computed.
const MEASURABLE: f64 = 0.05;

/// The weight of one report in the mean size.
const STEP: f64 = 0.1;

/// The time for which a report is valid.
pub(super) const REPORT_LASTS: Duration = Duration::from_secs(30);

/// The state of the KV caches of a model's servers.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Tokens in flight that fill the caches.
    size: Option<f64>,
    report: Option<Report>,
}

#[derive(Debug, Clone, Copy)]
struct Report {
    at: Time,
    used: f64,
    /// Tokens in flight at that time.
    tokens: f64,
}

impl Memory {
    /// Learns from what the servers report while so many tokens are in flight.
    #[allow(clippy::cast_precision_loss)]
    pub(super) fn observe(&mut self, load: &ServerLoad, tokens: u64, now: Time) {
        let Some(used) = load.kv_used.filter(|used| used.is_finite()) else {
            return;
        };
        let (used, tokens) = (used.clamp(0.0, 1.0), tokens as f64);
        if used >= MEASURABLE && tokens > 0.0 {
            // What waits in a server's own queue is not in its cache yet.
            let size = tokens * (1.0 - load.waiting_part()) / used;
            self.size = Some(self.size.map_or(size, |mean| mean + STEP * (size - mean)));
        }
        self.report = Some(Report { at: now, used, tokens });
    }

    /// The tokens that may be in flight, while reports are fresh.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub(super) fn token_limit(&self, now: Time) -> Option<u64> {
        let report = self.report.filter(|report| now - report.at <= REPORT_LASTS)?;
        let size = self.size?;
        let left = (TARGET - report.used) * size;
        Some((size * TARGET).min(report.tokens + left).max(0.0) as u64)
    }
}
