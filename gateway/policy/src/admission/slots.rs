//! Slots: which request may take one, what taking one costs those who share, and what is kept of each.

use super::queue::flow_mut;
use super::{Mean, Model, Project, Scheduler, User};
use crate::capacity::Capacity;
use crate::fairness::{weighed, work};
use crate::tickets::Ticket;
use crate::{AdmissionRequest, ByClass, Order, ProjectId, QueueClass, Rules, Terms, Time};

impl Scheduler {
    /// Whether a slot is free that this ticket may take.
    pub(super) fn fits(&self, rules: &Rules, ticket: &Ticket) -> bool {
        let model = &self.models[ticket.model];
        model.running < model.capacity.limit()
            && self.projects[ticket.project].is_free
            && self.class_fits(rules, ticket.class)
    }

    /// Whether a class may take one slot more: requests in it and below it together leave what is reserved
    /// for those above it.
    pub(super) fn class_fits(&self, rules: &Rules, class: QueueClass) -> bool {
        let mut slots = rules.global.max_active_requests;
        let mut taken = self.running;
        if rules.scheduling.order == Order::Fifo {
            return taken < slots;
        }
        let above = QueueClass::ALL.into_iter().take_while(|above| *above < class);
        for (above, reserved) in above.zip(rules.scheduling.reserved) {
            if taken >= slots {
                return false;
            }
            taken -= self.running_by_class[above];
            slots = slots.saturating_sub(reserved);
        }
        taken < slots
    }

    /// Gives a ticket its slot, and charges those who share.
    pub(super) fn start(&mut self, rules: &Rules, index: u32, now: Time) {
        let Some(ticket) = self.tickets.at_mut(index) else {
            return;
        };
        (ticket.is_running, ticket.since) = (true, now);
        let ticket = *ticket;
        let class = ticket.class;
        self.running += 1;
        self.running_by_class[class] += 1;
        let project = &mut self.projects[ticket.project];
        let user = &mut self.users[ticket.user];
        let model = &mut self.models[ticket.model];
        model.running += 1;
        project.running += 1;
        // A flow that begins to wait from now on starts from here.
        self.reached = self.reached.max(self.bands[class].served.0);
        let listed = &mut model.classes[class];
        listed.reached = listed.reached.max(project.served[class].0);
        let flow = flow_mut(&mut project.flows, ticket.model, class);
        flow.reached = flow.reached.max(user.served[class].0);
        self.bands[class]
            .served
            .charge(weighed(ticket.cost, rules.scheduling.weight(class)));
        project.served[class].charge(doubled(ticket.cost, project.is_throttled));
        user.served[class].charge(doubled(ticket.cost, user.is_throttled));
        self.refresh(rules, ticket.project);
        self.relist_project(rules.scheduling.order, ticket.project, class);
        self.relist_user(rules.scheduling.order, ticket.user, class);
    }

    /// Replaces what was charged by the actual.
    pub(super) fn correct(&mut self, rules: &Rules, ticket: &Ticket, actual: u64) {
        let (class, weight) = (ticket.class, rules.scheduling.weight(ticket.class));
        let project = &mut self.projects[ticket.project];
        let user = &mut self.users[ticket.user];
        self.bands[class]
            .served
            .correct(weighed(ticket.cost, weight), weighed(actual, weight));
        let shares = [
            (&mut project.served[class], project.is_throttled),
            (&mut user.served[class], user.is_throttled),
        ];
        for (served, is_throttled) in shares {
            served.correct(doubled(ticket.cost, is_throttled), doubled(actual, is_throttled));
        }
    }

    /// The work that such a request usually is: its answer may have `max_tokens`, but seldom has.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub(super) fn usual_work(&self, ask: &AdmissionRequest, terms: &Terms) -> u64 {
        let most = terms.estimate.output_tokens;
        let usual = self.models[terms.model].output.0;
        work(ask.input_tokens, usual.map_or(most, |usual| most.min(usual as u64)))
    }

    /// Makes sure that every id in the request has a state.
    pub(super) fn ensure_known(&mut self, rules: &Rules, ask: &AdmissionRequest) {
        for model in [Some(ask.model), ask.smaller].into_iter().flatten() {
            self.models.entry(model, |id| Model {
                capacity: Capacity::new(rules.model(id).concurrency),
                running: 0,
                waiting: 0,
                classes: ByClass::default(),
                service: Mean::default(),
                output: Mean::default(),
            });
        }
        self.projects.entry(ask.project, |id| Project {
            is_free: project_slots(rules, id, false) > 0,
            ..Project::default()
        });
        self.users.entry(ask.user, |_| User::default());
    }
}

/// The slots that a project may take at once.
pub(super) fn project_slots(rules: &Rules, project: ProjectId, is_throttled: bool) -> usize {
    match rules.project(project).max_concurrent_requests {
        Some(limit) if is_throttled => limit.div_ceil(2).max(1),
        Some(limit) => limit,
        None => usize::MAX,
    }
}

/// The work as charged: double for the throttled, which halves their share.
fn doubled(work: u64, is_throttled: bool) -> u64 {
    if is_throttled { work.saturating_mul(2) } else { work }
}
