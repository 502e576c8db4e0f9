//! Graded holdback: what is held back of the reserved slots follows the demand of the priority that they are reserved for.

#![allow(clippy::unwrap_used)]

use policy::{
    AdmissionRequest, Class, Decision, GlobalLimits, Hints, ModelId, PlanId, Policy, Priority, ProjectId, Rules,
    Scheduling, Settlement, TicketId, Time, Units, Usage, UserId,
};
use proptest::prelude::*;
use std::time::Duration;

const SLOTS: usize = 20;
const RESERVED: usize = 5;

fn policy(is_graded: bool) -> Policy {
    Policy::new(Rules {
        global: GlobalLimits {
            max_active_requests: SLOTS,
            max_queue_size: 1000,
            max_queue_wait: Duration::from_secs(3600),
        },
        scheduling: Scheduling {
            reserved: [RESERVED, 0],
            is_graded,
            ..Scheduling::default()
        },
        ..Rules::default()
    })
}

fn at(millis: u64) -> Time {
    Time::after_epoch(Duration::from_secs(1_700_000_000) + Duration::from_millis(millis))
}

fn ask(priority: Priority) -> AdmissionRequest {
    AdmissionRequest {
        project: ProjectId(priority as u32),
        user: UserId(priority as u32),
        key: None,
        plan: PlanId(0),
        model: ModelId(0),
        smaller: None,
        class: Class::Interactive,
        priority,
        input_tokens: 10,
        least_input_tokens: 10,
        max_tokens: 10,
        answers: 1,
        units: Units::default(),
        hints: Hints::default(),
    }
}

fn end(policy: &mut Policy, ticket: TicketId, millis: u64) {
    let settlement = Settlement {
        usage: Usage {
            input_tokens: 10,
            output_tokens: 10,
            ..Usage::default()
        },
        has_completed: true,
        was_answered: true,
        was_forwarded: true,
        ..Settlement::default()
    };
    policy.settle(ticket, &settlement, at(millis));
}

fn start(policy: &mut Policy, priority: Priority, millis: u64) -> Option<TicketId> {
    match policy.offer(&ask(priority), at(millis)).0 {
        Decision::Admit(grant) => Some(grant.ticket),
        _ => None,
    }
}

/// Slots that requests of low priority get after so many of high priority came, one after the other, each of 4 s.
fn slots_of_low(is_graded: bool, high: u64, silent_millis: u64) -> usize {
    let mut policy = policy(is_graded);
    let mut millis = 0;
    for _ in 0..high {
        let ticket = start(&mut policy, Priority::High, millis).unwrap();
        millis += 4000;
        end(&mut policy, ticket, millis);
    }
    millis += silent_millis;
    (0..SLOTS)
        .filter_map(|_| start(&mut policy, Priority::Low, millis))
        .count()
}

#[test]
fn a_silent_priority_holds_nothing_back_and_a_fixed_number_always_does() {
    assert_eq!(slots_of_low(false, 0, 0), SLOTS - RESERVED);
    assert_eq!(slots_of_low(false, 100, 600_000), SLOTS - RESERVED);
    assert_eq!(slots_of_low(true, 0, 0), SLOTS);
    assert_eq!(slots_of_low(true, 100, 600_000), SLOTS);
}

#[test]
fn what_is_held_back_shrinks_smoothly_with_the_demand() {
    // A request each 4 s of 4 s: of 20 slots one becomes free every 0.2 s, so in one interval of twenty one comes: one slot.
    assert_eq!(slots_of_low(true, 100, 0), SLOTS - 1);
    let held_back: Vec<usize> = (0..10)
        .map(|minute| SLOTS - slots_of_low(true, 100, minute * 30_000))
        .collect();
    assert!(
        held_back.is_sorted_by(|earlier, later| earlier >= later),
        "{held_back:?}"
    );
    assert_eq!(held_back[9], 0, "{held_back:?}");
}

proptest! {
    /// Whatever comes, never more is held back than is reserved, and nothing of the slots that run for others is taken.
    #[test]
    fn never_more_is_held_back_than_is_reserved(
        steps in prop::collection::vec((0..3usize, 0..2000u64, any::<bool>()), 1..300)
    ) {
        let mut policy = policy(true);
        let mut running = Vec::new();
        let mut millis = 0;
        for (priority, passed, ends) in steps {
            millis += passed;
            if ends && !running.is_empty() {
                end(&mut policy, running.swap_remove(0), millis);
            }
            running.extend(start(&mut policy, Priority::ALL[priority], millis));
            while let Some(next) = policy.next(at(millis)) {
                running.push(next);
            }
            let (free, waiting) = (SLOTS - running.len(), policy.waiting());
            prop_assert!(waiting == 0 || free <= RESERVED, "{waiting} wait while {free} are free");
            prop_assert_eq!(policy.running(), running.len());
        }
    }
}
