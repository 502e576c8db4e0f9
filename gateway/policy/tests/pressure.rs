//! Degradation looks only at what shared capacity holds back, and takes the important last.

#![allow(clippy::unwrap_used)]

use policy::{
    AdmissionRequest, Class, Concurrency, Decision, Degradation, GlobalLimits, Level, LevelActions, ModelId,
    ModelRules, Order, Pace, PlanId, Policy, Priority, ProjectId, ProjectRules, Rates, Refusal, Rules, Scheduling,
    Settlement, TicketId, Time, UserId,
};
use proptest::prelude::*;
use std::num::NonZeroU64;
use std::time::Duration;

fn at(seconds: u64) -> Time {
    Time::after_epoch(Duration::from_secs(1_700_000_000 + seconds))
}

fn request(project: u32, model: u32, priority: Priority) -> AdmissionRequest {
    AdmissionRequest {
        project: ProjectId(project),
        user: UserId(project),
        key: None,
        plan: PlanId(0),
        model: ModelId(model),
        smaller: None,
        class: Class::Interactive,
        priority,
        input_tokens: 10,
        least_input_tokens: 1,
        max_tokens: 10,
        answers: 1,
        units: policy::Units::default(),
        hints: policy::Hints::default(),
    }
}

/// Calm; batch pauses at half; emergency at nine tenths.
fn rules(active: usize, queue: usize) -> Rules {
    let level = |number, threshold, actions| Level {
        name: format!("level {number}"),
        number,
        threshold,
        actions,
    };
    let pause = LevelActions {
        pause_batch: true,
        ..LevelActions::default()
    };
    let emergency = LevelActions {
        emergency: true,
        ..LevelActions::default()
    };
    Rules {
        global: GlobalLimits {
            max_active_requests: active,
            max_queue_size: queue,
            max_queue_wait: Duration::from_secs(30),
        },
        degradation: Degradation {
            levels: vec![
                level(0, 0.0, LevelActions::default()),
                level(1, 0.5, pause),
                level(2, 0.9, emergency),
            ],
            margin: 0.05,
            hold: Duration::from_secs(2),
        },
        models: vec![ModelRules::default(); 2],
        ..Rules::default()
    }
}

fn admitted(policy: &mut Policy, ask: &AdmissionRequest, now: Time) -> TicketId {
    match policy.offer(ask, now).0 {
        Decision::Admit(grant) => grant.ticket,
        other => panic!("not admitted: {other:?}"),
    }
}

fn level(policy: &mut Policy, now: Time) -> u32 {
    policy.level(now).unwrap().number
}

#[test]
fn a_project_that_waits_for_its_own_limit_is_no_pressure_on_others() {
    let mut rules = rules(50, 10);
    rules.projects = vec![ProjectRules {
        max_concurrent_requests: Some(1),
        ..ProjectRules::default()
    }];
    let mut policy = Policy::new(rules);
    let running = admitted(&mut policy, &request(0, 0, Priority::Normal), at(0));
    for _ in 0..10 {
        assert!(matches!(
            policy.offer(&request(0, 0, Priority::Normal), at(0)).0,
            Decision::Queue(_)
        ));
    }
    assert_eq!(
        level(&mut policy, at(29)),
        0,
        "the queue is full and they have waited for 29 s"
    );
    admitted(&mut policy, &request(1, 0, Priority::Normal), at(29));
    // One of them may run now; that they have waited until then was for their own limit.
    policy.settle(running, &Settlement::default(), at(29));
    assert_eq!(level(&mut policy, at(29)), 0);
    assert!(policy.next(at(29)).is_some());
    assert_eq!(level(&mut policy, at(29)), 0);
}

#[test]
fn a_model_without_free_slots_degrades_requests_for_itself_alone() {
    let mut rules = rules(50, 10);
    rules.models[0].concurrency = Concurrency::Fixed(1);
    let mut policy = Policy::new(rules);
    admitted(&mut policy, &request(0, 0, Priority::Normal), at(0));
    for _ in 0..9 {
        assert!(matches!(
            policy.offer(&request(0, 0, Priority::Normal), at(0)).0,
            Decision::Queue(_)
        ));
    }
    let Decision::Reject(Refusal::Emergency { .. }) = policy.offer(&request(1, 0, Priority::Normal), at(0)).0 else {
        panic!("nine tenths of the queue wait for this model")
    };
    admitted(&mut policy, &request(1, 1, Priority::Normal), at(0));
    assert_eq!(level(&mut policy, at(0)), 2, "the worst is reported");
}

#[test]
fn a_models_overloaded_upstream_degrades_requests_for_it_alone() {
    let mut policy = Policy::new(rules(50, 10));
    for _ in 0..100 {
        let ticket = admitted(&mut policy, &request(0, 0, Priority::High), at(0));
        let pace = Pace {
            is_overloaded: true,
            ..Pace::default()
        };
        policy.settle(
            ticket,
            &Settlement {
                pace,
                was_answered: true,
                ..Settlement::default()
            },
            at(0),
        );
    }
    let refused = policy.offer(&request(0, 0, Priority::Normal), at(0)).0;
    assert!(
        matches!(refused, Decision::Reject(Refusal::Emergency { .. })),
        "{refused:?}"
    );
    admitted(&mut policy, &request(0, 1, Priority::Normal), at(0));
}

#[test]
fn a_paused_batch_request_keeps_its_level_but_raises_none() {
    let mut policy = Policy::new(rules(1, 10));
    let running = admitted(&mut policy, &request(0, 0, Priority::Normal), at(0));
    let batch = AdmissionRequest {
        class: Class::Batch,
        ..request(1, 0, Priority::Normal)
    };
    let Decision::Queue(batch) = policy.offer(&batch, at(0)).0 else {
        panic!("it waits")
    };
    assert_eq!(
        level(&mut policy, at(16)),
        1,
        "it has waited for half of the longest time"
    );
    assert_eq!(level(&mut policy, at(29)), 1, "paused, it raises no further level");
    policy.settle(running, &Settlement::default(), at(29));
    assert_eq!(policy.next(at(29)), None, "the level holds for 2 s");
    // The slot is free: nothing presses any more, and the batch request runs.
    assert_eq!(policy.next(at(32)), Some(batch.ticket));
    assert_eq!(level(&mut policy, at(32)), 0);
}

#[test]
fn in_an_emergency_high_priority_takes_the_place_of_a_lower_class_which_is_told() {
    let mut policy = Policy::new(rules(1, 2));
    admitted(&mut policy, &request(0, 0, Priority::Normal), at(0));
    let mut waiting = Vec::new();
    for _ in 0..2 {
        let Decision::Queue(position) = policy.offer(&request(0, 0, Priority::Normal), at(0)).0 else {
            panic!()
        };
        waiting.push(position.ticket);
    }
    assert_eq!(level(&mut policy, at(0)), 2);
    for displaced in waiting.into_iter().rev() {
        let Decision::Queue(position) = policy.offer(&request(1, 0, Priority::High), at(0)).0 else {
            panic!("a lower class waits")
        };
        assert_eq!(position.displaced, Some(displaced), "the newest first");
    }
    let refused = policy.offer(&request(1, 0, Priority::High), at(0)).0;
    assert!(
        matches!(refused, Decision::Reject(Refusal::Emergency { .. })),
        "only high priority waits"
    );
}

#[test]
fn a_smaller_model_charges_its_own_rate_and_one_without_a_rate_left_is_not_routed_to() {
    let mut rules = rules(50, 10);
    rules.degradation.levels[0].actions.route_to_smaller_model = true;
    rules.models[1].rates = Rates {
        requests_per_minute: NonZeroU64::new(3),
        ..Rates::default()
    };
    let mut policy = Policy::new(rules);
    let ask = AdmissionRequest {
        smaller: Some(ModelId(1)),
        ..request(0, 0, Priority::Normal)
    };
    let models: Vec<u32> = (0..5)
        .map(|_| match policy.offer(&ask, at(0)).0 {
            Decision::Admit(grant) => grant.terms.model.0,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(models, [1, 1, 1, 0, 0]);
    let direct = policy.offer(&request(1, 1, Priority::Normal), at(0)).0;
    assert!(
        matches!(direct, Decision::Reject(Refusal::RateLimited { .. })),
        "{direct:?}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whatever order the queue had before, after a reload to first in, first out the oldest goes first.
    #[test]
    fn after_a_reload_to_fifo_the_oldest_goes_first(
        arrivals in prop::collection::vec((0..3u32, 0..3usize), 2..40),
        served in prop::collection::vec(0..3u32, 0..20),
        is_strict in any::<bool>(),
    ) {
        let with = |order| Rules {
            scheduling: Scheduling { order, ..Scheduling::default() },
            degradation: Degradation::default(),
            ..rules(1, 100)
        };
        let mut policy = Policy::new(with(if is_strict { Order::Strict } else { Order::Weighted }));
        for project in served {
            let ticket = admitted(&mut policy, &request(project, 0, Priority::Normal), at(0));
            policy.settle(ticket, &Settlement { was_forwarded: true, ..Settlement::default() }, at(1));
        }
        let mut running = admitted(&mut policy, &request(9, 0, Priority::Normal), at(2));
        let mut tickets = Vec::new();
        for (project, priority) in arrivals {
            if let Decision::Queue(position) = policy.offer(&request(project, 0, Priority::ALL[priority]), at(2)).0 {
                tickets.push(position.ticket);
            }
        }
        policy.reconfigure(with(Order::Fifo));
        let mut order = Vec::new();
        while policy.waiting() > 0 {
            policy.settle(running, &Settlement::default(), at(3));
            running = policy.next(at(3)).unwrap();
            order.push(running);
        }
        prop_assert_eq!(order, tickets);
    }
}
