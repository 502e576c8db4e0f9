//! The order of one user's requests: by predicted work, aged.

#![allow(clippy::unwrap_used)]

mod support;

use policy::{
    AdmissionRequest, Decision, GlobalLimits, Hints, Policy, Rules, Scheduling, Settlement, TicketId, Time, UserOrder,
};
use proptest::prelude::*;
use std::time::Duration;
use support::{at, completed, request};

const LONGEST: Duration = Duration::from_secs(40);
/// Three quarters of the longest wait.
const BOUND: Duration = Duration::from_secs(30);

fn policy(user_order: UserOrder) -> Policy {
    Policy::new(Rules {
        global: GlobalLimits {
            max_active_requests: 1,
            max_queue_size: 10_000,
            max_queue_wait: LONGEST,
        },
        scheduling: Scheduling {
            user_order,
            ..Scheduling::default()
        },
        ..Rules::default()
    })
}

fn ask(input_tokens: u64, max_tokens: u64, prompt: u64) -> AdmissionRequest {
    AdmissionRequest {
        input_tokens,
        least_input_tokens: input_tokens,
        max_tokens,
        hints: Hints {
            prompt: Some(prompt),
            ..Hints::default()
        },
        ..request()
    }
}

/// Serves a request alone, from a moment on, in as many hundredths of a second as its answer has tokens.
fn serve_alone(policy: &mut Policy, ask: &AdmissionRequest, output_tokens: u64, millis: &mut u64) {
    let Decision::Admit(grant) = policy.offer(ask, at(*millis)).0 else {
        panic!("it runs alone");
    };
    *millis += 10 * output_tokens;
    policy.settle(grant.ticket, &completed(ask.input_tokens, output_tokens), at(*millis));
}

fn queue(policy: &mut Policy, ask: &AdmissionRequest, millis: u64) -> TicketId {
    match policy.offer(ask, at(millis)).0 {
        Decision::Queue(queued) => queued.ticket,
        other => panic!("{other:?}"),
    }
}

/// Ends what runs, then each of those that wait, as soon as it has started; returns their order.
fn drain(policy: &mut Policy, mut running: TicketId, millis: u64) -> Vec<TicketId> {
    let mut order = Vec::new();
    loop {
        policy.settle(running, &Settlement::default(), at(millis));
        let Some(next) = policy.next(at(millis)) else {
            return order;
        };
        order.push(next);
        running = next;
    }
}

fn occupy(policy: &mut Policy, millis: u64) -> TicketId {
    match policy.offer(&ask(10, 10, 0), at(millis)).0 {
        Decision::Admit(grant) => grant.ticket,
        other => panic!("{other:?}"),
    }
}

#[test]
fn kinds_of_prompts_that_had_short_answers_go_before_those_that_had_long_ones() {
    for (order, expected) in [(UserOrder::LeastWork, [1, 3, 0, 2]), (UserOrder::Arrival, [0, 1, 2, 3])] {
        let mut policy = policy(order);
        let mut millis = 0;
        for _ in 0..10 {
            serve_alone(&mut policy, &ask(100, 1000, 7), 900, &mut millis);
            serve_alone(&mut policy, &ask(100, 1000, 8), 20, &mut millis);
        }
        let running = occupy(&mut policy, millis);
        let tickets = [7, 8, 7, 8].map(|prompt| queue(&mut policy, &ask(100, 1000, prompt), millis + 1));
        let order = drain(&mut policy, running, millis + 2);
        assert_eq!(order, expected.map(|at| tickets[at]));
    }
}

#[test]
fn a_small_max_tokens_goes_before_a_large_one() {
    let mut policy = policy(UserOrder::LeastWork);
    let mut millis = 0;
    for _ in 0..10 {
        serve_alone(&mut policy, &ask(100, 1000, 7), 300, &mut millis);
    }
    let running = occupy(&mut policy, millis);
    let tickets = [1000, 16].map(|most| queue(&mut policy, &ask(100, most, 7), millis + 1));
    assert_eq!(drain(&mut policy, running, millis + 2), [tickets[1], tickets[0]]);
}

#[test]
fn before_anything_is_known_requests_run_in_the_order_of_arrival() {
    let mut policy = policy(UserOrder::LeastWork);
    let running = occupy(&mut policy, 0);
    let tickets = [900, 5, 40, 1].map(|size| queue(&mut policy, &ask(size, size, size), 1));
    assert_eq!(drain(&mut policy, running, 2), tickets);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Whatever comes, a request is overtaken only by those that came within three quarters of the longest wait after it.
    #[test]
    fn a_request_is_overtaken_by_none_that_comes_later_than_the_bound(
        steps in prop::collection::vec((0..3000u64, 1..20_000u64, 1..2000u64, 0..5u64, 0..2000u64, any::<bool>()), 1..300)
    ) {
        let mut policy = policy(UserOrder::LeastWork);
        let mut waiting: Vec<(TicketId, Time)> = Vec::new();
        let mut running: Vec<(TicketId, u64)> = Vec::new();
        let mut millis = 0;
        for (passed, input, most, prompt, output, ends) in steps {
            millis += passed;
            match policy.offer(&ask(input, most, prompt), at(millis)).0 {
                Decision::Admit(grant) => running.push((grant.ticket, input)),
                Decision::Queue(queued) => waiting.push((queued.ticket, at(millis))),
                Decision::Reject(_) | Decision::NeedsCredit(_) => {}
            }
            if ends && let Some((ticket, input)) = running.pop() {
                policy.settle(ticket, &completed(input, output), at(millis));
            }
            while let Some(next) = policy.next(at(millis)) {
                let place = waiting.iter().position(|(ticket, _)| *ticket == next).unwrap();
                let (_, came) = waiting.remove(place);
                for (_, before) in waiting.iter().filter(|(_, before)| *before < came) {
                    prop_assert!(came - *before <= BOUND, "overtaken by one that came {:?} later", came - *before);
                }
                running.push((next, 1));
            }
        }
    }

    /// The same requests at the same times are served in the same order.
    #[test]
    fn the_order_is_deterministic(
        requests in prop::collection::vec((1..5000u64, 1..2000u64, 0..5u64, 0..500u64), 2..60)
    ) {
        let run = || {
            let mut policy = policy(UserOrder::LeastWork);
            let mut millis = 0;
            for (input, most, prompt, output) in &requests {
                serve_alone(&mut policy, &ask(*input, *most, *prompt), *output, &mut millis);
            }
            let running = occupy(&mut policy, millis);
            for (input, most, prompt, _) in &requests {
                policy.offer(&ask(*input, *most, *prompt), at(millis + 1));
            }
            drain(&mut policy, running, millis + 2)
        };
        prop_assert_eq!(run(), run());
    }
}
