//! `/metrics`: under vLLM's names, by its documentation, and under some of its own.

use crate::Server;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Bounds of the buckets, in seconds.
const FIRST_TOKEN: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
];
const TOKEN: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5,
];
const WHOLE: &[f64] = &[
    0.1, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0,
];

/// What has come and gone.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) requests: AtomicU64,
    pub(crate) running: AtomicU64,
    pub(crate) aborted: AtomicU64,
    pub(crate) prompt_tokens: AtomicU64,
    pub(crate) generation_tokens: AtomicU64,
    by_model: Mutex<BTreeMap<String, OfModel>>,
}

#[derive(Debug, Default)]
pub(crate) struct OfModel {
    running: u64,
    stopped: u64,
    cut: u64,
    first_token: Histogram,
    token: Histogram,
    whole: Histogram,
}

#[derive(Debug, Default)]
struct Histogram {
    counts: [u64; 24],
    sum: f64,
    count: u64,
}

impl Histogram {
    fn observe(&mut self, bounds: &[f64], seconds: f64) {
        let at = bounds
            .iter()
            .position(|bound| seconds <= *bound)
            .unwrap_or(bounds.len());
        self.counts[at] += 1;
        self.sum += seconds;
        self.count += 1;
    }

    fn write(&self, text: &mut String, name: &str, model: &str, bounds: &[f64]) {
        let mut below = 0;
        for (bound, count) in bounds.iter().zip(self.counts) {
            below += count;
            let _ = writeln!(text, "{name}_bucket{{model_name=\"{model}\",le=\"{bound}\"}} {below}");
        }
        let _ = writeln!(
            text,
            "{name}_bucket{{model_name=\"{model}\",le=\"+Inf\"}} {}",
            self.count
        );
        let _ = writeln!(text, "{name}_sum{{model_name=\"{model}\"}} {}", self.sum);
        let _ = writeln!(text, "{name}_count{{model_name=\"{model}\"}} {}", self.count);
    }
}

impl Metrics {
    fn of(&self, model: &str, change: impl FnOnce(&mut OfModel)) {
        let mut by_model = self.by_model.lock().unwrap_or_else(PoisonError::into_inner);
        match by_model.get_mut(model) {
            Some(known) => change(known),
            None => change(by_model.entry(model.to_owned()).or_default()),
        }
    }

    pub(crate) fn began(&self, model: &str) {
        self.requests.fetch_add(1, Relaxed);
        self.running.fetch_add(1, Relaxed);
        self.of(model, |of| of.running += 1);
    }

    pub(crate) fn ended(&self, model: &str, is_complete: bool) {
        self.running.fetch_sub(1, Relaxed);
        self.aborted.fetch_add(u64::from(!is_complete), Relaxed);
        self.of(model, |of| of.running = of.running.saturating_sub(1));
    }

    pub(crate) fn first_token(&self, model: &str, after: Duration) {
        self.of(model, |of| of.first_token.observe(FIRST_TOKEN, after.as_secs_f64()));
    }

    pub(crate) fn token(&self, model: &str, after: Duration) {
        self.of(model, |of| of.token.observe(TOKEN, after.as_secs_f64()));
    }

    pub(crate) fn finished(&self, model: &str, after: Duration, is_cut: bool) {
        self.of(model, |of| {
            of.whole.observe(WHOLE, after.as_secs_f64());
            of.cut += u64::from(is_cut);
            of.stopped += u64::from(!is_cut);
        });
    }
}

pub(crate) async fn show(State(server): State<Server>) -> Response {
    let metrics = &server.0.metrics;
    let mut text = String::new();
    for (name, kind, help, value) in [
        (
            "simulated_requests_total",
            "counter",
            "Requests received.",
            &metrics.requests,
        ),
        (
            "simulated_requests_running",
            "gauge",
            "Requests under way.",
            &metrics.running,
        ),
        (
            "simulated_requests_aborted_total",
            "counter",
            "Requests whose client left before the end.",
            &metrics.aborted,
        ),
        (
            "simulated_prompt_tokens_total",
            "counter",
            "Tokens read, of complete requests.",
            &metrics.prompt_tokens,
        ),
        (
            "simulated_generation_tokens_total",
            "counter",
            "Tokens written, of complete requests.",
            &metrics.generation_tokens,
        ),
        (
            "vllm:prompt_tokens_total",
            "counter",
            "Tokens read.",
            &metrics.prompt_tokens,
        ),
        (
            "vllm:generation_tokens_total",
            "counter",
            "Tokens written.",
            &metrics.generation_tokens,
        ),
    ] {
        let value = value.load(Relaxed);
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
    }
    engines(&server, &mut text);
    let by_model = metrics.by_model.lock().unwrap_or_else(PoisonError::into_inner);
    for (name, bounds, of) in [
        (
            "vllm:time_to_first_token_seconds",
            FIRST_TOKEN,
            (|of| &of.first_token) as fn(&OfModel) -> &Histogram,
        ),
        ("vllm:inter_token_latency_seconds", TOKEN, |of| &of.token),
        ("vllm:e2e_request_latency_seconds", WHOLE, |of| &of.whole),
    ] {
        let _ = writeln!(text, "# HELP {name} In seconds.\n# TYPE {name} histogram");
        for (model, figures) in &*by_model {
            of(figures).write(&mut text, name, model, bounds);
        }
    }
    let name = "vllm:request_success_total";
    let _ = writeln!(text, "# HELP {name} Finished requests.\n# TYPE {name} counter");
    for (model, of) in &*by_model {
        for (reason, count) in [("stop", of.stopped), ("length", of.cut)] {
            let _ = writeln!(
                text,
                "{name}{{model_name=\"{model}\",finished_reason=\"{reason}\"}} {count}"
            );
        }
    }
    ([("content-type", "text/plain; version=0.0.4")], text).into_response()
}

/// One of an engine's gauges, as text.
type Figure = fn(&crate::engine::Gauges) -> String;

/// What vLLM tells of its engine; of a model without one, what runs.
fn engines(server: &Server, text: &mut String) {
    let by_model = server.0.metrics.by_model.lock().unwrap_or_else(PoisonError::into_inner);
    let models = server.models();
    let all: Vec<(String, crate::engine::Gauges)> = models
        .into_iter()
        .map(|model| {
            let engine = server.runner_if_started(&model.name).map(|runner| runner.gauges());
            let running = by_model.get(&model.name).map_or(0, |of| of.running);
            let simple = crate::engine::Gauges {
                running: usize::try_from(running).unwrap_or(usize::MAX),
                ..Default::default()
            };
            (model.name, engine.unwrap_or(simple))
        })
        .collect();
    let figures: [(&str, &str, &str, Figure); 6] = [
        (
            "vllm:num_requests_running",
            "gauge",
            "Requests that are computed.",
            |of| of.running.to_string(),
        ),
        ("vllm:num_requests_waiting", "gauge", "Requests that wait.", |of| {
            of.waiting.to_string()
        }),
        (
            "vllm:kv_cache_usage_perc",
            "gauge",
            "Part of the memory in use, 1 for all.",
            |of| of.kv_usage.to_string(),
        ),
        (
            "vllm:num_preemptions_total",
            "counter",
            "Times that a request gave way.",
            |of| of.preemptions.to_string(),
        ),
        (
            "vllm:prefix_cache_queries_total",
            "counter",
            "Prompt tokens looked for.",
            |of| of.prefix_queries.to_string(),
        ),
        (
            "vllm:prefix_cache_hits_total",
            "counter",
            "Prompt tokens found.",
            |of| of.prefix_hits.to_string(),
        ),
    ];
    for (name, kind, help, figure) in figures {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (model, gauges) in &all {
            let _ = writeln!(text, "{name}{{model_name=\"{model}\"}} {}", figure(gauges));
        }
    }
}
