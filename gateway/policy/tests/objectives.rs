//! Objectives: how soon an answer is wanted bounds the wait and orders a user's queue.

#![allow(clippy::unwrap_used)]

mod support;

use policy::{
    AdmissionRequest, Decision, GlobalLimits, Hints, Milestone, Objectives, Policy, Refusal, Rules, Settlement,
    TicketId, Usage,
};
use proptest::prelude::*;
use std::time::Duration;
use support::{at, request};

const LONGEST: Duration = Duration::from_secs(60);

fn first_token(millis: u64) -> Objectives {
    Objectives {
        first_token: Some(Duration::from_millis(millis)),
        total: None,
    }
}

fn total(millis: u64) -> Objectives {
    Objectives {
        first_token: None,
        total: Some(Duration::from_millis(millis)),
    }
}

fn ask(objectives: Objectives) -> AdmissionRequest {
    AdmissionRequest {
        max_tokens: 1000,
        hints: Hints {
            objectives,
            ..Hints::default()
        },
        ..request()
    }
}

/// One slot; requests of 100 tokens have had answers of 100 tokens in 10 s each.
fn policy() -> (Policy, u64) {
    let mut policy = Policy::new(Rules {
        global: GlobalLimits {
            max_active_requests: 1,
            max_queue_size: 1000,
            max_queue_wait: LONGEST,
        },
        ..Rules::default()
    });
    let mut millis = 0;
    for _ in 0..50 {
        let ticket = admitted(&mut policy, Objectives::default(), millis);
        millis += 10_000;
        end(&mut policy, ticket, millis);
    }
    (policy, millis)
}

fn end(policy: &mut Policy, ticket: TicketId, millis: u64) {
    let settlement = Settlement {
        usage: Usage {
            input_tokens: 100,
            output_tokens: 100,
            ..Usage::default()
        },
        has_completed: true,
        was_answered: true,
        was_forwarded: true,
        ..Settlement::default()
    };
    policy.settle(ticket, &settlement, at(millis));
}

fn admitted(policy: &mut Policy, objectives: Objectives, millis: u64) -> TicketId {
    match policy.offer(&ask(objectives), at(millis)).0 {
        Decision::Admit(grant) => grant.ticket,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_cannot_be_met_is_refused_at_once_and_says_when_it_could_be() {
    let (mut policy, now) = policy();
    admitted(&mut policy, Objectives::default(), now);
    // One of 10 s runs: the next waits for 10 s.
    let Decision::Reject(refusal) = policy.offer(&ask(first_token(4000)), at(now)).0 else {
        panic!("it waits in vain");
    };
    let Refusal::ObjectiveOutOfReach {
        milestone,
        within,
        expected: Some(expected),
        retry_after,
    } = refusal
    else {
        panic!("{refusal}");
    };
    assert_eq!((milestone, within), (Milestone::FirstToken, Duration::from_secs(4)));
    assert!((expected.as_secs_f64() - 10.0).abs() < 0.1, "{expected:?}");
    // 10 s less the 4 s that it may wait.
    assert!((retry_after.as_secs_f64() - 6.0).abs() < 0.2, "{retry_after:?}");
    for objectives in [first_token(15_000), total(25_000), Objectives::default()] {
        let (mut policy, now) = self::policy();
        admitted(&mut policy, Objectives::default(), now);
        let decision = policy.offer(&ask(objectives), at(now)).0;
        assert!(matches!(decision, Decision::Queue(_)), "{objectives:?}: {decision:?}");
    }
    // The answer alone takes 10 s, and the wait as long.
    let decision = policy.offer(&ask(total(15_000)), at(now)).0;
    assert!(matches!(decision, Decision::Reject(_)), "{decision:?}");
}

#[test]
fn a_request_that_can_start_at_once_starts_though_its_answer_is_predicted_to_come_late() {
    let (mut policy, now) = policy();
    admitted(&mut policy, total(1000), now);
}

#[test]
fn a_wait_ends_when_the_objective_can_no_longer_be_met() {
    let (mut policy, now) = policy();
    admitted(&mut policy, Objectives::default(), now);
    let Decision::Queue(queued) = policy.offer(&ask(total(25_000)), at(now)).0 else {
        panic!("it waits");
    };
    let wait = (queued.deadline - at(now)).as_secs_f64();
    assert!(
        (wait - 15.0).abs() < 0.2,
        "25 s less the 10 s of the answer, not {wait}"
    );
    let refusal = policy.expire(queued.ticket, queued.deadline).unwrap();
    assert!(
        matches!(refusal, Refusal::ObjectiveOutOfReach { expected: None, .. }),
        "{refusal}"
    );
}

#[test]
fn less_slack_goes_first() {
    let (mut policy, now) = policy();
    let running = admitted(&mut policy, Objectives::default(), now);
    let wanted = [Objectives::default(), first_token(21_000), first_token(12_000)];
    let tickets = wanted.map(|objectives| match policy.offer(&ask(objectives), at(now + 1)).0 {
        Decision::Queue(queued) => queued.ticket,
        other => panic!("{other:?}"),
    });
    let mut order = Vec::new();
    let mut running = Some(running);
    while let Some(ticket) = running {
        policy.settle(ticket, &Settlement::default(), at(now + 2));
        running = policy.next(at(now + 2));
        order.extend(running.map(|next| tickets.iter().position(|ticket| *ticket == next).unwrap()));
    }
    assert_eq!(order, [2, 1, 0]);
}

proptest! {
    /// Whatever objectives come, a queued request waits no longer than its objectives and the longest wait allow, and
    /// those without one are decided on as if there were none.
    #[test]
    fn a_wait_is_never_longer_than_the_objective(
        requests in prop::collection::vec((prop::option::of(1..90_000u64), prop::option::of(1..90_000u64)), 1..30)
    ) {
        let (mut policy, now) = policy();
        for (first, whole) in requests {
            let objectives = Objectives {
                first_token: first.map(Duration::from_millis),
                total: whole.map(Duration::from_millis),
            };
            match policy.offer(&ask(objectives), at(now)).0 {
                Decision::Queue(queued) => {
                    let wait = queued.deadline - at(now);
                    let strictest = objectives.first_token.into_iter().chain(objectives.total).min();
                    prop_assert!(wait <= strictest.unwrap_or(LONGEST).min(LONGEST));
                    prop_assert!(queued.expected <= wait);
                }
                Decision::Reject(Refusal::ObjectiveOutOfReach { retry_after, .. }) => {
                    prop_assert!(first.is_some() || whole.is_some());
                    prop_assert!(retry_after >= Duration::from_secs(1));
                }
                Decision::NeedsCredit(_) => unreachable!("nothing is shared"),
                Decision::Reject(refusal) => {
                    prop_assert!(matches!(refusal, Refusal::QueueTimeout { .. }), "{}", refusal);
                }
                Decision::Admit(_) => {}
            }
        }
    }
}
