//! Sessions of a user: each gets its share, however much another has waiting.

#![allow(clippy::unwrap_used)]

use policy::{
    AdmissionRequest, Class, Decision, GlobalLimits, Hints, ModelId, Order, PlanId, Policy, Priority, ProjectId, Rules,
    Scheduling, Settlement, TicketId, Time, Units, Usage, UserId,
};
use proptest::prelude::*;
use std::collections::HashMap;
use std::time::Duration;

fn policy(order: Order) -> Policy {
    Policy::new(Rules {
        global: GlobalLimits {
            max_active_requests: 1,
            max_queue_size: 100_000,
            max_queue_wait: Duration::from_secs(1_000_000),
        },
        scheduling: Scheduling {
            order,
            ..Scheduling::default()
        },
        ..Rules::default()
    })
}

fn now() -> Time {
    Time::after_epoch(Duration::from_secs(1_700_000_000))
}

fn ask(user: u32, session: Option<u64>, tokens: u64) -> AdmissionRequest {
    AdmissionRequest {
        project: ProjectId(0),
        user: UserId(user),
        key: None,
        plan: PlanId(0),
        model: ModelId(0),
        smaller: None,
        class: Class::Interactive,
        priority: Priority::Normal,
        input_tokens: tokens,
        least_input_tokens: tokens,
        max_tokens: 1,
        answers: 1,
        units: Units::default(),
        hints: Hints {
            session,
            ..Hints::default()
        },
    }
}

fn settle(policy: &mut Policy, ticket: TicketId, tokens: u64) {
    let settlement = Settlement {
        usage: Usage {
            input_tokens: tokens,
            output_tokens: 1,
            ..Usage::default()
        },
        has_completed: true,
        was_answered: true,
        was_forwarded: true,
        ..Settlement::default()
    };
    policy.settle(ticket, &settlement, now());
}

/// Offers requests of users and sessions, by (user, session, tokens), and serves them one by one; the order in which they
/// were served, by their positions.
fn serve(policy: &mut Policy, requests: &[(u32, Option<u64>, u64)]) -> Vec<usize> {
    let mut known = HashMap::new();
    let (mut order, mut running) = (Vec::new(), None);
    for (at, (user, session, tokens)) in requests.iter().enumerate() {
        match policy.offer(&ask(*user, *session, *tokens), now()).0 {
            Decision::Admit(grant) => {
                order.push(at);
                running = Some((grant.ticket, *tokens));
            }
            Decision::Queue(queued) => {
                known.insert(queued.ticket, at);
            }
            Decision::Reject(refusal) => panic!("{refusal}"),
            Decision::NeedsCredit(_) => unreachable!("nothing is shared"),
        }
    }
    while let Some((ticket, tokens)) = running {
        settle(policy, ticket, tokens);
        running = policy.next(now()).map(|next| {
            order.push(known[&next]);
            (next, requests[known[&next]].2)
        });
    }
    order
}

/// An agent's thousand calls, then another's ten.
fn agents(first: Option<u64>, second: Option<u64>) -> Vec<(u32, Option<u64>, u64)> {
    let thousand = std::iter::repeat_n((0, first, 100), 1000);
    thousand.chain(std::iter::repeat_n((0, second, 100), 10)).collect()
}

/// How many were served before the last of the ten.
fn served_before_the_last_of_ten(order: Order, first: Option<u64>, second: Option<u64>) -> usize {
    let served = serve(&mut policy(order), &agents(first, second));
    served.iter().rposition(|at| *at >= 1000).unwrap()
}

#[test]
fn a_thousand_calls_of_one_session_do_not_keep_ten_of_another_waiting() {
    for (first, second) in [(Some(1), Some(2)), (None, Some(2)), (Some(1), None)] {
        let before = served_before_the_last_of_ten(Order::Weighted, first, second);
        assert!(before <= 20, "{before} of {first:?} and {second:?}");
    }
    assert_eq!(served_before_the_last_of_ten(Order::Weighted, None, None), 1009);
    assert_eq!(served_before_the_last_of_ten(Order::Weighted, Some(1), Some(1)), 1009);
    // First in, first out knows no sessions.
    assert_eq!(served_before_the_last_of_ten(Order::Fifo, Some(1), Some(2)), 1009);
}

#[test]
fn a_user_gains_nothing_by_many_sessions() {
    let mut requests = Vec::new();
    for session in 0..50 {
        requests.push((0, Some(session), 100));
    }
    requests.extend(std::iter::repeat_n((1, None, 100), 50));
    let served = serve(&mut policy(Order::Weighted), &requests);
    let many = served[..50].iter().filter(|at| **at < 50).count();
    assert!((24..=26).contains(&many), "{many} of 50");
}

#[test]
fn sessions_share_work_not_requests() {
    // Requests of 900 against those of 100.
    let mut requests = Vec::new();
    for _ in 0..100 {
        requests.push((0, Some(1), 900));
        requests.push((0, Some(2), 100));
    }
    let served = serve(&mut policy(Order::Weighted), &requests);
    let large = served[..100].iter().filter(|at| *at % 2 == 0).count();
    assert!((9..=12).contains(&large), "{large} of 100");
}

proptest! {
    /// Whatever sessions wait, all are served, a session's requests of one size in their order, and while two have
    /// requests waiting neither is ahead by more than two of the largest requests.
    #[test]
    fn every_session_gets_its_share(
        requests in prop::collection::vec((prop::option::of(0..4u64), 50..500u64), 2..200)
    ) {
        let requests: Vec<(u32, Option<u64>, u64)> =
            requests.into_iter().map(|(session, tokens)| (0, session, tokens)).collect();
        let served = serve(&mut policy(Order::Weighted), &requests);
        prop_assert_eq!(served.len(), requests.len(), "all are served");
        let mut left: HashMap<Option<u64>, usize> = HashMap::new();
        for (_, session, _) in &requests {
            *left.entry(*session).or_default() += 1;
        }
        let sessions: Vec<Option<u64>> = left.keys().copied().collect();
        let mut work: HashMap<Option<u64>, u64> = HashMap::new();
        // The first one starts before any waits.
        *left.get_mut(&requests[served[0]].1).unwrap() -= 1;
        for at in &served[1..] {
            let (_, session, tokens) = requests[*at];
            *work.entry(session).or_default() += tokens;
            *left.get_mut(&session).unwrap() -= 1;
            let waiting: Vec<u64> = sessions.iter().filter(|session| left[*session] > 0)
                .map(|session| work.get(session).copied().unwrap_or_default()).collect();
            if let (Some(most), Some(least)) = (waiting.iter().max(), waiting.iter().min()) {
                prop_assert!(most - least <= 2 * 502, "{most} and {least}");
            }
        }
    }
}
