//! Every metric, in one struct; observed once a request, from the record that the ledger gets.

use crate::ledger::{Outcome, Record};
use prometheus::core::Collector;
use prometheus::{
    CounterVec, Encoder, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};
use std::time::Duration;

/// Seconds, from a fast cache hit to a long answer.
const REQUEST: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0,
];
/// Seconds of the gateway's own work.
const OVERHEAD: &[f64] = &[
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.1,
];

/// The gateway's metrics. Labels are bounded: users and keys are never among them.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    refusals: IntCounterVec,
    tokens: IntCounterVec,
    cost: CounterVec,
    request_seconds: HistogramVec,
    queue_wait_seconds: HistogramVec,
    time_to_first_token_seconds: HistogramVec,
    overhead_seconds: HistogramVec,
    upstream_requests: IntCounterVec,
    queue_size: IntGaugeVec,
    active_requests: IntGaugeVec,
    degradation_level: IntGauge,
    ledger_backlog: IntGauge,
    build_info: GaugeVec,
    /// Handed to the ledger, which observes its commits.
    pub(crate) ledger_commit_seconds: Histogram,
}

/// What is read from its owners when somebody scrapes.
#[derive(Debug)]
pub(crate) struct Gauges<'a> {
    /// By model.
    pub(crate) active: Vec<(&'a str, usize)>,
    /// By band.
    pub(crate) waiting: [(&'static str, usize); 3],
    pub(crate) level: u32,
    pub(crate) backlog: usize,
}

impl Metrics {
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counters = |name: &str, help: &str, labels: &[&str]| IntCounterVec::new(Opts::new(name, help), labels);
        let seconds = |name: &str, help: &str, label: &str, buckets: &[f64]| {
            HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), &[label])
        };
        let metrics = Self {
            requests: counters(
                "sluice_requests_total",
                "Requests by how they ended.",
                &["project", "model", "protocol", "status"],
            )?,
            refusals: counters(
                "sluice_refusals_total",
                "Requests without their answer, by reason.",
                &["reason", "project"],
            )?,
            tokens: counters(
                "sluice_tokens_total",
                "Tokens read and written by models.",
                &["direction", "project", "model"],
            )?,
            cost: CounterVec::new(
                Opts::new("sluice_cost_eur_total", "Cost of the tokens used, in euros."),
                &["project", "model"],
            )?,
            request_seconds: seconds(
                "sluice_request_seconds",
                "From the request's head to the end of its answer.",
                "model",
                REQUEST,
            )?,
            queue_wait_seconds: seconds("sluice_queue_wait_seconds", "Wait for a permit.", "priority", REQUEST)?,
            time_to_first_token_seconds: seconds(
                "sluice_time_to_first_token_seconds",
                "From the request's head to the first piece of its answer.",
                "model",
                REQUEST,
            )?,
            overhead_seconds: seconds(
                "sluice_gateway_overhead_seconds",
                "The gateway's own time before the upstream was asked, waiting left out.",
                "model",
                OVERHEAD,
            )?,
            upstream_requests: counters(
                "sluice_upstream_requests_total",
                "Requests sent to an upstream, by outcome.",
                &["upstream", "outcome"],
            )?,
            queue_size: IntGaugeVec::new(
                Opts::new("sluice_queue_size", "Requests that wait for a permit."),
                &["priority"],
            )?,
            active_requests: IntGaugeVec::new(
                Opts::new("sluice_active_requests", "Requests with the upstreams."),
                &["model"],
            )?,
            degradation_level: IntGauge::new("sluice_degradation_level", "Level of degradation, 0 is normal.")?,
            ledger_backlog: IntGauge::new("sluice_ledger_backlog", "Records that wait for their commit.")?,
            build_info: GaugeVec::new(Opts::new("sluice_build_info", "The version that runs."), &["version"])?,
            ledger_commit_seconds: Histogram::with_opts(
                HistogramOpts::new("sluice_ledger_commit_seconds", "Time of a group commit.")
                    .buckets(OVERHEAD.to_vec()),
            )?,
            registry,
        };
        metrics.register()?;
        metrics
            .build_info
            .with_label_values(&[env!("CARGO_PKG_VERSION")])
            .set(1.0);
        Ok(metrics)
    }

    fn register(&self) -> Result<(), prometheus::Error> {
        let all: [Box<dyn Collector>; 15] = [
            Box::new(self.requests.clone()),
            Box::new(self.refusals.clone()),
            Box::new(self.tokens.clone()),
            Box::new(self.cost.clone()),
            Box::new(self.request_seconds.clone()),
            Box::new(self.queue_wait_seconds.clone()),
            Box::new(self.time_to_first_token_seconds.clone()),
            Box::new(self.overhead_seconds.clone()),
            Box::new(self.upstream_requests.clone()),
            Box::new(self.queue_size.clone()),
            Box::new(self.active_requests.clone()),
            Box::new(self.degradation_level.clone()),
            Box::new(self.ledger_backlog.clone()),
            Box::new(self.build_info.clone()),
            Box::new(self.ledger_commit_seconds.clone()),
        ];
        all.into_iter()
            .try_for_each(|collector| self.registry.register(collector))
    }

    /// Observes one finished request; `overhead` is the gateway's own time before the upstream.
    pub(crate) fn observe(&self, record: &Record, overhead: Option<Duration>) {
        let (project, model) = (record.project_id(), record.model_name());
        self.requests
            .with_label_values(&[project, model, record.protocol().name(), record.outcome.name()])
            .inc();
        if let Some(stop) = &record.stop {
            self.refusals.with_label_values(&[stop.reason.name(), project]).inc();
        }
        if record.was_forwarded {
            self.tokens
                .with_label_values(&["input", project, model])
                .inc_by(record.usage.input_tokens);
            self.tokens
                .with_label_values(&["output", project, model])
                .inc_by(record.usage.output_tokens);
            self.cost
                .with_label_values(&[project, model])
                .inc_by(record.cost.euros());
            self.request_seconds
                .with_label_values(&[model])
                .observe(record.latency.as_secs_f64());
        }
        if let Some(waited) = record.queue_wait {
            let band = crate::ledger::record::priority_name(record.priority);
            self.queue_wait_seconds
                .with_label_values(&[band])
                .observe(waited.as_secs_f64());
        }
        if let Some(after) = record.first_token {
            self.time_to_first_token_seconds
                .with_label_values(&[model])
                .observe(after.as_secs_f64());
        }
        if let Some(overhead) = overhead {
            self.overhead_seconds
                .with_label_values(&[model])
                .observe(overhead.as_secs_f64());
        }
        if let Some(upstream) = &record.upstream {
            let outcome = if record.outcome == Outcome::Completed {
                "ok"
            } else {
                record.outcome.name()
            };
            self.upstream_requests.with_label_values(&[&**upstream, outcome]).inc();
        }
    }

    /// The exposition text.
    pub(crate) fn render(&self, gauges: &Gauges<'_>) -> Result<String, prometheus::Error> {
        let whole = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        for (band, count) in gauges.waiting {
            self.queue_size.with_label_values(&[band]).set(whole(count));
        }
        for (model, count) in &gauges.active {
            self.active_requests.with_label_values(&[model]).set(whole(*count));
        }
        self.degradation_level.set(i64::from(gauges.level));
        self.ledger_backlog.set(whole(gauges.backlog));
        let mut text = Vec::with_capacity(16 << 10);
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}
