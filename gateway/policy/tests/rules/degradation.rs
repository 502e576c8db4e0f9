//! Degradation of requests under pressure.

use super::{admit, ask, at, per_minute, refusal, roomy};
use policy::{
    AdmissionRequest, Class, Decision, Degradation, Level, LevelActions, ModelId, PlanId, Policy, Priority, ProjectId,
    Refusal, Subject,
};
use std::time::Duration;

const PLAN: Subject = Subject::Plan(PlanId(0), ProjectId(0));
/// The original's levels, with one more.
fn original() -> Degradation {
    let level = |number, name: &str, threshold, actions| Level {
        name: name.to_owned(),
        number,
        threshold,
        actions,
    };
    let factor = |factor| LevelActions {
        max_tokens_factor: Some(factor),
        ..LevelActions::default()
    };
    let high = LevelActions {
        reject_batch: true,
        ..factor(0.5)
    };
    let critical = LevelActions {
        reject_batch: true,
        reject_standard: true,
        allow_only_priority: Some(Priority::High),
        ..factor(0.25)
    };
    Degradation {
        levels: vec![
            level(0, "normal", 0.0, LevelActions::default()),
            level(1, "soft_pressure", 0.6, factor(0.75)),
            level(2, "high_pressure", 0.8, high),
            level(3, "critical_pressure", 0.95, critical),
            level(
                4,
                "emergency",
                1.0,
                LevelActions {
                    emergency: true,
                    ..critical
                },
            ),
        ],
        margin: 0.05,
        hold: Duration::from_secs(1),
    }
}

/// A policy whose queue of a hundred has so many in it, all of high priority.
fn pressed(waiting: usize, degradation: Degradation) -> Policy {
    let mut rules = roomy();
    rules.global.max_active_requests = 1;
    rules.global.max_queue_size = 100;
    rules.degradation = degradation;
    let mut policy = Policy::new(rules);
    let mut vip = ask(9);
    vip.priority = Priority::High;
    for _ in 0..=waiting {
        assert!(!matches!(policy.offer(&vip, at(0)).0, Decision::Reject(_)));
    }
    assert_eq!(policy.waiting(), waiting);
    policy
}

#[test]
fn the_originals_levels_shrink_refuse_batch_then_standard_and_keep_vips() {
    let class = |class, priority| AdmissionRequest {
        class,
        priority,
        ..ask(0)
    };
    let batch = class(Class::Batch, Priority::Low);
    let standard = class(Class::Interactive, Priority::Normal);
    let vip = class(Class::Interactive, Priority::High);
    for (waiting, level, max_tokens, takes_batch, takes_standard) in [
        (59, 0, 100, true, true),
        (60, 1, 75, true, true),
        (80, 2, 50, false, true),
        (95, 3, 25, false, false),
    ] {
        let mut policy = pressed(waiting, original());
        assert_eq!(policy.level(at(0)).unwrap().number, level);
        let mut taken = |ask: &AdmissionRequest| match policy.offer(ask, at(0)).0 {
            Decision::Queue(queued) => {
                policy.cancel(queued.ticket, at(0));
                assert_eq!(queued.terms.max_tokens, max_tokens, "at {waiting}");
                assert_eq!(queued.terms.estimate.output_tokens, max_tokens);
                assert_eq!(queued.terms.level, level);
                Ok(())
            }
            Decision::Reject(refusal) => Err(refusal),
            Decision::NeedsCredit(_) => unreachable!("nothing is shared"),
            Decision::Admit(_) => panic!("there is no place"),
        };
        assert_eq!(taken(&batch).is_ok(), takes_batch, "batch at {waiting}");
        assert_eq!(taken(&standard).is_ok(), takes_standard, "standard at {waiting}");
        assert!(taken(&vip).is_ok(), "vip at {waiting}");
    }
    let mut policy = pressed(96, original());
    assert!(matches!(
        refusal(&mut policy, &batch, at(0)),
        Refusal::BatchRejected { .. }
    ));
    assert!(matches!(
        refusal(&mut policy, &standard, at(0)),
        Refusal::StandardRejected { .. }
    ));
    let mut policy = pressed(100, original());
    assert!(matches!(refusal(&mut policy, &vip, at(0)), Refusal::Emergency { .. }));
}

#[test]
fn under_pressure_requests_go_to_the_smaller_model_and_batch_pauses() {
    let mut degradation = original();
    degradation.levels[1].actions = LevelActions {
        route_to_smaller_model: true,
        pause_batch: true,
        ..LevelActions::default()
    };
    let mut policy = pressed(60, degradation);
    let Decision::Queue(queued) = policy.offer(&ask(0), at(0)).0 else {
        panic!("it waits")
    };
    assert_eq!((queued.terms.model, queued.terms.max_tokens), (ModelId(1), 50));
    assert!(queued.terms.degradations.routed_by_pressure && !queued.terms.degradations.max_tokens_reduced);
    let mut batch = ask(1);
    (batch.class, batch.priority) = (Class::Batch, Priority::High);
    let Decision::Queue(paused) = policy.offer(&batch, at(0)).0 else {
        panic!("it waits")
    };
    let mut rules = policy.rules().clone();
    rules.global.max_active_requests = 200;
    policy.reconfigure(rules);
    let mut started = Vec::new();
    while let Some(ticket) = policy.next(at(0)) {
        started.push(ticket);
    }
    assert!(started.contains(&queued.ticket));
    // The queue has emptied but for batch; once the level is left, it runs.
    assert!(!started.contains(&paused.ticket));
    assert_eq!(policy.next(at(500)), None);
    assert_eq!(policy.next(at(1_001)), Some(paused.ticket));
}

#[test]
fn a_request_that_shrank_is_charged_for_what_it_may_still_use() {
    let mut rules = roomy();
    rules.plans = vec![per_minute(0, 10_000)];
    rules.degradation = original();
    rules.degradation.levels[0].actions.max_tokens_factor = Some(0.5);
    let mut policy = Policy::new(rules);
    admit(&mut policy, &ask(0), at(0)).unwrap();
    assert_eq!(policy.rates(PLAN, at(0))[0].1.remaining, 10_000 - 150);
    let balances = policy.balances(Subject::Project(ProjectId(0)), at(0));
    assert_eq!(balances[0].reserved, 150);
}
