//! What can be seen of those who run and wait. Nothing here changes anything.

use super::Admission;
use crate::tickets::TicketId;
use crate::{ModelId, ProjectId, Rules, Time, UserId};
use std::time::Duration;

/// Someone who waits, for whoever wants to see the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// Its ticket.
    pub ticket: TicketId,
    /// Who pays.
    pub project: ProjectId,
    /// Who asks.
    pub user: UserId,
    /// For what.
    pub model: ModelId,
    /// 0 high, 1 normal, 2 low, 3 batch class.
    pub lane: usize,
    /// Its place in its lane by age, from 1.
    pub position: usize,
    /// How long it has waited.
    pub age: Duration,
}

impl Admission {
    pub(crate) fn running(&self) -> usize {
        self.running
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Tickets that run for a model.
    pub(crate) fn running_for(&self, model: ModelId) -> usize {
        self.models.get(model.0 as usize).map_or(0, |model| model.running)
    }

    /// Places that a model has now.
    pub(crate) fn slots_of(&self, model: ModelId) -> Option<usize> {
        self.models.get(model.0 as usize).map(|model| model.capacity.limit())
    }

    /// Tickets that wait in a lane.
    pub(crate) fn waiting_in(&self, lane: usize) -> usize {
        self.bands[lane].by_age.len
    }

    /// How long the oldest has waited, against what it may, 0 to 1.
    pub(crate) fn oldest_wait(&self, rules: &Rules, now: Time) -> f64 {
        let most = rules.global.max_queue_wait.as_secs_f64();
        let oldest = self.bands.iter().filter_map(|band| self.tickets.at(band.by_age.first?));
        let waits = oldest.map(|ticket| (now - ticket.since).as_secs_f64() / most);
        if most > 0.0 {
            waits.fold(0.0, f64::max).min(1.0)
        } else {
            0.0
        }
    }

    /// Everyone who waits, lane by lane, the oldest first.
    pub(crate) fn everyone(&self, now: Time) -> impl Iterator<Item = Waiting> {
        self.bands.iter().flat_map(move |band| {
            let by_age = self.tickets.by_age(band.by_age).zip(1..);
            by_age.map(move |((id, ticket), position)| Waiting {
                ticket: id,
                project: ticket.project,
                user: ticket.user,
                model: ticket.model,
                lane: ticket.lane,
                position,
                age: now - ticket.since,
            })
        })
    }

    /// How long a ticket that waits will have waited, at the present pace.
    pub(crate) fn expected_of(&self, rules: &Rules, id: TicketId) -> Option<Duration> {
        let ticket = self.tickets.get(id).filter(|ticket| !ticket.is_running)?;
        Some(self.expected(rules, ticket).0)
    }
}
