//! Slots: what a request is charged and counts for from its start to its end.

use super::state::{Scheduler, flow_mut};
use crate::capacity::{Occupation, Pace, ServerLoad};
use crate::charge::{Charge, Throttled, Tokens};
use crate::prediction::Contexts;
use crate::request::Parties;
use crate::tickets::{Ticket, TicketId};
use crate::{AdmissionRequest, ModelId, Rules, Terms, Time};

/// The end of a request that ran.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Ended {
    pub(crate) tokens: Tokens,
    pub(crate) pace: Pace,
    /// True if the upstream answered to the end; else nothing is learned of it.
    pub(crate) has_completed: bool,
}

impl Scheduler {
    /// Gives a ticket its slot, and charges its band, project and user.
    pub(super) fn start(&mut self, rules: &Rules, index: u32, now: Time) {
        let Some(ticket) = self.tickets.at_mut(index) else {
            return;
        };
        (ticket.is_running, ticket.since) = (true, now);
        let throttled = Throttled {
            project: self.projects[ticket.project].is_throttled,
            user: self.users[ticket.user].is_throttled,
        };
        ticket.charged = Charge::new(ticket.work, rules.scheduling.weight(ticket.class), throttled);
        let ticket = *ticket;
        let class = ticket.class;
        self.note_start(rules, index);
        self.running += 1;
        self.running_by_class[class] += 1;
        let project = &mut self.projects[ticket.project];
        let user = &mut self.users[ticket.user];
        let model = &mut self.models[ticket.model];
        model.capacity.start(ticket.tokens);
        project.running += 1;
        // A flow that begins to wait from now on starts from here.
        self.reached = self.reached.max(self.bands[class].served.0);
        let listed = &mut model.classes[class];
        listed.reached = listed.reached.max(project.served[class].0);
        let flow = flow_mut(&mut project.flows, ticket.model, class);
        flow.reached = flow.reached.max(user.served[class].0);
        self.bands[class].served.charge(ticket.charged.band);
        project.served[class].charge(ticket.charged.project);
        user.served[class].charge(ticket.charged.user);
        self.relist_user(rules.scheduling.order, ticket.user, class);
        self.refresh(rules, ticket.project);
        self.relist_project(rules.scheduling.order, ticket.project, class);
    }

    /// Takes back the slot of a ticket that ran.
    pub(crate) fn finish(&mut self, rules: &Rules, id: TicketId, ended: &Ended, now: Time) {
        if !self.tickets.get(id).is_some_and(|ticket| ticket.is_running) {
            return;
        }
        self.note_end(id, ended.has_completed, now);
        let Some(ticket) = self.tickets.remove(id) else { return };
        self.now = now;
        self.learn(&ticket, ended, now);
        self.running -= 1;
        self.running_by_class[ticket.class] -= 1;
        self.correct(rules, &ticket, ended.tokens.work(rules.token_weights));
        self.projects[ticket.project].running -= 1;
        self.relist_user(rules.scheduling.order, ticket.user, ticket.class);
        self.refresh(rules, ticket.project);
        self.relist_project(rules.scheduling.order, ticket.project, ticket.class);
    }

    /// Frees the model's slot, and learns from the request that had it.
    #[allow(clippy::cast_precision_loss)]
    fn learn(&mut self, ticket: &Ticket, ended: &Ended, now: Time) {
        let model = &mut self.models[ticket.model];
        let occupation = Occupation {
            sent: ticket.since,
            tokens: ticket.tokens,
            uncached: ended.tokens.uncached,
            output: ended.tokens.output,
            has_completed: ended.has_completed,
        };
        if model.is_full() {
            model.free_since = now;
        }
        model.capacity.finish(&occupation, &ended.pace, now);
        model.turn.recheck();
        if !ended.has_completed {
            return;
        }
        let seconds = (now - ticket.since).as_secs_f64();
        model.service.add(seconds);
        model.output.add(ended.tokens.output as f64);
        model.speed.learn(ended.tokens, seconds);
        self.predictor.learn(ticket.contexts, ended.tokens.output);
        self.service.add(seconds);
        let input = ended.tokens.uncached as f64 + ended.tokens.cached as f64;
        if input > 0.0 {
            self.users[ticket.user].cached.add(ended.tokens.cached as f64 / input);
        }
    }

    /// Replaces what was charged by the actual.
    fn correct(&mut self, rules: &Rules, ticket: &Ticket, actual: u64) {
        let (class, charged) = (ticket.class, ticket.charged);
        let project = &mut self.projects[ticket.project];
        let user = &mut self.users[ticket.user];
        let throttled = Throttled {
            project: project.is_throttled,
            user: user.is_throttled,
        };
        let actual = Charge::new(actual, rules.scheduling.weight(class), throttled);
        self.bands[class].served.correct(charged.band, actual.band);
        project.served[class].correct(charged.project, actual.project);
        user.served[class].correct(charged.user, actual.user);
    }

    /// The tokens that such a request usually uses: an answer as long as is predicted, and as large a part of its prompt
    /// cached as of the user's prompts lately.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss
    )]
    pub(super) fn usual_tokens(&self, ask: &AdmissionRequest, terms: &Terms, contexts: Contexts) -> Tokens {
        let most = terms.estimate.output_tokens;
        let usual = self.models[terms.model].output.0;
        let usual = usual.map(|usual| self.predictor.predict(contexts, usual));
        let cached = self.users[ask.user].cached.0.unwrap_or_default() * ask.input_tokens as f64;
        Tokens::new(
            ask.input_tokens,
            cached as u64,
            usual.map_or(most, |usual| most.min(usual as u64)),
        )
    }

    /// Learns from the load that a model's servers report.
    pub(crate) fn observe_load(&mut self, model: ModelId, load: &ServerLoad, now: Time) {
        self.now = now;
        if let Some(model) = self.models.get_mut(model) {
            model.capacity.observe(load, now);
            model.turn.recheck();
        }
    }

    /// Throttles a project near the end of its allowance to half its share and half its concurrency, a user to half
    /// its share; or ends that.
    pub(crate) fn throttle(&mut self, rules: &Rules, parties: &Parties, throttled: Throttled) {
        self.users[parties.user].is_throttled = throttled.user;
        let state = &mut self.projects[parties.project];
        if state.is_throttled != throttled.project {
            state.is_throttled = throttled.project;
            self.refresh(rules, parties.project);
        }
    }
}
