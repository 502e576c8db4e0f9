//! Shared parts of the attacks on policy: requests, settlements, and the tickets that run and wait.

use policy::{
    AdmissionRequest, Class, Decision, ModelId, PlanId, Policy, Priority, ProjectId, Settlement, TicketId, Time, Usage,
    UserId,
};
use std::time::Duration;

pub fn at(seconds: u64) -> Time {
    Time::after_epoch(Duration::from_secs(1_700_000_000 + seconds))
}

pub fn request(project: u32, priority: Priority, tokens: u64) -> AdmissionRequest {
    AdmissionRequest {
        project: ProjectId(project),
        user: UserId(project),
        key: None,
        plan: PlanId(0),
        model: ModelId(0),
        smaller: None,
        class: Class::Interactive,
        priority,
        input_tokens: tokens,
        least_input_tokens: tokens,
        max_tokens: tokens,
        answers: 1,
        units: policy::Units::default(),
        hints: policy::Hints::default(),
    }
}

pub fn settlement(usage: Usage) -> Settlement {
    Settlement {
        usage,
        has_completed: true,
        was_answered: true,
        was_forwarded: true,
        ..Settlement::default()
    }
}

pub fn tokens(output_tokens: u64) -> Usage {
    Usage {
        output_tokens,
        ..Usage::default()
    }
}

/// The tickets that run and wait.
#[derive(Default)]
pub struct Tickets {
    pub running: Vec<(TicketId, AdmissionRequest)>,
    pub waiting: Vec<(TicketId, AdmissionRequest)>,
}

impl Tickets {
    pub fn take(&mut self, decision: &Decision, ask: AdmissionRequest) {
        match decision {
            Decision::Admit(grant) => self.running.push((grant.ticket, ask)),
            Decision::Queue(position) => {
                self.waiting.retain(|(ticket, _)| Some(*ticket) != position.displaced);
                self.waiting.push((position.ticket, ask));
            }
            Decision::Reject(_) | Decision::NeedsCredit(_) => {}
        }
    }

    pub fn start(&mut self, policy: &mut Policy, now: Time) {
        while let Some(ticket) = policy.next(now) {
            let at = self.waiting.iter().position(|(waits, _)| *waits == ticket).unwrap();
            self.running.push(self.waiting.remove(at));
        }
    }

    /// Settles one of those that run, if any does.
    pub fn settle(&mut self, which: usize, policy: &mut Policy, usage: Usage, now: Time) {
        if !self.running.is_empty() {
            let (ticket, _) = self.running.swap_remove(which % self.running.len());
            policy.settle(ticket, &settlement(usage), now);
        }
    }

    /// Cancels one of those that wait, if any does.
    pub fn cancel(&mut self, which: usize, policy: &mut Policy, now: Time) {
        if !self.waiting.is_empty() {
            let (ticket, _) = self.waiting.swap_remove(which % self.waiting.len());
            policy.cancel(ticket, now);
        }
    }
}
