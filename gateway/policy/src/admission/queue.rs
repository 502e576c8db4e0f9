//! The queue: joining, leaving, who makes room, and where everyone is listed.

use super::{Admission, Project, User, places};
use crate::fairness::{Flow, LANES, Queue, project_key, user_key};
use crate::tickets::{List, Ticket, TicketId, Which};
use crate::{ModelId, Order, ProjectId, Rules, UserId};
use std::collections::BTreeSet;

impl Admission {
    pub(super) fn enqueue(&mut self, rules: &Rules, index: u32) {
        let Some(ticket) = self.tickets.at(index).copied() else {
            return;
        };
        let lane = ticket.lane;
        let band = &mut self.bands[lane];
        if band.by_age.len == 0 {
            band.served.lift(self.reached);
        }
        self.tickets.push(&mut band.by_age, Which::Lane, index);
        let project_at = ticket.project.0 as usize;
        if band.waiting_by_project.len() <= project_at {
            band.waiting_by_project.resize(project_at + 1, 0);
        }
        band.waiting_by_project[project_at] += 1;
        band.projects_waiting += usize::from(band.waiting_by_project[project_at] == 1);
        self.waiting += 1;
        let model = &mut self.models[ticket.model.0 as usize];
        model.waiting += 1;
        let project = &mut self.projects[project_at];
        project.waiting += 1;
        let user = &mut self.users[ticket.user.0 as usize];
        let flow = flow_mut(&mut project.flows, ticket.model, lane);
        let queue = queue_mut(&mut user.queues, ticket.project, ticket.model, lane);
        let (begins, user_begins) = (flow.waiting == 0, queue.list.len == 0);
        flow.waiting += 1;
        self.tickets.push(&mut queue.list, Which::Queue, index);
        if user_begins {
            user.served[lane].lift(flow.reached);
            self.relist_user(rules.scheduling.order, ticket.user, lane);
        }
        if begins {
            let reached = self.models[ticket.model.0 as usize].lanes[lane].reached;
            self.projects[project_at].served[lane].lift(reached);
        }
        if begins || user_begins {
            self.relist_project(rules.scheduling.order, ticket.project, lane);
        }
    }

    pub(super) fn dequeue(&mut self, rules: &Rules, index: u32) {
        let Some(ticket) = self.tickets.at(index).copied() else {
            return;
        };
        let lane = ticket.lane;
        let band = &mut self.bands[lane];
        self.tickets.unlink(&mut band.by_age, Which::Lane, index);
        let left = &mut band.waiting_by_project[ticket.project.0 as usize];
        *left -= 1;
        band.projects_waiting -= usize::from(*left == 0);
        self.waiting -= 1;
        self.models[ticket.model.0 as usize].waiting -= 1;
        let project = &mut self.projects[ticket.project.0 as usize];
        project.waiting -= 1;
        flow_mut(&mut project.flows, ticket.model, lane).waiting -= 1;
        let queue = queue_mut(
            &mut self.users[ticket.user.0 as usize].queues,
            ticket.project,
            ticket.model,
            lane,
        );
        self.tickets.unlink(&mut queue.list, Which::Queue, index);
        self.relist_user(rules.scheduling.order, ticket.user, lane);
        self.relist_project(rules.scheduling.order, ticket.project, lane);
    }

    /// Takes a ticket out of the queue, for good.
    pub(super) fn leave(&mut self, rules: &Rules, id: TicketId) {
        self.dequeue(rules, id.index);
        self.tickets.remove(id);
    }

    /// Who makes room in a full queue: the newest of the lowest lane below the newcomer's, or, in its own
    /// lane, the newest of whoever has more waiting than the newcomer. So a flood displaces itself.
    pub(super) fn victim(&self, order: Order, newcomer: &Ticket) -> Option<TicketId> {
        if order == Order::Fifo {
            return None;
        }
        let mut below = (newcomer.lane + 1..LANES).rev();
        if let Some(newest) = below.find_map(|lane| self.bands[lane].by_age.last) {
            return Some(self.tickets.id(newest));
        }
        let counts = &self.bands[newcomer.lane].waiting_by_project;
        let own = counts.get(newcomer.project.0 as usize).copied().unwrap_or(0);
        let most = counts.iter().copied().max()?;
        if most > own + 1 {
            let at = counts.iter().position(|count| *count == most)?;
            let project = ProjectId(u32::try_from(at).ok()?);
            return self.newest_of_greediest(project, newcomer.lane, 0);
        }
        let own = self.waiting_of(newcomer.user, newcomer.project, newcomer.lane);
        self.newest_of_greediest(newcomer.project, newcomer.lane, own + 1)
    }

    /// The newest ticket of the project's user who has the most waiting in a lane, if more than `above`.
    fn newest_of_greediest(&self, project: ProjectId, lane: usize, above: usize) -> Option<TicketId> {
        let flows = self.projects[project.0 as usize].flows.iter();
        let users = flows
            .filter(|flow| flow.lane == lane)
            .flat_map(|flow| flow.users.iter().map(|(_, user)| *user));
        let (count, greediest) = users.map(|user| (self.waiting_of(user, project, lane), user)).max()?;
        let queues = &self.users[greediest.0 as usize].queues;
        let newest = queues
            .iter()
            .filter(|(of, queue)| *of == project && queue.lane == lane)
            .filter_map(|(_, queue)| queue.list.last);
        let newest = newest.max_by_key(|index| self.tickets.at(*index).map(|ticket| ticket.sequence))?;
        (count > above).then(|| self.tickets.id(newest))
    }

    fn waiting_of(&self, user: UserId, project: ProjectId, lane: usize) -> usize {
        let queues = self.users[user.0 as usize].queues.iter();
        queues
            .filter(|(of, queue)| *of == project && queue.lane == lane)
            .map(|(_, queue)| queue.list.len)
            .sum()
    }

    // === the order

    pub(super) fn is_free(&self, rules: &Rules, project: ProjectId) -> bool {
        let state = &self.projects[project.0 as usize];
        state.running < places(rules, project, state.is_throttled)
    }

    /// Lists or unlists a project whose own limit may have been reached or left.
    pub(super) fn refresh(&mut self, rules: &Rules, project: ProjectId) {
        let is_free = self.is_free(rules, project);
        let state = &mut self.projects[project.0 as usize];
        if state.is_free != is_free {
            state.is_free = is_free;
            for lane in 0..LANES {
                self.relist_project(rules.scheduling.order, project, lane);
            }
        }
    }

    /// Puts a project where its counter says, in every model's lane that it waits in.
    pub(super) fn relist_project(&mut self, order: Order, id: ProjectId, lane: usize) {
        let Project {
            flows, served, is_free, ..
        } = &mut self.projects[id.0 as usize];
        for flow in flows.iter_mut().filter(|flow| flow.lane == lane) {
            let first = flow.users.first().filter(|_| *is_free);
            let key = first.map(|(first, _)| project_key(order, served[lane], *first));
            if flow.listed != key {
                let projects = &mut self.models[flow.model.0 as usize].lanes[lane].projects;
                if let Some(before) = flow.listed {
                    projects.remove(&(before, id));
                }
                projects.extend(key.map(|key| (key, id)));
                flow.listed = key;
            }
        }
    }

    /// Puts a user where its counter says, in every flow that it waits in.
    pub(super) fn relist_user(&mut self, order: Order, id: UserId, lane: usize) {
        let User { queues, served, .. } = &mut self.users[id.0 as usize];
        for (project, queue) in queues.iter_mut().filter(|(_, queue)| queue.lane == lane) {
            let oldest = queue.list.first.and_then(|index| self.tickets.at(index));
            let key = oldest.map(|oldest| user_key(order, served[lane], oldest.sequence));
            if queue.listed != key {
                let flow = flow_mut(&mut self.projects[project.0 as usize].flows, queue.model, lane);
                if let Some(before) = queue.listed {
                    flow.users.remove(&(before, id));
                }
                flow.users.extend(key.map(|key| (key, id)));
                queue.listed = key;
            }
        }
    }
}

pub(super) fn flow(flows: &[Flow], model: ModelId, lane: usize) -> Option<&Flow> {
    flows.iter().find(|flow| flow.model == model && flow.lane == lane)
}

pub(super) fn flow_mut(flows: &mut Vec<Flow>, model: ModelId, lane: usize) -> &mut Flow {
    let found = flows.iter().position(|flow| flow.model == model && flow.lane == lane);
    let at = found.unwrap_or_else(|| {
        flows.push(Flow {
            model,
            lane,
            users: BTreeSet::new(),
            reached: 0,
            listed: None,
            waiting: 0,
        });
        flows.len() - 1
    });
    &mut flows[at]
}

pub(super) fn queue(queues: &[(ProjectId, Queue)], project: ProjectId, model: ModelId, lane: usize) -> Option<&Queue> {
    let found = queues
        .iter()
        .find(|(of, queue)| *of == project && queue.model == model && queue.lane == lane);
    found.map(|(_, queue)| queue)
}

pub(super) fn queue_mut(
    queues: &mut Vec<(ProjectId, Queue)>,
    project: ProjectId,
    model: ModelId,
    lane: usize,
) -> &mut Queue {
    let found = queues
        .iter()
        .position(|(of, queue)| *of == project && queue.model == model && queue.lane == lane);
    let at = found.unwrap_or_else(|| {
        let queue = Queue {
            model,
            lane,
            list: List::default(),
            listed: None,
        };
        queues.push((project, queue));
        queues.len() - 1
    });
    &mut queues[at].1
}
