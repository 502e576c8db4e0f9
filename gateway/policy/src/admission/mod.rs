//! The scheduler: one state machine of slots and queues.
//!
//! Invariants, each a property in `tests/admission.rs`: slots in use never exceed the limits of all, of a
//! project or of a model; slots reserved for a class are never taken by a lower one; no request waits that
//! could run (work-conserving, once [`Scheduler::next`] has been asked until it names none); a user's
//! requests for a model run in the order in which they came.
//!
//! Since no request waits that could run, a newcomer that fits overtakes none: whatever waits is held back
//! by something that does not hold back the newcomer.

mod check;
mod expectation;
mod pressure;
mod queue;
mod view;

use crate::capacity::{Capacity, Pace};
use crate::fairness::{ClassQueue, Flow, Queue, Served, weighed, work};
use crate::tickets::{Links, List, Ticket, TicketId, Tickets};
use crate::{
    AdmissionRequest, ByClass, IdMap, ModelId, Order, ProjectId, QueueClass, Refusal, Rules, Terms, Time, UserId,
};
pub(crate) use pressure::Pressing;
use queue::{flow, flow_mut, queue};
use std::time::Duration;
pub use view::QueueEntry;

/// The weight of one answer in a mean.
const MEAN_STEP: f64 = 0.05;

/// All requests that run and wait.
#[derive(Debug)]
pub(crate) struct Scheduler {
    running: usize,
    running_by_class: ByClass<usize>,
    waiting: usize,
    tickets: Tickets,
    bands: ByClass<Band>,
    /// The band counter of the request that was served last.
    reached: u64,
    models: IdMap<ModelId, Model>,
    projects: IdMap<ProjectId, Project>,
    users: IdMap<UserId, User>,
    sequence: u64,
    service: Mean,
    /// When it was called last.
    now: Time,
}

/// One class over all models.
#[derive(Debug, Default)]
struct Band {
    served: Served,
    by_age: List,
    waiting_by_project: IdMap<ProjectId, usize>,
    projects_waiting: usize,
}

#[derive(Debug)]
struct Model {
    capacity: Capacity,
    /// Since when it has had a slot that is not taken.
    free_since: Time,
    running: usize,
    waiting: usize,
    classes: ByClass<ClassQueue>,
    service: Mean,
    /// Tokens of an answer.
    output: Mean,
}

#[derive(Debug, Default)]
struct Project {
    running: usize,
    waiting: usize,
    is_throttled: bool,
    /// Whether it may run one more, so that its flows are listed.
    is_free: bool,
    free_since: Time,
    served: ByClass<Served>,
    flows: Vec<Flow>,
}

#[derive(Debug, Default)]
struct User {
    is_throttled: bool,
    served: ByClass<Served>,
    /// With the project that each is in.
    queues: Vec<(ProjectId, Queue)>,
}

/// An exponentially weighted mean.
#[derive(Debug, Clone, Copy, Default)]
struct Mean(Option<f64>);

impl Mean {
    fn add(&mut self, value: f64) {
        self.0 = Some(self.0.map_or(value, |mean| mean + MEAN_STEP * (value - mean)));
    }
}

/// The outcome of an offer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Started(TicketId),
    Queued {
        ticket: TicketId,
        deadline: Time,
        expected: Duration,
        displaced: Option<TicketId>,
    },
    Refused(Refusal),
}

/// A flow whose first request could start next; the smallest rank wins.
struct Candidate {
    rank: (u64, usize, u64),
    model: ModelId,
    class: QueueClass,
    project: ProjectId,
}

/// The end of a request that ran.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Ended {
    pub(crate) input_tokens: u64,
    pub(crate) cached_input_tokens: u64,
    pub(crate) output_tokens: u64,
    pub(crate) pace: Pace,
    /// Whether the upstream answered to the end; else nothing is learned of it.
    pub(crate) has_completed: bool,
}

impl Scheduler {
    pub(crate) fn new(rules: &Rules) -> Self {
        let mut scheduler = Self {
            running: 0,
            running_by_class: ByClass::default(),
            waiting: 0,
            tickets: Tickets::default(),
            bands: ByClass::default(),
            reached: 0,
            models: IdMap::default(),
            projects: IdMap::default(),
            users: IdMap::default(),
            sequence: 0,
            service: Mean::default(),
            now: Time::default(),
        };
        scheduler.reconfigure(rules);
        scheduler
    }

    /// Applies changed rules. Running requests go on; smaller limits take effect as slots become free.
    pub(crate) fn reconfigure(&mut self, rules: &Rules) {
        for (id, model) in self.models.iter_mut() {
            model.capacity.reconfigure(rules.model(id).concurrency);
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

    /// Starts, queues or refuses a request. `is_paused`: batch requests are not started now. Without `may_grow`, the
    /// queue takes it only in the place of a less important request.
    pub(crate) fn offer(
        &mut self,
        rules: &Rules,
        ask: &AdmissionRequest,
        terms: &Terms,
        is_paused: bool,
        may_grow: bool,
        now: Time,
    ) -> Verdict {
        self.now = now;
        self.ensure_known(rules, ask);
        let class = QueueClass::of(ask.class, ask.priority);
        let ticket = Ticket {
            project: ask.project,
            user: ask.user,
            model: terms.model,
            class,
            sequence: self.sequence,
            cost: self.usual_work(ask, terms),
            since: now,
            deadline: now + rules.global.max_queue_wait,
            is_running: false,
            in_queue: Links::default(),
            in_flow: Links::default(),
            in_class: Links::default(),
        };
        self.sequence += 1;
        if self.fits(rules, &ticket) && !(is_paused && class == QueueClass::Batch) {
            let id = self.tickets.add(ticket);
            self.start(rules, id.index, now);
            return Verdict::Started(id);
        }
        let (expected, by_own_limit) = self.expected(rules, &ticket);
        if expected > rules.global.max_queue_wait {
            let retry_after = expected
                .saturating_sub(rules.global.max_queue_wait)
                .max(Duration::from_secs(1));
            return Verdict::Refused(self.no_time(rules, &ticket, by_own_limit, retry_after));
        }
        let mut displaced = None;
        if !may_grow || self.waiting >= rules.global.max_queue_size {
            displaced = if may_grow {
                self.victim(rules.scheduling.order, &ticket)
            } else {
                self.newest_below(class)
            };
            let Some(victim) = displaced else {
                return Verdict::Refused(self.full(rules, &ticket));
            };
            self.leave(rules, victim);
        }
        let id = self.tickets.add(ticket);
        self.enqueue(rules, id.index);
        Verdict::Queued {
            ticket: id,
            deadline: ticket.deadline,
            expected,
            displaced,
        }
    }

    /// Starts the request that is next, if one that waits may run now; to be called until there is none.
    pub(crate) fn next(&mut self, rules: &Rules, is_paused: impl Fn(ModelId) -> bool, now: Time) -> Option<TicketId> {
        self.now = now;
        if self.waiting == 0 || self.running >= rules.global.max_active_requests {
            return None;
        }
        let order = rules.scheduling.order;
        let mut best: Option<Candidate> = None;
        for (id, model) in self.models.iter() {
            if model.waiting == 0 || model.running >= model.capacity.limit() {
                continue;
            }
            for (class, listed) in model.classes.iter() {
                let Some((key, project)) = listed.projects.first() else {
                    continue;
                };
                if !self.class_fits(rules, class) || (class == QueueClass::Batch && is_paused(id)) {
                    continue;
                }
                let rank = match order {
                    Order::Weighted => (self.bands[class].served.0, class as usize, *key),
                    Order::Strict => (0, class as usize, *key),
                    Order::Fifo => (0, 0, *key),
                };
                if best.as_ref().is_none_or(|best| rank < best.rank) {
                    best = Some(Candidate {
                        rank,
                        model: id,
                        class,
                        project: *project,
                    });
                }
            }
        }
        let Candidate {
            model, class, project, ..
        } = best?;
        let flow = flow(&self.projects[project].flows, model, class)?;
        let (_, user) = *flow.users.first()?;
        let index = queue(&self.users[user].queues, project, model, class)?.list.first?;
        self.dequeue(rules, index);
        self.start(rules, index, now);
        Some(self.tickets.id(index))
    }

    /// Takes back the slot of a ticket that ran.
    pub(crate) fn finish(&mut self, rules: &Rules, id: TicketId, ended: &Ended, now: Time) {
        if !self.tickets.get(id).is_some_and(|ticket| ticket.is_running) {
            return;
        }
        let Some(ticket) = self.tickets.remove(id) else { return };
        self.now = now;
        let model = &mut self.models[ticket.model];
        let was_full = model.is_full();
        model.capacity.learn(&ended.pace, model.running, ticket.since, now);
        model.running -= 1;
        if was_full {
            model.free_since = now;
        }
        if ended.has_completed {
            let seconds = (now - ticket.since).as_secs_f64();
            model.service.add(seconds);
            self.service.add(seconds);
            #[allow(clippy::cast_precision_loss)]
            model.output.add(ended.output_tokens as f64);
        }
        self.running -= 1;
        self.running_by_class[ticket.class] -= 1;
        let input = rules
            .token_weights
            .input_tokens(ended.input_tokens, ended.cached_input_tokens);
        let actual = work(input, ended.output_tokens);
        self.correct(rules, &ticket, actual);
        self.projects[ticket.project].running -= 1;
        self.refresh(rules, ticket.project);
        self.relist_project(rules.scheduling.order, ticket.project, ticket.class);
        self.relist_user(rules.scheduling.order, ticket.user, ticket.class);
    }

    /// Removes a ticket that waits from the queue; false if it does not wait.
    pub(crate) fn cancel(&mut self, rules: &Rules, id: TicketId) -> bool {
        let waits = self.tickets.get(id).is_some_and(|ticket| !ticket.is_running);
        if waits {
            self.leave(rules, id);
        }
        waits
    }

    /// Throttles a project near the end of its allowance to half its share and half its concurrency, a user to half
    /// its share; or ends that.
    pub(crate) fn throttle(&mut self, rules: &Rules, ask: &AdmissionRequest, project: bool, user: bool) {
        self.ensure_known(rules, ask);
        self.users[ask.user].is_throttled = user;
        let state = &mut self.projects[ask.project];
        if state.is_throttled != project {
            state.is_throttled = project;
            self.refresh(rules, ask.project);
        }
    }

    /// The refusal of a ticket that waited in vain: for the longest time, or for the project's own concurrency.
    pub(crate) fn wait_ended(&self, rules: &Rules, ticket: &Ticket) -> Refusal {
        let (expected, _) = self.expected(rules, ticket);
        let is_own = !self.projects[ticket.project].is_free;
        match self.no_time(rules, ticket, is_own, expected.max(Duration::from_secs(1))) {
            Refusal::QueueTimeout { limit, retry_after, .. } => Refusal::QueueTimeout {
                limit,
                known_at_entry: false,
                retry_after,
            },
            other => other,
        }
    }

    pub(crate) fn ticket(&self, id: TicketId) -> Option<&Ticket> {
        self.tickets.get(id)
    }

    // === slots

    /// Whether a slot is free that this ticket may take.
    fn fits(&self, rules: &Rules, ticket: &Ticket) -> bool {
        let model = &self.models[ticket.model];
        model.running < model.capacity.limit()
            && self.projects[ticket.project].is_free
            && self.class_fits(rules, ticket.class)
    }

    /// Whether a class may take one slot more: requests in it and below it together leave what is reserved
    /// for those above it.
    fn class_fits(&self, rules: &Rules, class: QueueClass) -> bool {
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
    fn start(&mut self, rules: &Rules, index: u32, now: Time) {
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
    fn correct(&mut self, rules: &Rules, ticket: &Ticket, actual: u64) {
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
    fn usual_work(&self, ask: &AdmissionRequest, terms: &Terms) -> u64 {
        let most = terms.estimate.output_tokens;
        let usual = self.models[terms.model].output.0;
        work(ask.input_tokens, usual.map_or(most, |usual| most.min(usual as u64)))
    }

    /// Makes sure that every id in the request has a state.
    fn ensure_known(&mut self, rules: &Rules, ask: &AdmissionRequest) {
        for model in [Some(ask.model), ask.smaller].into_iter().flatten() {
            self.models.entry(model, |id| Model {
                capacity: Capacity::new(rules.model(id).concurrency),
                free_since: Time::default(),
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
fn project_slots(rules: &Rules, project: ProjectId, is_throttled: bool) -> usize {
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
