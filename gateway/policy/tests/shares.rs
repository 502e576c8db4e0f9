//! The guarantees of the fair order, on ten simulated minutes at three times the server's capacity. The whole
//! hour, with a real trace, is `examples/simulate`.

#![allow(missing_docs, unreachable_pub, dead_code, clippy::pedantic)]

mod simulation;

use policy::{GlobalLimits, Order, Priority, ProjectId, Rules, Scheduling, TokenWeights, UserOrder};
use simulation::cached::{Client, jain, share};
use simulation::{Outcome, Random, Run, Source, poisson, service};
use std::time::Duration;

const SLOTS: usize = 40;

/// Ten minutes of arrivals at three times the capacity.
fn run(sources: Vec<Source>) -> Outcome {
    let mut random = Random(3);
    let sizes: Vec<(u64, u64)> = (0..997)
        .map(|_| (50 + random.next() % 1000, 10 + random.next() % 300))
        .collect();
    let mean = sizes.iter().map(|(i, o)| service(*i, *o).as_secs_f64()).sum::<f64>() / sizes.len() as f64;
    let rules = Rules {
        global: GlobalLimits {
            max_active_requests: SLOTS,
            max_queue_size: 500,
            max_queue_wait: Duration::from_secs(30),
        },
        scheduling: Scheduling {
            order: Order::Weighted,
            weights: [10, 5, 1],
            reserved: [0, 0],
            is_graded: false,
            user_order: UserOrder::LeastWork,
            evict_for: None,
        },
        ..Rules::default()
    };
    let run = Run {
        rules,
        sources,
        max_tokens: 512,
        warm_up: Duration::from_secs(60),
        end: Duration::from_secs(660),
        seed: 1,
    };
    run.go(poisson(3.0 * SLOTS as f64 / mean, sizes, 2))
}

fn source(project: u32, priority: Priority, rate: f64) -> Source {
    Source {
        project: ProjectId(project),
        priority,
        rate,
    }
}

#[test]
fn a_flood_harms_no_neighbour_and_no_place_stands_idle() {
    let outcome = run((0..8)
        .map(|project| source(project, Priority::Normal, if project == 0 { 20.0 } else { 1.2 }))
        .collect());
    assert!(outcome.usage > 0.995, "{}", outcome.usage);
    assert!(outcome.jain() > 0.99, "{}", outcome.jain());
}

#[test]
fn a_vip_hardly_notices_the_crowd() {
    let mut outcome = run(vec![
        source(0, Priority::High, 0.3),
        source(1, Priority::Normal, 1.2),
        source(2, Priority::Low, 1.5),
    ]);
    let (wait, most) = (outcome.wait(0, 0.99), outcome.mean_service);
    assert!(wait <= most, "{wait} s at p99, a service takes {most} s");
}

#[test]
fn bands_that_flood_get_what_they_weigh() {
    let outcome = run(vec![
        source(0, Priority::High, 1.0),
        source(1, Priority::Normal, 1.0),
        source(2, Priority::Low, 1.0),
    ]);
    for (band, weight) in [10.0, 5.0, 1.0].into_iter().enumerate() {
        let (got, due) = (outcome.share(band), weight / 16.0);
        // A low band of a sixteenth of forty slots is served in few, large pieces.
        assert!((got / due - 1.0).abs() < 0.1, "band {band} got {got} instead of {due}");
    }
}

#[test]
fn an_agent_with_cached_prompts_and_a_chat_get_the_same_work() {
    let clients = [(20_000, 0.9, 120), (800, 0.0, 250)].map(|(input, cached, output)| Client { input, cached, output });
    let given = share(&clients, TokenWeights::default(), 10_000, 1);
    assert!(jain(&given.work) > 0.99, "{given:?}");
    // By hand: a request of the agent's is 2,000 + 1,800 + 2 · 120 of work and holds its slot for 2.65 s, one of the
    // chat's is 800 + 2 · 250 and 5.13 s.
    let per_work = [2.65 / 4_040.0, 5.13 / 1_300.0];
    let due = per_work[0] / (per_work[0] + per_work[1]);
    assert!(
        (given.shares[0] / due - 1.0).abs() < 0.05,
        "{} instead of {due}",
        given.shares[0]
    );
}
