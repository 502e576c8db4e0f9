//! The requests that run and wait: a slab of tickets, and the lists of those that wait.
//!
//! The lists are links inside the tickets, so joining, leaving from the middle and being served cost no
//! allocation and no search. A ticket stands in three by age: its own queue's (user, model, class), its
//! flow's (project, model, class) and its class's, which know the oldest and the newest. The order in which a queue is served
//! is kept apart, in `sessions` and `ranking`.

use crate::charge::Charge;
use crate::prediction::Contexts;
use crate::{Milestone, ModelId, ProjectId, QueueClass, Time, UserId};
use std::time::Duration;

/// A request that was let in: it waits or runs, until it is settled or cancelled. A number that is used
/// again carries another generation, so an old ticket is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TicketId {
    pub(crate) index: u32,
    generation: u32,
}

/// A request that runs or waits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ticket {
    pub(crate) project: ProjectId,
    pub(crate) user: UserId,
    pub(crate) model: ModelId,
    pub(crate) class: QueueClass,
    /// Position in the order of arrival.
    pub(crate) sequence: u64,
    /// The session of its user's that it belongs to.
    pub(crate) session: Option<u64>,
    /// Its rank among its user's requests: when it came, and its handicap.
    pub(crate) rank: Time,
    /// Its position among those, while it waits.
    pub(crate) ranked_at: u32,
    /// What its length was predicted from, and teaches.
    pub(crate) contexts: Contexts,
    /// The work that such a request usually is.
    pub(crate) work: u64,
    /// The charge to its band, project and user, from its start until it is settled.
    pub(crate) charged: Charge,
    /// Its tokens in flight while it runs: its uncached prompt, and the usual length of its answer.
    pub(crate) tokens: u64,
    /// Since when it waits, or runs.
    pub(crate) since: Time,
    pub(crate) deadline: Time,
    /// The objective that sets the deadline, if one does.
    pub(crate) objective: Option<(Milestone, Duration)>,
    pub(crate) is_running: bool,
    pub(crate) eviction: Eviction,
    /// In its queue while it waits; while it runs, among those of its model that may be evicted.
    pub(crate) in_queue: Links,
    pub(crate) in_flow: Links,
    pub(crate) in_class: Links,
}

/// How a running request stands towards eviction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Eviction {
    /// Its client waits for it, or it was evicted often enough.
    #[default]
    Never,
    /// It is durable, and has its slot by its class's turn.
    Protected,
    /// It is durable, and may be evicted.
    Possible,
    /// It was named at this time, for a request of this model, and has not ended yet.
    Named(Time, ModelId),
}

/// A ticket's neighbours in a list.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Links {
    before: Option<u32>,
    after: Option<u32>,
}

/// A list's ends.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct List {
    pub(crate) first: Option<u32>,
    pub(crate) last: Option<u32>,
    pub(crate) len: usize,
}

/// Which of a ticket's lists.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Which {
    Queue,
    Flow,
    Class,
}

/// All tickets.
#[derive(Debug, Default)]
pub(crate) struct Tickets {
    slots: Vec<(u32, Option<Ticket>)>,
    free: Vec<u32>,
}

impl Tickets {
    pub(crate) fn add(&mut self, ticket: Ticket) -> TicketId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push((0, None));
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        let slot = &mut self.slots[index as usize];
        slot.1 = Some(ticket);
        TicketId {
            index,
            generation: slot.0,
        }
    }

    pub(crate) fn get(&self, id: TicketId) -> Option<&Ticket> {
        let (generation, ticket) = self.slots.get(id.index as usize)?;
        ticket.as_ref().filter(|_| *generation == id.generation)
    }

    pub(crate) fn at(&self, index: u32) -> Option<&Ticket> {
        self.slots.get(index as usize)?.1.as_ref()
    }

    pub(crate) fn at_mut(&mut self, index: u32) -> Option<&mut Ticket> {
        self.slots.get_mut(index as usize)?.1.as_mut()
    }

    /// All tickets, in no order.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Ticket> {
        self.slots.iter().filter_map(|(_, ticket)| ticket.as_ref())
    }

    pub(crate) fn id(&self, index: u32) -> TicketId {
        TicketId {
            index,
            generation: self.slots.get(index as usize).map_or(0, |slot| slot.0),
        }
    }

    pub(crate) fn remove(&mut self, id: TicketId) -> Option<Ticket> {
        let slot = self.slots.get_mut(id.index as usize)?;
        if slot.0 != id.generation {
            return None;
        }
        let ticket = slot.1.take()?;
        slot.0 = slot.0.wrapping_add(1);
        self.free.push(id.index);
        Some(ticket)
    }

    /// Appends a ticket to a list.
    pub(crate) fn push(&mut self, list: &mut List, which: Which, index: u32) {
        if let Some(links) = self.links(which, index) {
            *links = Links {
                before: list.last,
                after: None,
            };
        }
        match list.last {
            Some(last) => {
                if let Some(links) = self.links(which, last) {
                    links.after = Some(index);
                }
            }
            None => list.first = Some(index),
        }
        list.last = Some(index);
        list.len += 1;
    }

    /// Takes a ticket out of a list that it stands in.
    pub(crate) fn unlink(&mut self, list: &mut List, which: Which, index: u32) {
        let Some(links) = self.links(which, index).map(std::mem::take) else {
            return;
        };
        match links.before.and_then(|before| self.links(which, before)) {
            Some(before) => before.after = links.after,
            None => list.first = links.after,
        }
        match links.after.and_then(|after| self.links(which, after)) {
            Some(after) => after.before = links.before,
            None => list.last = links.before,
        }
        list.len -= 1;
    }

    /// The tickets of a class's list, the oldest first.
    pub(crate) fn by_age(&self, list: List) -> impl Iterator<Item = (TicketId, &Ticket)> {
        std::iter::successors(list.first, |index| self.at(*index)?.in_class.after)
            .filter_map(|index| Some((self.id(index), self.at(index)?)))
    }

    /// The tickets of a queue's list, the newest first.
    pub(crate) fn newest_first(&self, list: List) -> impl Iterator<Item = u32> {
        std::iter::successors(list.last, |index| self.at(*index)?.in_queue.before)
    }

    fn links(&mut self, which: Which, index: u32) -> Option<&mut Links> {
        let ticket = self.at_mut(index)?;
        Some(match which {
            Which::Queue => &mut ticket.in_queue,
            Which::Flow => &mut ticket.in_flow,
            Which::Class => &mut ticket.in_class,
        })
    }
}
