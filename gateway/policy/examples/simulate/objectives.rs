//! Requests with objectives at more than the server can do: how many get what they want.

use crate::shares::read_trace;
use crate::simulation::mixed::{Mixed, Told, Waits};
use policy::{Objectives, Order, Priority, UserOrder};
use std::time::Duration;

const SEEDS: std::ops::Range<u64> = 1..11;
const REQUESTS: usize = 20_000;
const LOAD: f64 = 1.5;

const fn first_token(seconds: u64) -> Objectives {
    Objectives {
        first_token: Some(Duration::from_secs(seconds)),
        total: None,
    }
}

const fn total(seconds: u64) -> Objectives {
    Objectives {
        first_token: None,
        total: Some(Duration::from_secs(seconds)),
    }
}

/// The projects' priorities, and what is wanted.
const CASES: [(&str, &[Priority], &[Objectives]); 4] = [
    (
        "one project, first token in 2 s",
        &[Priority::Normal],
        &[first_token(2)],
    ),
    (
        "eight equal projects, first token in 5 s",
        &[Priority::Normal; 8],
        &[first_token(5)],
    ),
    (
        "high, normal and low, first token in 5 s",
        &Priority::ALL,
        &[first_token(5)],
    ),
    (
        "eight equal projects, first token in 2 s or all in 40 s",
        &[Priority::Normal; 8],
        &[first_token(2), total(40)],
    ),
];

/// The orders that are compared, with what requests tell and whether they tell their objectives.
const ORDERS: [(&str, Order, UserOrder, bool); 5] = [
    ("first in, first out", Order::Fifo, UserOrder::Arrival, false),
    ("strict bands", Order::Strict, UserOrder::Arrival, false),
    ("weighted, by arrival", Order::Weighted, UserOrder::Arrival, false),
    ("objectives, by arrival", Order::Weighted, UserOrder::Arrival, true),
    ("objectives, least work", Order::Weighted, UserOrder::LeastWork, true),
];

/// Prints the table; returns the promises that are missed.
pub fn print_table() -> Vec<String> {
    println!(
        "\nObjectives at {LOAD} × capacity, 16 slots, sizes of the Azure trace, kinds of prompts with σ = 0.7, {REQUESTS} requests, ten seeds.\n"
    );
    println!("| what is wanted | order | got it | work served, of the most | Jain index |");
    println!("|---|---|---|---|---|");
    let sizes = read_trace();
    let mut missed = Vec::new();
    for (name, projects, wanted) in CASES {
        let mut figures = Vec::new();
        for (order_name, bands, order, tells_wanted) in ORDERS {
            let runs = SEEDS.map(|seed| {
                Mixed {
                    slots: 16,
                    load: LOAD,
                    max_queue_wait: Duration::from_secs(30),
                    requests: REQUESTS,
                    told: Told::Kinds(0.7),
                    bands,
                    order,
                    projects,
                    wanted,
                    tells_wanted,
                    seed,
                }
                .go(&sizes)
            });
            let runs: Vec<Waits> = runs.collect();
            let mean = |value: &dyn Fn(&Waits) -> f64| runs.iter().map(value).sum::<f64>() / runs.len() as f64;
            let met = mean(&|run| run.met as f64 / REQUESTS as f64);
            let work = mean(&|run| run.work.iter().sum::<f64>());
            let jain = mean(&|run| jain(&run.work));
            figures.push((met, work));
            let most = figures.iter().map(|(_, work)| *work).fold(0.0, f64::max);
            println!(
                "| {name} | {order_name} | {:.1} % | {:.1} % | {jain:.4} |",
                met * 100.0,
                work / most * 100.0
            );
        }
        let best = figures[0].0.max(figures[1].0);
        if figures[4].0 < 1.5 * best {
            missed.push(format!("objectives, {name}: {:.3} against {best:.3}", figures[4].0));
        }
    }
    missed
}

fn jain(served: &[f64]) -> f64 {
    crate::simulation::cached::jain(served)
}
