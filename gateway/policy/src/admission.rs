//! How many run at once, and who waits: a bounded first-in-first-out queue before a fixed number of
//! permits.
//!
//! Invariants: permits out never pass `max_active_requests`; nobody waits while a permit is free
//! (work-conserving); a permit that comes back while someone waits goes to the longest waiter in
//! the same step, so that nobody overtakes in between.

use crate::{Decision, GlobalLimits, Refusal, Time};
use std::collections::VecDeque;
use std::time::Duration;

/// A place with the upstreams. It is given back exactly once.
#[derive(Debug, PartialEq, Eq)]
pub struct PermitId(());

/// A place in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TicketId(u64);

/// The state machine of permits and tickets.
#[derive(Debug)]
pub struct Admission {
    limits: GlobalLimits,
    active: usize,
    waiting: VecDeque<(TicketId, Time)>,
    next_ticket: u64,
}

impl Admission {
    /// Nothing runs, nothing waits.
    pub fn new(limits: GlobalLimits) -> Self {
        Self {
            limits,
            active: 0,
            waiting: VecDeque::new(),
            next_ticket: 0,
        }
    }

    /// Admits while a permit is free, else queues, else refuses.
    pub fn offer(&mut self, now: Time) -> Decision {
        if self.active < self.limits.max_active_requests && self.waiting.is_empty() {
            self.active += 1;
            return Decision::Admit(PermitId(()));
        }
        let size = self.waiting.len();
        if size >= self.limits.max_queue_size {
            let retry_after = Duration::from_secs(1);
            return Decision::Refuse(Refusal::QueueFull { size, retry_after });
        }
        let ticket = TicketId(self.next_ticket);
        self.next_ticket += 1;
        self.waiting.push_back((ticket, now));
        Decision::Wait(ticket)
    }

    /// Takes a permit back; the longest waiter gets it.
    pub fn release(&mut self, permit: PermitId) -> Option<(TicketId, PermitId)> {
        if self.active <= self.limits.max_active_requests
            && let Some((ticket, _)) = self.waiting.pop_front()
        {
            return Some((ticket, permit));
        }
        self.active = self.active.saturating_sub(1);
        None
    }

    /// Takes a ticket out of the queue; false if it no longer waits.
    pub fn cancel(&mut self, ticket: TicketId) -> bool {
        let found = self.waiting.iter().position(|(waiting, _)| *waiting == ticket);
        found.is_some_and(|at| self.waiting.remove(at).is_some())
    }

    /// The limits in force.
    pub fn limits(&self) -> GlobalLimits {
        self.limits
    }

    /// Permits out.
    pub fn active(&self) -> usize {
        self.active
    }

    /// Tickets that wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Smaller limits let permits run out and evict nobody; larger ones are used from the next
    /// offer or release on.
    pub fn reconfigure(&mut self, limits: GlobalLimits) {
        self.limits = limits;
    }
}
