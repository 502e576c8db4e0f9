//! Read-only views of the state of policy.

use crate::{
    Balance, ByClass, Level, ModelId, Policy, QueueEntry, RateLimitKind, RateWindow, Rules, SharedSlots, Subject,
    TicketId, Time,
};
use std::time::Duration;

impl Policy {
    /// The rules in force.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Requests that run.
    pub fn running(&self) -> usize {
        self.scheduler.running()
    }

    /// Requests that run for a model.
    pub fn running_for(&self, model: ModelId) -> usize {
        self.scheduler.running_for(model)
    }

    /// Slots that a model has now; `None` where nothing limits, or where it was not requested yet.
    pub fn slots_of(&self, model: ModelId) -> Option<usize> {
        self.scheduler.slots_of(model).filter(|slots| *slots < usize::MAX)
    }

    /// Tokens that a model has in flight: uncached prompts, and the usual length of their answers.
    pub fn tokens_of(&self, model: ModelId) -> u64 {
        self.scheduler.tokens_of(model)
    }

    /// Tokens that a model may have in flight now; `None` where nothing limits them.
    pub fn token_limit_of(&self, model: ModelId, now: Time) -> Option<u64> {
        self.scheduler.token_limit_of(model, now)
    }

    /// Requests that wait.
    pub fn waiting(&self) -> usize {
        self.scheduler.waiting()
    }

    /// Requests that wait, by class.
    pub fn waiting_by_class(&self) -> ByClass<usize> {
        ByClass::from_fn(|class| self.scheduler.waiting_in(class))
    }

    /// The requests that run and that wait, of those that slots are for.
    pub fn in_use(&self, slots: SharedSlots) -> (usize, usize) {
        self.scheduler.in_use(slots)
    }

    /// All requests that wait, class by class, the oldest first.
    pub fn queue(&self, now: Time) -> impl Iterator<Item = QueueEntry> {
        self.scheduler.queue(now)
    }

    /// The whole wait that is expected of a ticket in the queue, at the present pace.
    pub fn expected(&self, ticket: TicketId) -> Option<Duration> {
        self.scheduler.expected_of(&self.rules, ticket)
    }

    /// The worst degradation level of all models; `None` where none is configured.
    pub fn level(&mut self, now: Time) -> Option<&Level> {
        let index = self.update_levels(now);
        self.rules.degradation.levels.get(index)
    }

    /// The pressure on the model with the highest, 0 to 1: the worst of the queue's fill and the oldest wait, both of
    /// requests that shared capacity holds back, and of its upstreams' saturation.
    pub fn pressure(&self, now: Time) -> f64 {
        let on_all = self.pressing_on_all();
        let models = self.monitors.models();
        models
            .map(|model| self.pressure_on(model, on_all, now).0)
            .fold(0.0, f64::max)
    }

    /// The fill of the queue, 0 to 1.
    #[allow(clippy::cast_precision_loss)]
    pub fn queue_usage(&self) -> f64 {
        let most = self.rules.global.max_queue_size;
        if most == 0 {
            0.0
        } else {
            self.scheduler.waiting() as f64 / most as f64
        }
    }

    /// The state of a subject's quotas and budgets.
    pub fn balances(&self, subject: Subject, now: Time) -> Vec<Balance> {
        self.allowances.balances(&self.rules, subject, now)
    }

    /// The state of a subject's rate limits.
    pub fn rates(&self, subject: Subject, now: Time) -> Vec<(RateLimitKind, RateWindow)> {
        self.limits.windows(subject, now)
    }
}
