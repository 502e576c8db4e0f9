//! The laws of policy, over random workloads.

use policy::{
    Ask, Class, Decision, Estimate, GlobalLimits, ModelId, PermitId, PlanId, Policy, Priority, ProjectId, RateLimit,
    Refusal, Rules, TicketId, Time, UserId,
};
use proptest::prelude::*;
use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::time::Duration;

fn rules(active: usize, queue: usize, rpm: Option<u32>) -> Rules {
    Rules {
        global: GlobalLimits {
            max_active_requests: active,
            max_queue_size: queue,
            max_queue_wait: Duration::from_secs(30),
        },
        plans: vec![RateLimit {
            requests_per_minute: rpm.and_then(NonZeroU32::new),
        }],
    }
}

fn ask(project: u32) -> Ask {
    Ask {
        project: ProjectId(project),
        user: UserId(0),
        plan: PlanId(0),
        model: ModelId(0),
        class: Class::Interactive,
        priority: Priority::Normal,
        estimate: Estimate::default(),
    }
}

fn at(millis: u64) -> Time {
    Time::after_origin(Duration::from_millis(millis))
}

#[derive(Debug, Clone)]
enum Step {
    Offer(u32),
    Release(usize),
    Cancel(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..4u32).prop_map(Step::Offer),
        2 => any::<usize>().prop_map(Step::Release),
        1 => any::<usize>().prop_map(Step::Cancel),
    ]
}

proptest! {
    #[test]
    fn permits_are_bounded_nobody_waits_beside_a_free_one_and_all_come_back(
        active in 1..6usize,
        queue in 0..6usize,
        steps in prop::collection::vec(step(), 0..300),
    ) {
        let mut policy = Policy::new(&rules(active, queue, None));
        let mut permits: Vec<PermitId> = Vec::new();
        let mut tickets: VecDeque<TicketId> = VecDeque::new();
        for (i, step) in steps.into_iter().enumerate() {
            let now = at(i as u64);
            match step {
                Step::Offer(project) => match policy.offer(&ask(project), now).0 {
                    Decision::Admit(permit) => permits.push(permit),
                    Decision::Wait(ticket) => tickets.push_back(ticket),
                    Decision::Refuse(refusal) => {
                        let full = matches!(refusal, Refusal::QueueFull { size, .. } if size == queue);
                        prop_assert!(full);
                    }
                },
                Step::Release(which) if !permits.is_empty() => {
                    let permit = permits.swap_remove(which % permits.len());
                    if let Some((woken, permit)) = policy.release(permit) {
                        prop_assert_eq!(Some(woken), tickets.pop_front(), "first in, first out");
                        permits.push(permit);
                    }
                }
                Step::Cancel(which) if !tickets.is_empty() => {
                    let ticket = tickets.remove(which % tickets.len()).expect("in range");
                    prop_assert!(policy.cancel(ticket));
                    prop_assert!(!policy.cancel(ticket), "a ticket ends once");
                }
                Step::Release(_) | Step::Cancel(_) => {}
            }
            prop_assert_eq!(policy.admission().active(), permits.len());
            prop_assert_eq!(policy.admission().waiting(), tickets.len());
            prop_assert!(permits.len() <= active);
            prop_assert!(tickets.len() <= queue);
            prop_assert!(tickets.is_empty() || permits.len() == active, "work-conserving");
        }
        while let Some(permit) = permits.pop() {
            permits.extend(policy.release(permit).map(|(_, permit)| permit));
        }
        prop_assert_eq!((policy.admission().active(), policy.admission().waiting()), (0, 0));
    }

    #[test]
    fn a_rate_limit_lets_through_its_burst_and_its_rate_and_no_more(
        rpm in 1..500u32,
        gaps in prop::collection::vec(0..2_000u64, 1..800),
    ) {
        let mut policy = Policy::new(&rules(10_000, 0, Some(rpm)));
        let (mut now, mut passed) = (0u64, 0u64);
        for gap in gaps {
            now += gap;
            let (decision, standing) = policy.offer(&ask(1), at(now));
            prop_assert_eq!(standing.limit, rpm);
            match decision {
                Decision::Admit(_) => passed += 1,
                Decision::Refuse(Refusal::RateLimited { retry_after, .. }) => {
                    prop_assert_eq!(standing.remaining, 0);
                    let again = at(now) + retry_after;
                    prop_assert!(again > at(now));
                }
                other => prop_assert!(false, "unexpected {:?}", other),
            }
            let bound = u64::from(rpm) + now * u64::from(rpm) / 60_000 + 1;
            prop_assert!(passed <= bound, "{} passed, {} allowed", passed, bound);
        }
    }

    #[test]
    fn what_a_later_rule_refuses_costs_no_rate(rpm in 1..50u32, refused in 1..200u32) {
        let mut policy = Policy::new(&rules(1, 0, Some(rpm)));
        let (first, _) = policy.offer(&ask(1), at(0));
        let Decision::Admit(permit) = first else { panic!("the first passes") };
        let mut full = 0;
        for _ in 0..refused {
            match policy.offer(&ask(1), at(0)).0 {
                Decision::Refuse(Refusal::QueueFull { .. }) => full += 1,
                Decision::Refuse(Refusal::RateLimited { .. }) if rpm == 1 => {}
                other => prop_assert!(false, "unexpected {:?}", other),
            }
        }
        policy.release(permit);
        if rpm > 1 {
            prop_assert_eq!(full, refused);
            let (_, standing) = policy.offer(&ask(1), at(0));
            prop_assert_eq!(standing.remaining, rpm - 2);
        }
    }
}

#[test]
fn one_project_cannot_use_up_anothers_rate() {
    let mut policy = Policy::new(&rules(1000, 0, Some(3)));
    for _ in 0..10 {
        policy.offer(&ask(1), at(0));
    }
    assert!(matches!(policy.offer(&ask(2), at(0)).0, Decision::Admit(_)));
}

#[test]
fn the_rate_limits_retry_after_is_true() {
    let mut policy = Policy::new(&rules(1000, 0, Some(60)));
    for _ in 0..60 {
        assert!(matches!(policy.offer(&ask(1), at(0)).0, Decision::Admit(_)));
    }
    let Decision::Refuse(Refusal::RateLimited { retry_after, .. }) = policy.offer(&ask(1), at(0)).0 else {
        panic!("the 61st is refused")
    };
    assert_eq!(retry_after, Duration::from_secs(1));
    assert!(matches!(policy.offer(&ask(1), at(999)).0, Decision::Refuse(_)));
    assert!(matches!(policy.offer(&ask(1), at(1000)).0, Decision::Admit(_)));
}

#[test]
fn a_smaller_limit_lets_permits_run_out() {
    let mut policy = Policy::new(&rules(2, 5, None));
    let Decision::Admit(first) = policy.offer(&ask(1), at(0)).0 else {
        panic!()
    };
    let Decision::Admit(second) = policy.offer(&ask(1), at(0)).0 else {
        panic!()
    };
    assert!(matches!(policy.offer(&ask(1), at(0)).0, Decision::Wait(_)));
    policy.reconfigure(&rules(1, 5, None));
    assert!(policy.release(first).is_none(), "two ran, one may");
    assert!(policy.release(second).is_some(), "now the waiter's turn");
    assert_eq!(policy.admission().active(), 1);
}
