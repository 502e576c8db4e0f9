//! The ends of a request: settlement, cancellation, expiry.

use super::Policy;
use crate::admission::Ended;
use crate::allowance::{Alert, Windows};
use crate::charge::Tokens;
use crate::quota::Amounts;
use crate::request::Parties;
use crate::reservation::Reservation;
use crate::{AdmissionRequest, Decision, Pace, RateLimitStatus, Refusal, TicketId, Time, Usage};
use std::time::Duration;

/// The end of a request that ran.
#[derive(Debug, Clone, Copy, Default)]
pub struct Settlement {
    /// Its usage.
    pub usage: Usage,
    /// The timing of the upstream's answer.
    pub pace: Pace,
    /// True if the upstream answered to the end; else nothing is learned of its speed.
    pub has_completed: bool,
    /// True if the upstream answered at all, be it with an error.
    pub was_answered: bool,
    /// True if it was forwarded to an upstream. One that was not has used nothing, and counts for no quota, as in the
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
    pub(super) windows: Windows,
    pub(super) is_counted: bool,
}

impl Policy {
    /// Settles a request that ran: the actual replaces what was charged and reserved, and its slot is free. A ticket
    /// that is settled already changes nothing.
    pub fn settle(&mut self, ticket: TicketId, settlement: &Settlement, now: Time) -> Settled {
        let Some(held) = self.take_running(ticket) else {
            return Settled::default();
        };
        let settled = self.settle_attempt(ticket, &held, settlement, now);
        self.check(&held.parties, now);
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
            windows: self.allowances.windows(now),
            is_counted: false,
        };
        if let Some(held) = self.take_running(ticket) {
            self.settle_attempt(ticket, &held, settlement, now);
            attempt = Attempt {
                windows: held.allowance.windows,
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
        self.limits.correct(&held.parties, &held.charge, &actual, now);
        let requests = if settlement.was_forwarded { held.requests } else { 0 };
        let used = Amounts::new(usage.tokens(), requests, usage.cost.0);
        let alerts = self
            .allowances
            .settle(&self.rules, &held.parties, &held.allowance, used);
        self.audit.settled(&held.parties, held.allowance.windows, used);
        let ended = Ended {
            tokens: Tokens::new(usage.input_tokens, usage.cached_input_tokens, usage.output_tokens),
            pace: settlement.pace,
            has_completed: settlement.has_completed,
        };
        self.scheduler.finish(&self.rules, ticket, &ended, now);
        if settlement.was_answered {
            let is_overloaded = settlement.pace.is_overloaded;
            self.monitors.observe(held.parties.model, is_overloaded, now);
        }
        self.throttle(&held.parties, now);
        Settled {
            alerts,
            overrun_tokens: usage.tokens().saturating_sub(held.tokens),
        }
    }

    /// Takes back a request that ran and is to be offered again: as if it had not been offered. Returns the time for which
    /// it had its slot.
    pub fn withdraw(&mut self, ticket: TicketId, now: Time) -> Duration {
        let since = self.scheduler.ticket(ticket).map(|ticket| ticket.since);
        let Some(held) = self.take_running(ticket) else {
            return Duration::ZERO;
        };
        self.refund(&held, true, now);
        self.scheduler.finish(&self.rules, ticket, &Ended::default(), now);
        self.throttle(&held.parties, now);
        self.check(&held.parties, now);
        since.map_or(Duration::ZERO, |since| now - since)
    }

    /// Cancels a request that waits: everything is refunded but the request's own count in the rate limits, since it was
    /// made. False if it does not wait (any more).
    pub fn cancel(&mut self, ticket: TicketId, now: Time) -> bool {
        let waited = self.scheduler.cancel(&self.rules, ticket);
        if waited && let Some(parties) = self.drop_reservation(ticket, false, now) {
            self.check(&parties, now);
        }
        waited
    }

    /// Ends a wait that has lasted for the longest time; everything is refunded. `None` if it does not wait (any more).
    pub fn expire(&mut self, ticket: TicketId, now: Time) -> Option<Refusal> {
        let waiting = *self.scheduler.ticket(ticket).filter(|ticket| !ticket.is_running)?;
        let refusal = self.scheduler.wait_ended(&self.rules, &waiting);
        self.scheduler.cancel(&self.rules, ticket);
        if let Some(parties) = self.drop_reservation(ticket, true, now) {
            self.check(&parties, now);
        }
        Some(self.slots.as_configured(refusal, waiting.project))
    }

    /// The refusal of a ticket that lost its position in the queue.
    pub fn displaced(&self) -> Refusal {
        Refusal::QueueFull {
            size: self.scheduler.waiting(),
            retry_after: Duration::from_secs(2),
        }
    }

    /// Refunds the reservation of a ticket that is out of the queue already; with `and_the_request`, as if it had not
    /// been offered.
    pub(super) fn drop_reservation(&mut self, ticket: TicketId, and_the_request: bool, now: Time) -> Option<Parties> {
        let held = self.held.get_mut(ticket.index as usize)?.take()?;
        self.refund(&held, and_the_request, now);
        Some(held.parties)
    }

    pub(super) fn refund(&mut self, held: &Reservation, and_the_request: bool, now: Time) {
        let mut nothing = held.charge;
        nothing.tokens = 0;
        if and_the_request {
            (nothing.requests, nothing.model_requests) = (0, 0);
        }
        self.limits.correct(&held.parties, &held.charge, &nothing, now);
        self.allowances.refund(&held.parties, &held.allowance);
    }
}
