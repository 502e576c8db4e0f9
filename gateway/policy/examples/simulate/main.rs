//! The policy in virtual time, table by table; fails where a promise is missed.
//!
//!     cargo run --release -p policy --example simulate

#![allow(missing_docs, unreachable_pub, dead_code, clippy::pedantic, clippy::unwrap_used)]

mod cached;
mod capacity;
mod mixed;
mod shares;
#[path = "../../tests/simulation/mod.rs"]
mod simulation;

fn main() {
    let mut missed = shares::print_table();
    missed.extend(mixed::print_table());
    missed.extend(cached::print_table());
    missed.extend(capacity::print_tables());
    for miss in &missed {
        println!("MISSED: {miss}");
    }
    std::process::exit(i32::from(!missed.is_empty()));
}
