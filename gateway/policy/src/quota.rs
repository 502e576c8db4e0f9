//! The units and windows of quotas and budgets.

use crate::NanoEuro;
use std::ops::{Index, IndexMut};

/// The window of a quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QuotaWindow {
    /// A day, UTC.
    Day,
    /// A calendar month, UTC.
    Month,
}

impl QuotaWindow {
    /// Both.
    pub const ALL: [QuotaWindow; 2] = [QuotaWindow::Day, QuotaWindow::Month];

    /// The name in messages and metrics.
    pub fn name(self) -> &'static str {
        match self {
            QuotaWindow::Day => "day",
            QuotaWindow::Month => "month",
        }
    }
}

/// The unit of a quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QuotaUnit {
    /// Tokens of prompts and answers.
    Tokens,
    /// Requests.
    Requests,
    /// Money, in nano-euros.
    Cost,
}

impl QuotaUnit {
    /// All of them.
    pub const ALL: [QuotaUnit; 3] = [QuotaUnit::Tokens, QuotaUnit::Requests, QuotaUnit::Cost];

    /// The name of a limit of this unit.
    pub(crate) fn limit_name(self) -> &'static str {
        match self {
            QuotaUnit::Tokens | QuotaUnit::Requests => "quota",
            QuotaUnit::Cost => "budget",
        }
    }

    /// The used amount in words, such as `has used €40.12 of its budget of €50.00 this month`.
    pub fn used(self, window: QuotaWindow, used: u64, limit: u64) -> String {
        let window = match window {
            QuotaWindow::Day => "today",
            QuotaWindow::Month => "this month",
        };
        match self {
            QuotaUnit::Cost => {
                let (used, limit) = (NanoEuro(used), NanoEuro(limit));
                format!("has used {used} of its budget of {limit} {window}")
            }
            QuotaUnit::Tokens => format!("has used {used} of its {limit} tokens {window}"),
            QuotaUnit::Requests => format!("has used {used} of its {limit} requests {window}"),
        }
    }
}

/// An amount of each unit. Sums saturate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Amounts([u64; 3]);

impl Amounts {
    pub(crate) fn new(tokens: u64, requests: u64, cost: u64) -> Self {
        Self([tokens, requests, cost])
    }

    pub(crate) fn plus(self, more: Self) -> Self {
        self.zip(more, u64::saturating_add)
    }

    pub(crate) fn minus(self, less: Self) -> Self {
        self.zip(less, u64::saturating_sub)
    }

    /// The larger of each.
    pub(crate) fn max(self, other: Self) -> Self {
        self.zip(other, u64::max)
    }

    fn zip(self, other: Self, combine: impl Fn(u64, u64) -> u64) -> Self {
        Self(std::array::from_fn(|at| combine(self.0[at], other.0[at])))
    }
}

/// A sum of the amounts that are reserved at one time. It is exact: what one reservation adds, its end takes back, however
/// large others are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Reserved([u128; 3]);

impl Reserved {
    pub(crate) fn plus(self, more: Amounts) -> Self {
        Self(std::array::from_fn(|at| self.0[at] + u128::from(more.0[at])))
    }

    pub(crate) fn minus(self, less: Amounts) -> Self {
        Self(std::array::from_fn(|at| {
            self.0[at].saturating_sub(u128::from(less.0[at]))
        }))
    }

    /// The sum of a unit, at most the largest number.
    pub(crate) fn get(self, unit: QuotaUnit) -> u64 {
        u64::try_from(self.0[unit as usize]).unwrap_or(u64::MAX)
    }
}

impl Index<QuotaUnit> for Amounts {
    type Output = u64;

    fn index(&self, unit: QuotaUnit) -> &u64 {
        &self.0[unit as usize]
    }
}

impl IndexMut<QuotaUnit> for Amounts {
    fn index_mut(&mut self, unit: QuotaUnit) -> &mut u64 {
        &mut self.0[unit as usize]
    }
}
