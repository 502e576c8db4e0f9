//! A decision allocates nothing in the common case: the queue's lists, tickets and cells are reused.

#![allow(missing_docs, clippy::unwrap_used)]

use policy::{
    AdmissionRequest, Class, Decision, GlobalLimits, ModelId, PlanId, Policy, Priority, ProjectId, Rates, Rules,
    Settlement, TicketId, Time, Usage, UserId,
};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;
use std::num::NonZeroU64;
use std::time::Duration;

#[global_allocator]
static COUNTED: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const STEPS: usize = 20_000;

fn ask(number: u32) -> AdmissionRequest {
    AdmissionRequest {
        project: ProjectId(number % 100),
        user: UserId(number % 300),
        key: None,
        plan: PlanId(0),
        model: ModelId(number % 2),
        smaller: None,
        class: Class::Interactive,
        priority: Priority::ALL[number as usize % 3],
        input_tokens: 100,
        least_input_tokens: 100,
        max_tokens: 200,
        answers: 1,
        units: policy::Units::default(),
        hints: policy::Hints::default(),
    }
}

#[test]
fn a_decision_allocates_nothing_in_the_common_case() {
    let mut policy = Policy::new(Rules {
        global: GlobalLimits {
            max_active_requests: 200,
            max_queue_size: 4000,
            max_queue_wait: Duration::from_secs(100_000),
        },
        plans: vec![Rates {
            requests_per_minute: NonZeroU64::new(1_000_000_000),
            tokens_per_minute: NonZeroU64::new(1_000_000_000_000),
            ..Rates::default()
        }],
        ..Rules::default()
    });
    let mut now = Time::after_epoch(Duration::from_secs(1_700_000_000));
    let mut running: Vec<TicketId> = Vec::with_capacity(400);
    let mut number = 1u32;
    let mut step = |policy: &mut Policy, running: &mut Vec<TicketId>, fills: bool| {
        now = now + Duration::from_micros(50);
        number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        if let Decision::Admit(grant) = policy.offer(&ask(number >> 8), now).0 {
            running.push(grant.ticket);
        }
        if !fills {
            let ended = running.swap_remove(number as usize % running.len());
            let usage = Usage {
                input_tokens: 100,
                output_tokens: 90,
                ..Usage::default()
            };
            let settlement = Settlement {
                usage,
                has_completed: true,
                was_answered: true,
                was_forwarded: true,
                ..Settlement::default()
            };
            policy.settle(ended, &settlement, now);
            running.extend(policy.next(now));
        }
    };
    while policy.waiting() < 2000 {
        step(&mut policy, &mut running, true);
    }
    for _ in 0..20_000 {
        step(&mut policy, &mut running, false);
    }
    let region = Region::new(COUNTED);
    for _ in 0..STEPS {
        step(&mut policy, &mut running, false);
    }
    let allocations = region.change().allocations;
    // What is left are nodes of the ordered sets, split now and then: one in ten decisions.
    assert!(
        allocations <= STEPS / 10,
        "{allocations} allocations in {STEPS} decisions"
    );
}
