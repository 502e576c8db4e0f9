//! Asks every server now and then how it is, how much it has to do, and which models it has.

use super::{Endpoint, Forward};
use crate::config::{Backend, Discovery, Found};
use crate::proxy::Gateway;
use crate::reload::Reloader;
use futures_util::future::join_all;
use serde_json::Value;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// How often servers are asked which models they have.
const DISCOVER_EVERY: Duration = Duration::from_secs(15);

/// How long they may take to say.
const DISCOVER_WITHIN: Duration = Duration::from_secs(5);

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

/// Asks for as long as the process runs. Requests tell of a server's health too; this finds out without them.
pub(crate) async fn watch(gateway: Arc<Gateway>) {
    loop {
        let snapshot = gateway.current.get();
        let Some((interval, within)) = snapshot.config.gateway.probes else {
            tokio::time::sleep(IDLE).await;
            continue;
        };
        tokio::time::sleep(interval).await;
        let endpoints = gateway.current.get().upstreams.endpoints();
        join_all(
            endpoints
                .iter()
                .map(|endpoint| probe(&gateway.forward, endpoint, within)),
        )
        .await;
    }
}

async fn probe(forward: &Forward, endpoint: &Arc<Endpoint>, within: Duration) {
    match is_alive(forward, endpoint, within).await {
        Ok(()) => endpoint.mark_reachable(),
        Err(why) => return endpoint.mark_unreachable(&why),
    }
    if endpoint.backend == Backend::Ollama {
        let loaded = forward.get(endpoint, "/api/ps", within).await;
        let names = loaded.ok().filter(|(status, _)| *status == 200);
        let names = names.and_then(|(_, body)| serde_json::from_slice::<Value>(&body).ok());
        endpoint
            .seen
            .loaded
            .store(names.map(|names| Arc::new(ollama_names(&names))));
    } else if let Ok((200, body)) = forward.get(endpoint, "/metrics", within).await {
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
async fn is_alive(forward: &Forward, endpoint: &Arc<Endpoint>, within: Duration) -> Result<(), String> {
    let paths: &[&str] = match endpoint.backend {
        Backend::Ollama => &["/api/version"],
        Backend::Openai | Backend::Simulated => &["/health", "/v1/models"],
    };
    let mut said = 0;
    for path in paths {
        let (status, _) = forward.get(endpoint, path, within).await?;
        said = status;
        if !matches!(status, 401 | 403 | 404 | 405) {
            break;
        }
    }
    if said < 500 {
        Ok(())
    } else {
        Err(format!("it says {said} when asked how it is"))
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

fn ollama_names(list: &Value) -> HashSet<String> {
    let models = list["models"].as_array().map(Vec::as_slice).unwrap_or_default();
    let names = models
        .iter()
        .filter_map(|model| model["name"].as_str().or(model["model"].as_str()));
    names.map(str::to_owned).collect()
}

fn openai_names(list: &Value) -> HashSet<String> {
    let models = list["data"].as_array().map(Vec::as_slice).unwrap_or_default();
    models
        .iter()
        .filter_map(|model| model["id"].as_str())
        .map(str::to_owned)
        .collect()
}

/// Finds out which models the servers of entries with `discover: true` have, and takes changes over.
pub(crate) async fn discover(gateway: Arc<Gateway>, reloader: Arc<Reloader>) {
    loop {
        let snapshot = gateway.current.get();
        let asked = snapshot.config.discoveries.iter();
        let mut found = reloader.found.lock().clone();
        found.retain(|name, _| snapshot.config.discoveries.iter().any(|entry| entry.name == *name));
        for (entry, offered) in join_all(asked.map(|entry| offered(&gateway, entry))).await {
            // Of servers that do not answer just now, nothing is forgotten.
            if let Some(offered) = offered {
                found.insert(entry.name.clone(), offered);
            }
        }
        if *reloader.found.lock() != found {
            log_change(&found);
            *reloader.found.lock() = found;
            reloader.reload().await;
        }
        tokio::time::sleep(DISCOVER_EVERY).await;
    }
}

fn log_change(found: &Found) {
    for (name, models) in found {
        tracing::info!(entry = name, models = models.join(", "), "models found");
    }
}

/// The models that every server of an entry that answers has; `None` if none answers.
async fn offered<'a>(gateway: &Gateway, entry: &'a Discovery) -> (&'a Discovery, Option<Vec<String>>) {
    let breaker = gateway.current.get().config.gateway.breaker;
    let mut common: Option<HashSet<String>> = None;
    for endpoint in &entry.endpoints {
        let endpoint = Arc::new(Endpoint::new(endpoint, entry.backend, DISCOVER_WITHIN, breaker));
        let path = if entry.backend == Backend::Ollama {
            "/api/tags"
        } else {
            "/v1/models"
        };
        let answer = gateway.forward.get(&endpoint, path, DISCOVER_WITHIN).await;
        let Some(list) = answer
            .ok()
            .filter(|(status, _)| *status == 200)
            .and_then(|(_, body)| serde_json::from_slice::<Value>(&body).ok())
        else {
            continue;
        };
        let names = if entry.backend == Backend::Ollama {
            ollama_names(&list)
        } else {
            openai_names(&list)
        };
        common = Some(match common {
            Some(common) => common.intersection(&names).cloned().collect(),
            None => names,
        });
    }
    let mut names: Option<Vec<String>> = common.map(|names| names.into_iter().collect());
    if let Some(names) = &mut names {
        names.sort();
    }
    (entry, names)
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
