//! Several gateways share a rate limit through a model of their store: whatever is delayed, lost or killed, all together stay
//! within it in every window, and nearly all of it is used.

#![allow(clippy::pedantic, clippy::unwrap_used)]

mod cluster;
mod slots;
mod store;
#[path = "../support/mod.rs"]
mod support;

use cluster::{Cluster, Plan};
use proptest::prelude::*;
use std::time::Duration;

fn calm() -> Plan {
    Plan {
        gateways: 4,
        limit: 6000,
        size: 1,
        demand: 1.2,
        seconds: 400,
        from: 340,
        refresh: Duration::from_millis(100),
        delay: Duration::from_millis(2),
        lost: 0.0,
        killed: 0.0,
        seed: 1,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn all_gateways_together_stay_within_a_limit(
        gateways in 1..6usize, limit in 10..3000u64, size in prop_oneof![Just(1), 8..400u64], demand in 0.3..4.0,
        refresh in prop_oneof![Just(100), Just(250)], delay in 1..300u64, lost in 0.0..0.05, killed in 0.0..0.1,
        seed in any::<u64>(),
    ) {
        let limit = limit * size;
        let plan = Plan { gateways, limit, size, demand, seconds: 120, from: 60, refresh: Duration::from_millis(refresh),
            delay: Duration::from_millis(delay), lost, killed, seed };
        let outcome = Cluster::run(plan);
        prop_assert!(outcome.overshoot <= 0.0, "{plan:?}: {outcome:?}");
    }
}

#[test]
fn nearly_all_of_a_limit_is_used_wherever_the_demand_is() {
    for demand in [0.7, 1.2, 3.0] {
        let plan = Plan { demand, ..calm() };
        let outcome = Cluster::run(plan);
        let part = outcome.used / outcome.possible;
        assert!(part >= 0.97, "{part} at {demand}: {outcome:?}");
        assert!(outcome.overshoot <= 0.0, "{outcome:?}");
        assert!(outcome.jain() >= 0.98, "{outcome:?}");
    }
}
