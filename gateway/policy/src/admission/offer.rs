//! The decision on a request: it starts, waits or is refused; and which one that waits is next.

use super::state::{Scheduler, Turn, flow, queue, queue_mut};
use crate::charge::Charge;
use crate::prediction::Contexts;
use crate::ranking::handicap;
use crate::tickets::{Eviction, Links, Ticket, TicketId};
use crate::{AdmissionRequest, ModelId, Order, ProjectId, QueueClass, Refusal, Rules, Terms, Time};
use std::time::Duration;

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
    rank: (bool, u64, usize, u64),
    model: ModelId,
    class: QueueClass,
    project: ProjectId,
}

impl Scheduler {
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
        let ticket = self.ticket_for(rules, ask, terms, now);
        let class = ticket.class;
        self.count_demand(rules, class, now);
        if self.fits(rules, &ticket, now) && !(is_paused && class == QueueClass::Batch) {
            let id = self.tickets.add(ticket);
            self.start(rules, id.index, now);
            return Verdict::Started(id);
        }
        let (expected, by_own_limit) = if self.may_evict_for(rules, &ticket) {
            (Duration::ZERO, false)
        } else {
            self.expected(rules, &ticket)
        };
        if expected > ticket.deadline - now {
            return Verdict::Refused(self.too_late(rules, &ticket, (expected, by_own_limit)));
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

    /// The ticket of a request, that neither waits nor runs yet.
    fn ticket_for(&mut self, rules: &Rules, ask: &AdmissionRequest, terms: &Terms, now: Time) -> Ticket {
        let contexts = Contexts::of(&AdmissionRequest {
            model: terms.model,
            max_tokens: terms.max_tokens,
            ..*ask
        });
        let usual = self.usual_tokens(ask, terms, contexts);
        let model = &self.models[terms.model];
        let seconds = model.speed.seconds(usual);
        let handicap = handicap(&rules.scheduling, &rules.global, seconds, model.service.0);
        let longest = rules.global.max_queue_wait;
        let slack = model.slack(&ask.hints.objectives, usual);
        let slack = slack.filter(|slack| slack.wait < longest);
        let wait = slack.map_or(longest, |slack| slack.wait);
        self.sequence += 1;
        Ticket {
            project: ask.project,
            user: ask.user,
            model: terms.model,
            class: QueueClass::of(ask.class, ask.priority),
            sequence: self.sequence,
            session: ask.hints.session.filter(|_| rules.scheduling.order != Order::Fifo),
            rank: now + handicap.min(wait),
            ranked_at: 0,
            contexts,
            work: usual.work(rules.token_weights),
            charged: Charge::default(),
            tokens: usual.in_flight(),
            since: now,
            deadline: now + wait,
            objective: slack.map(|slack| (slack.milestone, slack.within)),
            is_running: false,
            eviction: if ask.hints.is_durable {
                Eviction::Protected
            } else {
                Eviction::Never
            },
            in_queue: Links::default(),
            in_flow: Links::default(),
            in_class: Links::default(),
        }
    }

    /// Starts the request that is next, if one that waits may run now; to be called until there is none.
    pub(crate) fn next(&mut self, rules: &Rules, is_paused: impl Fn(ModelId) -> bool, now: Time) -> Option<TicketId> {
        self.now = now;
        if self.waiting == 0 || self.running >= rules.global.max_active_requests {
            return None;
        }
        loop {
            let candidate = self.best_candidate(rules, &is_paused)?;
            let index = self.first_of(&candidate)?;
            let tokens = self.tickets.at(index)?.tokens;
            let model = &mut self.models[candidate.model];
            if !model.capacity.has_tokens(tokens, now) {
                model.turn = Turn::Blocked;
                continue;
            }
            if model.turn != Turn::Free {
                (model.turn, model.free_since) = (Turn::Free, now);
            }
            self.charge_session(index);
            self.dequeue(index);
            self.start(rules, index, now);
            return Some(self.tickets.id(index));
        }
    }

    fn best_candidate(&self, rules: &Rules, is_paused: impl Fn(ModelId) -> bool) -> Option<Candidate> {
        let order = rules.scheduling.order;
        let mut best: Option<Candidate> = None;
        for (id, model) in self.models.iter() {
            if model.waiting == 0 || !model.may_start() {
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
                let rank = (!self.is_vacated_for(rules, model, class), rank.0, rank.1, rank.2);
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
        best
    }

    /// The first request of a flow.
    fn first_of(&self, candidate: &Candidate) -> Option<u32> {
        let Candidate {
            model, class, project, ..
        } = *candidate;
        let flow = flow(&self.projects[project].flows, model, class)?;
        let (_, user) = *flow.users.first()?;
        queue(&self.users[user].queues, project, model, class)?.sessions.first()
    }

    /// Charges the session of a ticket that is about to start.
    fn charge_session(&mut self, index: u32) {
        if let Some(ticket) = self.tickets.at(index) {
            let queues = &mut self.users[ticket.user].queues;
            queue_mut(queues, ticket.project, ticket.model, ticket.class)
                .sessions
                .charge(ticket.session, ticket.work);
        }
    }

    /// Removes a ticket that waits from the queue; false if it does not wait.
    pub(crate) fn cancel(&mut self, rules: &Rules, id: TicketId) -> bool {
        let waits = self.tickets.get(id).is_some_and(|ticket| !ticket.is_running);
        if waits {
            self.leave(rules, id);
        }
        waits
    }

    /// The refusal of a ticket that waited in vain: for the longest time, or for the project's own concurrency.
    pub(crate) fn wait_ended(&self, rules: &Rules, ticket: &Ticket) -> Refusal {
        let (expected, _) = self.expected(rules, ticket);
        if let Some((milestone, within)) = ticket.objective {
            return Refusal::ObjectiveOutOfReach {
                milestone,
                within,
                expected: None,
                retry_after: expected.max(Duration::from_secs(1)),
            };
        }
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
}
