//! Who is next: between bands by weight, between the projects of a band, between a project's users, and
//! then first in, first out.
//!
//! What is shared is work, not requests: one request can be a thousand times another. Each band, project
//! and user carries a counter of what it has been served, and whoever has the smallest goes first. This is
//! the virtual token counter of Sheng et al., "Fairness in Serving Large Language Models" (OSDI 2024): an
//! uncached input token counts 1, a cached one a tenth, an output token 2 ([`TokenWeights`]). A request is
//! charged when it starts with what such requests usually use, and corrected when its actual usage is known.
//!
//! Nobody can save up: whoever begins to wait is lifted to the counter of whoever was served last, so that
//! an hour of silence, or of work at a quiet time, buys no right to the next hour.
//!
//! Counters are kept a band; what waits is listed a model, so that a full model holds back nobody else.

use crate::tickets::List;
use crate::{ModelId, Order, ProjectId, QueueClass, Rules, Time, TokenWeights, UserId};
use std::collections::BTreeSet;
use std::time::Duration;

/// The most work that one request counts as, in thousandths of an uncached input token: a billion tokens. An absurd
/// usage figure cannot carry a counter to its end, where everyone would have the same.
const MAX_WORK: u64 = 1_000_000_000_000;

/// Counters of bands are scaled, so that dividing by a weight loses nothing that matters.
const SCALE: u64 = 64;

/// The tokens that make up a request's work.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tokens {
    /// Tokens of the prompt that the server computes.
    pub(crate) uncached: u64,
    /// Tokens of the prompt that it has in its cache.
    pub(crate) cached: u64,
    /// Tokens of the answers.
    pub(crate) output: u64,
}

impl Tokens {
    /// The tokens of a prompt, of which so many are cached, and of its answers.
    pub(crate) fn new(input: u64, cached: u64, output: u64) -> Self {
        let cached = cached.min(input);
        Self {
            uncached: input - cached,
            cached,
            output,
        }
    }

    /// The work, in thousandths of an uncached input token, at least 1.
    pub(crate) fn work(self, weights: TokenWeights) -> u64 {
        let weighed = |tokens: u64, weight: u32| tokens.saturating_mul(weight.into());
        weighed(self.uncached, TokenWeights::UNCACHED_INPUT)
            .saturating_add(weighed(self.cached, weights.cached_input))
            .saturating_add(weighed(self.output, weights.output))
            .clamp(1, MAX_WORK)
    }

    /// The tokens that the request occupies at its server while it runs.
    pub(crate) fn in_flight(self) -> u64 {
        self.uncached.saturating_add(self.output).min(u32::MAX.into())
    }
}

/// The amounts that a request is charged to those who share.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Charge {
    pub(crate) band: u64,
    pub(crate) project: u64,
    pub(crate) user: u64,
}

impl Charge {
    /// The charge for some work, in a class of this weight. The throttled are charged double, which halves their share.
    pub(crate) fn new(work: u64, weight: u64, throttled: Throttled) -> Self {
        let doubled = |is_throttled| work.saturating_mul(1 + u64::from(is_throttled));
        Self {
            band: work.saturating_mul(SCALE) / weight.max(1),
            project: doubled(throttled.project),
            user: doubled(throttled.user),
        }
    }
}

/// Which of a request's project and user are throttled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Throttled {
    pub(crate) project: bool,
    pub(crate) user: bool,
}

/// What a band, a project or a user has been served.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Served(pub(crate) u64);

impl Served {
    /// Whoever begins to wait gets no credit for the time before.
    pub(crate) fn lift(&mut self, to: u64) {
        self.0 = self.0.max(to);
    }

    pub(crate) fn charge(&mut self, work: u64) {
        self.0 = self.0.saturating_add(work);
    }

    /// Replaces what was charged by the actual.
    pub(crate) fn correct(&mut self, charged: u64, actual: u64) {
        self.0 = self.0.saturating_sub(charged).saturating_add(actual);
    }
}

/// Who waits for a model in one class.
#[derive(Debug, Default)]
pub(crate) struct ClassQueue {
    /// Projects that could run, by what orders them.
    pub(crate) projects: BTreeSet<(u64, ProjectId)>,
    /// The counter of whoever was served last.
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
    pub(crate) class: QueueClass,
    pub(crate) users: BTreeSet<(u64, UserId)>,
    pub(crate) reached: u64,
    /// Under what the project is listed in the model's class, if it is.
    pub(crate) listed: Option<u64>,
    /// All of its requests by age.
    pub(crate) by_age: List,
    /// What it adds to the pressure on its model.
    pub(crate) held_back: HeldBack,
}

/// A user's requests for one model in one class, first in, first out.
#[derive(Debug)]
pub(crate) struct Queue {
    pub(crate) model: ModelId,
    pub(crate) class: QueueClass,
    pub(crate) list: List,
    /// Under what the user is listed in the project's flow, if it is.
    pub(crate) listed: Option<u64>,
}

/// What orders users in a flow: what each was served, or, first in first out, its oldest request.
pub(crate) fn user_key(order: Order, served: Served, oldest: u64) -> u64 {
    match order {
        Order::Fifo => oldest,
        Order::Weighted | Order::Strict => served.0,
    }
}

/// What orders projects in a class; `first_user` is the key of its first user.
pub(crate) fn project_key(order: Order, served: Served, first_user: u64) -> u64 {
    match order {
        Order::Fifo => first_user,
        Order::Weighted | Order::Strict => served.0,
    }
}
