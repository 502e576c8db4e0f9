//! Sluice's decisions, and nothing else: who may pass now, who waits, who is refused and why.
//!
//! Pure by rule: no I/O, no async, no clock of its own. Time comes in as an argument ([`Time`]), so
//! an hour of traffic is simulated in a second. The caller holds one short lock around [`Policy`].
//!
//! The order of the rules is the order of the calls in [`Policy::offer`].

mod admission;
mod ask;
mod cell;
mod decision;
mod limits;
mod time;

pub use admission::{Admission, PermitId, TicketId};
pub use ask::{Ask, Class, Estimate, ModelId, NanoEuro, PlanId, Priority, ProjectId, UserId};
pub use decision::{Decision, Refusal, Standing};
pub use limits::{RateLimit, RateLimits};
pub use time::Time;

use std::time::Duration;

/// What an operator has configured for all requests together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GlobalLimits {
    /// Requests that may be with the upstreams at once.
    pub max_active_requests: usize,
    /// Requests that may wait for a permit.
    pub max_queue_size: usize,
    /// The longest that one may wait.
    pub max_queue_wait: Duration,
}

/// Everything that policy needs to know of the configuration.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Limits over all requests.
    pub global: GlobalLimits,
    /// Requests a minute, by plan; the index is the [`PlanId`].
    pub plans: Vec<RateLimit>,
}

/// The whole state of admission: rate cells, permits, the queue.
#[derive(Debug)]
pub struct Policy {
    limits: RateLimits,
    admission: Admission,
}

impl Policy {
    /// Starts with nothing running, nothing waiting and full bursts.
    pub fn new(rules: &Rules) -> Self {
        Self {
            limits: RateLimits::new(&rules.plans),
            admission: Admission::new(rules.global),
        }
    }

    /// Decides on one request, all or nothing: what an earlier rule took goes back when a later
    /// rule refuses.
    pub fn offer(&mut self, ask: &Ask, now: Time) -> (Decision, Standing) {
        let standing = match self.limits.charge(ask, now) {
            Ok(standing) => standing,
            Err((refusal, standing)) => return (Decision::Refuse(refusal), standing),
        };
        let decision = self.admission.offer(ask);
        if let Decision::Refuse(_) = decision {
            let standing = self.limits.give_back(ask, now);
            return (decision, standing);
        }
        (decision, standing)
    }

    /// Takes a permit back; returns the ticket that it went to, if someone waits.
    pub fn release(&mut self, permit: PermitId) -> Option<(TicketId, PermitId)> {
        self.admission.release(permit)
    }

    /// Takes a waiting ticket out of the queue; false if it no longer waits.
    pub fn cancel(&mut self, ticket: TicketId) -> bool {
        self.admission.cancel(ticket)
    }

    /// How many run and wait.
    pub fn admission(&self) -> &Admission {
        &self.admission
    }

    /// Takes over changed rules: what runs and waits stays; cells of unchanged limits are kept.
    pub fn reconfigure(&mut self, rules: &Rules) {
        self.limits.reconfigure(&rules.plans);
        self.admission.reconfigure(rules.global);
    }
}
