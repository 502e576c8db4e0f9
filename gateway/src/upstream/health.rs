//! Health checks: every server is probed for liveness, load and loaded models.

use super::{Connector, Endpoint};
use crate::config::Backend;
use futures_util::future::join_all;
use serde_json::Value;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// How often it is looked whether there is something to do, while probes are off.
const IDLE: Duration = Duration::from_secs(5);

/// Names under which servers count the requests that they run, let wait, and how full their cache is: vLLM, llama.cpp,
/// SGLang, TGI, each by its own documentation of `/metrics`.
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

/// Probes servers for as long as the process runs; `probing` says what is configured at present, `None` if probes are off.
/// Requests tell of a server's health too; probes find out without them.
pub(crate) async fn watch(connector: Arc<Connector>, probing: impl Fn() -> Option<Probing>) {
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
    }
}

async fn probe(connector: &Connector, endpoint: &Arc<Endpoint>, within: Duration) {
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
        let figures = read_metrics(&String::from_utf8_lossy(&body));
        let own = endpoint.under_way.load(Relaxed) as u64;
        endpoint
            .seen
            .foreign
            .store(figures.requests.saturating_sub(own), Relaxed);
        endpoint.seen.cache.store(figures.cache_thousandths, Relaxed);
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

#[derive(Debug, Default, PartialEq, Eq)]
struct Figures {
    requests: u64,
    cache_thousandths: u64,
}

/// Reads what counts of a server's `/metrics`; several models of one server are added up.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn read_metrics(text: &str) -> Figures {
    let mut requests = 0.0;
    let mut cache = 0.0f64;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((series, value)) = line.rsplit_once(' ') else {
            continue;
        };
        let name = series.split('{').next().unwrap_or_default().trim();
        let value: f64 = value.parse().unwrap_or(0.0);
        if !value.is_finite() || value < 0.0 {
            continue;
        }
        if RUNNING.contains(&name) || WAITING.contains(&name) {
            requests += value;
        } else if CACHE.contains(&name) {
            cache = cache.max(value);
        }
    }
    Figures {
        requests: requests as u64,
        cache_thousandths: (cache * 1000.0) as u64,
    }
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

    #[test]
    fn what_a_server_has_to_do_is_read_from_its_metrics() {
        let vllm = "# HELP vllm:num_requests_running x\nvllm:num_requests_running{model_name=\"a\"} 3.0\n\
            vllm:num_requests_waiting{model_name=\"a\"} 2.0\nvllm:kv_cache_usage_perc{model_name=\"a\"} 0.25\n";
        let expected = Figures {
            requests: 5,
            cache_thousandths: 250,
        };
        assert_eq!(read_metrics(vllm), expected);
        let llama = "llamacpp:requests_processing 1\nllamacpp:requests_deferred 4\nother 9\nllamacpp:kv_cache_usage_ratio NaN\n";
        assert_eq!(
            read_metrics(llama),
            Figures {
                requests: 5,
                cache_thousandths: 0
            }
        );
        assert_eq!(read_metrics("nonsense"), Figures::default());
    }
}
