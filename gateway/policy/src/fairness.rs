//! The order of the queue: between bands by weight, between the projects of a band, between a project's users,
//! between a user's sessions, and then by predicted work and age.
//!
//! Work is shared, not requests: one request can be a thousand times another. Each band, project
//! and user carries a counter of the work that it has been served, and the smallest goes first. This is
//! the virtual token counter of Sheng et al., "Fairness in Serving Large Language Models" (OSDI 2024): an
//! uncached input token counts 1, a cached one a tenth, an output token 2 ([`TokenWeights`](crate::TokenWeights)). A request is
//! charged when it starts with what such requests usually use, and corrected when its actual usage is known.
//!
//! Credit is not saved up: a flow that begins to wait is lifted to the counter that was served last, so that
//! an hour of silence, or of work at a quiet time, buys no right to the next hour.
//!
//! Counters are kept a band; what waits is listed a model, so that a full model holds back no other.

use crate::served::Served;
use crate::sessions::Sessions;
use crate::tickets::List;
use crate::{ModelId, Order, ProjectId, Rules, Time, UserId};
use std::collections::BTreeSet;
use std::time::Duration;

/// The requests that wait for a model in one class.
#[derive(Debug, Default)]
pub(crate) struct ClassQueue {
    /// Projects that could run, by what orders them.
    pub(crate) projects: BTreeSet<(u64, ProjectId)>,
    /// The counter of the project that was served last.
    pub(crate) reached: u64,
    /// Waiting requests of projects that could run.
    pub(crate) held_back: usize,
    /// Those projects, by since when their oldest request is held back by shared capacity alone.
    pub(crate) oldest: BTreeSet<(Time, ProjectId)>,
}

/// The waiting requests of a flow, or of several, that shared capacity holds back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct HeldBack {
    /// Their number.
    pub(crate) waiting: usize,
    /// Since when shared capacity alone holds back the oldest.
    pub(crate) since: Option<Time>,
}

impl HeldBack {
    pub(crate) fn add(&mut self, other: Self) {
        self.waiting += other.waiting;
        self.since = match (self.since, other.since) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
    }

    /// The pressure, 0 to 1: the worse of the queue's fill and of the oldest wait against the longest.
    #[allow(clippy::cast_precision_loss)]
    pub(crate) fn pressure(self, rules: &Rules, now: Time) -> f64 {
        let global = &rules.global;
        let ratio = |part: f64, whole: f64| if whole > 0.0 { (part / whole).min(1.0) } else { 0.0 };
        let age = self.since.map_or(Duration::ZERO, |since| now - since);
        let wait = ratio(age.as_secs_f64(), global.max_queue_wait.as_secs_f64());
        wait.max(ratio(self.waiting as f64, global.max_queue_size as f64))
    }
}

/// A project's requests for one model in one class.
#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) model: ModelId,
    pub(crate) users: BTreeSet<(u64, UserId)>,
    pub(crate) reached: u64,
    /// Under what the project is listed in the model's class, if it is.
    pub(crate) listed: Option<u64>,
    /// All of its requests by age.
    pub(crate) by_age: List,
    /// Its contribution to the pressure on its model.
    pub(crate) held_back: HeldBack,
}

/// A user's requests for one model in one class.
#[derive(Debug)]
pub(crate) struct Queue {
    pub(crate) model: ModelId,
    /// All of them by age.
    pub(crate) list: List,
    /// All of them in the order in which they are served.
    pub(crate) sessions: Sessions,
    /// Under what the user is listed in the project's flow, if it is.
    pub(crate) listed: Option<u64>,
}

/// The sort key of a user in a flow: the work served to it, or, first in first out, its first request.
pub(crate) fn user_key(order: Order, served: Served, first: u64) -> u64 {
    match order {
        Order::Fifo => first,
        Order::Weighted | Order::Strict => served.0,
    }
}

/// The sort key of a project in a class; `first_user` is the key of its first user.
pub(crate) fn project_key(order: Order, served: Served, first_user: u64) -> u64 {
    match order {
        Order::Fifo => first_user,
        Order::Weighted | Order::Strict => served.0,
    }
}
