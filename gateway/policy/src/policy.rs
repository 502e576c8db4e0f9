//! The decisions on a request, from offer to settlement, in the order of the rules.

mod check;

use crate::admission::{Ended, Scheduler, Verdict};
use crate::allowance::{Alert, Allowances, Fit, RecordedUsage, Windows};
use crate::audit::Audit;
use crate::degradation::{self, PressureMonitors};
use crate::fairness::Tokens;
use crate::limits::Limits;
use crate::quota::Amounts;
use crate::reservation::Reservation;
use crate::{
    AdmissionRequest, Decision, Grant, ModelId, Pace, Priority, QueueTicket, QuotaWindow, RateLimitStatus, Refusal,
    Rules, ServerLoad, Subject, TicketId, Time, Usage,
};
use std::time::Duration;

/// The whole state of policy: rate limits, allowances, the degradation level, slots and queues.
#[derive(Debug)]
pub struct Policy {
    pub(crate) rules: Rules,
    pub(crate) limits: Limits,
    pub(crate) allowances: Allowances,
    pub(crate) monitors: PressureMonitors,
    pub(crate) scheduler: Scheduler,
    /// The reservation of each ticket, by its index.
    pub(crate) held: Vec<Option<Reservation>>,
    /// The number of the next charge.
    charges: u64,
    pub(crate) audit: Audit,
}

/// The end of a request that ran.
#[derive(Debug, Clone, Copy, Default)]
pub struct Settlement {
    /// Its usage.
    pub usage: Usage,
    /// The timing of the upstream's answer.
    pub pace: Pace,
    /// Whether the upstream answered to the end; else nothing is learned of its speed.
    pub has_completed: bool,
    /// Whether the upstream answered at all, be it with an error.
    pub was_answered: bool,
    /// Whether it was forwarded to an upstream. One that was not has used nothing, and counts for no quota, as in the
    /// ledger.
    pub was_forwarded: bool,
}

/// The result of a settlement.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settled {
    /// Allowances that have reached the share at which operators are alerted.
    pub alerts: Vec<Alert>,
    /// Tokens used beyond what was reserved.
    pub overrun_tokens: u64,
}

/// An attempt that failed: what its request counts for already, when it is offered again for another model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    windows: Windows,
    is_counted: bool,
}

impl Policy {
    /// Starts with nothing running, nothing waiting, nothing used.
    pub fn new(rules: Rules) -> Self {
        Self {
            limits: Limits::new(&rules),
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

    fn offer_attempt(
        &mut self,
        ask: &AdmissionRequest,
        attempt: Option<Attempt>,
        now: Time,
    ) -> (Decision, RateLimitStatus) {
        let (windows, is_counted) = match attempt {
            Some(attempt) => (attempt.windows, attempt.is_counted),
            None => (Windows::at(now), false),
        };
        let mut held = Reservation::new(&self.rules, ask, windows, self.charges);
        self.charges += 1;
        held.charge.requests = u64::from(attempt.is_none());
        held.requests = u64::from(!is_counted);
        let decision = self.decide(&mut held, now).unwrap_or_else(Decision::Reject);
        let status = self.limits.status(&self.rules, &held.parties(), now);
        self.check(ask, now);
        (decision, status)
    }

    fn decide(&mut self, held: &mut Reservation, now: Time) -> Result<Decision, Refusal> {
        self.limits.charge(&self.rules, &held.ask, &held.charge, now)?;
        let decided = self
            .reserve(held, now)
            .and_then(|()| self.degrade(held, now))
            .and_then(|emergency| self.admit(held, emergency, now));
        if decided.is_err() {
            self.refund(held, true, now);
        }
        decided
    }

    /// Reserves the worst case from every quota and budget; where one is used up and says so, at the smaller model's
    /// prices.
    fn reserve(&mut self, held: &mut Reservation, now: Time) -> Result<(), Refusal> {
        let may_downgrade = !self.rules.model(held.ask.model).is_fallback;
        let wanted = held.wanted(&self.rules, may_downgrade);
        let fit = self.allowances.reserve(&self.rules, &held.ask, &wanted, now)?;
        let refusal = match fit {
            Fit::Reserved(reservation) => {
                held.allowance = Some(reservation);
                return Ok(());
            }
            Fit::Downgrade(refusal) => refusal,
        };
        let mut ask = held.ask;
        if !degradation::route_to_smaller(&self.rules, &mut ask) {
            return Err(refusal);
        }
        let models = (held.terms.model, ask.model);
        self.limits.move_model(&self.rules, models, &held.charge, now)?;
        held.set_terms(&self.rules, &ask);
        held.terms.degradations.routed_by_budget = true;
        self.reserve_anew(held, now)
    }

    /// Replaces the reservation by one for the present terms.
    fn reserve_anew(&mut self, held: &mut Reservation, now: Time) -> Result<(), Refusal> {
        if let Some(reservation) = held.allowance.take() {
            self.allowances.refund(&held.ask, &reservation);
        }
        let wanted = held.wanted(&self.rules, false);
        match self.allowances.reserve(&self.rules, &held.ask, &wanted, now)? {
            Fit::Reserved(reservation) => held.allowance = Some(reservation),
            Fit::Downgrade(refusal) => return Err(refusal),
        }
        Ok(())
    }

    /// Applies the degradation level of the request's model. Returns the refusal of a request that cannot run at once,
    /// where the queue must not grow.
    fn degrade(&mut self, held: &mut Reservation, now: Time) -> Result<Option<Refusal>, Refusal> {
        let index = self.level_index(held.terms.model, now);
        let Some(level) = self.rules.degradation.levels.get(index) else {
            return Ok(None);
        };
        held.terms.level = level.number;
        let mut ask = held.parties();
        if let Some(refusal) = degradation::refuse(level, &ask) {
            return Err(refusal);
        }
        let emergency = level.actions.emergency.then(|| degradation::emergency(level));
        if let Some(refusal) = emergency.clone().filter(|_| ask.priority < Priority::High) {
            return Err(refusal);
        }
        let mut applied = degradation::reduce(level, &self.rules, &mut ask, true);
        let models = (held.terms.model, ask.model);
        let may_move = models.0 == models.1 || {
            let moved = self.limits.move_model(&self.rules, models, &held.charge, now);
            moved.is_ok()
        };
        if !may_move {
            // The smaller model's own rate limit is exceeded: the request stays where it is.
            ask = held.parties();
            applied = degradation::reduce(level, &self.rules, &mut ask, false);
        }
        if applied.any() {
            held.set_terms(&self.rules, &ask);
            let degradations = &mut held.terms.degradations;
            degradations.max_tokens_reduced |= applied.max_tokens_reduced;
            degradations.routed_by_pressure |= applied.routed_by_pressure;
            self.reserve_anew(held, now)?;
        }
        Ok(emergency)
    }

    /// Assigns a slot at once, a position in the queue, or neither.
    fn admit(&mut self, held: &mut Reservation, emergency: Option<Refusal>, now: Time) -> Result<Decision, Refusal> {
        self.throttle(&held.ask, now);
        // It may have been routed to another model, with a level of its own.
        self.level_index(held.terms.model, now);
        let is_paused = self.is_paused(held.terms.model);
        let (ask, terms) = (held.ask, held.terms);
        let may_grow = emergency.is_none();
        let verdict = self
            .scheduler
            .offer(&self.rules, &ask, &terms, is_paused, may_grow, now);
        match (verdict, emergency) {
            (Verdict::Started(ticket), _) => {
                self.hold(ticket, held, now);
                Ok(Decision::Admit(Grant { ticket, terms }))
            }
            (Verdict::Refused(refusal), None) => Err(refusal),
            (Verdict::Refused(_), Some(refusal)) => Err(refusal),
            (
                Verdict::Queued {
                    ticket,
                    deadline,
                    expected,
                    displaced,
                },
                _,
            ) => {
                if let Some(displaced) = displaced {
                    self.drop_reservation(displaced, true, now);
                }
                self.hold(ticket, held, now);
                Ok(Decision::Queue(QueueTicket {
                    ticket,
                    terms,
                    deadline,
                    expected,
                    displaced,
                }))
            }
        }
    }

    /// Starts the request that is next, if one that waits may run now. To be called after every offer, settlement and
    /// cancellation, and now and then, until it names none.
    pub fn next(&mut self, now: Time) -> Option<TicketId> {
        if self.scheduler.waiting() == 0 {
            return None;
        }
        self.update_levels(now);
        let Self {
            rules,
            monitors,
            scheduler,
            ..
        } = self;
        scheduler.next(rules, |model| monitors.is_batch_paused(&rules.degradation, model), now)
    }

    /// Settles a request that ran: the actual replaces what was charged and reserved, and its slot is free. A ticket
    /// that is settled already changes nothing.
    pub fn settle(&mut self, ticket: TicketId, settlement: &Settlement, now: Time) -> Settled {
        let Some(held) = self.take_running(ticket) else {
            return Settled::default();
        };
        let settled = self.settle_attempt(ticket, &held, settlement, now);
        self.check(&held.ask, now);
        settled
    }

    /// Settles an attempt that failed, and decides on the request again, for another model. What the attempt used stays
    /// used, and a request that was forwarded stays counted, whatever is decided; it is counted once.
    pub fn replace(
        &mut self,
        ticket: TicketId,
        settlement: &Settlement,
        ask: &AdmissionRequest,
        now: Time,
    ) -> (Decision, RateLimitStatus, Attempt) {
        let mut attempt = Attempt {
            windows: Windows::at(now),
            is_counted: false,
        };
        if let Some(held) = self.take_running(ticket) {
            self.settle_attempt(ticket, &held, settlement, now);
            attempt = Attempt {
                windows: held.windows,
                is_counted: settlement.was_forwarded || held.requests == 0,
            };
        }
        let (decision, status) = self.offer_again(ask, attempt, now);
        (decision, status, attempt)
    }

    fn take_running(&mut self, ticket: TicketId) -> Option<Reservation> {
        self.scheduler.ticket(ticket).filter(|ticket| ticket.is_running)?;
        self.held.get_mut(ticket.index as usize)?.take()
    }

    fn settle_attempt(&mut self, ticket: TicketId, held: &Reservation, settlement: &Settlement, now: Time) -> Settled {
        let usage = if settlement.was_forwarded {
            settlement.usage
        } else {
            Usage::default()
        };
        let mut actual = held.charge;
        actual.tokens = self.rules.token_weights.rate_tokens(&usage);
        self.limits
            .correct(&self.rules, &held.parties(), &held.charge, &actual, now);
        let requests = if settlement.was_forwarded { held.requests } else { 0 };
        let used = Amounts::new(usage.tokens(), requests, usage.cost.0);
        let mut alerts = Vec::new();
        if let Some(reservation) = &held.allowance {
            alerts = self.allowances.settle(&self.rules, &held.ask, reservation, used);
            self.audit.settled(&held.ask, reservation.windows, used);
        }
        let ended = Ended {
            tokens: Tokens::new(usage.input_tokens, usage.cached_input_tokens, usage.output_tokens),
            pace: settlement.pace,
            has_completed: settlement.has_completed,
        };
        self.scheduler.finish(&self.rules, ticket, &ended, now);
        if settlement.was_answered {
            let is_overloaded = settlement.pace.is_overloaded;
            self.monitors.observe(held.terms.model, is_overloaded, now);
        }
        self.throttle(&held.ask, now);
        Settled {
            alerts,
            overrun_tokens: usage.tokens().saturating_sub(held.terms.estimate.tokens()),
        }
    }

    /// Learns from the load that a model's servers report of themselves; to be called for each report, and
    /// [`Policy::next`] afterwards.
    pub fn observe_load(&mut self, model: ModelId, load: &ServerLoad, now: Time) {
        self.scheduler.observe_load(model, load, now);
    }

    /// Cancels a request that waits: everything is refunded but the request's own count in the rate limits, since it was
    /// made. False if it does not wait (any more).
    pub fn cancel(&mut self, ticket: TicketId, now: Time) -> bool {
        let waited = self.scheduler.cancel(&self.rules, ticket);
        if waited && let Some(ask) = self.drop_reservation(ticket, false, now) {
            self.check(&ask, now);
        }
        waited
    }

    /// Ends a wait that has lasted for the longest time; everything is refunded. `None` if it does not wait (any more).
    pub fn expire(&mut self, ticket: TicketId, now: Time) -> Option<Refusal> {
        let waiting = *self.scheduler.ticket(ticket).filter(|ticket| !ticket.is_running)?;
        let refusal = self.scheduler.wait_ended(&self.rules, &waiting);
        self.scheduler.cancel(&self.rules, ticket);
        if let Some(ask) = self.drop_reservation(ticket, true, now) {
            self.check(&ask, now);
        }
        Some(refusal)
    }

    /// The refusal of a ticket that lost its position in the queue.
    pub fn displaced(&self) -> Refusal {
        Refusal::QueueFull {
            size: self.scheduler.waiting(),
            retry_after: Duration::from_secs(2),
        }
    }

    /// Raises what is counted as used to what the ledger has recorded, before this process began or by another beside
    /// it. To be called for a subject that a reload brings (back), too.
    pub fn restore_usage(&mut self, subject: Subject, window: QuotaWindow, usage: RecordedUsage, now: Time) {
        self.allowances.restore_usage(subject, window, usage, now);
        self.audit.restored(subject, window, usage, now);
    }

    /// Corrects what a project, user or key has used, today and this month, by tokens and nano-euros, more or less.
    pub fn correct(&mut self, subject: Subject, tokens: i64, nano_eur: i64, now: Time) {
        self.allowances.correct(subject, tokens, nano_eur, now);
        self.audit.corrected(subject, tokens, nano_eur, now);
    }

    /// Applies changed rules. What runs and waits stays, and is subject to the new ones from now on.
    pub fn reconfigure(&mut self, rules: Rules) {
        self.limits.reconfigure(&rules);
        self.scheduler.reconfigure(&rules);
        self.rules = rules;
    }

    fn throttle(&mut self, ask: &AdmissionRequest, now: Time) {
        let project = Subject::Project(ask.project);
        let project = self.allowances.is_throttled(&self.rules, project, now);
        let user = self.allowances.is_throttled(&self.rules, Subject::User(ask.user), now);
        self.scheduler.throttle(&self.rules, ask, project, user);
    }

    /// Keeps the reservation of a ticket. What was degraded away is not charged for.
    fn hold(&mut self, ticket: TicketId, held: &mut Reservation, now: Time) {
        let mut charge = held.charge;
        charge.tokens = charge.tokens.min(held.terms.estimate.tokens());
        self.limits
            .correct(&self.rules, &held.parties(), &held.charge, &charge, now);
        held.charge = charge;
        let index = ticket.index as usize;
        if self.held.len() <= index {
            self.held.resize(index + 1, None);
        }
        self.held[index] = Some(*held);
    }

    /// Refunds the reservation of a ticket that is out of the queue already; with `and_the_request`, as if it had not
    /// been offered.
    fn drop_reservation(&mut self, ticket: TicketId, and_the_request: bool, now: Time) -> Option<AdmissionRequest> {
        let held = self.held.get_mut(ticket.index as usize)?.take()?;
        self.refund(&held, and_the_request, now);
        Some(held.ask)
    }

    fn refund(&mut self, held: &Reservation, and_the_request: bool, now: Time) {
        let mut nothing = held.charge;
        nothing.tokens = 0;
        if and_the_request {
            (nothing.requests, nothing.model_requests) = (0, 0);
        }
        self.limits
            .correct(&self.rules, &held.parties(), &held.charge, &nothing, now);
        if let Some(reservation) = &held.allowance {
            self.allowances.refund(&held.ask, reservation);
        }
    }
}
