//! Fairness where an agent's prompts are mostly cached: what cached tokens count.

use crate::simulation::cached::{Client, Given, jain, share};
use policy::TokenWeights;

const REQUESTS: usize = 20_000;
const SEEDS: std::ops::Range<u64> = 1..11;

/// An agent whose prompts are long and cached by nine tenths, and a chat, with equal rights.
pub const CLIENTS: [Client; 2] = [
    Client {
        input: 20_000,
        cached: 0.9,
        output: 120,
    },
    Client {
        input: 800,
        cached: 0.0,
        output: 250,
    },
];

/// Prints the table; returns the promises that are missed.
pub fn print_table() -> Vec<String> {
    println!(
        "\nAn agent (prompts of 20,000 tokens, 90 % cached) beside a chat, both with more to do than they get; ten seeds.\n"
    );
    println!(
        "| a cached token counts | agent's share of the capacity | Jain, cached at a tenth | Jain, uncached only |"
    );
    println!("|---|---|---|---|");
    let mut missed = Vec::new();
    for (name, cached_input) in [("in full", 1000), ("a tenth", 100), ("nothing", 0)] {
        let weights = TokenWeights {
            cached_input,
            ..TokenWeights::default()
        };
        let given: Vec<Given> = SEEDS.map(|seed| share(&CLIENTS, weights, REQUESTS, seed)).collect();
        let mean = |value: &dyn Fn(&Given) -> f64| given.iter().map(value).sum::<f64>() / given.len() as f64;
        let fair = [
            mean(&|given| jain(&given.work)),
            mean(&|given| jain(&given.uncached_work)),
        ];
        let agent = mean(&|given| given.shares[0]) * 100.0;
        println!("| {name} | {agent:.1} % | {:.4} | {:.4} |", fair[0], fair[1]);
        match cached_input {
            100 if fair[0] < 0.99 => missed.push(format!("cached at a tenth: Jain {:.4}", fair[0])),
            0 if fair[1] < 0.99 => missed.push(format!("uncached only: Jain {:.4}", fair[1])),
            _ => {}
        }
    }
    missed
}
