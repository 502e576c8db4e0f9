//! The text of `/metrics`.

use super::histogram::FIGURES;
use crate::engine::{BLOCK_TOKENS, Gauges};
use crate::{Server, Timing};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use std::fmt::Write;
use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;

pub(crate) async fn show(State(server): State<Server>) -> Response {
    let mut text = String::new();
    counts(&server, &mut text);
    engines(&server, &mut text);
    adapters(&server, &mut text);
    requests(&server, &mut text);
    ([("content-type", "text/plain; version=0.0.4")], text).into_response()
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn counts(server: &Server, text: &mut String) {
    let metrics = &server.0.metrics;
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
            "Requests in progress.",
            &metrics.running,
        ),
        (
            "simulated_requests_aborted_total",
            "counter",
            "Requests whose client disconnected before the end.",
            &metrics.aborted,
        ),
        (
            "simulated_prompt_tokens_total",
            "counter",
            "Prompt tokens of complete requests.",
            &metrics.prompt_tokens,
        ),
        (
            "simulated_generation_tokens_total",
            "counter",
            "Generated tokens of complete requests.",
            &metrics.generation_tokens,
        ),
        (
            "vllm:prompt_tokens_total",
            "counter",
            "Prefill tokens processed.",
            &metrics.prompt_tokens,
        ),
        (
            "vllm:generation_tokens_total",
            "counter",
            "Generation tokens processed.",
            &metrics.generation_tokens,
        ),
    ] {
        head(text, name, kind, help);
        let _ = writeln!(text, "{name} {}", value.load(Relaxed));
    }
}

/// One of an engine's gauges, as text.
type Render = fn(&Gauges) -> String;

const GAUGES: &[(&str, &str, &str, Render)] = &[
    (
        "vllm:num_requests_running",
        "gauge",
        "Requests in model execution batches.",
        |of| of.running.to_string(),
    ),
    (
        "vllm:num_requests_waiting",
        "gauge",
        "Requests waiting to be processed.",
        |of| of.waiting.to_string(),
    ),
    (
        "vllm:kv_cache_usage_perc",
        "gauge",
        "KV-cache usage; 1 is all of it.",
        |of| of.kv_usage.to_string(),
    ),
    ("vllm:num_preemptions_total", "counter", "Preemptions.", |of| {
        of.preemptions.to_string()
    }),
    (
        "vllm:prefix_cache_queries_total",
        "counter",
        "Prefix cache queries, in tokens.",
        |of| of.prefix_queries.to_string(),
    ),
    (
        "vllm:prefix_cache_hits_total",
        "counter",
        "Prefix cache hits, in tokens.",
        |of| of.prefix_hits.to_string(),
    ),
];

/// vLLM's metrics of its engine; of a model without an engine, the running requests only.
fn engines(server: &Server, text: &mut String) {
    let by_model = server.0.metrics.by_model.lock().unwrap_or_else(PoisonError::into_inner);
    let models = server.models();
    let gauges = models.iter().map(|model| {
        let engine = server.runner_if_started(&model.name).map(|runner| runner.gauges());
        let running = by_model.get(&model.name).map_or(0, |of| of.running);
        let simple = Gauges {
            running: usize::try_from(running).unwrap_or(usize::MAX),
            ..Gauges::default()
        };
        (&model.name, engine.unwrap_or(simple))
    });
    let all: Vec<(&String, Gauges)> = gauges.collect();
    for (name, kind, help, render) in GAUGES {
        head(text, name, kind, help);
        for (model, gauges) in &all {
            let _ = writeln!(text, "{name}{{model_name=\"{model}\"}} {}", render(gauges));
        }
    }
    let name = "vllm:cache_config_info";
    head(text, name, "gauge", "Information of the cache configuration.");
    for model in &models {
        if let Timing::Engine(profile) = &model.timing {
            let _ = writeln!(
                text,
                "{name}{{block_size=\"{BLOCK_TOKENS}\",cache_dtype=\"auto\",enable_prefix_caching=\"{}\",engine=\"0\",num_gpu_blocks=\"{}\"}} 1",
                if profile.prefix_cache { "True" } else { "False" },
                profile.kv_tokens / BLOCK_TOKENS
            );
        }
    }
}

/// The adapters in use, as vLLM reports them: in labels, with the time of the scrape as value.
fn adapters(server: &Server, text: &mut String) {
    let models = server.models();
    let adapters: Vec<&str> = models
        .iter()
        .filter(|model| model.adapter_of.is_some())
        .map(|model| &*model.name)
        .collect();
    if adapters.is_empty() {
        return;
    }
    let by_model = server.0.metrics.by_model.lock().unwrap_or_else(PoisonError::into_inner);
    let running = adapters
        .iter()
        .filter(|name| by_model.get(**name).is_some_and(|of| of.running > 0));
    let running = running.copied().collect::<Vec<_>>().join(",");
    let name = "vllm:lora_requests_info";
    head(text, name, "gauge", "Running stats on LoRA requests.");
    let _ = writeln!(
        text,
        "{name}{{max_lora=\"{}\",running_lora_adapters=\"{running}\",waiting_lora_adapters=\"\"}} {}",
        adapters.len(),
        jiff::Timestamp::now().as_second()
    );
}

fn requests(server: &Server, text: &mut String) {
    let by_model = server.0.metrics.by_model.lock().unwrap_or_else(PoisonError::into_inner);
    for (at, figure) in FIGURES.iter().enumerate() {
        head(text, figure.name, "histogram", figure.help);
        for (model, of) in &*by_model {
            of.histograms[at].write(text, figure.name, model);
        }
    }
    let name = "vllm:request_success_total";
    head(text, name, "counter", "Finished requests, by the reason of their end.");
    for (model, of) in &*by_model {
        for (reason, count) in [("stop", of.stopped), ("length", of.cut), ("abort", of.aborted)] {
            let _ = writeln!(
                text,
                "{name}{{finished_reason=\"{reason}\",model_name=\"{model}\"}} {count}"
            );
        }
    }
}
