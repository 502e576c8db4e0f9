//! A user's waiting requests by session: the session that was served the least work goes first, so that one agent's
//! thousand calls do not keep another's ten waiting. Requests without a session are one session together.
//!
//! A session is known while requests of it wait, so the memory is bounded by the queue. One that begins to wait is lifted to
//! the counter that was served last: neither credit nor debt outlasts its wait.

use crate::Time;
use crate::ranking::Ranked;
use crate::served::Served;
use crate::tickets::Tickets;
use std::collections::{BTreeSet, HashMap};

/// The waiting requests of a user for one model in one class.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    /// Those without a session.
    plain: Session,
    named: HashMap<u64, Session>,
    /// The named sessions by the work that they were served.
    order: BTreeSet<(u64, u64)>,
    /// The counter of the session that was served last.
    reached: u64,
}

#[derive(Debug, Default)]
struct Session {
    served: Served,
    ranked: Ranked,
}

impl Sessions {
    /// The ticket that is first.
    pub(crate) fn first(&self) -> Option<u32> {
        let plain = self.plain.ranked.first();
        match self.order.first() {
            Some((served, name)) if plain.is_none() || *served < self.plain.served.0 => {
                self.named.get(name)?.ranked.first()
            }
            _ => plain,
        }
    }

    /// Adds a ticket.
    pub(crate) fn push(&mut self, tickets: &mut Tickets, index: u32) {
        let Some(name) = tickets.at(index).map(|ticket| ticket.session) else {
            return;
        };
        let reached = self.reached;
        let session = match name {
            Some(name) => self.named.entry(name).or_default(),
            None => &mut self.plain,
        };
        if session.ranked.is_empty() {
            session.served.lift(reached);
            self.order.extend(name.map(|name| (session.served.0, name)));
        }
        session.ranked.push(tickets, index);
    }

    /// Removes a ticket that is in it.
    pub(crate) fn remove(&mut self, tickets: &mut Tickets, index: u32) {
        let Some(name) = tickets.at(index).map(|ticket| ticket.session) else {
            return;
        };
        let Some(name) = name else {
            self.plain.ranked.remove(tickets, index);
            return;
        };
        let Some(session) = self.named.get_mut(&name) else {
            return;
        };
        session.ranked.remove(tickets, index);
        if session.ranked.is_empty() {
            self.order.remove(&(session.served.0, name));
            self.named.remove(&name);
        }
    }

    /// Charges a session for one of its requests that starts.
    pub(crate) fn charge(&mut self, name: Option<u64>, work: u64) {
        let session = match name {
            Some(name) => self.named.get_mut(&name),
            None => Some(&mut self.plain),
        };
        let Some(session) = session else { return };
        let before = session.served.0;
        self.reached = self.reached.max(before);
        session.served.charge(work);
        if let Some(name) = name
            && self.order.remove(&(before, name))
        {
            self.order.insert((session.served.0, name));
        }
    }

    /// The number of those that are served before a request of this rank and session is, about.
    pub(crate) fn before(&self, name: Option<u64>, rank: Time) -> usize {
        let own = match name {
            Some(name) => self.named.get(&name),
            None => Some(&self.plain),
        };
        let own = own.map_or(0, |session| session.ranked.before(rank));
        let is_new = name.is_some_and(|name| !self.named.contains_key(&name));
        let others = self.named.len() + usize::from(!self.plain.ranked.is_empty()) + usize::from(is_new);
        // Each of the other sessions is served as often, as far as the requests that wait allow.
        (own + 1).saturating_mul(others.max(1)).saturating_sub(1)
    }
}
