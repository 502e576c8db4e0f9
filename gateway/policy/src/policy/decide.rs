//! The decision on a request, in the order of the rules.

use super::{Attempt, Policy};
use crate::admission::Verdict;
use crate::allowance::Fit;
use crate::degradation;
use crate::limits::Blocked;
use crate::quota::Amounts;
use crate::reservation::Proposal;
use crate::{
    AdmissionRequest, CreditNeed, CreditNeeds, Decision, Grant, Priority, QueueTicket, RateLimitStatus, Refusal,
    TicketId, Time,
};

/// The end of a decision before a slot.
enum Stopped {
    Refused(Refusal),
    Lacks(CreditNeeds),
}

impl From<Refusal> for Stopped {
    fn from(refusal: Refusal) -> Self {
        Stopped::Refused(refusal)
    }
}

impl From<Blocked> for Stopped {
    fn from(blocked: Blocked) -> Self {
        match blocked {
            Blocked::Refused(refusal) => Stopped::Refused(refusal),
            Blocked::Lacking(rates) => Stopped::Lacks(CreditNeeds {
                rates,
                ..CreditNeeds::default()
            }),
        }
    }
}

fn lacks(accounts: Vec<CreditNeed>) -> Stopped {
    Stopped::Lacks(CreditNeeds {
        accounts,
        ..CreditNeeds::default()
    })
}

impl Policy {
    pub(super) fn offer_attempt(
        &mut self,
        ask: &AdmissionRequest,
        attempt: Option<Attempt>,
        now: Time,
    ) -> (Decision, RateLimitStatus) {
        self.end_lapsed_leases(now);
        let (windows, is_counted) = match attempt {
            Some(attempt) => (attempt.windows, attempt.is_counted),
            None => (self.allowances.windows(now), false),
        };
        let mut held = Proposal::new(&self.rules, ask, windows, (self.charges, self.limits.parts()));
        self.charges += 1;
        held.charge.requests = u64::from(attempt.is_none());
        held.requests = u64::from(!is_counted);
        let decision = match self.decide(&mut held, now) {
            Ok(decision) => decision,
            Err(Stopped::Refused(refusal)) => Decision::Reject(refusal),
            Err(Stopped::Lacks(needs)) => Decision::NeedsCredit(needs),
        };
        let status = self.limits.status(&held.parties(), now);
        self.check(&held.parties(), now);
        (decision, status)
    }

    fn decide(&mut self, held: &mut Proposal<'_>, now: Time) -> Result<Decision, Stopped> {
        self.limits.charge(&held.ask.parties(), &held.charge, now)?;
        let decided = self
            .reserve(held, now)
            .and_then(|()| self.degrade(held, now))
            .and_then(|emergency| self.admit(held, emergency, now));
        if decided.is_err() {
            self.refund(&held.reservation(), true, now);
        }
        decided
    }

    /// Reserves the worst case from every quota and budget; where one is used up and says so, at the smaller model's
    /// prices.
    fn reserve(&mut self, held: &mut Proposal<'_>, now: Time) -> Result<(), Stopped> {
        let may_downgrade = !self.rules.is_fallback(held.ask.model);
        let wanted = held.wanted(&self.rules, may_downgrade);
        let fit = self.allowances.reserve(&self.rules, &held.parties(), &wanted, now)?;
        let refusal = match fit {
            Fit::Reserved(reservation) => {
                held.allowance = reservation;
                return Ok(());
            }
            Fit::Downgrade(refusal) => refusal,
            Fit::Lacks(accounts) => return Err(lacks(accounts)),
        };
        let mut ask = *held.ask;
        if !degradation::route_to_smaller(&self.rules, &mut ask) {
            return Err(refusal.into());
        }
        let models = (held.terms.model, ask.model);
        self.limits.move_model(models, &held.charge, now)?;
        held.set_terms(&self.rules, &ask);
        held.terms.degradations.routed_by_budget = true;
        self.reserve_anew(held, now)
    }

    /// Replaces the reservation by one for the present terms.
    fn reserve_anew(&mut self, held: &mut Proposal<'_>, now: Time) -> Result<(), Stopped> {
        self.allowances.refund(&held.parties(), &held.allowance);
        held.allowance.amounts = Amounts::default();
        let wanted = held.wanted(&self.rules, false);
        match self.allowances.reserve(&self.rules, &held.parties(), &wanted, now)? {
            Fit::Reserved(reservation) => held.allowance = reservation,
            Fit::Downgrade(refusal) => return Err(refusal.into()),
            Fit::Lacks(accounts) => return Err(lacks(accounts)),
        }
        Ok(())
    }

    /// Applies the degradation level of the request's model. Returns the refusal of a request that cannot run at once,
    /// where the queue must not grow.
    fn degrade(&mut self, held: &mut Proposal<'_>, now: Time) -> Result<Option<Refusal>, Stopped> {
        let index = self.level_index(held.terms.model, now);
        let Some(level) = self.rules.degradation.levels.get(index) else {
            return Ok(None);
        };
        held.terms.level = level.number;
        let mut ask = held.present();
        if let Some(refusal) = degradation::refuse(level, &ask) {
            return Err(refusal.into());
        }
        let emergency = level.actions.emergency.then(|| degradation::emergency(level));
        if let Some(refusal) = emergency.clone().filter(|_| ask.priority < Priority::High) {
            return Err(refusal.into());
        }
        let mut applied = degradation::reduce(level, &self.rules, &mut ask, true);
        let models = (held.terms.model, ask.model);
        let may_move = models.0 == models.1
            || match self.limits.move_model(models, &held.charge, now) {
                Ok(()) => true,
                Err(Blocked::Refused(_)) => false,
                Err(lacking) => return Err(lacking.into()),
            };
        if !may_move {
            // The smaller model's own rate limit is exceeded: the request stays where it is.
            ask = held.present();
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
    fn admit(&mut self, held: &mut Proposal<'_>, emergency: Option<Refusal>, now: Time) -> Result<Decision, Stopped> {
        self.scheduler.ensure_known(&self.rules, held.ask);
        self.throttle(&held.ask.parties(), now);
        // It may have been routed to another model, with a level of its own.
        self.level_index(held.terms.model, now);
        let is_paused = self.is_paused(held.terms.model);
        let (ask, terms) = (held.ask, held.terms);
        let may_grow = emergency.is_none();
        let verdict = self.scheduler.offer(&self.rules, ask, &terms, is_paused, may_grow, now);
        match (verdict, emergency) {
            (Verdict::Started(ticket), _) => {
                self.hold(ticket, held, now);
                Ok(Decision::Admit(Grant { ticket, terms }))
            }
            (Verdict::Refused(_), Some(refusal)) | (Verdict::Refused(refusal), None) => {
                Err(self.slots.as_configured(refusal, ask.project).into())
            }
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

    /// Keeps the reservation of a ticket. What was degraded away is not charged for.
    fn hold(&mut self, ticket: TicketId, held: &mut Proposal<'_>, now: Time) {
        let mut charge = held.charge;
        charge.tokens = charge.tokens.min(held.terms.estimate.tokens());
        self.limits.correct(&held.parties(), &held.charge, &charge, now);
        held.charge = charge;
        let index = ticket.index as usize;
        if self.held.len() <= index {
            self.held.resize(index + 1, None);
        }
        self.held[index] = Some(held.reservation());
    }
}
