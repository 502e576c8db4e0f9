//! The order of one user's requests: the least predicted work first, aged so that none starves.
//!
//! A request is ranked as if it had come later than it did, by its *handicap*: h = H · p³ / (p³ + m³), where p is the time
//! that it is predicted to take, m is the mean of its model's requests, and H is three quarters of the longest wait. So a
//! request is overtaken only by those that come within H after it, and during the last quarter of the longest wait by none.

use crate::tickets::Tickets;
use crate::{GlobalLimits, Order, Scheduling, Time, UserOrder};
use std::time::Duration;

/// The largest handicap of all, in parts of the longest wait.
const LARGEST: (u32, u32) = (3, 4);

/// The handicap of a request, where such a one is predicted to take so long, and the mean is known.
pub(crate) fn handicap(scheduling: &Scheduling, global: &GlobalLimits, predicted: f64, mean: Option<f64>) -> Duration {
    let is_off = scheduling.order == Order::Fifo || scheduling.user_order == UserOrder::Arrival;
    let Some(mean) = mean.filter(|mean| *mean > 0.0 && !is_off) else {
        return Duration::ZERO;
    };
    let largest = global.max_queue_wait.saturating_mul(LARGEST.0) / LARGEST.1;
    let cubed = (predicted / mean).min(1e6).powi(3);
    largest.mul_f64(cubed / (cubed + 1.0))
}

/// The requests of a user by rank, then by arrival: a binary heap that knows where each of its tickets is.
#[derive(Debug, Default)]
pub(crate) struct Ranked {
    heap: Vec<Entry>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    rank: Time,
    sequence: u64,
    index: u32,
}

/// Capacity that an empty heap keeps.
const KEPT: usize = 64;

/// Entries that are looked at to estimate how many come before a rank.
const LOOKED_AT: usize = 32;

impl Ranked {
    /// The ticket that is first.
    pub(crate) fn first(&self) -> Option<u32> {
        self.heap.first().map(|entry| entry.index)
    }

    /// Returns whether it has no ticket.
    pub(crate) fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// Adds a ticket.
    pub(crate) fn push(&mut self, tickets: &mut Tickets, index: u32) {
        let Some(ticket) = tickets.at_mut(index) else { return };
        let entry = Entry {
            rank: ticket.rank,
            sequence: ticket.sequence,
            index,
        };
        self.heap.push(entry);
        self.rise(tickets, self.heap.len() - 1);
    }

    /// Removes a ticket that is in it.
    pub(crate) fn remove(&mut self, tickets: &mut Tickets, index: u32) {
        let at = tickets.at(index).map_or(usize::MAX, |ticket| ticket.ranked_at as usize);
        if self.heap.get(at).is_none_or(|entry| entry.index != index) {
            return;
        }
        self.heap.swap_remove(at);
        if at < self.heap.len() {
            let at = self.rise(tickets, at);
            self.sink(tickets, at);
        } else if self.heap.is_empty() {
            self.heap.shrink_to(KEPT);
        }
    }

    /// The number of those that come before a rank: an estimate from some of them where there are many.
    pub(crate) fn before(&self, rank: Time) -> usize {
        let step = self.heap.len().div_ceil(LOOKED_AT).max(1);
        let looked_at = self.heap.len().div_ceil(step);
        let before = self.heap.iter().step_by(step).filter(|entry| entry.rank <= rank);
        before.count() * self.heap.len() / looked_at.max(1)
    }

    /// Moves an entry towards the first as far as its rank allows; returns where it is then.
    fn rise(&mut self, tickets: &mut Tickets, mut at: usize) -> usize {
        while at > 0 && self.heap[at] < self.heap[(at - 1) / 2] {
            self.heap.swap(at, (at - 1) / 2);
            self.note(tickets, at);
            at = (at - 1) / 2;
        }
        self.note(tickets, at);
        at
    }

    /// Moves an entry away from the first as far as its rank demands.
    fn sink(&mut self, tickets: &mut Tickets, mut at: usize) {
        loop {
            let children = 2 * at + 1..(2 * at + 3).min(self.heap.len());
            let Some(least) = children.min_by_key(|child| self.heap[*child]) else {
                break;
            };
            if self.heap[at] < self.heap[least] {
                break;
            }
            self.heap.swap(at, least);
            self.note(tickets, at);
            at = least;
        }
        self.note(tickets, at);
    }

    /// Notes where an entry is.
    fn note(&self, tickets: &mut Tickets, at: usize) {
        if let Some(ticket) = tickets.at_mut(self.heap[at].index) {
            ticket.ranked_at = u32::try_from(at).unwrap_or(u32::MAX);
        }
    }
}
