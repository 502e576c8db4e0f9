//! What an operator has configured, as policy needs it. Built by the gateway from a configuration that
//! has been checked; policy never checks again.

use crate::{
    AdmissionRequest, Estimate, KeyId, ModelId, NanoEuro, PlanId, Priority, ProjectId, QueueClass, QuotaUnit,
    QuotaWindow, Subject, Units, Usage, UserId,
};
use std::collections::HashMap;
use std::num::NonZeroU64;
use std::time::Duration;

/// Everything that policy needs to know of the configuration. Lists are indexed by the ids; an id beyond
/// a list's end has no limits of its own.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// Limits over all requests.
    pub global: GlobalLimits,
    /// Who is next when a place becomes free.
    pub scheduling: Scheduling,
    /// What gives way under pressure, from calm to the worst; empty: nothing ever.
    pub degradation: Degradation,
    /// What each project on a plan may send.
    pub plans: Vec<Rates>,
    /// Those who pay.
    pub projects: Vec<ProjectRules>,
    /// Those who ask.
    pub users: Vec<SubjectRules>,
    /// Keys that have limits of their own.
    pub keys: HashMap<KeyId, SubjectRules>,
    /// What answers.
    pub models: Vec<ModelRules>,
    /// What tokens weigh in rate limits and between those who share.
    pub token_weights: TokenWeights,
}

/// The weights of tokens in thousandths of an uncached input token's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenWeights {
    /// An input token that the server had in its cache; in rate limits and between those who share.
    pub cached_input: u32,
    /// An output token; between those who share.
    pub output: u32,
}

impl Default for TokenWeights {
    /// A cached input token counts a tenth, about as providers price it; an output token twice.
    fn default() -> Self {
        Self {
            cached_input: 100,
            output: 2000,
        }
    }
}

impl TokenWeights {
    /// The weight of an uncached input token.
    pub(crate) const UNCACHED_INPUT: u32 = 1000;

    /// The tokens that a prompt counts as, of which so many were in the server's cache.
    pub(crate) fn input_tokens(self, input_tokens: u64, cached: u64) -> u64 {
        let cached = cached.min(input_tokens);
        let weighed = u128::from(cached) * u128::from(self.cached_input) / 1000;
        let weighed = u64::try_from(weighed).unwrap_or(u64::MAX);
        (input_tokens - cached).saturating_add(weighed)
    }

    /// The tokens that a request's usage counts as in rate limits.
    pub(crate) fn rate_tokens(self, usage: &Usage) -> u64 {
        self.input_tokens(usage.input_tokens, usage.cached_input_tokens)
            .saturating_add(usage.output_tokens)
    }
}

/// Limits over all requests together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GlobalLimits {
    /// Requests that may be with the upstreams at once.
    pub max_active_requests: usize,
    /// Requests that may wait for a place.
    pub max_queue_size: usize,
    /// The longest that one may wait.
    pub max_queue_wait: Duration,
}

impl Default for GlobalLimits {
    fn default() -> Self {
        Self {
            max_active_requests: 50,
            max_queue_size: 1000,
            max_queue_wait: Duration::from_secs(30),
        }
    }
}

/// The order of those who wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scheduling {
    /// How the bands share.
    pub order: Order,
    /// Weights of high, normal, low; at least 1. Batch class weighs as low does.
    pub weights: [u32; 3],
    /// Places that only high, or only normal and high, may take.
    pub reserved: [usize; 2],
}

impl Scheduling {
    /// The weight of a class, at least 1.
    pub(crate) fn weight(&self, class: QueueClass) -> u64 {
        let at = (class as usize).min(self.weights.len() - 1);
        u64::from(self.weights[at].max(1))
    }
}

impl Default for Scheduling {
    fn default() -> Self {
        Self {
            order: Order::Weighted,
            weights: [10, 5, 1],
            reserved: [0, 0],
        }
    }
}

/// How the bands share what there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// By weight: no band starves.
    Weighted,
    /// A higher band always first.
    Strict,
    /// First in, first out; no bands, no fairness.
    Fifo,
}

/// What may be sent in a minute and in a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Rates {
    /// Requests a minute.
    pub requests_per_minute: Option<NonZeroU64>,
    /// Tokens a minute.
    pub tokens_per_minute: Option<NonZeroU64>,
    /// Requests a day.
    pub requests_per_day: Option<NonZeroU64>,
    /// Tokens a day.
    pub tokens_per_day: Option<NonZeroU64>,
}

/// What a project, a user or a key may use in a day or in a calendar month (UTC).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Caps {
    /// Tokens of prompts and answers.
    pub tokens: Option<u64>,
    /// Requests.
    pub requests: Option<u64>,
    /// Money.
    pub cost: Option<NanoEuro>,
}

impl Caps {
    /// The limit in a unit, if it is set.
    pub fn get(&self, unit: QuotaUnit) -> Option<u64> {
        match unit {
            QuotaUnit::Tokens => self.tokens,
            QuotaUnit::Requests => self.requests,
            QuotaUnit::Cost => self.cost.map(|cost| cost.0),
        }
    }
}

impl Allowance {
    /// The limits of a window.
    pub fn caps(&self, window: QuotaWindow) -> &Caps {
        match window {
            QuotaWindow::Day => &self.day,
            QuotaWindow::Month => &self.month,
        }
    }
}

/// Quota and budget of one subject, and what happens near their ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Allowance {
    /// A day's.
    pub day: Caps,
    /// A month's.
    pub month: Caps,
    /// From which share on what happens.
    pub actions: AllowanceActions,
}

/// Shares of an allowance, in thousandths, at which something happens; `None`: never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AllowanceActions {
    /// Operators are told, once a window.
    pub alert: Option<u32>,
    /// The project's share of the queue and its concurrency halve.
    pub throttle: Option<u32>,
    /// Requests go to the smaller model, and those for a model without one are refused.
    pub downgrade: Option<u32>,
    /// Requests are refused.
    pub block: Option<u32>,
}

impl Default for AllowanceActions {
    fn default() -> Self {
        Self {
            alert: Some(800),
            throttle: Some(900),
            downgrade: None,
            block: Some(1000),
        }
    }
}

/// Limits of a user or a key, or of a project or a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SubjectRules {
    /// What it may send.
    pub rates: Rates,
    /// What it may use.
    pub allowance: Allowance,
}

/// Limits of a project.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ProjectRules {
    /// Beyond its plan's.
    pub limits: SubjectRules,
    /// Requests that may run at once.
    pub max_concurrent_requests: Option<usize>,
}

/// A model's limits and prices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ModelRules {
    /// What all together may send to it.
    pub rates: Rates,
    /// How many it takes at once.
    pub concurrency: Concurrency,
    /// The most tokens in flight at once: uncached prompts, and the usual length of their answers.
    pub max_concurrent_tokens: TokenLimit,
    /// What it costs.
    pub prices: Prices,
    /// The longest prompt, in tokens; 0: any.
    pub max_input_tokens: u64,
    /// The longest answer, in tokens; 0: any.
    pub max_output_tokens: u64,
    /// Whether other models are routed to it when something gives way.
    pub is_fallback: bool,
}

/// How many requests a model takes at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Concurrency {
    /// As many as come.
    #[default]
    Unlimited,
    /// So many.
    Fixed(usize),
    /// Found out from how fast it answers; never more than so many.
    Auto(usize),
}

/// How many tokens a model may have in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TokenLimit {
    /// Found where its concurrency is found, else any number.
    #[default]
    Default,
    /// So many.
    Fixed(u64),
    /// Found from the KV cache in use that its servers report.
    Auto,
}

/// Prices of a thousand tokens, and of what is not tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Prices {
    /// Of a prompt.
    pub input: NanoEuro,
    /// Of the part of a prompt that the upstream had in its cache.
    pub cached_input: NanoEuro,
    /// Of an answer.
    pub output: NanoEuro,
    /// Of a minute of audio that is read.
    pub audio_minute: NanoEuro,
    /// Of an image that is made.
    pub image: NanoEuro,
    /// Of a request of a pass-through path.
    pub passthrough_request: NanoEuro,
}

impl Prices {
    /// What was used costs so much.
    pub fn of(&self, input_tokens: u64, cached_input_tokens: u64, output_tokens: u64) -> NanoEuro {
        let cached = cached_input_tokens.min(input_tokens);
        self.input.per_1k(input_tokens - cached) + self.cached_input.per_1k(cached) + self.output.per_1k(output_tokens)
    }

    /// The price of what is not tokens.
    pub fn of_units(&self, units: &Units) -> NanoEuro {
        self.audio_minute.share(units.audio_millis, 60_000)
            + self.image.share(units.images, 1)
            + self.passthrough_request.share(units.passthrough_requests, 1)
    }
}

/// The levels of degradation and how they are left again.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Degradation {
    /// From calm to the worst; the first stands for "nothing gives way".
    pub levels: Vec<Level>,
    /// How far pressure must fall below a level's threshold before it is left.
    pub margin: f64,
    /// How long it must stay there.
    pub hold: Duration,
}

/// One level of degradation.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Level {
    /// As in the ledger and `/queue/status`.
    pub name: String,
    /// Its rank.
    pub number: u32,
    /// The pressure, 0 to 1, from which it holds.
    pub threshold: f64,
    /// What gives way.
    pub actions: LevelActions,
}

/// What gives way at a level.
#[allow(clippy::struct_excessive_bools)]
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct LevelActions {
    /// What `max_tokens` is multiplied by, rounded down, at least 1.
    pub max_tokens_factor: Option<f64>,
    /// Requests go to the model's smaller one, where it has one.
    pub route_to_smaller_model: bool,
    /// Batch class waits and is not served.
    pub pause_batch: bool,
    /// Batch class is refused.
    pub reject_batch: bool,
    /// Normal priority is refused.
    pub reject_standard: bool,
    /// Any lower priority is refused.
    pub allow_only_priority: Option<Priority>,
    /// Everything is refused but what has high priority and can run at once.
    pub emergency: bool,
}

impl Rules {
    /// A model's rules; those of no limits where it is not known.
    pub fn model(&self, id: ModelId) -> ModelRules {
        self.models.get(id.index()).copied().unwrap_or_default()
    }

    pub(crate) fn project(&self, id: ProjectId) -> ProjectRules {
        self.projects.get(id.index()).copied().unwrap_or_default()
    }

    pub(crate) fn user(&self, id: UserId) -> SubjectRules {
        self.users.get(id.index()).copied().unwrap_or_default()
    }

    pub(crate) fn key(&self, id: KeyId) -> SubjectRules {
        self.keys.get(&id).copied().unwrap_or_default()
    }

    pub(crate) fn plan(&self, id: PlanId) -> Rates {
        self.plans.get(id.index()).copied().unwrap_or_default()
    }

    /// The rate limits of a subject.
    pub(crate) fn rates(&self, subject: Subject) -> Rates {
        match subject {
            Subject::Plan(plan, _) => self.plan(plan),
            Subject::Project(project) => self.project(project).limits.rates,
            Subject::User(user) => self.user(user).rates,
            Subject::Key(key) => self.key(key).rates,
            Subject::Model(model) => self.model(model).rates,
        }
    }

    /// The quotas and budgets of a subject; a plan and a model have none.
    pub(crate) fn allowance(&self, subject: Subject) -> Allowance {
        match subject {
            Subject::Plan(..) | Subject::Model(_) => Allowance::default(),
            Subject::Project(project) => self.project(project).limits.allowance,
            Subject::User(user) => self.user(user).allowance,
            Subject::Key(key) => self.key(key).allowance,
        }
    }
}

impl AdmissionRequest {
    /// The worst case, at the prices in force.
    pub fn estimate(&self, rules: &Rules) -> Estimate {
        let prices = rules.model(self.model).prices;
        let output_tokens = self
            .max_tokens
            .saturating_mul(self.answers)
            .saturating_add(self.units.output_tokens);
        Estimate {
            input_tokens: self.input_tokens,
            output_tokens,
            cost: prices.of(self.input_tokens, 0, output_tokens) + prices.of_units(&self.units),
        }
    }

    /// The worst case of a prompt of the least size.
    pub(crate) fn least(&self, rules: &Rules) -> Estimate {
        self.certain().estimate(rules)
    }
}
