//! The state of the gate, for display.

use super::Gate;
use crate::clock;
use policy::{
    Balance, ByClass, ModelId, PlanId, QueueEntry, RateLimitKind, RateWindow, SharedSlots, Subject, TicketId,
};
use std::time::Duration;

/// A rate limit with its holder and its present state.
pub(crate) type RateLimit = (Subject, RateLimitKind, RateWindow);

/// The numbers of running and waiting requests, and the pressure on the gateway.
#[derive(Debug, Clone)]
pub(crate) struct Occupancy {
    pub(crate) active: usize,
    pub(crate) waiting: usize,
    pub(crate) waiting_by_class: ByClass<usize>,
    /// By the index of the model: how many run, and how many may.
    pub(crate) models: Vec<(usize, Option<usize>)>,
    pub(crate) level: u32,
    pub(crate) pressure: f64,
    pub(crate) queue_usage: f64,
}

impl Gate {
    /// The requests that run and wait now, with those of the first `models` models.
    pub(crate) fn occupancy(&self, models: usize) -> Occupancy {
        let now = clock::now();
        let policy = &mut self.lock().policy;
        let ids = (0..u32::try_from(models).unwrap_or(u32::MAX)).map(ModelId);
        Occupancy {
            active: policy.running(),
            waiting: policy.waiting(),
            waiting_by_class: policy.waiting_by_class(),
            models: ids
                .map(|model| (policy.running_for(model), policy.slots_of(model)))
                .collect(),
            level: policy.level(now).map_or(0, |level| level.number),
            pressure: policy.pressure(now),
            queue_usage: policy.queue_usage(),
        }
    }

    /// The requests that run and that wait, of those that each of these slots are for.
    pub(crate) fn in_use(&self, slots: impl Iterator<Item = SharedSlots>) -> Vec<(usize, usize)> {
        let policy = &self.lock().policy;
        slots.map(|slots| policy.in_use(slots)).collect()
    }

    /// All requests that wait, class by class, the oldest first, with the wait that is still expected.
    pub(crate) fn queue(&self) -> Vec<(QueueEntry, Duration)> {
        let now = clock::now();
        let policy = &self.lock().policy;
        let all = policy.queue(now);
        all.map(|entry| (entry, policy.expected(entry.ticket).unwrap_or_default()))
            .collect()
    }

    /// The position of a ticket that waits, and the wait that is still expected.
    pub(crate) fn position_of(&self, ticket: TicketId) -> Option<(usize, Duration)> {
        let now = clock::now();
        let policy = &self.lock().policy;
        let expected = policy.expected(ticket)?;
        let mut all = policy.queue(now);
        let position = all.find(|entry| entry.ticket == ticket)?.position;
        Some((position, expected))
    }

    /// The state of a subject's allowances and rate limits, for a project with those of its plan.
    pub(crate) fn limits_of(&self, subject: Subject, plan: Option<PlanId>) -> (Vec<Balance>, Vec<RateLimit>) {
        let now = clock::now();
        let policy = &mut self.lock().policy;
        // What other gateways use of it is known from the next second on.
        policy.follow_shared(subject, now);
        let of_plan = match (subject, plan) {
            (Subject::Project(project), Some(plan)) => Some(Subject::Plan(plan, project)),
            _ => None,
        };
        let rates = of_plan.into_iter().chain([subject]).flat_map(|subject| {
            let rates = policy.rates(subject, now).into_iter();
            rates.map(move |(kind, window)| (subject, kind, window))
        });
        (policy.balances(subject, now), rates.collect())
    }
}
