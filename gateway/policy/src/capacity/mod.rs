//! The limits of a model's concurrent requests and tokens in flight: fixed numbers, or adaptive ones.
//!
//! An LLM server that has more than it can batch keeps the rest in a queue of its own, where it cannot be reordered, bounded
//! or canceled. So the limit is kept where the server is busy and its own queue is nearly empty; waiting then happens
//! here, where it is ordered. [`auto`] finds the limit, [`memory`] the tokens that the server's KV cache has room for.

mod auto;
mod memory;
mod signals;

use crate::{Concurrency, ModelRules, Time, TokenLimit};
use auto::AutoLimit;
use memory::Memory;
use signals::Answer;
use std::time::Duration;

/// The timing of one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pace {
    /// From sending the request to the upstream to the first token of its answer.
    pub first_token: Option<Duration>,
    /// Mean time between two tokens.
    pub gap: Option<Duration>,
    /// True if the upstream refused with 429 or 503.
    pub is_overloaded: bool,
}

/// The load that a model's servers report of themselves, summed over those that are healthy: vLLM's
/// `num_requests_running`, `num_requests_waiting` and `kv_cache_usage_perc`, and the same of other servers.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ServerLoad {
    /// Requests in their batches.
    pub running: usize,
    /// Requests in their own queues.
    pub waiting: usize,
    /// The part of the KV cache in use, 0 to 1, at the server where it is highest; `None` where none reports it.
    pub kv_used: Option<f64>,
}

impl ServerLoad {
    /// The part of the servers' requests that waits.
    #[allow(clippy::cast_precision_loss)]
    fn waiting_part(&self) -> f64 {
        self.waiting as f64 / (self.waiting as f64 + self.running as f64).max(1.0)
    }
}

/// The occupation of a model by one request, from its start to its end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Occupation {
    /// The time at which it was sent.
    pub(crate) sent: Time,
    /// The tokens that [`Capacity::start`] counted for it.
    pub(crate) tokens: u64,
    /// The uncached tokens of its prompt.
    pub(crate) uncached: u64,
    /// The tokens of its answer.
    pub(crate) output: u64,
    /// True if the answer was complete.
    pub(crate) has_completed: bool,
}

/// A model's limits, and what runs on it.
#[derive(Debug)]
pub(crate) struct Capacity {
    concurrency: Concurrency,
    max_tokens: TokenLimit,
    running: usize,
    /// Tokens in flight: uncached prompts, and the usual length of their answers.
    tokens: u64,
    auto: AutoLimit,
    memory: Memory,
}

impl Capacity {
    pub(crate) fn new(rules: &ModelRules) -> Self {
        Self {
            concurrency: rules.concurrency,
            max_tokens: rules.max_concurrent_tokens,
            running: 0,
            tokens: 0,
            auto: AutoLimit::default(),
            memory: Memory::default(),
        }
    }

    /// Applies changed settings; what `auto` has found stays.
    pub(crate) fn reconfigure(&mut self, rules: &ModelRules) {
        (self.concurrency, self.max_tokens) = (rules.concurrency, rules.max_concurrent_tokens);
    }

    /// Requests that run on the model.
    pub(crate) fn running(&self) -> usize {
        self.running
    }

    /// Tokens in flight.
    pub(crate) fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Requests that may run on the model at once.
    pub(crate) fn limit(&self) -> usize {
        match self.concurrency {
            Concurrency::Unlimited => usize::MAX,
            Concurrency::Fixed(limit) => limit,
            Concurrency::Auto(most) => self.auto.limit().clamp(1, most.max(1)),
        }
    }

    /// Tokens that may be in flight at once.
    pub(crate) fn token_limit(&self, now: Time) -> Option<u64> {
        match (self.max_tokens, self.concurrency) {
            (TokenLimit::Fixed(limit), _) => Some(limit),
            (TokenLimit::Auto, _) | (TokenLimit::Default, Concurrency::Auto(_)) => self.memory.token_limit(now),
            (TokenLimit::Default, Concurrency::Fixed(_) | Concurrency::Unlimited) => None,
        }
    }

    /// Returns whether one more request may run.
    pub(crate) fn has_slot(&self) -> bool {
        self.running < self.limit()
    }

    /// Returns whether a request's tokens fit. A request that is larger than the limit fits alone.
    pub(crate) fn has_tokens(&self, tokens: u64, now: Time) -> bool {
        self.running == 0
            || self
                .token_limit(now)
                .is_none_or(|limit| self.tokens.saturating_add(tokens) <= limit)
    }

    /// Counts a request that is sent.
    pub(crate) fn start(&mut self, tokens: u64) {
        self.running += 1;
        self.tokens = self.tokens.saturating_add(tokens);
    }

    /// Counts a request that has ended, and learns from the timing of its answer.
    pub(crate) fn finish(&mut self, ended: &Occupation, pace: &Pace, now: Time) {
        let is_full = !self.has_slot();
        self.running = self.running.saturating_sub(1);
        self.tokens = self.tokens.saturating_sub(ended.tokens);
        let Concurrency::Auto(most) = self.concurrency else {
            return;
        };
        self.auto.set_most(most);
        if pace.is_overloaded {
            self.auto.back_off(ended.sent, now);
        } else if ended.has_completed {
            self.auto.learn(&Answer::new(ended, pace, now), is_full, now);
        }
    }

    /// Learns from the load that the model's servers report.
    pub(crate) fn observe(&mut self, load: &ServerLoad, now: Time) {
        self.memory.observe(load, self.tokens, now);
        if let Concurrency::Auto(most) = self.concurrency {
            self.auto.set_most(most);
            self.auto.observe(load, self.running, now);
        }
    }
}

#[cfg(test)]
mod tests;
