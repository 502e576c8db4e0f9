//! The policy in virtual time, table by table; fails where a promise is missed.
//!
//!     cargo run --release -p policy --example simulate [TABLE …]

#![allow(missing_docs, unreachable_pub, dead_code, clippy::pedantic, clippy::unwrap_used)]

mod cached;
mod capacity;
mod eviction;
mod holdback;
mod mixed;
mod objectives;
mod shares;
#[path = "../../tests/simulation/mod.rs"]
mod simulation;

/// A table's name, and what prints it and returns the promises that are missed.
type Table = (&'static str, fn() -> Vec<String>);

const TABLES: [Table; 7] = [
    ("shares", shares::print_table),
    ("mixed", mixed::print_table),
    ("objectives", objectives::print_table),
    ("holdback", holdback::print_table),
    ("eviction", eviction::print_table),
    ("cached", cached::print_table),
    ("capacity", capacity::print_tables),
];

fn main() {
    let only: Vec<String> = std::env::args().skip(1).collect();
    let wanted = TABLES
        .iter()
        .filter(|(name, _)| only.is_empty() || only.iter().any(|one| one == name));
    let missed: Vec<String> = wanted.flat_map(|(_, print)| print()).collect();
    for miss in &missed {
        println!("MISSED: {miss}");
    }
    std::process::exit(i32::from(!missed.is_empty()));
}
