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

use crate::{AdmissionRequest, Estimate, KeyId, ModelId, NanoEuro, ProjectId, Subject};
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

    /// Returns whether degradation routes requests to a model.
    pub(crate) fn is_fallback(&self, id: ModelId) -> bool {
        self.models.get(id.index()).is_some_and(|model| model.is_fallback)
    }

    /// A model's prices, where it has any.
    pub(crate) fn prices(&self, id: ModelId) -> Option<&Prices> {
        let prices = self.models.get(id.index()).map(|model| &model.prices);
        prices.filter(|prices| **prices != Prices::default())
    }

    /// The requests that a project may run at once, where that is limited.
    pub(crate) fn concurrency(&self, id: ProjectId) -> Option<usize> {
        self.projects.get(id.index())?.max_concurrent_requests
    }

    /// The quotas and budgets of a subject, where it has any.
    pub(crate) fn allowance(&self, subject: Subject) -> Option<&Allowance> {
        let allowance = match subject {
            Subject::Plan(..) | Subject::Model(_) => None,
            Subject::Project(project) => self
                .projects
                .get(project.index())
                .map(|project| &project.limits.allowance),
            Subject::User(user) => self.users.get(user.index()).map(|user| &user.allowance),
            Subject::Key(key) => self.keys.get(&key).map(|key| &key.allowance),
        };
        allowance.filter(|allowance| allowance.has_limits())
    }
}

impl AdmissionRequest {
    /// The worst case, at the prices in force.
    pub fn estimate(&self, rules: &Rules) -> Estimate {
        let output_tokens = self
            .max_tokens
            .saturating_mul(self.answers)
            .saturating_add(self.units.output_tokens);
        Estimate {
            input_tokens: self.input_tokens,
            output_tokens,
            cost: rules.prices(self.model).map_or(NanoEuro(0), |prices| {
                prices.of(self.input_tokens, 0, output_tokens) + prices.of_units(&self.units)
            }),
        }
    }

    /// The worst case of a prompt of the least size.
    pub(crate) fn least(&self, rules: &Rules) -> Estimate {
        self.certain().estimate(rules)
    }
}
