//! The configuration as it is meant: references are indices that exist, numbers are in range. Built
//! once, and never checked again.

use super::raw;
use policy::{Class, GlobalLimits, ModelId, NanoEuro, PlanId, Priority, ProjectId, RateLimit, Rules, UserId};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

/// The whole configuration.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) users: Vec<User>,
    pub(crate) projects: Vec<Project>,
    pub(crate) plans: Vec<Plan>,
    pub(crate) models: Vec<Model>,
    pub(crate) levels: Vec<Level>,
    pub(crate) weights: [(Priority, u32); 3],
    pub(crate) global: GlobalLimits,
    pub(crate) request_timeout: Duration,
    pub(crate) gateway: Gateway,
    pub(super) users_by_id: HashMap<String, UserId>,
    pub(super) models_by_name: HashMap<String, ModelId>,
}

/// The gateway's own settings.
#[derive(Debug, Clone)]
pub(crate) struct Gateway {
    pub(crate) listen: SocketAddr,
    pub(crate) admin_listen: SocketAddr,
    pub(crate) data_dir: PathBuf,
    pub(crate) identity: Identity,
    pub(crate) database_url: String,
    pub(crate) simulated: bool,
    pub(crate) metrics_need_token: bool,
    pub(crate) max_body_bytes: usize,
    pub(crate) max_response_bytes: usize,
    pub(crate) head_timeout: Duration,
    pub(crate) body_timeout: Duration,
    pub(crate) keepalive: Duration,
    pub(crate) drain: Duration,
}

/// How callers are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Identity {
    /// By what they say; an unnamed one is this user.
    Open { default_user: Option<UserId> },
    /// By API key alone.
    Keys,
}

/// Someone who asks.
#[derive(Debug)]
pub(crate) struct User {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) project: ProjectId,
    pub(crate) class: Class,
    pub(crate) role: &'static str,
    pub(crate) enabled: bool,
}

/// Someone who pays.
#[derive(Debug)]
pub(crate) struct Project {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) plan: PlanId,
    pub(crate) priority: Priority,
    pub(crate) enabled: bool,
    pub(crate) monthly_token_quota: Option<u64>,
    pub(crate) monthly_budget: Option<NanoEuro>,
    pub(crate) max_concurrent_requests: Option<u32>,
}

/// What a project may send.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) id: String,
    pub(crate) requests_per_minute: NonZeroU32,
    pub(crate) tokens_per_minute: u64,
}

/// What answers.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) name: String,
    pub(crate) backend: Backend,
    pub(crate) enabled: bool,
    /// Informative.
    pub(crate) priority: Priority,
    /// The name at the upstream, where it is another.
    pub(crate) upstream_name: Option<String>,
    pub(crate) max_input_tokens: u64,
    pub(crate) max_output_tokens: u64,
    pub(crate) input_price: NanoEuro,
    pub(crate) output_price: NanoEuro,
    pub(crate) average_latency: Duration,
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) deadlines: Deadlines,
}

/// What serves a model.
pub(crate) use raw::Backend;

/// One server of a model.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    /// `host:port`.
    pub(crate) authority: String,
    /// A path before `/v1` or `/api`; usually empty.
    pub(crate) path_prefix: String,
    pub(crate) api_key_env: Option<String>,
    pub(crate) weight: u32,
    pub(crate) max_concurrent_requests: Option<usize>,
}

/// How long each part of a request may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadlines {
    pub(crate) connect: Duration,
    pub(crate) first_byte: Duration,
    pub(crate) gap: Duration,
    pub(crate) total: Duration,
}

/// One level of degradation.
#[derive(Debug)]
pub(crate) struct Level {
    pub(crate) name: String,
    pub(crate) number: u32,
    pub(crate) threshold: f64,
    pub(crate) actions: Actions,
}

/// What gives way at a level.
#[derive(Debug, Default)]
pub(crate) struct Actions {
    /// What `max_tokens` is multiplied by.
    pub(crate) max_tokens_factor: Option<f64>,
    pub(crate) reject_batch: bool,
    pub(crate) reject_standard: bool,
    pub(crate) allow_only_priority: Option<Priority>,
}

impl Config {
    pub(crate) fn user_by_id(&self, id: &str) -> Option<UserId> {
        self.users_by_id.get(id).copied()
    }

    pub(crate) fn project_by_id(&self, id: &str) -> Option<ProjectId> {
        position(self.projects.iter().position(|project| project.id == id)).map(ProjectId)
    }

    /// By name or alias.
    pub(crate) fn model_by_name(&self, name: &str) -> Option<ModelId> {
        self.models_by_name.get(name).copied()
    }

    pub(crate) fn user(&self, id: UserId) -> &User {
        &self.users[id.0 as usize]
    }

    pub(crate) fn project(&self, id: ProjectId) -> &Project {
        &self.projects[id.0 as usize]
    }

    pub(crate) fn model(&self, id: ModelId) -> &Model {
        &self.models[id.0 as usize]
    }

    /// What policy needs to know.
    pub(crate) fn rules(&self) -> Rules {
        let plans = self.plans.iter().map(|plan| RateLimit {
            requests_per_minute: Some(plan.requests_per_minute),
        });
        Rules {
            global: self.global,
            plans: plans.collect(),
        }
    }

    /// The level that a queue so full (0 to 1) stands at.
    pub(crate) fn level_at(&self, queue_usage_ratio: f64) -> Option<&Level> {
        self.levels
            .iter()
            .rev()
            .find(|level| queue_usage_ratio >= level.threshold)
    }
}

/// An index as it is kept in ids.
pub(super) fn position(index: Option<usize>) -> Option<u32> {
    index.and_then(|index| u32::try_from(index).ok())
}
