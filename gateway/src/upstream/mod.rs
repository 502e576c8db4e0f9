//! Where a request goes: the servers of each model, which of them is asked, and the way there through pingora's
//! pooled connector.

mod connector;
mod endpoint;
pub(crate) mod health;
mod one_send;
mod tls;

pub(crate) use connector::{Answer, Connector, Headers, Outbound};
pub(crate) use endpoint::{Endpoint, now};

use crate::config::{Backend, Config, Model};
use parking_lot::Mutex;
use policy::{BreakerDecision, Candidate, ModelId, RetryBudget, ServerLoad, Time};
use protocol::error::{ErrorCode, RequestError};
use protocol::translate::NativeApis;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// Where every model is.
#[derive(Debug)]
pub(crate) struct Upstreams {
    by_model: Vec<Route>,
}

/// The servers of one model.
#[derive(Debug)]
struct Route {
    choices: Vec<Choice>,
    native_apis: NativeApis,
    retries: Arc<Mutex<RetryBudget>>,
    share: f64,
}

#[derive(Debug)]
struct Choice {
    endpoint: Arc<Endpoint>,
    weight: u64,
}

/// Properties of a request that influence the choice of a server.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RoutingHint {
    /// A hash of what the prompt begins with, or of the session.
    pub(crate) prefix_hash: Option<u64>,
    pub(crate) tokens: u64,
}

impl Upstreams {
    /// `simulated` is where the bundled upstream listens, if it runs. Servers that were there `before` stay, with what
    /// they have under way and what is known of them; two models at the same server share it.
    pub(crate) fn new(config: &Config, simulated: Option<SocketAddr>, before: Option<&Self>) -> Self {
        let mut known: Vec<Arc<Endpoint>> = before.map_or_else(Vec::new, Self::endpoints);
        let breaker = config.gateway.breaker;
        let mut kept = |endpoint: Endpoint| {
            if let Some(same) = known.iter().find(|known| known.is_same(&endpoint)) {
                same.reconfigure(breaker);
                return Arc::clone(same);
            }
            let endpoint = Arc::new(endpoint);
            known.push(Arc::clone(&endpoint));
            endpoint
        };
        let mut by_model = Vec::with_capacity(config.models.len());
        for (index, model) in config.models.iter().enumerate() {
            let bundled = simulated.filter(|_| is_bundled(config, model));
            let connect = model.deadlines.connect;
            let choices = match bundled {
                // It gets no requests, so its servers' health does not matter.
                _ if !model.enabled => Vec::new(),
                Some(address) => vec![Choice {
                    endpoint: kept(Endpoint::bundled(address, connect, breaker)),
                    weight: 1,
                }],
                None => model
                    .endpoints
                    .iter()
                    .map(|endpoint| Choice {
                        endpoint: kept(Endpoint::new(endpoint, model.backend, connect, breaker)),
                        weight: u64::from(endpoint.weight).max(1),
                    })
                    .collect(),
            };
            let share = config.gateway.retry_share;
            let same_retries = before
                .and_then(|before| before.by_model.get(index))
                .filter(|route| route.share.total_cmp(&share).is_eq())
                .map(|route| Arc::clone(&route.retries));
            by_model.push(Route {
                choices,
                native_apis: if bundled.is_some() {
                    SIMULATED
                } else {
                    model.native_apis
                },
                retries: same_retries.unwrap_or_else(|| Arc::new(Mutex::new(RetryBudget::new(share)))),
                share,
            });
        }
        Self { by_model }
    }

    /// The APIs that a model's servers offer themselves.
    pub(crate) fn native_apis(&self, model: ModelId) -> NativeApis {
        self.by_model[model.0 as usize].native_apis
    }

    /// Returns whether there is a choice between servers.
    pub(crate) fn has_choice(&self, model: ModelId) -> bool {
        self.by_model[model.0 as usize].choices.len() > 1
    }

    /// A request for the model begins; it earns a share of a retry.
    pub(crate) fn earn(&self, model: ModelId) {
        let route = &self.by_model[model.0 as usize];
        if route.share > 0.0 {
            route.retries.lock().earn();
        }
    }

    /// Takes a retry from the budget; false if none is left.
    pub(crate) fn withdraw_retry(&self, model: ModelId) -> bool {
        self.by_model[model.0 as usize].retries.lock().spend(now())
    }

    /// Picks a server that was not `tried`, and goes through its breaker.
    pub(crate) fn pick(
        &self,
        model: ModelId,
        routing_hint: RoutingHint,
        tried: &[Arc<Endpoint>],
    ) -> Result<Arc<Endpoint>, RequestError> {
        let choices = &self.by_model[model.0 as usize].choices;
        let now = now();
        if let ([only], []) = (&choices[..], tried) {
            let may = only.endpoint.enter(now, true).then(|| Arc::clone(&only.endpoint));
            return may.ok_or_else(|| no_healthy_endpoint(choices, now));
        }
        let is_only = choices.len() == 1;
        let new = choices
            .iter()
            .filter(|choice| !tried.iter().any(|tried| Arc::ptr_eq(tried, &choice.endpoint)));
        let (mut well, mut paused) = (Vec::new(), Vec::new());
        for choice in new {
            match choice.endpoint.passage(now, is_only) {
                // A server that may have recovered is tried; if it fails, another is.
                BreakerDecision::Probe if choice.endpoint.enter(now, is_only) => {
                    return Ok(Arc::clone(&choice.endpoint));
                }
                BreakerDecision::Allow if choice.endpoint.is_paused(now) => paused.push(choice),
                BreakerDecision::Allow => well.push(choice),
                BreakerDecision::Probe | BreakerDecision::Deny(_) => {}
            }
        }
        let those = if well.is_empty() { paused } else { well };
        let candidates: Vec<Candidate> = those
            .iter()
            .map(|choice| choice.endpoint.candidate(choice.weight, now))
            .collect();
        let picked = policy::pick(&candidates, routing_hint.prefix_hash, routing_hint.tokens);
        match picked.map(|at| &those[at].endpoint) {
            Some(endpoint) if endpoint.enter(now, is_only) => Ok(Arc::clone(endpoint)),
            _ => Err(no_healthy_endpoint(choices, now)),
        }
    }

    /// Every server, once.
    pub(crate) fn endpoints(&self) -> Vec<Arc<Endpoint>> {
        let mut all: Vec<Arc<Endpoint>> = Vec::new();
        for choice in self.by_model.iter().flat_map(|route| &route.choices) {
            if !all.iter().any(|known| Arc::ptr_eq(known, &choice.endpoint)) {
                all.push(Arc::clone(&choice.endpoint));
            }
        }
        all
    }

    /// The load that each model's servers reported last, summed over those that are healthy. Models whose servers report
    /// none are left out.
    pub(crate) fn loads(&self) -> Vec<(ModelId, ServerLoad)> {
        let models = self.by_model.iter().zip(0..);
        models
            .filter_map(|(route, at)| Some((ModelId(at), route.load()?)))
            .collect()
    }

    /// Every server with its models, load and health, for operators.
    pub(crate) fn status(&self, config: &Config) -> Vec<Value> {
        let status = |endpoint: &Arc<Endpoint>| {
            let routes = self.by_model.iter().zip(&config.models);
            let has_it = |route: &Route| {
                route
                    .choices
                    .iter()
                    .any(|choice| Arc::ptr_eq(&choice.endpoint, endpoint))
            };
            let of_it = routes.filter(|(route, model)| has_it(route) && !model.is_removed);
            let models: Vec<&str> = of_it.map(|(_, model)| model.name.as_str()).collect();
            let loaded = endpoint.seen.loaded.load();
            let last_failure = endpoint.seen.last_failure.load();
            json!({
                "upstream": &*endpoint.authority,
                "backend": endpoint.backend.word(),
                "models": models,
                "healthy": endpoint.is_healthy(),
                "breaker": endpoint.breaker_state_name(),
                "away": endpoint.seen.is_unreachable.load(Relaxed),
                "active_requests": endpoint.under_way.load(Relaxed),
                "outstanding_tokens": endpoint.tokens.load(Relaxed),
                "requests_of_others": endpoint.seen.foreign.load(Relaxed),
                "cache_used": json!(endpoint.seen.cache.load(Relaxed)).as_f64().map(|thousandths| thousandths / 1000.0),
                "loaded_models": loaded.as_ref().map(|loaded| loaded.iter().cloned().collect::<Vec<_>>()),
                "last_failure": Some(last_failure.as_str()).filter(|why| !why.is_empty()),
            })
        };
        self.endpoints().iter().map(status).collect()
    }
}

impl Route {
    fn load(&self) -> Option<ServerLoad> {
        let healthy = self.choices.iter().filter(|choice| choice.endpoint.is_healthy());
        let loads = healthy.filter_map(|choice| choice.endpoint.seen.load.load_full());
        loads.map(|load| *load).reduce(|sum, load| ServerLoad {
            running: sum.running.saturating_add(load.running),
            waiting: sum.waiting.saturating_add(load.waiting),
            kv_used: sum.kv_used.into_iter().chain(load.kv_used).reduce(f64::max),
        })
    }
}

/// The APIs of the bundled simulated upstream.
const SIMULATED: NativeApis = NativeApis {
    openai: true,
    responses: false,
    anthropic: false,
    ollama: true,
};

fn is_bundled(config: &Config, model: &Model) -> bool {
    config.gateway.simulated || (model.backend == Backend::Simulated && model.endpoints.is_empty())
}

fn no_healthy_endpoint(choices: &[Choice], now: Time) -> RequestError {
    if choices.is_empty() {
        return RequestError::new(ErrorCode::NoHealthyUpstream, "no upstream is set up for this model");
    }
    let mut error = RequestError::new(
        ErrorCode::NoHealthyUpstream,
        "no server of the model is available: all are unreachable or have failed; try again",
    );
    let until = choices
        .iter()
        .filter_map(|choice| match choice.endpoint.passage(now, choices.len() == 1) {
            BreakerDecision::Deny(until) => Some(until - now),
            _ => None,
        });
    error.retry_after = Some(until.min().unwrap_or_default().max(Duration::from_secs(1)));
    error
}
