//! The scheduler's state: all requests that run and wait, and what they are counted by.

use super::budget::Evictions;
use crate::capacity::Capacity;
use crate::demand::Rates;
use crate::fairness::{ClassQueue, Flow, HeldBack, Queue};
use crate::prediction::{Predictor, Speed};
use crate::served::Served;
use crate::sessions::Sessions;
use crate::tickets::{List, Ticket, TicketId, Tickets};
use crate::{AdmissionRequest, ByClass, IdMap, ModelId, Order, ProjectId, QueueClass, Rules, Time, UserId};
use std::collections::BTreeSet;

/// The weight of one answer in a mean.
const MEAN_STEP: f64 = 0.05;

/// All requests that run and wait.
#[derive(Debug, Default)]
pub(crate) struct Scheduler {
    pub(super) running: usize,
    pub(super) running_by_class: ByClass<usize>,
    pub(super) waiting: usize,
    pub(super) tickets: Tickets,
    pub(super) bands: ByClass<Band>,
    /// The band counter of the request that was served last.
    pub(super) reached: u64,
    pub(super) models: IdMap<ModelId, Model>,
    pub(super) projects: IdMap<ProjectId, Project>,
    pub(super) users: IdMap<UserId, User>,
    pub(super) sequence: u64,
    /// Running requests that may be evicted.
    pub(super) evictable: usize,
    /// True if a slot may have been vacated for a request that waits.
    pub(super) has_vacated: bool,
    pub(super) service: Mean,
    pub(super) predictor: Predictor,
    /// The rates of requests, for what is held back.
    pub(super) rates: Rates,
    /// The time of the last call.
    pub(super) now: Time,
}

/// One class over all models.
#[derive(Debug, Default)]
pub(super) struct Band {
    pub(super) served: Served,
    pub(super) by_age: List,
    pub(super) waiting_by_project: IdMap<ProjectId, usize>,
    pub(super) projects_waiting: usize,
}

#[derive(Debug)]
pub(super) struct Model {
    pub(super) capacity: Capacity,
    pub(super) turn: Turn,
    /// Since when it has had a slot that is not taken.
    pub(super) free_since: Time,
    pub(super) waiting: usize,
    pub(super) classes: ByClass<ClassQueue>,
    pub(super) service: Mean,
    /// Tokens of an answer.
    pub(super) output: Mean,
    /// The time that tokens take.
    pub(super) speed: Speed,
    pub(super) evictions: Evictions,
}

/// True if the first request in a model's queue waits for tokens in flight to end. None overtakes it, or small requests
/// would keep a large one waiting for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Turn {
    /// It does not.
    #[default]
    Free,
    /// It does, and nothing has changed since.
    Blocked,
    /// It did; something has changed since.
    Recheck,
}

impl Turn {
    /// Marks that something has changed at the model.
    pub(super) fn recheck(&mut self) {
        if *self == Self::Blocked {
            *self = Self::Recheck;
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Project {
    pub(super) running: usize,
    pub(super) waiting: usize,
    pub(super) is_throttled: bool,
    /// True if it may run one more, so that its flows are listed.
    pub(super) is_free: bool,
    pub(super) free_since: Time,
    pub(super) served: ByClass<Served>,
    pub(super) flows: ByClass<Vec<Flow>>,
}

#[derive(Debug, Default)]
pub(super) struct User {
    pub(super) is_throttled: bool,
    pub(super) served: ByClass<Served>,
    /// The part of its prompts that servers had in their caches.
    pub(super) cached: Mean,
    /// With the project that each is in.
    pub(super) queues: ByClass<Vec<(ProjectId, Queue)>>,
}

/// An exponentially weighted mean.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Mean(pub(super) Option<f64>);

impl Mean {
    pub(super) fn add(&mut self, value: f64) {
        self.0 = Some(self.0.map_or(value, |mean| mean + MEAN_STEP * (value - mean)));
    }
}

impl Scheduler {
    pub(crate) fn ticket(&self, id: TicketId) -> Option<&Ticket> {
        self.tickets.get(id)
    }

    /// Makes sure that every id in the request has a state.
    pub(crate) fn ensure_known(&mut self, rules: &Rules, ask: &AdmissionRequest) {
        for model in [Some(ask.model), ask.smaller].into_iter().flatten() {
            self.models.entry(model, |id| Model {
                capacity: Capacity::new(&rules.model(id)),
                turn: Turn::Free,
                free_since: Time::default(),
                waiting: 0,
                classes: ByClass::default(),
                service: Mean::default(),
                output: Mean::default(),
                speed: Speed::default(),
                evictions: Evictions::default(),
            });
        }
        self.projects.entry(ask.project, |id| Project {
            is_free: project_slots(rules, id, false) > 0,
            ..Project::default()
        });
        self.users.entry(ask.user, |_| User::default());
    }

    /// Returns whether a slot is free that this ticket may take.
    pub(super) fn fits(&self, rules: &Rules, ticket: &Ticket, now: Time) -> bool {
        let model = &self.models[ticket.model];
        model.turn == Turn::Free
            && model.may_start()
            && model.capacity.has_tokens(ticket.tokens, now)
            && self.projects[ticket.project].is_free
            && self.class_fits(rules, ticket.class)
    }

    /// Returns whether a class may take one slot more: requests in it and below it together leave what is reserved
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
            slots = slots.saturating_sub(self.held_back(rules, above, reserved));
        }
        taken < slots
    }

    /// Returns whether a project's own limit lets it run one request more.
    pub(super) fn is_free(&self, rules: &Rules, project: ProjectId) -> bool {
        let state = &self.projects[project];
        state.running < project_slots(rules, project, state.is_throttled)
    }
}

impl Model {
    /// Returns whether it may start the first request in its queue, as far as is known.
    pub(super) fn may_start(&self) -> bool {
        self.capacity.has_slot() && self.turn != Turn::Blocked
    }

    /// Returns whether it can start none: it has no slot left, or the first in its queue waits for tokens.
    pub(super) fn is_full(&self) -> bool {
        !self.may_start()
    }
}

/// The slots that a project may take at once.
pub(super) fn project_slots(rules: &Rules, project: ProjectId, is_throttled: bool) -> usize {
    match rules.concurrency(project) {
        Some(limit) if is_throttled => limit.div_ceil(2).max(1),
        Some(limit) => limit,
        None => usize::MAX,
    }
}

pub(super) fn flow(flows: &ByClass<Vec<Flow>>, model: ModelId, class: QueueClass) -> Option<&Flow> {
    flows[class].iter().find(|flow| flow.model == model)
}

pub(super) fn flow_mut(flows: &mut ByClass<Vec<Flow>>, model: ModelId, class: QueueClass) -> &mut Flow {
    let flows = &mut flows[class];
    let found = flows.iter().position(|flow| flow.model == model);
    let at = found.unwrap_or_else(|| {
        flows.push(Flow {
            model,
            users: BTreeSet::new(),
            reached: 0,
            listed: None,
            by_age: List::default(),
            held_back: HeldBack::default(),
        });
        flows.len() - 1
    });
    &mut flows[at]
}

pub(super) fn queue(
    queues: &ByClass<Vec<(ProjectId, Queue)>>,
    project: ProjectId,
    model: ModelId,
    class: QueueClass,
) -> Option<&Queue> {
    let mut queues = queues[class].iter();
    let found = queues.find(|(of, queue)| *of == project && queue.model == model);
    found.map(|(_, queue)| queue)
}

pub(super) fn queue_mut(
    queues: &mut ByClass<Vec<(ProjectId, Queue)>>,
    project: ProjectId,
    model: ModelId,
    class: QueueClass,
) -> &mut Queue {
    let queues = &mut queues[class];
    let found = queues
        .iter()
        .position(|(of, queue)| *of == project && queue.model == model);
    let at = found.unwrap_or_else(|| {
        let queue = Queue {
            model,
            list: List::default(),
            sessions: Sessions::default(),
            listed: None,
        };
        queues.push((project, queue));
        queues.len() - 1
    });
    &mut queues[at].1
}
