//! Limits of plans, projects, users and keys.

use crate::{NanoEuro, QuotaUnit, QuotaWindow};
use std::num::NonZeroU64;

/// Rate limits, in a minute and in a day.
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

/// The amounts that a project, a user or a key may use in a day or in a calendar month (UTC).
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
    /// Returns whether anything is limited.
    pub(crate) fn has_limits(&self) -> bool {
        self.day != Caps::default() || self.month != Caps::default()
    }

    /// The limits of a window.
    pub fn caps(&self, window: QuotaWindow) -> &Caps {
        match window {
            QuotaWindow::Day => &self.day,
            QuotaWindow::Month => &self.month,
        }
    }
}

/// Quota and budget of one subject, and the actions near their ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Allowance {
    /// A day's.
    pub day: Caps,
    /// A month's.
    pub month: Caps,
    /// The actions, and the shares from which on they are taken.
    pub actions: AllowanceActions,
}

/// Shares of an allowance, in thousandths, at which an action is taken; `None`: never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AllowanceActions {
    /// Operators are alerted, once a window.
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
    /// Rate limits.
    pub rates: Rates,
    /// Quota and budget.
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
