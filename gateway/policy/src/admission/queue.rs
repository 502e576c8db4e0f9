//! The queue: joining, leaving, displacement, and the lists that requests stand in.

use super::state::{Project, Scheduler, Turn, User, flow_mut, queue_mut};
use crate::fairness::{project_key, user_key};
use crate::tickets::{Ticket, TicketId, Which};
use crate::{Order, ProjectId, QueueClass, Rules, SharedSlots, UserId};

impl Scheduler {
    /// Applies changed rules. Running requests go on; smaller limits take effect as slots become free.
    pub(crate) fn reconfigure(&mut self, rules: &Rules) {
        for (id, model) in self.models.iter_mut() {
            model.capacity.reconfigure(&rules.model(id));
            model.turn.recheck();
            model.free_since = self.now;
        }
        // A project's rank can be that of its first user: users come first.
        for user in self.users.ids() {
            for class in QueueClass::ALL {
                self.relist_user(rules.scheduling.order, user, class);
            }
        }
        for project in self.projects.ids() {
            self.refresh(rules, project);
            for class in QueueClass::ALL {
                self.relist_project(rules.scheduling.order, project, class);
            }
        }
    }

    /// Applies limits of slots that have changed, in the rules, since gateways share them.
    pub(crate) fn slots_changed(&mut self, rules: &Rules, changed: &[SharedSlots]) {
        for slots in changed {
            match *slots {
                SharedSlots::All => {}
                SharedSlots::Project(project) if self.projects.get(project).is_some() => self.refresh(rules, project),
                SharedSlots::Model(id) => {
                    if let Some(model) = self.models.get_mut(id) {
                        let was_full = model.is_full();
                        model.capacity.reconfigure(&rules.model(id));
                        model.turn.recheck();
                        if was_full && !model.is_full() {
                            model.free_since = self.now;
                        }
                    }
                }
                SharedSlots::Project(_) => {}
            }
        }
    }

    pub(super) fn enqueue(&mut self, rules: &Rules, index: u32) {
        let Some(ticket) = self.tickets.at(index).copied() else {
            return;
        };
        let class = ticket.class;
        let band = &mut self.bands[class];
        if band.by_age.len == 0 {
            band.served.lift(self.reached);
        }
        self.tickets.push(&mut band.by_age, Which::Class, index);
        let waiting = band.waiting_by_project.entry(ticket.project, |_| 0);
        *waiting += 1;
        band.projects_waiting += usize::from(*waiting == 1);
        self.waiting += 1;
        let model = &mut self.models[ticket.model];
        model.waiting += 1;
        model.turn.recheck();
        let project = &mut self.projects[ticket.project];
        project.waiting += 1;
        let user = &mut self.users[ticket.user];
        let flow = flow_mut(&mut project.flows, ticket.model, class);
        let queue = queue_mut(&mut user.queues, ticket.project, ticket.model, class);
        let (begins, user_begins) = (flow.by_age.len == 0, queue.list.len == 0);
        self.tickets.push(&mut flow.by_age, Which::Flow, index);
        self.tickets.push(&mut queue.list, Which::Queue, index);
        queue.sessions.push(&mut self.tickets, index);
        if user_begins {
            user.served[class].lift(flow.reached);
            self.relist_user(rules.scheduling.order, ticket.user, class);
        }
        if begins {
            let reached = self.models[ticket.model].classes[class].reached;
            self.projects[ticket.project].served[class].lift(reached);
        }
        if begins || user_begins {
            self.relist_project(rules.scheduling.order, ticket.project, class);
        }
        self.recount(ticket.project, ticket.model, class);
    }

    /// Takes a ticket out of the lists that it stands in. Its user and project are to be listed anew.
    pub(super) fn dequeue(&mut self, index: u32) {
        let Some(ticket) = self.tickets.at(index).copied() else {
            return;
        };
        let class = ticket.class;
        let band = &mut self.bands[class];
        self.tickets.unlink(&mut band.by_age, Which::Class, index);
        let left = &mut band.waiting_by_project[ticket.project];
        *left -= 1;
        band.projects_waiting -= usize::from(*left == 0);
        self.waiting -= 1;
        let model = &mut self.models[ticket.model];
        model.waiting -= 1;
        model.turn.recheck();
        if model.waiting == 0 && model.turn != Turn::Free {
            (model.turn, model.free_since) = (Turn::Free, self.now);
        }
        let project = &mut self.projects[ticket.project];
        project.waiting -= 1;
        let flow = flow_mut(&mut project.flows, ticket.model, class);
        self.tickets.unlink(&mut flow.by_age, Which::Flow, index);
        let queue = queue_mut(&mut self.users[ticket.user].queues, ticket.project, ticket.model, class);
        self.tickets.unlink(&mut queue.list, Which::Queue, index);
        queue.sessions.remove(&mut self.tickets, index);
        self.recount(ticket.project, ticket.model, class);
    }

    /// Removes a ticket from the queue, for good.
    pub(super) fn leave(&mut self, rules: &Rules, id: TicketId) {
        self.dequeue(id.index);
        let Some(ticket) = self.tickets.remove(id) else { return };
        self.relist_user(rules.scheduling.order, ticket.user, ticket.class);
        self.relist_project(rules.scheduling.order, ticket.project, ticket.class);
    }

    /// The ticket that makes room in a full queue: the newest of the lowest class below the newcomer's, or, in its
    /// own class, the newest of the project or user that has more waiting than the newcomer's. So a flood displaces
    /// itself.
    pub(super) fn victim(&self, order: Order, newcomer: &Ticket) -> Option<TicketId> {
        if order == Order::Fifo {
            return None;
        }
        if let Some(newest) = self.newest_below(newcomer.class) {
            return Some(newest);
        }
        let counts = &self.bands[newcomer.class].waiting_by_project;
        let own = counts.get(newcomer.project).copied().unwrap_or(0);
        let (greediest, most) = counts.iter().max_by_key(|(_, count)| **count)?;
        if *most > own + 1 {
            return self.newest_of_greediest(greediest, newcomer.class, 0);
        }
        let own = self.waiting_of(newcomer.user, newcomer.project, newcomer.class);
        self.newest_of_greediest(newcomer.project, newcomer.class, own + 1)
    }

    /// The newest ticket of the least important class that has one, if that is below `class`.
    pub(super) fn newest_below(&self, class: QueueClass) -> Option<TicketId> {
        let newest = class.below().find_map(|class| self.bands[class].by_age.last)?;
        Some(self.tickets.id(newest))
    }

    /// The newest ticket of the project's user who has the most waiting in a class, if more than `above`.
    fn newest_of_greediest(&self, project: ProjectId, class: QueueClass, above: usize) -> Option<TicketId> {
        let flows = self.projects[project].flows[class].iter();
        let users = flows.flat_map(|flow| flow.users.iter().map(|(_, user)| *user));
        let (count, greediest) = users.map(|user| (self.waiting_of(user, project, class), user)).max()?;
        let queues = &self.users[greediest].queues[class];
        let newest = queues
            .iter()
            .filter(|(of, _)| *of == project)
            .filter_map(|(_, queue)| queue.list.last);
        let newest = newest.max_by_key(|index| self.tickets.at(*index).map(|ticket| ticket.sequence))?;
        (count > above).then(|| self.tickets.id(newest))
    }

    fn waiting_of(&self, user: UserId, project: ProjectId, class: QueueClass) -> usize {
        let queues = self.users[user].queues[class].iter();
        queues
            .filter(|(of, _)| *of == project)
            .map(|(_, queue)| queue.list.len)
            .sum()
    }

    // === the order

    /// Lists or removes a project whose own limit may have been reached or left.
    pub(super) fn refresh(&mut self, rules: &Rules, project: ProjectId) {
        let is_free = self.is_free(rules, project);
        let state = &mut self.projects[project];
        if state.is_free != is_free {
            state.is_free = is_free;
            state.free_since = self.now;
            for class in QueueClass::ALL {
                self.relist_project(rules.scheduling.order, project, class);
            }
            self.recount_project(project);
        }
    }

    /// Lists a project under its present key, for every model that it waits for in this class.
    pub(super) fn relist_project(&mut self, order: Order, id: ProjectId, class: QueueClass) {
        let Project {
            flows, served, is_free, ..
        } = &mut self.projects[id];
        for flow in &mut flows[class] {
            let first = flow.users.first().filter(|_| *is_free);
            let key = first.map(|(first, _)| project_key(order, served[class], *first));
            if flow.listed != key {
                let projects = &mut self.models[flow.model].classes[class].projects;
                if let Some(before) = flow.listed {
                    projects.remove(&(before, id));
                }
                projects.extend(key.map(|key| (key, id)));
                flow.listed = key;
            }
        }
    }

    /// Lists a user under its present key, in every flow that it waits in.
    pub(super) fn relist_user(&mut self, order: Order, id: UserId, class: QueueClass) {
        let User { queues, served, .. } = &mut self.users[id];
        for (project, queue) in &mut queues[class] {
            let first = queue.sessions.first().and_then(|index| self.tickets.at(index));
            let key = first.map(|first| user_key(order, served[class], first.sequence));
            if queue.listed != key {
                let flow = flow_mut(&mut self.projects[*project].flows, queue.model, class);
                if let Some(before) = queue.listed {
                    flow.users.remove(&(before, id));
                }
                flow.users.extend(key.map(|key| (key, id)));
                queue.listed = key;
            }
        }
    }
}
