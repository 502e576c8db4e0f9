//! Every metric, in one struct; observed once a request, from the record that the ledger gets.

mod auth;
mod cluster;
mod connections;
mod make;
mod outcomes;

pub(crate) use auth::AuthMetrics;
pub(crate) use cluster::ClusterMetrics;
pub(crate) use connections::ConnectionMetrics;

use self::make::Make;
use self::outcomes::{EvictionMetrics, ObjectiveMetrics};
use crate::record::Record;
use ledger::{LedgerHealth, Outcome};
use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{
    CounterVec, Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder,
};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Seconds, from a fast cache hit to a long answer.
const REQUEST: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0,
];
/// Seconds of the gateway's own work.
const OVERHEAD: &[f64] = &[
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.1,
];

/// Seconds until a record is in the journal.
const COMMIT: &[f64] = &[
    0.000_005, 0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.005, 0.01, 0.1, 1.0,
];
/// Seconds between tokens.
const GAP: &[f64] = &[0.001, 0.002_5, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0];

/// The gateway's metrics. Labels are bounded: users and keys are never among them.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    operations: IntCounterVec,
    refusals: IntCounterVec,
    unrecorded: IntCounterVec,
    stored_responses: IntCounterVec,
    tokens: IntCounterVec,
    cost: CounterVec,
    request_seconds: HistogramVec,
    queue_wait_seconds: HistogramVec,
    time_to_first_token_seconds: HistogramVec,
    overhead_seconds: HistogramVec,
    inter_token_seconds: HistogramVec,
    overrun_tokens: IntCounterVec,
    objectives: ObjectiveMetrics,
    evictions: EvictionMetrics,
    alerts: IntCounterVec,
    quota_used_ratio: GaugeVec,
    budget_used_ratio: GaugeVec,
    model_places: IntGaugeVec,
    pressure: Gauge,
    buffered_bytes: IntGauge,
    upstream_requests: IntCounterVec,
    upstream_healthy: IntGaugeVec,
    queue_size: IntGaugeVec,
    active_requests: IntGaugeVec,
    degradation_level: IntGauge,
    ledger_backlog: IntGauge,
    ledger_healthy: IntGauge,
    ledger_damaged_lines: IntGauge,
    ledger_rejected_records: IntGauge,
    ledger_writer_restarts: IntGauge,
    config_reloads: IntCounterVec,
    config_last_reload_successful: IntGauge,
    /// Completed and failed requests since the start, for `/queue/status`.
    counts: (AtomicU64, AtomicU64),
    build_info: IntGaugeVec,
    pub(crate) connections: ConnectionMetrics,
    pub(crate) auth: AuthMetrics,
    pub(crate) cluster: ClusterMetrics,
    /// Handed to the ledger, which observes its commits.
    pub(crate) ledger_commit_seconds: Histogram,
}

/// Values that are read from their owners at each scrape.
#[derive(Debug)]
pub(crate) struct Gauges<'a> {
    /// By model: how many run, and how many may.
    pub(crate) models: Vec<(&'a str, usize, Option<usize>)>,
    /// By priority, and batch class.
    pub(crate) waiting: [(&'static str, usize); 4],
    pub(crate) level: u32,
    pub(crate) pressure: f64,
    /// Bytes of request bodies in memory.
    pub(crate) buffered: usize,
    pub(crate) ledger: LedgerHealth,
    /// By project and window: the used share of its quota and of its budget, where it has one.
    pub(crate) allowances: Vec<(&'a str, &'static str, Option<f64>, Option<f64>)>,
    /// Authority and health of each upstream.
    pub(crate) upstreams: Vec<(Arc<str>, bool)>,
}

/// Sums over all labels, for the console's plots.
#[derive(Debug, Clone, Default)]
pub(crate) struct Totals {
    pub(crate) completed: u64,
    pub(crate) refused: u64,
    pub(crate) failed: u64,
    pub(crate) input_tokens: u64,
    pub(crate) output_tokens: u64,
    /// Requests by their latency: at most so many seconds, so many; cumulative.
    pub(crate) latencies: Vec<(f64, u64)>,
}

/// A request's line in the log: what it was, how it ended and what it used; nothing of what was said.
pub(crate) fn log(record: &Record) {
    let millis = |time: Duration| (time.as_secs_f64() * 1e6).round() / 1e3;
    tracing::info!(
        request_id = record.request_id,
        client_request_id = record.client_request_id,
        trace_id = record.trace_id,
        operation = record.operation_name(),
        project = record.project_id(),
        user = record.user_id(),
        model = record.model_name(),
        upstream = record.upstream.as_deref(),
        status = record.outcome.name(),
        reason = record.error.as_ref().map(|error| error.code.name()),
        http_status = record.http_status,
        queue_ms = record.queue_wait.map(millis),
        first_token_ms = record.first_token.map(millis),
        latency_ms = millis(record.latency),
        input_tokens = record.usage.input_tokens,
        output_tokens = record.usage.output_tokens,
        "request"
    );
}

impl Metrics {
    #[allow(clippy::too_many_lines)] // A list.
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let make = Make(&registry);
        let metrics = Self {
            requests: make.counters(
                "requests_total",
                "Requests by final status.",
                &["project", "model", "protocol", "status"],
            )?,
            operations: make.counters(
                "operation_requests_total",
                "Requests by operation (its path, or the configured one of a pass-through request) and final status.",
                &["operation", "model", "status"],
            )?,
            refusals: make.counters(
                "refusals_total",
                "Requests that were refused or failed, by reason.",
                &["reason", "project"],
            )?,
            unrecorded: make.counters(
                "unrecorded_refusals_total",
                "Refused requests that have no record in the ledger, by reason.",
                &["reason"],
            )?,
            stored_responses: make.counters(
                "stored_responses_total",
                "Responses that clients asked to store: stored, full (stored_responses.max_bytes) or failed.",
                &["result", "project"],
            )?,
            tokens: make.counters(
                "tokens_total",
                "Input and output tokens processed by models.",
                &["direction", "project", "model"],
            )?,
            cost: make.add(CounterVec::new(
                Opts::new("sluice_cost_eur_total", "Cost of processed tokens, in euros."),
                &["project", "model"],
            )?)?,
            request_seconds: make.seconds(
                "request_seconds",
                "Time from the request's head to the end of its answer, in seconds.",
                "model",
                REQUEST,
            )?,
            queue_wait_seconds: make.seconds("queue_wait_seconds", "Time in the queue, in seconds.", "priority", REQUEST)?,
            time_to_first_token_seconds: make.seconds(
                "time_to_first_token_seconds",
                "Time from the request's head to the first token of its answer, in seconds.",
                "model",
                REQUEST,
            )?,
            overhead_seconds: make.seconds(
                "gateway_overhead_seconds",
                "The gateway's own processing time before the request is sent to an upstream, without time in the queue, in seconds.",
                "model",
                OVERHEAD,
            )?,
            inter_token_seconds: make.seconds(
                "inter_token_seconds",
                "Mean time between two tokens of a streamed answer, in seconds.",
                "model",
                GAP,
            )?,
            overrun_tokens: make.counters(
                "overrun_tokens_total",
                "Tokens used in excess of what was reserved for their requests.",
                &["project", "model"],
            )?,
            alerts: make.counters(
                "allowance_alerts_total",
                "Quotas and budgets that reached their alert threshold.",
                &["project", "window"],
            )?,
            quota_used_ratio: make.ratios(
                "quota_used_ratio",
                "Used share of a project's quota: the higher of its token and request quotas, 0 to 1.",
            )?,
            budget_used_ratio: make.ratios("budget_used_ratio", "Used share of a project's budget, 0 to 1.")?,
            model_places: make.gauges(
                "model_places",
                "Slots of a model: requests that may run at once, where that is limited.",
                "model",
            )?,
            pressure: make.add(Gauge::new(
                "sluice_pressure_ratio",
                "Pressure that determines the degradation level, 0 to 1.",
            )?)?,
            buffered_bytes: make.gauge("buffered_bytes", "Bytes of request bodies in memory, those being read included.")?,
            upstream_requests: make.counters(
                "upstream_requests_total",
                "Requests sent to an upstream, by outcome.",
                &["upstream", "outcome"],
            )?,
            queue_size: make.gauges("queue_size", "Queued requests.", "priority")?,
            upstream_healthy: make.gauges(
                "upstream_healthy",
                "1 if the upstream is reachable and its circuit breaker is closed, else 0.",
                "upstream",
            )?,
            active_requests: make.gauges("active_requests", "Requests that are running on the upstreams.", "model")?,
            degradation_level: make.gauge("degradation_level", "Degradation level; 0 is normal.")?,
            ledger_backlog: make.gauge("ledger_backlog", "Records that are in the journal and not yet in the database.")?,
            ledger_healthy: make.gauge(
                "ledger_healthy",
                "1 if the journal can be written and the database accepts records, else 0.",
            )?,
            ledger_damaged_lines: make.gauge(
                "ledger_damaged_lines",
                "Torn or damaged journal lines moved to a .damaged file since the start.",
            )?,
            ledger_rejected_records: make.gauge(
                "ledger_rejected_records",
                "Records that the database refused, moved to a .rejected file since the start.",
            )?,
            ledger_writer_restarts: make.gauge(
                "ledger_writer_restarts",
                "Restarts of the thread that moves records into the database, after a panic.",
            )?,
            config_reloads: make.counters(
                "config_reloads_total",
                "Reloads of the configuration, by result.",
                &["result"],
            )?,
            config_last_reload_successful: make.gauge(
                "config_last_reload_successful",
                "1 if the configuration in force is that of the files at the last reload, 0 if that failed.",
            )?,
            connections: ConnectionMetrics::new(&make)?,
            objectives: ObjectiveMetrics::new(&make)?,
            evictions: EvictionMetrics::new(&make)?,
            auth: AuthMetrics::new(&make)?,
            cluster: ClusterMetrics::new(&make)?,
            build_info: make.gauges("build_info", "Version of the running gateway.", "version")?,
            ledger_commit_seconds: make.add(Histogram::with_opts(
                HistogramOpts::new(
                    "sluice_ledger_commit_seconds",
                    "Time until a record is durable, in seconds.",
                )
                .buckets(COMMIT.to_vec()),
            )?)?,
            counts: (AtomicU64::new(0), AtomicU64::new(0)),
            registry,
        };
        metrics
            .build_info
            .with_label_values(&[env!("CARGO_PKG_VERSION")])
            .set(1);
        metrics.config_last_reload_successful.set(1);
        // An increase from nothing is none: the counters are there before the first reload.
        for result in ["ok", "failed"] {
            metrics.config_reloads.with_label_values(&[result]);
        }
        Ok(metrics)
    }

    /// Counts a response that was to be stored.
    pub(crate) fn stored_response(&self, result: &str, project: &str) {
        self.stored_responses.with_label_values(&[result, project]).inc();
    }

    /// Counts a refused request that has no record.
    pub(crate) fn unrecorded(&self, record: &Record) {
        if let Some(error) = &record.error {
            self.unrecorded.with_label_values(&[error.code.name()]).inc();
        }
    }

    /// Observes one finished request; `overhead` is the gateway's own time before the upstream.
    pub(crate) fn observe(&self, record: &Record, overhead: Option<Duration>) {
        let (project, model) = (record.project_id(), record.model_name());
        self.requests
            .with_label_values(&[project, model, record.protocol().name(), record.outcome.name()])
            .inc();
        self.operations
            .with_label_values(&[record.operation_name(), model, record.outcome.name()])
            .inc();
        match record.outcome {
            Outcome::Completed => self.counts.0.fetch_add(1, Relaxed),
            Outcome::Failed | Outcome::TimedOut => self.counts.1.fetch_add(1, Relaxed),
            Outcome::Rejected | Outcome::Cancelled | Outcome::Interrupted => 0,
        };
        self.objectives.observe(record);
        if let Some(error) = &record.error {
            self.refusals.with_label_values(&[error.code.name(), project]).inc();
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
            let band = record.priority.name();
            self.queue_wait_seconds
                .with_label_values(&[band])
                .observe(waited.as_secs_f64());
        }
        if let Some(after) = record.first_token {
            self.time_to_first_token_seconds
                .with_label_values(&[model])
                .observe(after.as_secs_f64());
        }
        if record.streamed
            && let Some(after) = record.first_token
            && record.usage.output_tokens > 1
        {
            #[allow(clippy::cast_precision_loss)]
            let gaps = (record.usage.output_tokens - 1) as f64;
            let writing = record.latency.saturating_sub(after).as_secs_f64();
            self.inter_token_seconds
                .with_label_values(&[model])
                .observe(writing / gaps);
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

    /// Completed and failed requests since the start.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.counts.0.load(Relaxed), self.counts.1.load(Relaxed))
    }

    /// Counts a reload of the configuration.
    pub(crate) fn reloaded(&self, is_right: bool) {
        let result = if is_right { "ok" } else { "failed" };
        self.config_reloads.with_label_values(&[result]).inc();
        self.config_last_reload_successful.set(is_right.into());
    }

    /// Counts an allowance that is nearly used up.
    pub(crate) fn alert(&self, project: &str, window: &str) {
        self.alerts.with_label_values(&[project, window]).inc();
    }

    /// The counts since the start.
    pub(crate) fn totals(&self) -> Totals {
        let mut latencies: Vec<(f64, u64)> = Vec::new();
        for family in self.request_seconds.collect() {
            for metric in family.get_metric() {
                let histogram = metric.get_histogram();
                let buckets = histogram.get_bucket().iter();
                let all = buckets
                    .map(|bucket| (bucket.upper_bound(), bucket.cumulative_count()))
                    .filter(|(bound, _)| bound.is_finite())
                    .chain([(f64::INFINITY, histogram.get_sample_count())]);
                for (at, (bound, count)) in all.enumerate() {
                    match latencies.get_mut(at) {
                        Some((_, sum)) => *sum += count,
                        None => latencies.push((bound, count)),
                    }
                }
            }
        }
        let ended = sums(&self.requests, "status");
        let tokens = sums(&self.tokens, "direction");
        let of = |sums: &HashMap<String, u64>, name: &str| sums.get(name).copied().unwrap_or(0);
        Totals {
            completed: of(&ended, Outcome::Completed.name()),
            refused: of(&ended, Outcome::Rejected.name()),
            failed: of(&ended, Outcome::Failed.name()) + of(&ended, Outcome::TimedOut.name()),
            input_tokens: of(&tokens, "input"),
            output_tokens: of(&tokens, "output"),
            latencies,
        }
    }

    /// The exposition text.
    pub(crate) fn render(&self, gauges: &Gauges<'_>) -> Result<String, prometheus::Error> {
        let whole = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        for (band, count) in gauges.waiting {
            self.queue_size.with_label_values(&[band]).set(whole(count));
        }
        for (model, count, places) in &gauges.models {
            self.active_requests.with_label_values(&[model]).set(whole(*count));
            if let Some(places) = places {
                self.model_places.with_label_values(&[model]).set(whole(*places));
            }
        }
        for (project, window, quota, budget) in &gauges.allowances {
            for (gauge, ratio) in [(&self.quota_used_ratio, quota), (&self.budget_used_ratio, budget)] {
                if let Some(ratio) = ratio {
                    gauge.with_label_values(&[project, window]).set(*ratio);
                }
            }
        }
        // What is not there any more is not shown any more.
        self.upstream_healthy.reset();
        for (upstream, is_healthy) in &gauges.upstreams {
            self.upstream_healthy
                .with_label_values(&[upstream])
                .set(i64::from(*is_healthy));
        }
        self.pressure.set(gauges.pressure);
        self.buffered_bytes.set(whole(gauges.buffered));
        self.degradation_level.set(i64::from(gauges.level));
        let ledger = &gauges.ledger;
        self.ledger_backlog.set(whole(ledger.backlog));
        self.ledger_healthy.set(i64::from(ledger.reason().is_none()));
        self.ledger_damaged_lines.set(count(ledger.damaged_lines));
        self.ledger_rejected_records.set(count(ledger.rejected_records));
        self.ledger_writer_restarts.set(count(ledger.writer_restarts));
        let mut text = Vec::with_capacity(16 << 10);
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

/// A count as gauges have it.
fn count(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Counters by one of their labels, over all others.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Whole numbers, counted up.
fn sums(counters: &IntCounterVec, label: &str) -> HashMap<String, u64> {
    let mut sums = HashMap::new();
    for metric in counters.collect().iter().flat_map(MetricFamily::get_metric) {
        if let Some(pair) = metric.get_label().iter().find(|pair| pair.name() == label) {
            *sums.entry(pair.value().to_owned()).or_default() += metric.get_counter().get_value() as u64;
        }
    }
    sums
}
