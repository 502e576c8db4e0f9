//! How many run at once, and who waits: a bounded first-in-first-out queue before a fixed number of
//! permits.
//!
//! Invariants: permits out never pass `max_active_requests`; nobody waits while a permit is free
//! (work-conserving); a permit that comes back while someone waits goes to the longest waiter in
//! the same step, so that nobody overtakes in between.

use crate::{Ask, Decision, GlobalLimits, ModelId, Priority, Refusal};
use std::collections::VecDeque;
use std::time::Duration;

/// A place with the upstreams, for a model. It is given back exactly once.
#[derive(Debug, PartialEq, Eq)]
pub struct PermitId(ModelId);

/// A place in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TicketId(u64);

/// The state machine of permits and tickets.
#[derive(Debug)]
pub struct Admission {
    limits: GlobalLimits,
    active: usize,
    /// By the index of the model; grows as models are asked for.
    active_by_model: Vec<usize>,
    waiting: VecDeque<Waiting>,
    next_ticket: u64,
}

/// Someone in the queue.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    ticket: TicketId,
    model: ModelId,
    priority: Priority,
}

impl Admission {
    /// Nothing runs, nothing waits.
    pub fn new(limits: GlobalLimits) -> Self {
        Self {
            limits,
            active: 0,
            active_by_model: Vec::new(),
            waiting: VecDeque::new(),
            next_ticket: 0,
        }
    }

    /// Admits while a permit is free, else queues, else refuses.
    pub fn offer(&mut self, ask: &Ask) -> Decision {
        if self.active < self.limits.max_active_requests && self.waiting.is_empty() {
            return Decision::Admit(self.admit(ask.model));
        }
        let size = self.waiting.len();
        if size >= self.limits.max_queue_size {
            let retry_after = Duration::from_secs(1);
            return Decision::Refuse(Refusal::QueueFull { size, retry_after });
        }
        let ticket = TicketId(self.next_ticket);
        self.next_ticket += 1;
        self.waiting.push_back(Waiting {
            ticket,
            model: ask.model,
            priority: ask.priority,
        });
        Decision::Wait(ticket)
    }

    /// Takes a permit back; the longest waiter gets its place. Consumes the permit, which is not `Copy`,
    /// so that none is given back twice.
    #[allow(clippy::needless_pass_by_value)]
    pub fn release(&mut self, permit: PermitId) -> Option<(TicketId, PermitId)> {
        let PermitId(model) = permit;
        self.active = self.active.saturating_sub(1);
        if let Some(count) = self.active_by_model.get_mut(model.0 as usize) {
            *count = count.saturating_sub(1);
        }
        if self.active >= self.limits.max_active_requests {
            return None;
        }
        let next = self.waiting.pop_front()?;
        Some((next.ticket, self.admit(next.model)))
    }

    /// Takes a ticket out of the queue; false if it no longer waits.
    pub fn cancel(&mut self, ticket: TicketId) -> bool {
        let found = self.waiting.iter().position(|waiting| waiting.ticket == ticket);
        found.is_some_and(|at| self.waiting.remove(at).is_some())
    }

    fn admit(&mut self, model: ModelId) -> PermitId {
        let index = model.0 as usize;
        if index >= self.active_by_model.len() {
            self.active_by_model.resize(index + 1, 0);
        }
        self.active += 1;
        self.active_by_model[index] += 1;
        PermitId(model)
    }

    /// Permits out for a model.
    pub fn active_for(&self, model: ModelId) -> usize {
        self.active_by_model.get(model.0 as usize).copied().unwrap_or(0)
    }

    /// Tickets of a band that wait.
    pub fn waiting_in(&self, priority: Priority) -> usize {
        self.waiting
            .iter()
            .filter(|waiting| waiting.priority == priority)
            .count()
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
