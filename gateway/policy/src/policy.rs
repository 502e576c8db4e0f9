//! The whole state of policy, and the calls that change it. The order of the rules is that of the calls in [`decide`]; the
//! ends of a request are in [`settle`].

mod check;
mod credit;
mod decide;
mod settle;
mod share;

pub use settle::{Attempt, Settled, Settlement};

use crate::admission::Scheduler;
use crate::allowance::{Allowances, RecordedUsage};
use crate::audit::Audit;
use crate::charge::Throttled;
use crate::degradation::PressureMonitors;
use crate::limits::Limits;
use crate::request::Parties;
use crate::reservation::Reservation;
use crate::slots::Slots;
use crate::{
    AdmissionRequest, Decision, ModelId, QuotaWindow, RateLimitStatus, Rules, ServerLoad, Subject, TicketId, Time,
};

/// The whole state of policy: rate limits, allowances, the degradation level, slots and queues.
#[derive(Debug)]
pub struct Policy {
    pub(crate) rules: Rules,
    pub(crate) limits: Limits,
    pub(crate) allowances: Allowances,
    pub(crate) monitors: PressureMonitors,
    pub(crate) scheduler: Scheduler,
    pub(crate) slots: Slots,
    /// The reservation of each ticket, by its index.
    pub(crate) held: Vec<Option<Reservation>>,
    /// The number of the next charge.
    charges: u64,
    pub(crate) audit: Audit,
}

impl Policy {
    /// Starts with nothing running, nothing waiting, nothing used.
    pub fn new(rules: Rules) -> Self {
        Self {
            limits: Limits::new(&rules),
            slots: Slots::new(&rules),
            allowances: Allowances::default(),
            monitors: PressureMonitors::default(),
            scheduler: Scheduler::default(),
            held: Vec::new(),
            charges: 0,
            audit: Audit::default(),
            rules,
        }
    }

    /// Decides on one request, all or nothing: what an earlier rule took is refunded when a later one refuses. Returns
    /// the state of the caller's rate limits with the decision.
    pub fn offer(&mut self, ask: &AdmissionRequest, now: Time) -> (Decision, RateLimitStatus) {
        self.offer_attempt(ask, None, now)
    }

    /// Decides on a request again, for another model, after an [`Attempt`] that failed: it counts once.
    pub fn offer_again(&mut self, ask: &AdmissionRequest, attempt: Attempt, now: Time) -> (Decision, RateLimitStatus) {
        self.offer_attempt(ask, Some(attempt), now)
    }

    /// Starts the request that is next, if one that waits may run now. To be called after every offer, settlement and
    /// cancellation, and now and then, until it names none.
    pub fn next(&mut self, now: Time) -> Option<TicketId> {
        if self.scheduler.waiting() == 0 {
            return None;
        }
        self.end_lapsed_leases(now);
        self.update_levels(now);
        let Self {
            rules,
            monitors,
            scheduler,
            ..
        } = self;
        scheduler.next(rules, |model| monitors.is_batch_paused(&rules.degradation, model), now)
    }

    /// Names a running request that is to be aborted, [withdrawn](Policy::withdraw) and offered again later, so that one
    /// that waits gets its slot; only requests that are durable by their [hints](crate::Hints). To be called after
    /// [`Policy::next`], until it names none.
    pub fn evict(&mut self, now: Time) -> Option<TicketId> {
        self.scheduler.evict(&self.rules, now)
    }

    /// Learns from the load that a model's servers report of themselves; to be called for each report, and
    /// [`Policy::next`] afterwards.
    pub fn observe_load(&mut self, model: ModelId, load: &ServerLoad, now: Time) {
        self.scheduler.observe_load(model, load, now);
    }

    /// Raises what is counted as used to what the ledger has recorded, before this process began or by another beside
    /// it. To be called for a subject that a reload brings (back), too.
    pub fn restore_usage(&mut self, subject: Subject, window: QuotaWindow, usage: RecordedUsage, now: Time) {
        self.allowances.restore_usage(subject, window, usage, now);
        self.audit.restored(subject, window, usage, now);
    }

    /// The same for the day or month around a later moment, which begins with that use: the ledger has records of it
    /// where the clock was set back before this process began.
    pub fn restore_later_usage(
        &mut self,
        subject: Subject,
        window: QuotaWindow,
        usage: RecordedUsage,
        (at, now): (Time, Time),
    ) {
        if self.allowances.restore_later_usage(subject, window, usage, (at, now)) {
            self.audit.restored(subject, window, usage, at);
        }
    }

    /// Corrects what a project, user or key has used, today and this month, by tokens and nano-euros, more or less.
    pub fn correct(&mut self, subject: Subject, tokens: i64, nano_eur: i64, now: Time) {
        self.allowances.correct(subject, tokens, nano_eur, now);
        self.audit.corrected(subject, tokens, nano_eur, now);
    }

    /// Applies changed rules. What runs and waits stays, and is subject to the new ones from now on.
    pub fn reconfigure(&mut self, mut rules: Rules) {
        self.limits.reconfigure(&rules);
        self.slots.reconfigure(&mut rules);
        self.scheduler.reconfigure(&rules);
        self.rules = rules;
    }

    fn throttle(&mut self, parties: &Parties, now: Time) {
        let mut is_throttled = |subject| self.allowances.is_throttled(&self.rules, subject, now);
        let throttled = Throttled {
            project: is_throttled(Subject::Project(parties.project)),
            user: is_throttled(Subject::User(parties.user)),
        };
        self.scheduler.throttle(&self.rules, parties, throttled);
    }
}
