//! Slots reserved for high priority beside a flood of low priority: what they cost, and what they bring.

use crate::shares::read_trace;
use crate::simulation::{Outcome, Run, Source, poisson, service};
use policy::{GlobalLimits, Priority, ProjectId, Rules, Scheduling};
use std::time::Duration;

const SEEDS: std::ops::Range<u64> = 1..11;
const SLOTS: usize = 20;
/// Low priority, of what the slots can serve.
const FLOOD: f64 = 1.5;
/// High priority, of what the slots can serve.
const HIGH: [f64; 4] = [0.0, 0.02, 0.1, 0.3];

/// What is reserved, and whether it is graded.
const RESERVED: [(&str, usize, bool); 4] = [
    ("none", 0, false),
    ("2, fixed", 2, false),
    ("5, fixed", 5, false),
    ("up to 5, graded", 5, true),
];

/// Prints the table; returns the promises that are missed.
pub fn print_table() -> Vec<String> {
    println!("\n{SLOTS} slots, low priority at {FLOOD} × capacity, high priority beside it; an hour, ten seeds.\n");
    println!("| high priority, of the capacity | reserved | capacity used | high priority waits, mean / p99 s |");
    println!("|---|---|---|---|");
    let sizes: Vec<(u64, u64)> = read_trace().iter().map(|a| (a.input_tokens, a.output_tokens)).collect();
    let mean = sizes.iter().map(|(i, o)| service(*i, *o).as_secs_f64()).sum::<f64>() / sizes.len() as f64;
    let mut missed = Vec::new();
    for high in HIGH {
        for (name, reserved, is_graded) in RESERVED {
            let runs = SEEDS.map(|seed| run(high, (reserved, is_graded), seed, &sizes, mean));
            let mut runs: Vec<Outcome> = runs.collect();
            let count = runs.len() as f64;
            let used = runs.iter().map(|run| run.usage).sum::<f64>() / count;
            let p99 = runs.iter_mut().map(|run| run.wait(0, 0.99)).sum::<f64>() / count;
            let waits: Vec<f64> = runs
                .iter()
                .flat_map(|run| run.waits[0].iter().copied().map(f64::from))
                .collect();
            let wait = waits.iter().sum::<f64>() / waits.len().max(1) as f64;
            println!(
                "| {:.0} % | {name} | {:.1} % | {wait:.3} / {p99:.2} |",
                high * 100.0,
                used * 100.0
            );
            if is_graded && high == 0.0 && used < 0.998 {
                missed.push(format!("graded holdback leaves {used:.4} without demand"));
            }
        }
    }
    missed
}

fn run(high: f64, (reserved, is_graded): (usize, bool), seed: u64, sizes: &[(u64, u64)], mean: f64) -> Outcome {
    let source = |project, priority, rate| Source {
        project: ProjectId(project),
        priority,
        rate,
    };
    let run = Run {
        rules: Rules {
            global: GlobalLimits {
                max_active_requests: SLOTS,
                max_queue_size: 1000,
                max_queue_wait: Duration::from_secs(30),
            },
            scheduling: Scheduling {
                reserved: [reserved, 0],
                is_graded,
                ..Scheduling::default()
            },
            ..Rules::default()
        },
        sources: vec![source(0, Priority::High, high), source(1, Priority::Low, FLOOD)],
        max_tokens: 1024,
        warm_up: Duration::from_secs(120),
        end: Duration::from_secs(3600),
        seed,
    };
    let rate = (high + FLOOD) * SLOTS as f64 / mean;
    run.go(poisson(rate, sizes.to_vec(), seed + 100))
}
