//! Gateways that lease one rate limit from a model of their store, in virtual time: what is used, whether it is exceeded, how
//! often the store is asked. Fails where a promise is missed.
//!
//!     cargo run --release -p policy --example simulate-cluster

#![allow(missing_docs, unreachable_pub, dead_code, clippy::pedantic, clippy::unwrap_used)]

#[path = "../../tests/leases/cluster.rs"]
mod cluster;
#[path = "../../tests/leases/store.rs"]
mod store;
#[path = "../../tests/support/mod.rs"]
mod support;

use cluster::{Cluster, Outcome, Plan};
use std::time::{Duration, Instant};

fn main() {
    println!("70 % of the requests come to one gateway, which changes every 10 s; clocks differ by up to 2 s.\n");
    println!(
        "| gateways | limit a minute | refresh | on the way | demand | offered | used, of the possible | over the limit | round trips a request | Jain index |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    let began = Instant::now();
    let (mut requests, mut missed) = (0, Vec::new());
    for plan in plans() {
        let outcome = Cluster::run(plan);
        requests += outcome.offered;
        print(&plan, &outcome);
        missed.extend(check(&plan, &outcome));
    }
    println!(
        "\n{requests} requests in {:.1} s of this machine's time",
        began.elapsed().as_secs_f64()
    );
    for miss in &missed {
        println!("MISSED: {miss}");
    }
    std::process::exit(i32::from(!missed.is_empty()));
}

fn plans() -> Vec<Plan> {
    let mut plans = Vec::new();
    for gateways in [4, 16] {
        for (limit, size) in [(3600, 1), (75_000, 1), (60_000_000, 800)] {
            for demand in [0.7, 1.2, 3.0] {
                for is_faulty in [false, true] {
                    let delay = if is_faulty { 200 } else { 2 };
                    plans.push(Plan {
                        gateways,
                        limit,
                        size,
                        demand,
                        seconds: 500,
                        from: 400,
                        refresh: Duration::from_millis(100),
                        delay: Duration::from_millis(delay),
                        lost: if is_faulty { 0.02 } else { 0.0 },
                        killed: if is_faulty { 0.02 } else { 0.0 },
                        seed: 7,
                    });
                }
            }
        }
    }
    plans
}

fn print(plan: &Plan, outcome: &Outcome) {
    let unit = if plan.size > 1 { "tokens" } else { "requests" };
    let way = if plan.lost > 0.0 {
        "to 200 ms, 2 % lost, kills"
    } else {
        "to 2 ms"
    };
    println!(
        "| {} | {} {unit} | {} ms | {way} | {} × | {} | {:.1} % | {:.1} | {:.3} | {:.4} |",
        plan.gateways,
        plan.limit,
        plan.refresh.as_millis(),
        plan.demand,
        outcome.offered,
        outcome.used / outcome.possible * 100.0,
        outcome.overshoot.max(0.0),
        outcome.trips as f64 / outcome.offered as f64,
        outcome.jain()
    );
}

fn check(plan: &Plan, outcome: &Outcome) -> Vec<String> {
    let mut missed = Vec::new();
    let mut expect = |is_met: bool, what: String| {
        if !is_met {
            missed.push(format!("{plan:?}: {what}"));
        }
    };
    expect(
        outcome.overshoot <= 0.0,
        format!("over the limit by {:.1}", outcome.overshoot),
    );
    if plan.lost == 0.0 {
        let used = outcome.used / outcome.possible;
        expect(used >= 0.97, format!("{used:.3} of the possible used"));
        // A refresh must bring some requests to each gateway.
        let is_large = plan.limit > 1000 * plan.gateways as u64;
        expect(
            !is_large || outcome.jain() >= 0.98,
            format!("Jain index {:.4}", outcome.jain()),
        );
    }
    missed
}
