//! The decisions on a request, from offer to settlement, in the order of the rules.

use crate::admission::{Ended, Scheduler, Verdict};
use crate::allowance::{Alert, AllowanceReservation, Allowances, Fit, RecordedUsage};
use crate::degradation::{self, PressureMonitor};
use crate::limits::{Charge, Limits};
use crate::{
    AdmissionRequest, Decision, Grant, Pace, Priority, QueueTicket, QuotaWindow, RateLimitStatus, Refusal, Rules,
    Subject, Terms, TicketId, Time, Usage,
};
use std::time::Duration;

/// The whole state of policy: rate limits, allowances, the degradation level, slots and queues.
#[derive(Debug)]
pub struct Policy {
    pub(crate) rules: Rules,
    pub(crate) limits: Limits,
    pub(crate) allowances: Allowances,
    pub(crate) watch: PressureMonitor,
    pub(crate) scheduler: Scheduler,
    /// What each ticket holds, by its index.
    held: Vec<Option<Reservation>>,
}

/// What is held for a ticket until it is settled or cancelled.
#[derive(Debug, Clone, Copy)]
struct Reservation {
    ask: AdmissionRequest,
    terms: Terms,
    charge: Charge,
    reservation: AllowanceReservation,
}

/// How a request that ran has ended.
#[derive(Debug, Clone, Copy, Default)]
pub struct Settlement {
    /// What it used.
    pub usage: Usage,
    /// How the upstream's answer came.
    pub pace: Pace,
    /// Whether the upstream answered to the end; else nothing is learned of its speed.
    pub has_completed: bool,
    /// Whether the upstream answered at all, be it with a refusal.
    pub was_answered: bool,
}

/// What a settlement brought to light.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settled {
    /// Allowances that have reached the share at which operators want to know.
    pub alerts: Vec<Alert>,
    /// Tokens used beyond what was reserved.
    pub overrun_tokens: u64,
}

impl Policy {
    /// Starts with nothing running, nothing waiting, nothing used.
    pub fn new(rules: Rules) -> Self {
        Self {
            limits: Limits::new(&rules),
            allowances: Allowances::default(),
            watch: PressureMonitor::default(),
            scheduler: Scheduler::new(&rules),
            held: Vec::new(),
            rules,
        }
    }

    /// Decides on one request, all or nothing: what an earlier rule took goes back when a later one
    /// refuses. Says too where the caller stands with its rates.
    pub fn offer(&mut self, ask: &AdmissionRequest, now: Time) -> (Decision, RateLimitStatus) {
        let decision = self.decide(ask, now).unwrap_or_else(Decision::Reject);
        (decision, self.limits.standing(&self.rules, ask, now))
    }

    fn decide(&mut self, ask: &AdmissionRequest, now: Time) -> Result<Decision, Refusal> {
        let mut held = self.charge(ask, now)?;
        let decided = self
            .reserve(&mut held, now)
            .and_then(|()| self.degrade(&mut held, now))
            .and_then(|emergency| self.admit(&held, emergency, now));
        if decided.is_err() {
            self.give_back(&held, true, now);
        }
        decided
    }

    /// Step one: the rates of every level.
    fn charge(&mut self, ask: &AdmissionRequest, now: Time) -> Result<Reservation, Refusal> {
        let estimate = ask.estimate(&self.rules);
        let charge = Charge {
            requests: 1,
            tokens: estimate.tokens(),
        };
        self.limits.charge(&self.rules, ask, charge, now)?;
        let terms = Terms {
            model: ask.model,
            max_tokens: ask.max_tokens,
            estimate,
            ..Terms::default()
        };
        Ok(Reservation {
            ask: *ask,
            terms,
            charge,
            reservation: AllowanceReservation::default(),
        })
    }

    /// Step two: the worst case from every quota and budget; where one is used up and says so, from the
    /// smaller model's prices.
    fn reserve(&mut self, held: &mut Reservation, now: Time) -> Result<(), Refusal> {
        let Self { rules, allowances, .. } = self;
        let may_downgrade = !rules.model(held.ask.model).is_fallback;
        let fit = allowances.reserve(rules, &held.ask, &held.terms.estimate, may_downgrade, now)?;
        let fit = match fit {
            Fit::Downgrade(refusal) => {
                let mut ask = held.ask;
                if !degradation::route_to_smaller(rules, &mut ask) {
                    return Err(refusal);
                }
                held.terms.degradations.routed_by_budget = true;
                change(rules, held, &ask);
                allowances.reserve(rules, &ask, &held.terms.estimate, false, now)?
            }
            reserved @ Fit::Reserved(_) => reserved,
        };
        match fit {
            Fit::Reserved(reservation) => held.reservation = reservation,
            Fit::Downgrade(refusal) => return Err(refusal),
        }
        Ok(())
    }

    /// Step three: what gives way at the level that holds. Says whether only what can run at once may.
    fn degrade(&mut self, held: &mut Reservation, now: Time) -> Result<Option<Refusal>, Refusal> {
        let index = self.level_index(now);
        let Self { rules, allowances, .. } = self;
        let Some(level) = rules.degradation.levels.get(index) else {
            return Ok(None);
        };
        held.terms.level = level.number;
        let mut ask = degraded(held);
        if let Some(refusal) = degradation::refuse(level, &ask) {
            return Err(refusal);
        }
        let emergency = level.actions.emergency.then(|| degradation::emergency(level));
        if let Some(refusal) = emergency.clone().filter(|_| ask.priority < Priority::High) {
            return Err(refusal);
        }
        let degradations = degradation::shrink(level, rules, &mut ask);
        if degradations.any() {
            held.terms.degradations.max_tokens_reduced |= degradations.max_tokens_reduced;
            held.terms.degradations.routed_by_pressure |= degradations.routed_by_pressure;
            change(rules, held, &ask);
            allowances.shrink(&held.ask, &mut held.reservation, &held.terms.estimate);
        }
        Ok(emergency)
    }

    /// Step four: a place at once, a place in the queue, or none.
    fn admit(&mut self, held: &Reservation, emergency: Option<Refusal>, now: Time) -> Result<Decision, Refusal> {
        self.throttle(&held.ask, now);
        let is_paused = self.is_paused(now);
        let offered = self
            .scheduler
            .offer(&self.rules, &held.ask, &held.terms, is_paused, now);
        let terms = held.terms;
        match (offered, emergency) {
            (Verdict::Started(ticket), _) => {
                self.hold(ticket, *held, now);
                Ok(Decision::Admit(Grant { ticket, terms }))
            }
            (Verdict::Refused(refusal), _) => Err(refusal),
            (Verdict::Queued { ticket, displaced, .. }, Some(refusal)) => {
                self.scheduler.cancel(&self.rules, ticket);
                if let Some(displaced) = displaced {
                    // A newcomer of the highest band found the queue full: who lost its place for it has lost it.
                    self.forget(displaced, now);
                }
                Err(refusal)
            }
            (
                Verdict::Queued {
                    ticket,
                    deadline,
                    expected,
                    displaced,
                },
                None,
            ) => {
                if let Some(displaced) = displaced {
                    self.forget(displaced, now);
                }
                self.hold(ticket, *held, now);
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

    /// Whoever waits and may run now. To be asked after every offer, settlement and cancellation, and now
    /// and then, until it names nobody.
    pub fn next(&mut self, now: Time) -> Option<TicketId> {
        let is_paused = self.is_paused(now);
        self.scheduler.next(&self.rules, is_paused, now)
    }

    /// A request that ran has ended: the actual replaces what was charged and reserved, and its place is
    /// free. A ticket that is settled already changes nothing.
    pub fn settle(&mut self, ticket: TicketId, settlement: &Settlement, now: Time) -> Settled {
        if !self.scheduler.ticket(ticket).is_some_and(|ticket| ticket.is_running) {
            return Settled::default();
        }
        let Some(held) = self.held[ticket.index as usize].take() else {
            return Settled::default();
        };
        let usage = settlement.usage;
        let actual = Charge {
            requests: 1,
            tokens: usage.tokens(),
        };
        self.limits.correct(&self.rules, &held.ask, held.charge, actual, now);
        let alerts = self
            .allowances
            .settle(&self.rules, &held.ask, &held.reservation, &usage);
        let ended = Ended {
            input_tokens: usage.input_tokens,
            output_tokens: usage.output_tokens,
            pace: settlement.pace,
            has_completed: settlement.has_completed,
        };
        self.scheduler.finish(&self.rules, ticket, &ended, now);
        if settlement.was_answered {
            self.watch.heard(settlement.pace.is_overloaded, now);
        }
        self.throttle(&held.ask, now);
        Settled {
            alerts,
            overrun_tokens: usage.tokens().saturating_sub(held.terms.estimate.tokens()),
        }
    }

    /// A request that ran came to nothing with its model's servers: it is as if it had not been made, and another is
    /// decided on in its place.
    pub fn replace(&mut self, ticket: TicketId, ask: &AdmissionRequest, now: Time) -> (Decision, RateLimitStatus) {
        let runs = self.scheduler.ticket(ticket).is_some_and(|ticket| ticket.is_running);
        if let Some(held) = self
            .held
            .get_mut(ticket.index as usize)
            .filter(|_| runs)
            .and_then(Option::take)
        {
            self.give_back(&held, true, now);
            self.scheduler.finish(&self.rules, ticket, &Ended::default(), now);
        }
        self.offer(ask, now)
    }

    /// Whoever waits has gone, or was told to: everything goes back but the request itself, which was
    /// made. False if it does not wait (any more).
    pub fn cancel(&mut self, ticket: TicketId, now: Time) -> bool {
        let waited = self.scheduler.cancel(&self.rules, ticket);
        if let Some(held) = self
            .held
            .get_mut(ticket.index as usize)
            .filter(|_| waited)
            .and_then(Option::take)
        {
            self.give_back(&held, false, now);
        }
        waited
    }

    /// A ticket has waited as long as one may: everything goes back. `None` if it does not wait (any more).
    pub fn expire(&mut self, ticket: TicketId, now: Time) -> Option<Refusal> {
        let waiting = *self.scheduler.ticket(ticket).filter(|ticket| !ticket.is_running)?;
        let refusal = self.scheduler.wait_ended(&self.rules, &waiting);
        self.scheduler.cancel(&self.rules, ticket);
        self.forget(ticket, now);
        Some(refusal)
    }

    /// The refusal of a ticket that lost its place in a full queue.
    pub fn displaced(&self) -> Refusal {
        Refusal::QueueFull {
            size: self.scheduler.waiting(),
            retry_after: Duration::from_secs(2),
        }
    }

    /// At least so much has been used, by the ledger: before this process began, or by another beside it.
    pub fn restore_usage(&mut self, subject: Subject, window: QuotaWindow, usage: RecordedUsage, now: Time) {
        self.allowances.restore_usage(subject, window, usage, now);
    }

    /// Corrects what a project, user or key has used, today and this month: tokens and nano-euros, more or less.
    pub fn correct(&mut self, subject: Subject, tokens: i64, nano_eur: i64, now: Time) {
        self.allowances.correct(subject, tokens, nano_eur, now);
    }

    /// Takes over changed rules. What runs and waits stays, and is subject to the new ones from now on.
    pub fn reconfigure(&mut self, rules: Rules) {
        self.limits.reconfigure(&rules);
        self.scheduler.reconfigure(&rules);
        self.rules = rules;
    }

    pub(crate) fn level_index(&mut self, now: Time) -> usize {
        let pressure = self.pressure(now);
        self.watch.level(&self.rules.degradation, pressure, now)
    }

    fn is_paused(&mut self, now: Time) -> bool {
        self.level(now).is_some_and(|level| level.actions.pause_batch)
    }

    fn throttle(&mut self, ask: &AdmissionRequest, now: Time) {
        let project = Subject::Project(ask.project);
        let project = self.allowances.is_throttled(&self.rules, project, now);
        let user = self.allowances.is_throttled(&self.rules, Subject::User(ask.user), now);
        self.scheduler.throttle(&self.rules, ask, project, user);
    }

    fn hold(&mut self, ticket: TicketId, held: Reservation, now: Time) {
        let index = ticket.index as usize;
        if self.held.len() <= index {
            self.held.resize(index + 1, None);
        }
        self.held[index] = Some(held);
        // What gave way is not charged for.
        let tokens = held.terms.estimate.tokens().min(held.charge.tokens);
        let charge = Charge { requests: 1, tokens };
        self.limits.correct(&self.rules, &held.ask, held.charge, charge, now);
        if let Some(held) = &mut self.held[index] {
            held.charge = charge;
        }
    }

    /// Gives back what a ticket held that is out of the queue already.
    fn forget(&mut self, ticket: TicketId, now: Time) {
        if let Some(held) = self.held.get_mut(ticket.index as usize).and_then(Option::take) {
            self.give_back(&held, true, now);
        }
    }

    fn give_back(&mut self, held: &Reservation, and_the_request: bool, now: Time) {
        let nothing = Charge {
            requests: u64::from(!and_the_request),
            tokens: 0,
        };
        self.limits.correct(&self.rules, &held.ask, held.charge, nothing, now);
        self.allowances.give_back(&held.ask, &held.reservation);
    }
}

/// The ask as it may run.
fn degraded(held: &Reservation) -> AdmissionRequest {
    AdmissionRequest {
        model: held.terms.model,
        max_tokens: held.terms.max_tokens,
        ..held.ask
    }
}

/// Makes the terms those of a changed ask.
fn change(rules: &Rules, held: &mut Reservation, ask: &AdmissionRequest) {
    held.terms.model = ask.model;
    held.terms.max_tokens = ask.max_tokens;
    held.terms.estimate = ask.estimate(rules);
}
