//! What is counted of requests beside their ends: attempts that failed, tokens beyond reservations, objectives.

use super::Metrics;
use super::make::Make;
use crate::record::Record;
use ledger::Outcome;
use prometheus::IntCounterVec;
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
        if record.outcome == Outcome::Cancelled {
            return;
        }
        let first = record.first_token.unwrap_or(record.latency);
        let objectives = record.objectives;
        self.count(record, "first_token", objectives.first_token, first);
        self.count(record, "total", objectives.total, record.latency);
    }

    fn count(&self, record: &Record, objective: &str, within: Option<Duration>, taken: Duration) {
        let Some(within) = within else { return };
        let is_met = record.outcome == Outcome::Completed && taken <= within;
        let result = if is_met { "met" } else { "missed" };
        let labels = [record.project_id(), record.model_name(), objective, result];
        self.0.with_label_values(&labels).inc();
    }
}

impl Metrics {
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
