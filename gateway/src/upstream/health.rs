//! Health checks: every server is probed for liveness, load and loaded models.

use super::{Connector, Endpoint};
use crate::config::Backend;
use futures_util::future::join_all;
use policy::ServerLoad;
use serde_json::Value;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

/// The interval at which settings are read again while probes are off.
const IDLE: Duration = Duration::from_secs(5);

/// Names of the gauges of running requests, waiting requests and the used part of the KV cache: those of vLLM, llama.cpp,
/// SGLang and TGI, each by its own documentation of `/metrics`.
const RUNNING: &[&str] = &[
    "vllm:num_requests_running",
    "llamacpp:requests_processing",
    "sglang:num_running_reqs",
    "tgi_batch_current_size",
];
const WAITING: &[&str] = &[
    "vllm:num_requests_waiting",
    "llamacpp:requests_deferred",
    "sglang:num_queue_reqs",
    "tgi_queue_size",
];
const CACHE: &[&str] = &[
    "vllm:kv_cache_usage_perc",
    "vllm:gpu_cache_usage_perc",
    "llamacpp:kv_cache_usage_ratio",
    "sglang:token_usage",
];

/// The servers to probe, how often, and how long each probe may take.
#[derive(Debug)]
pub(crate) struct Probing {
    pub(crate) endpoints: Vec<Arc<Endpoint>>,
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
}

/// Probes servers for as long as the process runs. `probing` returns the present configuration, `None` if probes are off;
/// `probed` is called after each round.
pub(crate) async fn watch(connector: Arc<Connector>, probing: impl Fn() -> Option<Probing>, probed: impl Fn()) {
    loop {
        let Some(Probing { interval, .. }) = probing() else {
            tokio::time::sleep(IDLE).await;
            continue;
        };
        tokio::time::sleep(interval).await;
        let Some(Probing { endpoints, timeout, .. }) = probing() else {
            continue;
        };
        join_all(endpoints.iter().map(|endpoint| probe(&connector, endpoint, timeout))).await;
        probed();
    }
}

async fn probe(connector: &Connector, endpoint: &Arc<Endpoint>, within: Duration) {
    endpoint.seen.load.store(None);
    match is_alive(connector, endpoint, within).await {
        Ok(()) => endpoint.mark_reachable(),
        Err(why) => return endpoint.mark_unreachable(&why),
    }
    if endpoint.backend == Backend::Ollama {
        let loaded = connector.get(endpoint, "/api/ps", within).await;
        let names = loaded.ok().filter(|(status, _)| *status == 200);
        let names = names.and_then(|(_, body)| serde_json::from_slice::<Value>(&body).ok());
        endpoint
            .seen
            .loaded
            .store(names.map(|names| Arc::new(ollama_names(&names))));
    } else if let Ok((200, body)) = connector.get(endpoint, "/metrics", within).await {
        let load = read_metrics(&String::from_utf8_lossy(&body));
        endpoint.report(load);
    }
}

/// A server that answers is alive; one that says that it is not ready is not.
async fn is_alive(connector: &Connector, endpoint: &Arc<Endpoint>, within: Duration) -> Result<(), String> {
    let paths: &[&str] = match endpoint.backend {
        Backend::Ollama => &["/api/version"],
        Backend::Openai | Backend::Simulated => &["/health", "/v1/models"],
    };
    let mut status = 0;
    for path in paths {
        let (answered, _) = connector.get(endpoint, path, within).await?;
        status = answered;
        if !matches!(answered, 401 | 403 | 404 | 405) {
            break;
        }
    }
    if status < 500 {
        Ok(())
    } else {
        Err(format!("health check returned status {status}"))
    }
}

/// The load that a server's `/metrics` report; `None` if they count no requests. Several models or engines of one server
/// are added up.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn read_metrics(text: &str) -> Option<ServerLoad> {
    let (mut running, mut waiting, mut kv_used) = (None, None, None);
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((name, value)) = read_sample(line) else {
            continue;
        };
        if RUNNING.contains(&name) {
            running = Some(running.unwrap_or(0.0) + value);
        } else if WAITING.contains(&name) {
            waiting = Some(waiting.unwrap_or(0.0) + value);
        } else if CACHE.contains(&name) {
            kv_used = Some(value.max(kv_used.unwrap_or(0.0)));
        }
    }
    running.or(waiting)?;
    Some(ServerLoad {
        running: running.unwrap_or(0.0) as usize,
        waiting: waiting.unwrap_or(0.0) as usize,
        kv_used,
    })
}

/// The name and the value of a line `name{labels} value [timestamp]`, if the value is a number from 0.
fn read_sample(line: &str) -> Option<(&str, f64)> {
    let name_ends = line.find(['{', ' '])?;
    let rest = match line[name_ends..].strip_prefix('{') {
        Some(labels) => &labels[labels.rfind('}')? + 1..],
        None => &line[name_ends..],
    };
    let value: f64 = rest.split_ascii_whitespace().next()?.parse().ok()?;
    (value.is_finite() && value >= 0.0).then_some((&line[..name_ends], value))
}

/// Model names in Ollama's lists.
pub(crate) fn ollama_names(list: &Value) -> HashSet<String> {
    let models = list["models"].as_array().map(Vec::as_slice).unwrap_or_default();
    let names = models
        .iter()
        .filter_map(|model| model["name"].as_str().or(model["model"].as_str()));
    names.map(str::to_owned).collect()
}

/// Model names in OpenAI's list.
pub(crate) fn openai_names(list: &Value) -> HashSet<String> {
    let models = list["data"].as_array().map(Vec::as_slice).unwrap_or_default();
    models
        .iter()
        .filter_map(|model| model["id"].as_str())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(running: usize, waiting: usize, kv_used: Option<f64>) -> ServerLoad {
        ServerLoad {
            running,
            waiting,
            kv_used,
        }
    }

    /// Lines as the servers' own documentation shows them.
    #[test]
    fn running_and_waiting_requests_and_cache_use_are_read_from_each_servers_metrics() {
        let vllm = "# HELP vllm:num_requests_running Number of requests in model execution batches.\n\
            # TYPE vllm:num_requests_running gauge\n\
            vllm:num_requests_running{engine=\"0\",model_name=\"meta-llama/Llama-3.1-8B\"} 3.0\n\
            vllm:num_requests_waiting{engine=\"0\",model_name=\"meta-llama/Llama-3.1-8B\"} 2.0\n\
            vllm:kv_cache_usage_perc{engine=\"0\",model_name=\"meta-llama/Llama-3.1-8B\"} 0.25\n";
        assert_eq!(read_metrics(vllm), Some(load(3, 2, Some(0.25))));
        let sglang = "sglang:num_running_reqs{model_name=\"a b\"} 162.0\nsglang:num_queue_reqs{model_name=\"a b\"} 2826.0\n\
            sglang:token_usage{model_name=\"a b\"} 0.28\n";
        assert_eq!(read_metrics(sglang), Some(load(162, 2826, Some(0.28))));
        let tgi = "# TYPE tgi_batch_current_size gauge\ntgi_batch_current_size 4\ntgi_queue_size 7\n";
        assert_eq!(read_metrics(tgi), Some(load(4, 7, None)));
        let llama = "llamacpp:requests_processing 1\nllamacpp:requests_deferred 4\nother 9\nllamacpp:kv_cache_usage_ratio NaN\n";
        assert_eq!(read_metrics(llama), Some(load(1, 4, None)));
    }

    #[test]
    fn engines_of_one_server_are_added_up_and_the_fullest_cache_counts() {
        let engines = "vllm:num_requests_running{engine=\"0\"} 3 1764000000000\nvllm:num_requests_running{engine=\"1\"} 4 1764000000000\n\
            vllm:kv_cache_usage_perc{engine=\"0\"} 0.5\nvllm:kv_cache_usage_perc{engine=\"1\"} 0.9\n";
        assert_eq!(read_metrics(engines), Some(load(7, 0, Some(0.9))));
    }

    #[test]
    fn what_counts_no_requests_is_no_report() {
        for text in [
            "",
            "nonsense",
            "{ {} }",
            "go_goroutines 8\nvllm:kv_cache_usage_perc 0.5\n",
            "vllm:num_requests_running NaN\nvllm:num_requests_waiting -1\nvllm:num_requests_running{a=\"}\n",
        ] {
            assert_eq!(read_metrics(text), None, "{text}");
        }
    }
}
