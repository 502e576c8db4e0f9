//! The configuration, as policy needs it. Built by the gateway from a configuration that has been checked; policy never
//! checks again.

mod degradation;
mod models;
mod scheduling;
mod subjects;
mod tokens;

pub use degradation::{Degradation, Level, LevelActions};
pub use models::{Concurrency, ModelRules, Prices, TokenLimit};
pub use scheduling::{GlobalLimits, Order, Scheduling, UserOrder};
pub use subjects::{Allowance, AllowanceActions, Caps, ProjectRules, Rates, SubjectRules};
pub use tokens::TokenWeights;

use crate::{AdmissionRequest, Estimate, KeyId, ModelId, PlanId, ProjectId, Subject, UserId};
use std::collections::HashMap;

/// Everything that policy needs to know of the configuration. Lists are indexed by the ids; an id beyond
/// a list's end has no limits of its own.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// Limits over all requests.
    pub global: GlobalLimits,
    /// The order of the queue.
    pub scheduling: Scheduling,
    /// The levels of degradation; empty: there is none.
    pub degradation: Degradation,
    /// Rate limits of each project on a plan.
    pub plans: Vec<Rates>,
    /// Limits of projects.
    pub projects: Vec<ProjectRules>,
    /// Limits of users.
    pub users: Vec<SubjectRules>,
    /// Keys that have limits of their own.
    pub keys: HashMap<KeyId, SubjectRules>,
    /// Limits and prices of models.
    pub models: Vec<ModelRules>,
    /// Weights of tokens in rate limits and in fairness.
    pub token_weights: TokenWeights,
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
