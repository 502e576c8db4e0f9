//! What the tests of the policy have in common: moments, requests and their ends.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use policy::{
    AdmissionRequest, Class, Decision, GlobalLimits, Hints, ModelId, PlanId, Policy, Priority, ProjectId, Settlement,
    TicketId, Time, Units, Usage, UserId,
};
use std::time::Duration;

/// So many milliseconds after a moment of 2023.
pub fn at(millis: u64) -> Time {
    Time::after_epoch(Duration::from_secs(1_700_000_000) + Duration::from_millis(millis))
}

/// A request of a hundred tokens and at most a hundred more, of the first user, project and model; to be changed by
/// `AdmissionRequest { field, ..request() }`.
pub fn request() -> AdmissionRequest {
    AdmissionRequest {
        project: ProjectId(0),
        user: UserId(0),
        key: None,
        plan: PlanId(0),
        model: ModelId(0),
        smaller: None,
        class: Class::Interactive,
        priority: Priority::Normal,
        input_tokens: 100,
        least_input_tokens: 100,
        max_tokens: 100,
        answers: 1,
        units: Units::default(),
        hints: Hints::default(),
    }
}

/// Limits of all requests that only the number of slots binds.
pub fn slots(slots: usize) -> GlobalLimits {
    GlobalLimits {
        max_active_requests: slots,
        max_queue_size: 100_000,
        max_queue_wait: Duration::from_secs(3600),
    }
}

/// The end of a request whose answer was complete.
pub fn completed(input_tokens: u64, output_tokens: u64) -> Settlement {
    Settlement {
        usage: Usage {
            input_tokens,
            output_tokens,
            ..Usage::default()
        },
        has_completed: true,
        was_answered: true,
        was_forwarded: true,
        ..Settlement::default()
    }
}

/// The ticket of a request that starts at once, or `None`.
pub fn started(policy: &mut Policy, request: &AdmissionRequest, now: Time) -> Option<TicketId> {
    match policy.offer(request, now).0 {
        Decision::Admit(grant) => Some(grant.ticket),
        _ => None,
    }
}

/// The ticket of a request that waits, or `None`.
pub fn queued(policy: &mut Policy, request: &AdmissionRequest, now: Time) -> Option<TicketId> {
    match policy.offer(request, now).0 {
        Decision::Queue(queued) => Some(queued.ticket),
        _ => None,
    }
}

/// Starts all that may run now; their tickets.
pub fn start_waiting(policy: &mut Policy, now: Time) -> Vec<TicketId> {
    std::iter::from_fn(|| policy.next(now)).collect()
}
