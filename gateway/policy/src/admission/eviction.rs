//! Eviction: a running request of which nothing is lost if it is aborted and run again later (a line of a batch, a
//! background job) gives its slot to a waiting request of the priorities that the rules name.
//!
//! The newest goes first, since it has done the least. A request that was its class's turn while one of those priorities
//! waited keeps its slot, or the weights would mean nothing. What is lost is bounded by a budget of slot time for each
//! model: a part of the time of durable requests that completed. So at most a minute, a tenth of the useful time,
//! and one attempt are ever lost.

use super::state::{Model, Scheduler, flow, project_slots};
use crate::tickets::{Eviction, Ticket, TicketId, Which};
use crate::{ModelId, Order, ProjectId, QueueClass, Rules, Time};

/// The least important class for which requests are evicted.
fn lowest(rules: &Rules) -> Option<QueueClass> {
    let is_ordered = rules.scheduling.order != Order::Fifo;
    let lowest = rules.scheduling.evict_for.filter(|_| is_ordered)?;
    Some(QueueClass::of(crate::Class::Interactive, lowest))
}

impl Scheduler {
    /// Names a running request that is to be aborted and run again later, for one that waits.
    pub(crate) fn evict(&mut self, rules: &Rules, now: Time) -> Option<TicketId> {
        self.forget_vacated(rules);
        let lowest = lowest(rules).filter(|_| self.evictable > 0 && self.waiting > 0)?;
        let (model, victim) = self.models.ids().find_map(|id| {
            let class = self.lacks_slot(rules, id, lowest)?;
            Some((id, self.victim_for(id, class)?))
        })?;
        let ticket = self.tickets.at_mut(victim)?;
        ticket.eviction = Eviction::Named(now, model);
        let (of, spent) = (ticket.model, now - ticket.since);
        let evictions = &mut self.models[of].evictions;
        self.tickets.unlink(&mut evictions.possible, Which::Queue, victim);
        evictions.budget.subtract(spent);
        self.evictable -= 1;
        self.models[model].evictions.pending += 1;
        Some(self.tickets.id(victim))
    }

    /// Returns whether a request that has to wait could have a slot by eviction.
    pub(super) fn may_evict_for(&self, rules: &Rules, ticket: &Ticket) -> bool {
        lowest(rules).is_some_and(|lowest| ticket.class <= lowest)
            && self.evictable > 0
            && self.projects[ticket.project].is_free
            && self.lacks_capacity(rules, ticket.model, ticket.class)
            && self.victim_for(ticket.model, ticket.class).is_some()
    }

    /// Notes that a ticket starts, and whether it may be evicted from then on.
    pub(super) fn note_start(&mut self, rules: &Rules, index: u32) {
        let Some(ticket) = self.tickets.at(index).copied() else {
            return;
        };
        let Some(lowest) = lowest(rules) else { return };
        let evictions = &mut self.models[ticket.model].evictions;
        if ticket.class <= lowest {
            evictions.vacated = evictions.vacated.saturating_sub(1);
        }
        if ticket.eviction == Eviction::Never || self.is_wanted(ticket.model, lowest) {
            return;
        }
        if let Some(ticket) = self.tickets.at_mut(index) {
            ticket.eviction = Eviction::Possible;
        }
        let possible = &mut self.models[ticket.model].evictions.possible;
        self.tickets.push(possible, Which::Queue, index);
        self.evictable += 1;
    }

    /// Notes that a ticket that ran is about to be removed.
    pub(super) fn note_end(&mut self, id: TicketId, has_completed: bool, now: Time) {
        let Some(ticket) = self.tickets.get(id).copied() else {
            return;
        };
        let evictions = &mut self.models[ticket.model].evictions;
        match ticket.eviction {
            Eviction::Never => return,
            Eviction::Protected => {}
            Eviction::Possible => {
                self.tickets.unlink(&mut evictions.possible, Which::Queue, id.index);
                self.evictable -= 1;
            }
            Eviction::Named(at, _) if has_completed => evictions.budget.add(at - ticket.since),
            Eviction::Named(at, _) => evictions.budget.subtract(now - at),
        }
        if has_completed {
            evictions.budget.earn(now - ticket.since);
        }
        if let Eviction::Named(_, model) = ticket.eviction {
            let evictions = &mut self.models[model].evictions;
            evictions.pending -= 1;
            evictions.vacated += 1;
            self.has_vacated = true;
        }
    }

    /// Returns whether the next slot is one that was vacated for requests of this class and model.
    pub(super) fn is_vacated_for(&self, rules: &Rules, model: &Model, class: QueueClass) -> bool {
        self.has_vacated && model.evictions.vacated > 0 && lowest(rules).is_some_and(|lowest| class <= lowest)
    }

    /// Forgets slots that were vacated for requests that wait no more.
    fn forget_vacated(&mut self, rules: &Rules) {
        if !self.has_vacated {
            return;
        }
        self.has_vacated = false;
        for id in self.models.ids() {
            if lowest(rules).is_none_or(|lowest| !self.waits(id, lowest)) {
                self.models[id].evictions.vacated = 0;
            }
            self.has_vacated |= self.models[id].evictions.vacated > 0;
        }
    }

    /// The class of a request that waits for this model's or for all slots, and for which none is evicted yet.
    fn lacks_slot(&self, rules: &Rules, id: ModelId, lowest: QueueClass) -> Option<QueueClass> {
        let model = &self.models[id];
        let mut wanted = 0;
        for (class, listed) in model.classes.iter().take_while(|(class, _)| *class <= lowest) {
            if listed.projects.is_empty() || !self.lacks_capacity(rules, id, class) {
                continue;
            }
            for (_, project) in &listed.projects {
                wanted += self.may_start_of(rules, *project, id, class);
                if wanted > model.evictions.pending {
                    return Some(class);
                }
            }
        }
        None
    }

    /// Returns whether it is the lack of a slot that keeps a class's requests for a model waiting.
    fn lacks_capacity(&self, rules: &Rules, id: ModelId, class: QueueClass) -> bool {
        self.models[id].is_full() || !self.class_fits(rules, class)
    }

    /// The waiting requests of a project for a model in a class that its own limit lets run.
    fn may_start_of(&self, rules: &Rules, project: ProjectId, model: ModelId, class: QueueClass) -> usize {
        let state = &self.projects[project];
        let left = project_slots(rules, project, state.is_throttled).saturating_sub(state.running);
        flow(&state.flows, model, class).map_or(0, |flow| flow.by_age.len.min(left))
    }

    /// The newest running request that may be evicted for one of this class: of the model if that has no slot left, of any
    /// model if the slots of all are taken.
    fn victim_for(&self, id: ModelId, class: QueueClass) -> Option<u32> {
        if self.models[id].is_full() {
            return self.newest_evictable(&self.models[id], class);
        }
        let of_each = self
            .models
            .iter()
            .filter_map(|(_, model)| self.newest_evictable(model, class));
        of_each.max_by_key(|index| self.tickets.at(*index).map(|ticket| (ticket.since, ticket.sequence)))
    }

    fn newest_evictable(&self, model: &Model, class: QueueClass) -> Option<u32> {
        if model.evictions.budget.is_overdrawn() {
            return None;
        }
        let mut newest_first = self.tickets.newest_first(model.evictions.possible);
        newest_first.find(|index| self.tickets.at(*index).is_some_and(|ticket| ticket.class > class))
    }

    /// Returns whether a request for which others are evicted waits for a model's slot, or for one of all.
    fn is_wanted(&self, id: ModelId, lowest: QueueClass) -> bool {
        let mut others = self.models.iter().filter(|(_, model)| !model.is_full());
        self.waits(id, lowest) || others.any(|(other, _)| self.waits(other, lowest))
    }

    /// Returns whether a request for which others are evicted waits for a model, and not for its own project's limit.
    fn waits(&self, id: ModelId, lowest: QueueClass) -> bool {
        let mut classes = self.models[id].classes.iter();
        classes.any(|(class, listed)| class <= lowest && !listed.projects.is_empty())
    }

    /// Compares what is counted of evictions with the tickets.
    ///
    /// # Panics
    ///
    /// Panics if they differ.
    pub(super) fn check_evictions(&self) {
        let count = |is: &dyn Fn(&Ticket) -> bool| self.tickets.all().filter(|ticket| is(ticket)).count();
        assert_eq!(
            self.evictable,
            count(&|ticket| ticket.eviction == Eviction::Possible),
            "evictable"
        );
        for (id, model) in self.models.iter() {
            let is_of = |ticket: &Ticket| ticket.model == id && ticket.eviction == Eviction::Possible;
            assert_eq!(model.evictions.possible.len, count(&is_of), "evictable of {id:?}");
            let is_for = |ticket: &Ticket| matches!(ticket.eviction, Eviction::Named(_, model) if model == id);
            assert_eq!(model.evictions.pending, count(&is_for), "named for {id:?}");
        }
    }
}
