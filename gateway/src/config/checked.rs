//! The configuration as it is meant: references are indices that exist, numbers are in range. Built
//! once, and never checked again.

use super::raw;
use super::report::Problem;
use ledger::files::FileBounds;
use policy::{
    Allowance, BreakerRules, Class, Concurrency, Degradation, GlobalLimits, KeyId, ModelId, ModelRules, Objectives,
    PlanId, Prices, Priority, ProjectId, ProjectRules, Rates, Rules, Scheduling, SubjectRules, TokenLimit,
    TokenWeights, UserId,
};
use protocol::catalogue::Entry;
use protocol::passthrough::Pattern;
use protocol::translate::NativeApis;
use protocol::unsupported::Unsupported;
use protocol::{MediaTokens, Tokenizer};
use serde_json::Value;
use simulated_upstream::Timing;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The whole configuration.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) users: Vec<User>,
    pub(crate) projects: Vec<Project>,
    pub(crate) plans: Vec<Plan>,
    pub(crate) models: Vec<Model>,
    pub(crate) degradation: Degradation,
    pub(crate) scheduling: Scheduling,
    pub(crate) token_weights: TokenWeights,
    pub(crate) global: GlobalLimits,
    /// By the key's id.
    pub(crate) keys: HashMap<String, SubjectRules>,
    pub(crate) request_timeout: Duration,
    pub(crate) gateway: Gateway,
    /// Entries that stand for whatever models their servers offer.
    pub(crate) discoveries: Vec<Discovery>,
    /// As the files have it, by file and key.
    pub(crate) written: Value,
    /// What it may say, and hardly means.
    pub(crate) warnings: Vec<Problem>,
    pub(super) users_by_id: HashMap<String, UserId>,
    pub(super) models_by_name: HashMap<String, ModelId>,
}

/// The gateway's own settings.
#[derive(Debug, Clone)]
pub(crate) struct Gateway {
    /// Read once, at the start; a reload keeps those in force.
    pub(crate) startup: Startup,
    pub(crate) identity: Identity,
    /// The provider whose tokens are accepted in the place of API keys.
    pub(crate) jwt: Option<Jwt>,
    pub(crate) oidc: Option<Oidc>,
    pub(crate) simulated: bool,
    pub(crate) max_body_bytes: usize,
    pub(crate) max_response_bytes: usize,
    pub(crate) max_buffered_bytes: usize,
    pub(crate) connections: ConnectionBounds,
    /// Of one client address, and of each kind.
    pub(crate) wrong_credentials_per_minute: u32,
    /// Of each project.
    pub(crate) files: FileBounds,
    pub(crate) max_unfinished_batches: usize,
    pub(crate) max_ended_batches: i64,
    /// Settings of stored responses; `None`: none are stored.
    pub(crate) stored_responses: Option<StoredResponses>,
    /// Retention of files and ended batches; `None`: until they are deleted.
    pub(crate) files_keep: Option<Duration>,
    pub(crate) head_timeout: Duration,
    pub(crate) body_timeout: Duration,
    pub(crate) keepalive: Duration,
    /// The interval and the timeout of health checks; `None`: none are made.
    pub(crate) probes: Option<(Duration, Duration)>,
    pub(crate) breaker: BreakerRules,
    /// Servers that one request is sent to, at most.
    pub(crate) attempts: usize,
    pub(crate) retry_share: f64,
    /// True if every request has a line in the log.
    pub(crate) log_requests: bool,
    /// Origins of web pages that may call; `*` for any.
    pub(crate) cors_origins: Vec<String>,
    /// Host names by which the admin listener may be called on loopback.
    pub(crate) admin_hosts: Vec<String>,
    /// The version that `GET /api/version` answers.
    pub(crate) ollama_version: String,
}

/// Bounds on client connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConnectionBounds {
    pub(crate) total: usize,
    pub(crate) per_address: usize,
    /// File descriptors that clients may not take.
    pub(crate) reserved_descriptors: usize,
    /// Control frames of HTTP/2 that a connection may be ahead of its requests and answers.
    pub(crate) control_frames: u32,
}

/// Settings of stored responses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StoredResponses {
    pub(crate) keep: Duration,
    /// Of a project.
    pub(crate) max_bytes: i64,
    /// Of a conversation.
    pub(crate) max_turns: i64,
}

/// Settings that take effect on restart.
#[derive(Debug, Clone)]
pub(crate) struct Startup {
    pub(crate) listen: SocketAddr,
    pub(crate) admin_listen: SocketAddr,
    pub(crate) data_dir: PathBuf,
    pub(crate) database_url: String,
    pub(crate) cluster_url: Option<String>,
    pub(crate) retention: Option<Duration>,
    pub(crate) metrics_need_token: bool,
    pub(crate) ledger_backlog: usize,
    /// Durability of an acknowledged record.
    pub(crate) ledger_durability: ledger::Durability,
    pub(crate) drain: Duration,
    pub(crate) tls: Option<Tls>,
    pub(crate) telemetry: Telemetry,
}

/// Logs and traces.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Telemetry {
    /// True if the log is written as JSON, an object a line.
    pub(crate) is_json: bool,
    /// The root of a collector; without one, nothing is traced.
    pub(crate) otlp_endpoint: Option<String>,
    /// 0 to 1.
    pub(crate) sample_ratio: f64,
    pub(crate) service_name: String,
}

/// Files of the proxy listener's TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tls {
    pub(crate) cert_file: String,
    pub(crate) key_file: String,
    pub(crate) client_ca_file: Option<String>,
}

/// An entry that stands for whatever models its servers offer.
#[derive(Debug, Clone)]
pub(crate) struct Discovery {
    pub(crate) name: String,
    pub(crate) backend: Backend,
    pub(crate) endpoints: Vec<Endpoint>,
}

/// An OpenID Connect provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Jwt {
    pub(crate) issuer: String,
    /// A token must have one of them.
    pub(crate) audience: Vec<String>,
    /// `None`: by discovery.
    pub(crate) jwks_url: Option<String>,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) user_claim: String,
    pub(crate) groups_claim: String,
    pub(crate) groups: Vec<JwtGroup>,
}

/// The user that stands for a group of the provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JwtGroup {
    pub(crate) group: String,
    pub(crate) user: UserId,
}

/// The provider at which people log in to the console.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Oidc {
    /// How its ID tokens are checked.
    pub(crate) tokens: Jwt,
    pub(crate) client_id: String,
    pub(crate) client_secret_env: Option<String>,
    /// `None`: by the name that a browser uses.
    pub(crate) redirect_url: Option<String>,
    pub(crate) scopes: Vec<String>,
    /// In the order in which they count.
    pub(crate) roles: Vec<(String, Role)>,
}

/// What somebody may see and do in the console.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Role {
    /// Sees everything.
    Viewer,
    /// Sees and does everything.
    Operator,
    /// Sees and does what concerns this project alone.
    ProjectOwner(String),
}

/// Identification of callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Identity {
    /// By what they say; an unnamed one is this user.
    Open { default_user: Option<UserId> },
    /// By API key alone.
    Keys,
}

impl Identity {
    /// The same, with another number for the default user.
    pub(crate) fn with_default(self, number: impl Fn(UserId) -> UserId) -> Self {
        match self {
            Identity::Open { default_user } => Identity::Open {
                default_user: default_user.map(number),
            },
            Identity::Keys => Identity::Keys,
        }
    }
}

/// A user: sends requests, on the account of a project.
#[derive(Debug, Clone)]
pub(crate) struct User {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) project: ProjectId,
    pub(crate) class: Class,
    pub(crate) role: &'static str,
    pub(crate) enabled: bool,
    /// It was configured once, and requests of then may still run.
    pub(crate) is_removed: bool,
    pub(crate) limits: SubjectRules,
}

/// A project: owns the limits, budgets and priority of its users' requests.
#[derive(Debug, Clone)]
pub(crate) struct Project {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) plan: PlanId,
    pub(crate) priority: Priority,
    pub(crate) enabled: bool,
    /// It was configured once, and requests of then may still run.
    pub(crate) is_removed: bool,
    pub(crate) limits: SubjectRules,
    pub(crate) max_concurrent_requests: Option<usize>,
    /// How soon the answers to its interactive requests are wanted.
    pub(crate) objectives: Objectives,
}

/// A plan: the request types and limits of its projects.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) id: String,
    pub(crate) rates: Rates,
}

/// A model and its servers.
#[derive(Debug, Clone)]
pub(crate) struct Model {
    pub(crate) name: String,
    pub(crate) backend: Backend,
    pub(crate) enabled: bool,
    /// It was configured once, and requests of then may still run.
    pub(crate) is_removed: bool,
    /// Informative.
    pub(crate) priority: Priority,
    /// The name at the upstream, where it is another.
    pub(crate) upstream_name: Option<String>,
    pub(crate) max_input_tokens: u64,
    pub(crate) max_output_tokens: u64,
    /// Other names that clients may use.
    pub(crate) aliases: Vec<String>,
    /// Treatment of hints that the servers' protocol cannot express.
    pub(crate) unsupported: Unsupported,
    /// Family of its tokenizer.
    pub(crate) tokenizer: Tokenizer,
    /// Tokens of a picture; by the model's family if not set.
    pub(crate) image_tokens: Option<u64>,
    /// Tokens of a second of audio; by the model's family if not set.
    pub(crate) audio_tokens_per_second: Option<u64>,
    pub(crate) prices: Prices,
    /// Other paths of its servers that clients may use.
    pub(crate) passthrough: Vec<Pattern>,
    pub(crate) rates: Rates,
    pub(crate) concurrency: Concurrency,
    pub(crate) max_concurrent_tokens: TokenLimit,
    /// Where requests go when something has to give way.
    pub(crate) smaller: Option<ModelId>,
    /// Timing of the simulated upstream.
    pub(crate) timing: Timing,
    pub(crate) endpoints: Vec<Endpoint>,
    /// The APIs of its servers.
    pub(crate) native_apis: NativeApis,
    /// Models asked in this order while its own servers do not answer.
    pub(crate) fallbacks: Vec<ModelId>,
    pub(crate) deadlines: Deadlines,
}

/// The type of a model's servers.
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
    pub(crate) tls: Option<EndpointTls>,
}

/// TLS to a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EndpointTls {
    /// The name in its certificate.
    pub(crate) server_name: String,
    /// The authority that signs its certificate; `None`: those that the system trusts.
    pub(crate) ca_file: Option<String>,
}

/// Time limits of the parts of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadlines {
    pub(crate) connect: Duration,
    pub(crate) first_token: Duration,
    /// Beside it, where the model may have to be loaded first.
    pub(crate) load: Duration,
    pub(crate) gap: Duration,
    pub(crate) total: Duration,
}

impl Model {
    /// The pattern that opens a path of its servers, which is clean and decoded.
    pub(crate) fn opening(&self, path: &str) -> Option<&Pattern> {
        self.passthrough.iter().find(|pattern| pattern.opens(path))
    }

    /// Its tokens for what is not text.
    pub(crate) fn media_tokens(&self) -> MediaTokens {
        MediaTokens::of_model(&self.name, self.image_tokens, self.audio_tokens_per_second)
    }

    /// The model as clients see it.
    pub(crate) fn entry(&self) -> Entry<'_> {
        Entry {
            name: &self.name,
            owner: self.backend.word(),
            max_input_tokens: self.max_input_tokens,
        }
    }

    /// The same under its name and each of its aliases.
    pub(crate) fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        let aliases = self.aliases.iter().map(|alias| Entry {
            name: alias,
            ..self.entry()
        });
        std::iter::once(self.entry()).chain(aliases)
    }
}

impl Config {
    pub(crate) fn user_by_id(&self, id: &str) -> Option<UserId> {
        self.users_by_id.get(id).copied()
    }

    pub(crate) fn project_by_id(&self, id: &str) -> Option<ProjectId> {
        position(
            self.projects
                .iter()
                .position(|project| project.id == id && !project.is_removed),
        )
        .map(ProjectId)
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

    /// The rules of policy. `numbers` are those of the keys that have limits of their own.
    pub(crate) fn rules(&self, numbers: &HashMap<String, KeyId>) -> Rules {
        let fallbacks: Vec<ModelId> = self.models.iter().filter_map(|model| model.smaller).collect();
        let models = self.models.iter().zip(0..).map(|(model, at)| ModelRules {
            rates: model.rates,
            concurrency: model.concurrency,
            max_concurrent_tokens: model.max_concurrent_tokens,
            prices: model.prices,
            max_input_tokens: model.max_input_tokens,
            max_output_tokens: model.max_output_tokens,
            is_fallback: fallbacks.contains(&ModelId(at)),
        });
        let projects = self.projects.iter().map(|project| ProjectRules {
            limits: project.limits,
            max_concurrent_requests: project.max_concurrent_requests,
        });
        let keys = self
            .keys
            .iter()
            .filter_map(|(id, limits)| Some((*numbers.get(id)?, *limits)));
        Rules {
            global: self.global,
            scheduling: self.scheduling,
            degradation: self.degradation.clone(),
            plans: self.plans.iter().map(|plan| plan.rates).collect(),
            projects: projects.collect(),
            users: self.users.iter().map(|user| user.limits).collect(),
            keys: keys.collect(),
            models: models.collect(),
            token_weights: self.token_weights,
        }
    }

    /// Every model's prices, as they are kept with the ledger.
    pub(crate) fn price_list(&self) -> String {
        let models = self.models.iter().map(|model| {
            let prices = &model.prices;
            let list = serde_json::json!({
                "input_nano_eur_per_1k": prices.input.0,
                "cached_input_nano_eur_per_1k": prices.cached_input.0,
                "output_nano_eur_per_1k": prices.output.0,
                "audio_nano_eur_per_minute": prices.audio_minute.0,
                "nano_eur_per_image": prices.image.0,
                "nano_eur_per_passthrough_request": prices.passthrough_request.0,
            });
            (model.name.clone(), list)
        });
        serde_json::Value::Object(models.collect()).to_string()
    }

    /// The name of a degradation level.
    pub(crate) fn level_name(&self, number: u32) -> &str {
        let level = self.degradation.levels.iter().find(|level| level.number == number);
        level.map_or("normal", |level| &level.name)
    }

    /// The actions of a degradation level, named as in `degradation.yaml`.
    pub(crate) fn level_actions(&self, number: u32) -> Vec<String> {
        let Some(level) = self.degradation.levels.iter().find(|level| level.number == number) else {
            return Vec::new();
        };
        let actions = &level.actions;
        let only = actions.allow_only_priority.map(Priority::name);
        let named = [
            actions
                .max_tokens_factor
                .map(|factor| format!("reduce_max_tokens: {factor}")),
            actions
                .route_to_smaller_model
                .then(|| "route_to_smaller_model".to_owned()),
            actions.pause_batch.then(|| "pause_batch".to_owned()),
            actions.reject_batch.then(|| "reject_batch".to_owned()),
            actions.reject_standard.then(|| "reject_standard".to_owned()),
            only.map(|priority| format!("allow_only_priority: {priority}")),
            actions.emergency.then(|| "emergency".to_owned()),
        ];
        named.into_iter().flatten().collect()
    }
}

/// Returns whether an allowance limits anything.
pub(crate) fn limits_anything(allowance: &Allowance) -> bool {
    [allowance.day, allowance.month] != [policy::Caps::default(); 2]
}

/// An index as it is kept in ids.
pub(super) fn position(index: Option<usize>) -> Option<u32> {
    index.and_then(|index| u32::try_from(index).ok())
}
