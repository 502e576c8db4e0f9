//! Read-only views of the requests that run and wait.

use super::state::Scheduler;
use crate::tickets::TicketId;
use crate::{ModelId, ProjectId, QueueClass, Rules, SharedSlots, Time, UserId};
use std::time::Duration;

/// A request in the queue, for display.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueEntry {
    /// The ticket.
    pub ticket: TicketId,
    /// The project that is billed.
    pub project: ProjectId,
    /// The user that sent it.
    pub user: UserId,
    /// The model that will answer.
    pub model: ModelId,
    /// The class of the queue.
    pub class: QueueClass,
    /// The position in its class by age, from 1.
    pub position: usize,
    /// The time that it has waited.
    pub age: Duration,
}

impl Scheduler {
    pub(crate) fn running(&self) -> usize {
        self.running
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// The requests that run and wait, of those that slots are for.
    pub(crate) fn in_use(&self, slots: SharedSlots) -> (usize, usize) {
        let counted = match slots {
            SharedSlots::All => Some((self.running, self.waiting)),
            SharedSlots::Project(project) => {
                let project = self.projects.get(project);
                project.map(|project| (project.running, project.waiting))
            }
            SharedSlots::Model(model) => {
                let model = self.models.get(model);
                model.map(|model| (model.capacity.running(), model.waiting))
            }
        };
        counted.unwrap_or_default()
    }

    /// Tickets that run for a model.
    pub(crate) fn running_for(&self, model: ModelId) -> usize {
        self.models.get(model).map_or(0, |model| model.capacity.running())
    }

    /// Slots that a model has now.
    pub(crate) fn slots_of(&self, model: ModelId) -> Option<usize> {
        self.models.get(model).map(|model| model.capacity.limit())
    }

    /// The tokens that a model may have in flight now.
    pub(crate) fn token_limit_of(&self, model: ModelId, now: Time) -> Option<u64> {
        self.models.get(model)?.capacity.token_limit(now)
    }

    /// The tokens that a model has in flight.
    pub(crate) fn tokens_of(&self, model: ModelId) -> u64 {
        self.models.get(model).map_or(0, |model| model.capacity.tokens())
    }

    /// Tickets that wait in a class.
    pub(crate) fn waiting_in(&self, class: QueueClass) -> usize {
        self.bands[class].by_age.len
    }

    /// All requests that wait, class by class, the oldest first.
    pub(crate) fn queue(&self, now: Time) -> impl Iterator<Item = QueueEntry> {
        self.bands.iter().flat_map(move |(_, band)| {
            let by_age = self.tickets.by_age(band.by_age).zip(1..);
            by_age.map(move |((id, ticket), position)| QueueEntry {
                ticket: id,
                project: ticket.project,
                user: ticket.user,
                model: ticket.model,
                class: ticket.class,
                position,
                age: now - ticket.since,
            })
        })
    }

    /// The expected wait of a queued ticket, at the present pace.
    pub(crate) fn expected_of(&self, rules: &Rules, id: TicketId) -> Option<Duration> {
        let ticket = self.tickets.get(id).filter(|ticket| !ticket.is_running)?;
        Some(self.expected(rules, ticket).0)
    }
}
