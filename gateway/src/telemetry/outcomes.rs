//! What is counted of requests beside their ends: attempts that failed, tokens beyond reservations, objectives.

use super::Metrics;
use super::make::Make;
use crate::record::Record;
use policy::Milestone;
use prometheus::{CounterVec, IntCounterVec, Opts};
use std::time::Duration;

/// Requests with an objective, by whether it was met.
#[derive(Debug)]
pub(super) struct ObjectiveMetrics(IntCounterVec);

impl ObjectiveMetrics {
    pub(super) fn new(make: &Make<'_>) -> Result<Self, prometheus::Error> {
        let labels = ["project", "model", "objective", "result"];
        let help =
            "Requests with an objective (first_token, total), met or missed; refused and failed ones have missed it.";
        make.counters("objective_requests_total", help, &labels).map(Self)
    }

    /// Counts a finished request, unless its client gave it up.
    pub(super) fn observe(&self, record: &Record) {
        for (milestone, is_met) in record.attained() {
            let objective = match milestone {
                Milestone::FirstToken => "first_token",
                Milestone::End => "total",
            };
            let result = if is_met { "met" } else { "missed" };
            let labels = [record.project_id(), record.model_name(), objective, result];
            self.0.with_label_values(&labels).inc();
        }
    }
}

/// Attempts that were aborted for requests of higher priorities.
#[derive(Debug)]
pub(super) struct EvictionMetrics {
    attempts: IntCounterVec,
    seconds: CounterVec,
}

impl EvictionMetrics {
    pub(super) fn new(make: &Make<'_>) -> Result<Self, prometheus::Error> {
        let labels = ["project", "model"];
        let help =
            "Running lines of batches and background responses that were aborted for requests of higher priorities.";
        let attempts = make.counters("evictions_total", help, &labels)?;
        let help = "Seconds for which evicted attempts had their slots.";
        let opts = Opts::new("sluice_evicted_seconds_total", help);
        let seconds = make.add(CounterVec::new(opts, &labels)?)?;
        Ok(Self { attempts, seconds })
    }
}

impl Metrics {
    /// Counts an attempt that was evicted after it had its slot for so long.
    pub(crate) fn evicted(&self, record: &Record, held: Duration) {
        let labels = [record.project_id(), record.model_name()];
        self.evictions.attempts.with_label_values(&labels).inc();
        self.evictions
            .seconds
            .with_label_values(&labels)
            .inc_by(held.as_secs_f64());
    }

    /// Counts a server's failure after which another one was asked.
    pub(crate) fn retried(&self, record: &Record) {
        if let Some(upstream) = &record.upstream {
            self.upstream_requests
                .with_label_values(&[&**upstream, "retried"])
                .inc();
        }
    }

    /// Counts tokens that a request used beyond what had been reserved for it.
    pub(crate) fn overrun(&self, record: &Record, tokens: u64) {
        if tokens > 0 {
            self.overrun_tokens
                .with_label_values(&[record.project_id(), record.model_name()])
                .inc_by(tokens);
        }
    }
}
