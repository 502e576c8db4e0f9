//! Simulations beside formulas, and of situations whose outcome is plain.

use super::figures::Figures;
use super::workload::{Request, Workload};
use super::*;
use policy::{
    AdmissionRequest, Class, GlobalLimits, Hints, Objectives, Order, PlanId, Priority, ProjectId, Scheduling, Units,
    UserId,
};
use simulated_upstream::random::Random;
use std::time::Duration;

fn ask() -> AdmissionRequest {
    AdmissionRequest {
        project: ProjectId(0),
        user: UserId(0),
        key: None,
        plan: PlanId(0),
        model: ModelId(0),
        smaller: None,
        class: Class::Interactive,
        priority: Priority::Normal,
        input_tokens: 100,
        least_input_tokens: 100,
        max_tokens: 100_000,
        answers: 1,
        units: Units::default(),
        hints: Hints::default(),
    }
}

fn request(at: Duration, held: Duration) -> Request {
    Request {
        at,
        ask: ask(),
        cached_tokens: 0,
        output_tokens: 10,
        prefix: Vec::new(),
        measured: Some((held, held / 5)),
    }
}

fn rules(slots: usize, order: Order) -> Rules {
    Rules {
        global: GlobalLimits {
            max_active_requests: slots,
            max_queue_size: 1_000_000,
            max_queue_wait: Duration::from_secs(1_000_000),
        },
        scheduling: Scheduling {
            order,
            ..Scheduling::default()
        },
        ..Rules::default()
    }
}

fn simulated(rules: &Rules, requests: Vec<Request>) -> world::Run {
    let workload = Workload {
        requests,
        begins: Duration::from_secs(1_767_225_600),
        left_out: 0,
    };
    world::run(rules, HashMap::from([(ModelId(0), Pool::new(None, 1, 0))]), &workload)
}

fn exponential(random: &mut Random, mean: f64) -> f64 {
    -(1.0 - random.part()).ln() * mean
}

/// Requests that come without memory, whose servers take exponential times: M/M/c.
fn memoryless(count: usize, per_second: f64, held: f64, seed: u64) -> Vec<Request> {
    let mut random = Random::new(seed);
    let mut at = 0.0;
    let next = |_| {
        at += exponential(&mut random, 1.0 / per_second);
        let held = exponential(&mut random, held);
        request(Duration::from_secs_f64(at), Duration::from_secs_f64(held))
    };
    (0..count).map(next).collect()
}

/// The mean wait of M/M/c by Erlang's C formula (Erlang, 1917).
fn erlang_c(servers: u32, per_second: f64, held: f64) -> f64 {
    let load = per_second * held;
    let mut term = 1.0;
    let mut sum = 1.0;
    for busy in 1..servers {
        term *= load / f64::from(busy);
        sum += term;
    }
    let full = term * load / f64::from(servers) / (1.0 - load / f64::from(servers));
    full / (sum + full) / (f64::from(servers) / held - per_second)
}

#[test]
fn the_formula_has_the_values_of_published_tables() {
    // One server: ρ/(1−ρ) services; ten servers at 80 %: the probability of waiting is 0.4092.
    assert!((erlang_c(1, 0.8, 1.0) - 4.0).abs() < 1e-9);
    assert!((erlang_c(10, 8.0, 1.0) * 2.0 - 0.4092).abs() < 1e-4);
}

#[test]
fn the_mean_wait_is_that_of_erlangs_formula() {
    for (slots, load) in [(1u32, 0.6), (4, 0.7), (10, 0.8)] {
        let held = 2.0;
        let per_second = load * f64::from(slots) / held;
        let (mut waited, mut count) = (0.0, 0.0);
        for seed in 0..4 {
            let requests = memoryless(30_000, per_second, held, seed);
            let run = simulated(&rules(slots as usize, Order::Fifo), requests.clone());
            for (request, outcome) in requests.iter().zip(&run.outcomes) {
                let started = outcome.started.expect("served");
                waited += started.saturating_sub(request.at).as_secs_f64();
                count += 1.0;
            }
            let used = run.busy / (run.length.as_secs_f64() * f64::from(slots));
            assert!((used - load).abs() < 0.02, "{used} of {slots} slots used, not {load}");
        }
        let (mean, formula) = (waited / count, erlang_c(slots, per_second, held));
        assert!(
            (mean / formula - 1.0).abs() < 0.05,
            "{slots} slots: {mean} s simulated, {formula} s by the formula"
        );
    }
}

#[test]
fn the_same_seed_gives_the_same_figures() {
    let run = |seed| simulated(&rules(2, Order::Weighted), memoryless(2000, 0.9, 2.0, seed)).outcomes;
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn an_evicted_line_is_run_again_and_nothing_is_lost() {
    let line = |at| {
        let mut line = request(Duration::from_secs(at), Duration::from_secs(100));
        line.ask.class = Class::Batch;
        line.ask.hints.is_durable = true;
        line
    };
    let mut vip = request(Duration::from_secs(10), Duration::from_secs(5));
    vip.ask.priority = Priority::High;
    vip.ask.hints.objectives = Objectives {
        first_token: Some(Duration::from_secs(2)),
        total: None,
    };
    let run = simulated(&rules(2, Order::Weighted), vec![line(0), line(1), vip]);
    let [first, second, vip] = &run.outcomes[..] else {
        panic!("three")
    };
    assert_eq!(vip.started, Some(Duration::from_millis(10_010)), "one abort later");
    assert_eq!(vip.first_token, Some(Duration::from_millis(11_010)));
    assert_eq!((first.evictions, second.evictions), (0, 1), "the newest");
    assert_eq!(first.ended, Some(Duration::from_secs(100)));
    assert_eq!(
        second.ended,
        Some(Duration::from_millis(115_010)),
        "from its beginning, after the VIP"
    );
}

#[test]
fn figures_count_every_request_once() {
    let mut requests = memoryless(3000, 2.0, 2.0, 7);
    for request in &mut requests {
        request.ask.hints.objectives.first_token = Some(Duration::from_secs(3));
    }
    let config = config::load(
        &std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../config"),
        &config::Found::new(),
    );
    let config = config.expect("the repository's configuration");
    let rules = rules(2, Order::Weighted);
    let run = simulated(&rules, requests.clone());
    let figures = Figures::of(&config, &requests, 1, Some(2), run);
    let all = &figures.all;
    assert_eq!(all.served + all.refusals(), 3000);
    assert_eq!(all.objectives.0, 3000);
    assert!(
        all.refused.keys().all(|reason| *reason == "objective_out_of_reach"),
        "{:?}",
        all.refused
    );
    // At twice the capacity at most half can be served, and those that are have their objective.
    let met = all.attainment().expect("objectives");
    assert!((0.4..0.55).contains(&met), "{met}");
    assert!(
        all.objectives.1 * 10 > all.served * 9,
        "{} of {}",
        all.objectives.1,
        all.served
    );
    assert!(figures.used.is_some_and(|used| used > 0.95), "{:?}", figures.used);
}
