//! Model discovery: entries with `discover: true` stand for whatever models their servers offer.

use super::Reloader;
use crate::config::{Backend, Discovery, Found};
use crate::upstream::health::{ollama_names, openai_names};
use crate::upstream::{Connector, Endpoint};
use futures_util::future::join_all;
use serde_json::Value;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

/// The interval at which servers are asked for their models.
const INTERVAL: Duration = Duration::from_secs(15);

/// The time limit of such a request.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Asks the servers of entries with `discover: true` for their models, and reloads the configuration when they change.
pub(crate) async fn run(reloader: Arc<Reloader>, connector: Arc<Connector>) {
    loop {
        let snapshot = reloader.current.get();
        let asked = snapshot.config.discoveries.iter();
        let mut found = reloader.found.lock().clone();
        found.retain(|name, _| snapshot.config.discoveries.iter().any(|entry| entry.name == *name));
        for (entry, offered) in join_all(asked.map(|entry| offered(&reloader, &connector, entry))).await {
            // Models of servers that do not answer at present stay.
            if let Some(offered) = offered {
                found.insert(entry.name.clone(), offered);
            }
        }
        if *reloader.found.lock() != found {
            log_change(&found);
            *reloader.found.lock() = found;
            reloader.reload().await;
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

fn log_change(found: &Found) {
    for (name, models) in found {
        tracing::info!(entry = name, models = models.join(", "), "models found");
    }
}

/// The models that all answering servers of an entry have in common; `None` if none answers.
async fn offered<'a>(
    reloader: &Reloader,
    connector: &Connector,
    entry: &'a Discovery,
) -> (&'a Discovery, Option<Vec<String>>) {
    let breaker = reloader.current.get().config.gateway.breaker;
    let mut common: Option<HashSet<String>> = None;
    for endpoint in &entry.endpoints {
        let endpoint = Arc::new(Endpoint::new(endpoint, entry.backend, TIMEOUT, breaker));
        let path = if entry.backend == Backend::Ollama {
            "/api/tags"
        } else {
            "/v1/models"
        };
        let answer = connector.get(&endpoint, path, TIMEOUT).await;
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
