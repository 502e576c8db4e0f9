//! One user's requests of mixed sizes: first in, first out beside the least predicted work first.

use crate::shares::read_trace;
use crate::simulation::mixed::{Mixed, Told, Waits};
use policy::{Order, Priority, UserOrder};
use std::time::Duration;

const SEEDS: std::ops::Range<u64> = 1..11;
const REQUESTS: usize = 40_000;

/// The server's slots, its load, and the longest wait.
const SERVERS: [(usize, f64, u64); 3] = [(16, 0.95, 30), (4, 0.95, 120), (1, 0.9, 300)];

const TOLD: [(&str, Told); 4] = [
    ("nothing", Told::Nothing),
    ("`max_tokens`, by a third", Told::MaxTokens),
    ("kinds of prompts, σ = 1.2", Told::Kinds(1.2)),
    ("kinds of prompts, σ = 0.7", Told::Kinds(0.7)),
];

/// Means over the seeds.
#[derive(Debug, Default, Clone, Copy)]
struct Figures {
    mean: f64,
    short: f64,
    long: f64,
    lost: f64,
}

/// Prints the table; returns the promises that are missed.
pub fn print_table() -> Vec<String> {
    println!("\nOne user, sizes of the Azure conversation trace, Poisson arrivals, {REQUESTS} requests, ten seeds.\n");
    println!(
        "| slots, load, longest wait | what requests tell | order | mean wait s | short (< 2 s) p95 | long (≥ 8 s) p99 | not served |"
    );
    println!("|---|---|---|---|---|---|---|");
    let sizes = read_trace();
    let mut missed = Vec::new();
    for (slots, load, longest) in SERVERS {
        let run = |told, order| {
            let runs = SEEDS.map(|seed| {
                Mixed {
                    slots,
                    load,
                    max_queue_wait: Duration::from_secs(longest),
                    requests: REQUESTS,
                    told,
                    bands: Order::Weighted,
                    order,
                    projects: &[Priority::Normal],
                    wanted: &[],
                    tells_wanted: false,
                    seed,
                }
                .go(&sizes)
            });
            mean(runs.collect())
        };
        let server = format!("{slots}, {load}, {longest} s");
        let fifo = run(Told::Nothing, UserOrder::Arrival);
        print(&server, "–", "arrival", fifo, fifo);
        for (name, told) in TOLD {
            let work = run(told, UserOrder::LeastWork);
            print(&server, name, "least work", work, fifo);
            if told == Told::Kinds(0.7) {
                missed.extend(check(&server, work, fifo));
            }
        }
    }
    missed
}

fn mean(mut runs: Vec<Waits>) -> Figures {
    let count = runs.len() as f64;
    let mut sum = Figures::default();
    for run in &mut runs {
        sum.mean += run.mean() / count;
        sum.short += run.short_p95() / count;
        sum.long += run.long_p99() / count;
        sum.lost += run.lost as f64 / REQUESTS as f64 / count;
    }
    sum
}

fn print(server: &str, told: &str, order: &str, figures: Figures, fifo: Figures) {
    let change = |value: f64, fifo: f64| format!("{value:.2} ({:+.0} %)", (value / fifo - 1.0) * 100.0);
    println!(
        "| {server} | {told} | {order} | {} | {} | {:.2} ({:.2} ×) | {:.2} % |",
        change(figures.mean, fifo.mean),
        change(figures.short, fifo.short),
        figures.long,
        figures.long / fifo.long,
        figures.lost * 100.0,
    );
}

fn check(server: &str, work: Figures, fifo: Figures) -> Vec<String> {
    let mut missed = Vec::new();
    let mut expect = |is_met: bool, what: &str| {
        if !is_met {
            missed.push(format!("least work first, {server}: {what}"));
        }
    };
    expect(work.mean <= 0.7 * fifo.mean, "mean wait above 70 % of that by arrival");
    expect(work.short <= 0.4 * fifo.short, "short requests' p95 above 40 %");
    expect(work.long <= 2.0 * fifo.long, "long requests' p99 above twice");
    missed
}
