//! The cost of a decision: `offer` and `settle` (with the next one's start) while ten thousand wait.

#![allow(missing_docs)]

use criterion::{Criterion, criterion_group, criterion_main};
use policy::{
    AdmissionRequest, Class, Decision, GlobalLimits, ModelId, PlanId, Policy, Priority, ProjectId, Rates, Rules,
    Settlement, TicketId, Time, Usage, UserId,
};
use std::hint::black_box;
use std::num::NonZeroU64;
use std::time::Duration;

const PROJECTS: u32 = 1000;
const WAITING: usize = 10_000;
const RUNNING: usize = 500;

fn policy() -> Policy {
    Policy::new(Rules {
        global: GlobalLimits {
            max_active_requests: RUNNING,
            max_queue_size: 2 * WAITING,
            max_queue_wait: Duration::from_secs(1_000_000),
        },
        plans: vec![Rates {
            requests_per_minute: NonZeroU64::new(1_000_000_000),
            tokens_per_minute: NonZeroU64::new(1_000_000_000_000),
            ..Rates::default()
        }],
        ..Rules::default()
    })
}

fn ask(number: u32) -> AdmissionRequest {
    AdmissionRequest {
        project: ProjectId(number % PROJECTS),
        user: UserId(number % (PROJECTS * 3)),
        key: None,
        plan: PlanId(0),
        model: ModelId(number % 3),
        smaller: None,
        class: Class::Interactive,
        priority: [Priority::High, Priority::Normal, Priority::Low][number as usize % 3],
        input_tokens: 100 + u64::from(number % 77),
        least_input_tokens: 1,
        max_tokens: 200,
        answers: 1,
        units: policy::Units::default(),
        hints: policy::Hints::default(),
    }
}

fn offer_and_settle(criterion: &mut Criterion) {
    let mut policy = policy();
    let mut now = Time::after_epoch(Duration::from_secs(1_700_000_000));
    let mut running: Vec<TicketId> = Vec::new();
    let mut number = 0u32;
    while policy.waiting() < WAITING {
        if let Decision::Admit(grant) = policy.offer(&ask(number), now).0 {
            running.push(grant.ticket);
        }
        number = number.wrapping_mul(5).wrapping_add(1);
    }
    let settlement = Settlement {
        usage: Usage {
            input_tokens: 120,
            output_tokens: 80,
            ..Usage::default()
        },
        has_completed: true,
        was_answered: true,
        was_forwarded: true,
        ..Settlement::default()
    };
    criterion.bench_function("offer + settle + next, 10,000 waiting, 1,000 projects", |bencher| {
        bencher.iter(|| {
            now = now + Duration::from_micros(10);
            number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            black_box(policy.offer(&ask(number >> 8), now));
            let at = number as usize % running.len();
            let ended = running.swap_remove(at);
            policy.settle(ended, &settlement, now);
            running.extend(policy.next(now));
        });
    });
}

criterion_group!(benches, offer_and_settle);
criterion_main!(benches);
