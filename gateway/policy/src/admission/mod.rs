//! Who runs and who waits: one state machine of places and queues.
//!
//! Invariants, each a property in `tests/admission.rs`: places out never pass the limits of all, of a
//! project or of a model; places reserved for a band are never taken by a lower one; nobody waits who
//! could run (work-conserving, once [`Admission::next`] has been asked until it names nobody); a user's
//! requests for a model run in the order in which they came.
//!
//! Since nobody waits who could run, a newcomer that fits overtakes nobody: whoever waits is held back by
//! something that does not hold back the newcomer.

mod expectation;
mod queue;
mod view;

use crate::capacity::{Capacity, Pace};
use crate::fairness::{self, BATCH, Flow, LANES, Lane, Queue, Served, weighed, work};
use crate::tickets::{Links, List, Ticket, TicketId, Tickets};
use crate::{AdmissionRequest, ModelId, Order, ProjectId, Refusal, Rules, Terms, Time, UserId};
use queue::{flow, flow_mut, queue};
use std::time::Duration;
pub use view::Waiting;

/// How much one answer counts in a mean.
const MEAN_STEP: f64 = 0.05;

/// All who run and wait.
#[derive(Debug)]
pub(crate) struct Admission {
    running: usize,
    running_by_lane: [usize; LANES],
    waiting: usize,
    tickets: Tickets,
    bands: [Band; LANES],
    /// The band counter of whoever was served last.
    reached: u64,
    models: Vec<Model>,
    projects: Vec<Project>,
    users: Vec<User>,
    sequence: u64,
    service: Mean,
}

/// One lane over all models.
#[derive(Debug, Default)]
struct Band {
    served: Served,
    by_age: List,
    /// By the number of the project.
    waiting_by_project: Vec<usize>,
    projects_waiting: usize,
}

#[derive(Debug)]
struct Model {
    capacity: Capacity,
    running: usize,
    waiting: usize,
    lanes: [Lane; LANES],
    service: Mean,
    /// Tokens of an answer.
    output: Mean,
}

#[derive(Debug, Default)]
struct Project {
    running: usize,
    waiting: usize,
    is_throttled: bool,
    /// Whether its flows are listed: it may run one more.
    is_free: bool,
    served: [Served; LANES],
    flows: Vec<Flow>,
}

#[derive(Debug, Default)]
struct User {
    is_throttled: bool,
    served: [Served; LANES],
    /// With the project that each is in.
    queues: Vec<(ProjectId, Queue)>,
}

/// A mean of what was seen lately.
#[derive(Debug, Clone, Copy, Default)]
struct Mean(Option<f64>);

impl Mean {
    fn add(&mut self, value: f64) {
        self.0 = Some(self.0.map_or(value, |mean| mean + MEAN_STEP * (value - mean)));
    }
}

/// What becomes of an offer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Run(TicketId),
    Wait {
        ticket: TicketId,
        deadline: Time,
        expected: Duration,
        displaced: Option<TicketId>,
    },
    Refuse(Refusal),
}

/// Who could be next; the smallest rank is.
struct Candidate {
    rank: (u64, usize, u64),
    model: ModelId,
    lane: usize,
    project: ProjectId,
}

/// What ended a request's place.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Ended {
    pub(crate) input_tokens: u64,
    pub(crate) output_tokens: u64,
    pub(crate) pace: Pace,
    /// Whether the upstream did the work; else nothing is learned of it.
    pub(crate) has_completed: bool,
}

impl Admission {
    pub(crate) fn new(rules: &Rules) -> Self {
        let mut admission = Self {
            running: 0,
            running_by_lane: [0; LANES],
            waiting: 0,
            tickets: Tickets::default(),
            bands: Default::default(),
            reached: 0,
            models: Vec::new(),
            projects: Vec::new(),
            users: Vec::new(),
            sequence: 0,
            service: Mean::default(),
        };
        admission.reconfigure(rules);
        admission
    }

    /// Takes over changed rules. What runs runs on; smaller limits let places run out and evict nobody.
    pub(crate) fn reconfigure(&mut self, rules: &Rules) {
        for (model, at) in self.models.iter_mut().zip(0..) {
            model.capacity.reconfigure(rules.model(ModelId(at)).concurrency);
        }
        for at in 0..self.projects.len() {
            let project = ProjectId(u32::try_from(at).unwrap_or(u32::MAX));
            self.projects[at].is_free = self.is_free(rules, project);
            for lane in 0..LANES {
                self.relist_project(rules.scheduling.order, project, lane);
            }
        }
        for at in 0..self.users.len() {
            for lane in 0..LANES {
                self.relist_user(
                    rules.scheduling.order,
                    UserId(u32::try_from(at).unwrap_or(u32::MAX)),
                    lane,
                );
            }
        }
    }

    /// Lets run, lets wait, or refuses. `is_paused`: batch class is not served now.
    pub(crate) fn offer(
        &mut self,
        rules: &Rules,
        ask: &AdmissionRequest,
        terms: &Terms,
        is_paused: bool,
        now: Time,
    ) -> Verdict {
        self.know(rules, ask);
        let lane = fairness::lane(ask.class, ask.priority);
        let ticket = Ticket {
            project: ask.project,
            user: ask.user,
            model: terms.model,
            lane,
            sequence: self.sequence,
            cost: self.usual_work(ask, terms),
            since: now,
            deadline: now + rules.global.max_queue_wait,
            is_running: false,
            in_queue: Links::default(),
            in_lane: Links::default(),
        };
        self.sequence += 1;
        if self.fits(rules, &ticket) && !(is_paused && lane == BATCH) {
            let id = self.tickets.add(ticket);
            self.run(rules, id.index, now);
            return Verdict::Run(id);
        }
        let (expected, by_own_limit) = self.expected(rules, &ticket);
        if expected > rules.global.max_queue_wait {
            let retry_after = expected
                .saturating_sub(rules.global.max_queue_wait)
                .max(Duration::from_secs(1));
            return Verdict::Refuse(self.no_time(rules, &ticket, by_own_limit, retry_after));
        }
        let mut displaced = None;
        if self.waiting >= rules.global.max_queue_size {
            let Some(victim) = self.victim(rules.scheduling.order, &ticket) else {
                return Verdict::Refuse(self.full(rules, &ticket));
            };
            displaced = Some(victim);
            self.leave(rules, victim);
        }
        let id = self.tickets.add(ticket);
        self.enqueue(rules, id.index);
        Verdict::Wait {
            ticket: id,
            deadline: ticket.deadline,
            expected,
            displaced,
        }
    }

    /// Whoever is next, if anyone who waits may run now; ask again until there is nobody.
    pub(crate) fn next(&mut self, rules: &Rules, is_paused: bool, now: Time) -> Option<TicketId> {
        if self.waiting == 0 || self.running >= rules.global.max_active_requests {
            return None;
        }
        let order = rules.scheduling.order;
        let mut best: Option<Candidate> = None;
        for (model, at) in self.models.iter().zip(0..) {
            if model.waiting == 0 || model.running >= model.capacity.limit() {
                continue;
            }
            for (lane, listed) in model.lanes.iter().enumerate() {
                let Some((key, project)) = listed.projects.first() else {
                    continue;
                };
                if !self.lane_fits(rules, lane) || (is_paused && lane == BATCH) {
                    continue;
                }
                let rank = match order {
                    Order::Weighted => (self.bands[lane].served.0, lane, *key),
                    Order::Strict => (0, lane, *key),
                    Order::Fifo => (0, 0, *key),
                };
                if best.as_ref().is_none_or(|best| rank < best.rank) {
                    best = Some(Candidate {
                        rank,
                        model: ModelId(at),
                        lane,
                        project: *project,
                    });
                }
            }
        }
        let Candidate {
            model, lane, project, ..
        } = best?;
        let flow = flow(&self.projects[project.0 as usize].flows, model, lane)?;
        let (_, user) = *flow.users.first()?;
        let index = queue(&self.users[user.0 as usize].queues, project, model, lane)?
            .list
            .first?;
        self.dequeue(rules, index);
        self.run(rules, index, now);
        Some(self.tickets.id(index))
    }

    /// Takes back the place of a ticket that ran.
    pub(crate) fn finish(&mut self, rules: &Rules, id: TicketId, ended: &Ended, now: Time) {
        if !self.tickets.get(id).is_some_and(|ticket| ticket.is_running) {
            return;
        }
        let Some(ticket) = self.tickets.remove(id) else { return };
        let model = &mut self.models[ticket.model.0 as usize];
        model.capacity.learn(&ended.pace, model.running, ticket.since, now);
        model.running -= 1;
        if ended.has_completed {
            let seconds = (now - ticket.since).as_secs_f64();
            model.service.add(seconds);
            self.service.add(seconds);
            #[allow(clippy::cast_precision_loss)]
            model.output.add(ended.output_tokens as f64);
        }
        self.running -= 1;
        self.running_by_lane[ticket.lane] -= 1;
        let actual = work(ended.input_tokens, ended.output_tokens);
        self.correct(rules, &ticket, actual);
        self.projects[ticket.project.0 as usize].running -= 1;
        self.refresh(rules, ticket.project);
        self.relist_project(rules.scheduling.order, ticket.project, ticket.lane);
        self.relist_user(rules.scheduling.order, ticket.user, ticket.lane);
    }

    /// Takes a ticket that waits out of the queue; false if it does not wait.
    pub(crate) fn cancel(&mut self, rules: &Rules, id: TicketId) -> bool {
        let waits = self.tickets.get(id).is_some_and(|ticket| !ticket.is_running);
        if waits {
            self.leave(rules, id);
        }
        waits
    }

    /// A project near the end of its allowance: half its share, half its concurrency. A user: half its share.
    pub(crate) fn throttle(&mut self, rules: &Rules, ask: &AdmissionRequest, project: bool, user: bool) {
        self.know(rules, ask);
        self.users[ask.user.0 as usize].is_throttled = user;
        let state = &mut self.projects[ask.project.0 as usize];
        if state.is_throttled != project {
            state.is_throttled = project;
            self.refresh(rules, ask.project);
        }
    }

    /// What limits a place that waits: the longest wait, or the project's own concurrency.
    pub(crate) fn gave_up(&self, rules: &Rules, ticket: &Ticket) -> Refusal {
        let (expected, _) = self.expected(rules, ticket);
        let is_own = !self.projects[ticket.project.0 as usize].is_free;
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

    // === places

    /// Whether a place is free that this ticket may take.
    fn fits(&self, rules: &Rules, ticket: &Ticket) -> bool {
        let model = &self.models[ticket.model.0 as usize];
        model.running < model.capacity.limit()
            && self.projects[ticket.project.0 as usize].is_free
            && self.lane_fits(rules, ticket.lane)
    }

    /// Whether a lane may take one place more: those in it and below it together leave what is reserved
    /// for those above it.
    fn lane_fits(&self, rules: &Rules, lane: usize) -> bool {
        let mut places = rules.global.max_active_requests;
        let mut taken = self.running;
        for above in 0..=lane.min(rules.scheduling.reserved.len()) {
            if taken >= places {
                return false;
            }
            if rules.scheduling.order == Order::Fifo {
                break;
            }
            taken -= self.running_by_lane[above];
            places = places.saturating_sub(rules.scheduling.reserved.get(above).copied().unwrap_or(0));
        }
        true
    }

    /// Gives a ticket its place, and charges those who share.
    fn run(&mut self, rules: &Rules, index: u32, now: Time) {
        let Some(ticket) = self.tickets.at_mut(index) else {
            return;
        };
        (ticket.is_running, ticket.since) = (true, now);
        let ticket = *ticket;
        let lane = ticket.lane;
        self.running += 1;
        self.running_by_lane[lane] += 1;
        let project = &mut self.projects[ticket.project.0 as usize];
        let user = &mut self.users[ticket.user.0 as usize];
        let model = &mut self.models[ticket.model.0 as usize];
        model.running += 1;
        project.running += 1;
        // Whoever begins to wait from now on starts from here.
        self.reached = self.reached.max(self.bands[lane].served.0);
        let listed = &mut model.lanes[lane];
        listed.reached = listed.reached.max(project.served[lane].0);
        let flow = flow_mut(&mut project.flows, ticket.model, lane);
        flow.reached = flow.reached.max(user.served[lane].0);
        self.bands[lane]
            .served
            .charge(weighed(ticket.cost, lane, rules.scheduling.weights));
        project.served[lane].charge(doubled(ticket.cost, project.is_throttled));
        user.served[lane].charge(doubled(ticket.cost, user.is_throttled));
        self.refresh(rules, ticket.project);
        self.relist_project(rules.scheduling.order, ticket.project, lane);
        self.relist_user(rules.scheduling.order, ticket.user, lane);
    }

    /// Replaces what was charged by the actual.
    fn correct(&mut self, rules: &Rules, ticket: &Ticket, actual: u64) {
        let (lane, weights) = (ticket.lane, rules.scheduling.weights);
        let project = &mut self.projects[ticket.project.0 as usize];
        let user = &mut self.users[ticket.user.0 as usize];
        self.bands[lane]
            .served
            .correct(weighed(ticket.cost, lane, weights), weighed(actual, lane, weights));
        let shares = [
            (&mut project.served[lane], project.is_throttled),
            (&mut user.served[lane], user.is_throttled),
        ];
        for (served, is_throttled) in shares {
            served.correct(doubled(ticket.cost, is_throttled), doubled(actual, is_throttled));
        }
    }

    /// What such a request usually uses: its answer may have `max_tokens`, but seldom has.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    fn usual_work(&self, ask: &AdmissionRequest, terms: &Terms) -> u64 {
        let most = terms.estimate.output_tokens;
        let usual = self.models[terms.model.0 as usize].output.0;
        work(ask.input_tokens, usual.map_or(most, |usual| most.min(usual as u64)))
    }

    /// Makes sure that everyone in the ask has a state.
    fn know(&mut self, rules: &Rules, ask: &AdmissionRequest) {
        let grow = |id: u32, len: usize| len.max(id as usize + 1);
        for model in [Some(ask.model), ask.smaller].into_iter().flatten() {
            for at in self.models.len()..grow(model.0, self.models.len()) {
                let id = ModelId(u32::try_from(at).unwrap_or(u32::MAX));
                self.models.push(Model {
                    capacity: Capacity::new(rules.model(id).concurrency),
                    running: 0,
                    waiting: 0,
                    lanes: Default::default(),
                    service: Mean::default(),
                    output: Mean::default(),
                });
            }
        }
        for at in self.projects.len()..grow(ask.project.0, self.projects.len()) {
            self.projects.push(Project::default());
            self.projects[at].is_free = self.is_free(rules, ProjectId(u32::try_from(at).unwrap_or(u32::MAX)));
        }
        let users = grow(ask.user.0, self.users.len());
        self.users.resize_with(users, User::default);
    }
}

/// Requests that a project may run at once.
fn places(rules: &Rules, project: ProjectId, is_throttled: bool) -> usize {
    match rules.project(project).max_concurrent_requests {
        Some(limit) if is_throttled => limit.div_ceil(2).max(1),
        Some(limit) => limit,
        None => usize::MAX,
    }
}

/// Whoever is throttled is charged double, which halves its share.
fn doubled(work: u64, is_throttled: bool) -> u64 {
    if is_throttled { work.saturating_mul(2) } else { work }
}
