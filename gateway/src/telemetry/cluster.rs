//! Metrics of the cluster that this gateway is a member of.

use super::make::Make;
use ledger::members::Heartbeat;
use prometheus::{Gauge, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

/// The members, as this gateway knows them.
#[derive(Debug)]
pub(crate) struct ClusterMetrics {
    members: IntGaugeVec,
    clock_offset: Gauge,
    draws: IntCounterVec,
    taken_over: IntCounterVec,
    lost: IntCounter,
    refreshes: IntCounterVec,
    coordinated: IntGauge,
}

impl ClusterMetrics {
    pub(super) fn new(make: &Make<'_>) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            members: make.gauges(
                "cluster_members",
                "Gateways that share the database: live, or silent for more than 5 seconds.",
                "state",
            )?,
            clock_offset: make.add(Gauge::new(
                "sluice_cluster_clock_offset_seconds",
                "Seconds by which this gateway's clock is ahead of the database server's.",
            )?)?,
            draws: make.counters(
                "cluster_draws_total",
                "Draws of credit from quotas and budgets that gateways share, by result.",
                &["result"],
            )?,
            taken_over: make.counters(
                "cluster_takeovers_total",
                "Jobs and batches taken over from gateways that were silent or gone.",
                &["kind"],
            )?,
            lost: make.add(IntCounter::new(
                "sluice_cluster_lost_results_total",
                "Answers to jobs and lines of batches that were not written, since another gateway had taken them over.",
            )?)?,
            refreshes: make.counters(
                "cluster_rate_refreshes_total",
                "Refreshes of rate limits and slots that gateways share, by result.",
                &["result"],
            )?,
            coordinated: make.gauge(
                "cluster_coordinated",
                "1 while rate limits and slots hold over all gateways; 0 while this gateway uses a part of each on its own.",
            )?,
        };
        metrics.members(1, 0);
        metrics.coordinated(true);
        for result in ["ok", "failed"] {
            metrics.draws.with_label_values(&[result]);
            metrics.refreshes.with_label_values(&[result]);
        }
        for kind in ["job", "batch"] {
            metrics.taken_over.with_label_values(&[kind]);
        }
        Ok(metrics)
    }

    /// Counts work that was taken over.
    pub(crate) fn took_over(&self, kind: &str, count: usize) {
        let counter = self.taken_over.with_label_values(&[kind]);
        counter.inc_by(u64::try_from(count).unwrap_or(u64::MAX));
    }

    /// Counts a result that another gateway gives.
    pub(crate) fn lost(&self) {
        self.lost.inc();
    }

    /// Counts a draw.
    pub(crate) fn drawn(&self, is_done: bool) {
        let result = if is_done { "ok" } else { "failed" };
        self.draws.with_label_values(&[result]).inc();
    }

    /// Counts a refresh of rate limits.
    pub(crate) fn refreshed(&self, is_done: bool) {
        let result = if is_done { "ok" } else { "failed" };
        self.refreshes.with_label_values(&[result]).inc();
    }

    /// Sets whether rate limits and slots hold over all gateways.
    pub(crate) fn coordinated(&self, is_coordinated: bool) {
        self.coordinated.set(i64::from(is_coordinated));
    }

    /// Sets the numbers of members.
    pub(crate) fn members(&self, live: u64, silent: u64) {
        for (state, count) in [("live", live), ("silent", silent)] {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.members.with_label_values(&[state]).set(count);
        }
    }

    /// Sets what a heartbeat found, and the offset of the clock; the offset before was more than a second.
    #[allow(clippy::cast_precision_loss)]
    pub(crate) fn note(&self, heartbeat: &Heartbeat, offset_ms: i64) -> bool {
        self.members(heartbeat.live_ids.len() as u64, heartbeat.silent);
        let before = self.clock_offset.get();
        self.clock_offset.set(offset_ms as f64 / 1000.0);
        before.abs() > 1.0
    }
}
