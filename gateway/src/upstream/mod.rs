//! Where a request goes: the endpoints of each model, and the way there through pingora's pooled
//! connector.

mod endpoint;
mod forward;

pub(crate) use endpoint::Endpoint;
pub(crate) use forward::{Answer, Forward, Outbound, failure};

use crate::config::{Backend, Config};
use crate::protocol::refuse::{Reason, Stop};
use crate::protocol::{Call, Protocol};
use policy::ModelId;
use std::net::SocketAddr;
use std::sync::Arc;

/// The endpoints of every model.
#[derive(Debug)]
pub(crate) struct Upstreams {
    by_model: Vec<Vec<Arc<Endpoint>>>,
}

impl Upstreams {
    /// `simulated` is where the bundled upstream listens, if it runs. Endpoints that were there `before` stay, with
    /// what they have under way.
    pub(crate) fn new(config: &Config, simulated: Option<SocketAddr>, before: Option<&Self>) -> Self {
        let known: Vec<&Arc<Endpoint>> = before.iter().flat_map(|before| before.endpoints()).collect();
        let kept = |endpoint: Endpoint| {
            let same = known.iter().find(|known| known.is_same(&endpoint));
            same.map_or_else(|| Arc::new(endpoint), |known| Arc::clone(known))
        };
        let by_model = config.models.iter().map(|model| {
            let is_simulated = model.backend == Backend::Simulated || config.gateway.simulated;
            let bundled =
                simulated.filter(|_| is_simulated && (config.gateway.simulated || model.endpoints.is_empty()));
            match bundled {
                Some(address) => vec![kept(Endpoint::bundled(address, model.deadlines.connect))],
                None => model
                    .endpoints
                    .iter()
                    .map(|endpoint| kept(Endpoint::new(endpoint, model.deadlines.connect)))
                    .collect(),
            }
        });
        Self {
            by_model: by_model.collect(),
        }
    }

    /// The least loaded endpoint of a model, by requests under way for its weight.
    pub(crate) fn pick(&self, model: ModelId) -> Result<&Arc<Endpoint>, Stop> {
        let endpoints = &self.by_model[model.0 as usize];
        endpoints
            .iter()
            .min_by_key(|endpoint| endpoint.load())
            .ok_or_else(|| Stop::new(Reason::NoHealthyUpstream, "no upstream is set up for this model"))
    }

    fn endpoints(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.by_model.iter().flatten()
    }
}

/// Whether a backend understands a call as it is.
pub(crate) fn speaks(backend: Backend, call: Call) -> Result<(), Stop> {
    match (backend, call.protocol()) {
        (Backend::Openai, Protocol::Ollama) => Err(Stop::new(
            Reason::BadRequest,
            "this model's upstream speaks OpenAI's protocol; ask for it at /v1/chat/completions, /v1/completions or /v1/embeddings",
        )),
        _ => Ok(()),
    }
}
