//! Adaptive limits before a simulated server with continuous batching.

#![allow(missing_docs, unreachable_pub, dead_code, clippy::pedantic)]

mod simulation;

use policy::{
    AdmissionRequest, Class, Decision, GlobalLimits, ModelId, ModelRules, PlanId, Policy, Priority, ProjectId, Rules,
    Settlement, TicketId, Time, Usage, UserId,
};
use proptest::prelude::*;
use simulation::engine::LLAMA_8B_H100;
use simulation::python_random::PythonRandom;
use simulation::server::{Limit, MIXES, Served, percentile, serve};
use std::collections::HashMap;
use std::time::Duration;

#[test]
fn the_generator_returns_what_python_returns() {
    // python3 -c 'import random; r=random.Random(5); print(r.random(), r.expovariate(40), r.lognormvariate(6.5, .8))'
    let mut random = PythonRandom::new(5);
    assert_eq!(random.unit(), 0.6229016948897019);
    assert_eq!(random.exponential(40.0), 0.033849260291982416);
    assert_eq!(random.log_normal(6.5, 0.8), 198.41503648240476);
    assert_eq!(MIXES.map(|mix| mix.requests(240.0, 5).len()), [9518, 3784, 1451]);
}

/// Answers, tokens a second, preemptions and the p99 of the first token (s) and of the gap (ms), as an independent
/// simulation of the same server in Python prints them for 240 s of the same arrivals (seed 5).
#[test]
fn the_server_serves_what_an_independent_simulation_of_it_serves() {
    let expected = [
        (0, 16, 1513, 1754, 0, "0.11", "10.5"),
        (0, 128, 3695, 4224, 0, "0.25", "34.2"),
        (1, 16, 650, 803, 0, "2.16", "43.7"),
        (1, 64, 765, 920, 25, "11.07", "102.7"),
        (2, 16, 149, 231, 0, "3.91", "92.3"),
        (2, 64, 150, 233, 15, "79.46", "159.6"),
    ];
    for (mix, limit, done, tokens, preempted, first_token, gap) in expected {
        let requests = MIXES[mix].requests(240.0, 5);
        let served = serve(LLAMA_8B_H100, &requests, Limit::Fixed(limit), 240.0);
        let found = (
            served.done,
            served.tokens_per_second().round() as u64,
            served.preempted,
            format!(
                "{:.2}",
                percentile(&served.first_tokens, 0.99) - LLAMA_8B_H100.api_ms / 1000.0
            ),
            format!("{:.1}", percentile(&served.gaps, 0.99)),
        );
        let expected = (done, tokens, preempted, first_token.to_owned(), gap.to_owned());
        assert_eq!(found, expected, "{}, limit {limit}", MIXES[mix].name);
    }
}

#[test]
fn auto_serves_nearly_what_the_best_fixed_limit_does_and_no_request_is_preempted() {
    for mix in MIXES {
        let seeds = [5, 6, 7].map(|seed| mix.requests(240.0, seed));
        let rate = |served: &Served| served.tokens_between(60.0, 240.0) / seeds.len() as f64;
        let fixed = |limit| {
            let runs = seeds
                .iter()
                .map(|requests| serve(LLAMA_8B_H100, requests, Limit::Fixed(limit), 240.0));
            runs.map(|served| rate(&served)).sum::<f64>()
        };
        let best = [32, 64, 256].map(fixed).into_iter().fold(0.0, f64::max);
        let mut tokens = 0.0;
        for requests in &seeds {
            let auto = serve(LLAMA_8B_H100, requests, Limit::Auto(256), 240.0);
            assert_eq!(auto.preempted, 0, "{}", mix.name);
            tokens += rate(&auto);
        }
        assert!(tokens >= 0.94 * best, "{}: {tokens} of {best} tokens/s", mix.name);
    }
}

#[test]
fn auto_grows_to_its_bound_where_load_slows_nothing_however_prompts_are_mixed() {
    for long_share in [0.0, 0.02, 0.1, 0.3, 0.5, 1.0] {
        let limits = simulation::server::limits_of_a_boundless_server(long_share, 256, 40_000);
        let mean = limits.iter().sum::<usize>() as f64 / limits.len() as f64;
        assert!(mean >= 0.98 * 256.0, "{long_share} long: {mean}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn tokens_in_flight_stay_below_their_limit_and_a_large_request_is_not_overtaken_for_ever(
        sizes in prop::collection::vec(1..400u64, 1..80),
        large in 300..2_000u64,
    ) {
        let mut policy = Policy::new(Rules {
            global: GlobalLimits { max_active_requests: 100, ..GlobalLimits::default() },
            models: vec![ModelRules { max_concurrent_tokens: policy::TokenLimit::Fixed(LIMIT), ..ModelRules::default() }],
            ..Rules::default()
        });
        let now = Time::after_epoch(Duration::from_secs(1));
        let mut running: Vec<(TicketId, u64)> = Vec::new();
        let mut waiting: HashMap<TicketId, u64> = HashMap::new();
        let offer = |policy: &mut Policy, running: &mut Vec<(TicketId, u64)>, waiting: &mut HashMap<_, _>, project, tokens| {
            // Nothing is generated (`answers` is 0), so that a request's tokens in flight are its prompt's.
            match policy.offer(&ask(project, tokens), now).0 {
                Decision::Admit(grant) => { running.push((grant.ticket, tokens)); grant.ticket }
                Decision::Queue(queued) => { waiting.insert(queued.ticket, tokens); queued.ticket }
                Decision::Reject(refusal) => panic!("{refusal}"),
                Decision::NeedsCredit(_) => unreachable!("nothing is shared"),
            }
        };
        for tokens in &sizes {
            offer(&mut policy, &mut running, &mut waiting, 0, *tokens);
        }
        let watched = offer(&mut policy, &mut running, &mut waiting, 1, large);
        let mut ended = 0;
        while waiting.contains_key(&watched) {
            let in_flight: u64 = running.iter().map(|(_, tokens)| tokens).sum();
            prop_assert!(in_flight <= LIMIT || running.len() == 1, "{in_flight} in flight");
            prop_assert!(!running.is_empty(), "everyone waits and nothing runs");
            let (ticket, tokens) = running.remove(0);
            let usage = Usage { input_tokens: tokens, ..Usage::default() };
            policy.settle(ticket, &Settlement { usage, has_completed: true, was_answered: true, was_forwarded: true, ..Settlement::default() }, now);
            ended += 1;
            // Small ones keep coming.
            offer(&mut policy, &mut running, &mut waiting, 0, 1 + tokens % 50);
            while let Some(ticket) = policy.next(now) {
                running.push((ticket, waiting.remove(&ticket).expect("whoever is next waits")));
            }
            prop_assert!(ended <= 2 * sizes.len() + 200, "a large request waits for ever");
        }
    }
}

/// Tokens in flight at most.
const LIMIT: u64 = 1_000;

fn ask(project: u32, input_tokens: u64) -> AdmissionRequest {
    AdmissionRequest {
        project: ProjectId(project),
        user: UserId(project),
        key: None,
        plan: PlanId(0),
        model: ModelId(0),
        smaller: None,
        class: Class::Interactive,
        priority: Priority::Normal,
        input_tokens,
        least_input_tokens: input_tokens,
        max_tokens: 0,
        answers: 0,
        units: policy::Units::default(),
        hints: policy::Hints::default(),
    }
}
