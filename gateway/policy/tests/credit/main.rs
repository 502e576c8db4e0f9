//! Several gateways share quotas and budgets through a model of their database: whatever is delayed, lost or killed, all
//! together never exceed a limit, and nearly all of it can be used.

#![allow(clippy::unwrap_used)]

mod gateways;
mod store;
#[path = "../support/mod.rs"]
mod support;

use gateways::{Cluster, Fate, LIMIT_TOKENS};
use proptest::prelude::*;

#[derive(Debug, Clone, Copy)]
enum Step {
    Offer(usize, u32, u64),
    Settle(usize, usize, u64),
    Draw(usize, Fate),
    Synchronize(usize, Fate),
    /// The operations that were still on their way arrive.
    Arrive,
    Move(usize, usize),
    Kill(usize),
    Start(usize),
    Correct(u32, i16),
    Pass(u32),
}

fn step() -> impl Strategy<Value = Step> {
    let fate = || prop_oneof![6 => Just(Fate::Done), 1 => Just(Fate::AnswerLost), 1 => Just(Fate::Lost), 2 => Just(Fate::Late)];
    prop_oneof![
        10 => (0..3usize, 0..2u32, 1..120u64).prop_map(|(gateway, user, tokens)| Step::Offer(gateway, user, tokens)),
        7 => (0..3usize, any::<usize>(), 0..1001u64).prop_map(|(gateway, which, part)| Step::Settle(gateway, which, part)),
        8 => (0..3usize, fate()).prop_map(|(gateway, fate)| Step::Draw(gateway, fate)),
        4 => (0..3usize, fate()).prop_map(|(gateway, fate)| Step::Synchronize(gateway, fate)),
        3 => Just(Step::Arrive),
        4 => (0..3usize, 1..20usize).prop_map(|(gateway, records)| Step::Move(gateway, records)),
        1 => (0..3usize).prop_map(Step::Kill),
        3 => (0..3usize).prop_map(Step::Start),
        1 => (0..2u32, -2000..500i16).prop_map(|(user, tokens)| Step::Correct(user, tokens)),
        3 => (0..20_000u32).prop_map(Step::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn all_gateways_together_never_exceed_a_limit(steps in prop::collection::vec(step(), 1..200)) {
        let mut cluster = Cluster::new(3, 3000);
        for step in steps {
            match step {
                Step::Offer(gateway, user, tokens) => cluster.offer(gateway, user, tokens),
                Step::Settle(gateway, which, part) => cluster.settle(gateway, which, part),
                Step::Draw(gateway, fate) => cluster.draw(gateway, fate),
                Step::Synchronize(gateway, fate) => cluster.synchronize(gateway, fate),
                Step::Arrive => cluster.arrive(),
                Step::Move(gateway, records) => cluster.move_records(gateway, records),
                Step::Kill(gateway) => cluster.kill(gateway),
                Step::Start(gateway) => cluster.start(gateway),
                Step::Correct(user, tokens) => cluster.correct(user, i64::from(tokens)),
                Step::Pass(millis) => cluster.pass(u64::from(millis)),
            }
            cluster.check()?;
        }
        cluster.end()?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]
    /// Traffic is uneven and moves between the gateways; a request that is refused is not repeated by its client.
    #[test]
    fn nearly_all_of_a_limit_is_usable_with_few_draws(seed in any::<u64>()) {
        let mut cluster = Cluster::new(4, LIMIT_TOKENS);
        let mut random = seed | 1;
        let mut requests = 0u64;
        for second in 0..120usize {
            for _ in 0..25 {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let busiest = second / 10 % 4;
                let gateway = if random >> 33 & 7 < 5 { busiest } else { (random >> 36) as usize % 4 };
                requests += 1;
                cluster.offer_until_decided(gateway, (random >> 40) as u32 % 2, 20 + (random >> 45) % 60);
                cluster.pass(40);
                // Answers are as long as they may be, or shorter.
                cluster.settle(gateway, 0, 300 + (random >> 50) % 701);
            }
            for gateway in 0..4 {
                cluster.move_records(gateway, usize::MAX);
                cluster.synchronize(gateway, Fate::Done);
            }
            cluster.check()?;
        }
        let used = cluster.used_of_project();
        prop_assert!(used <= LIMIT_TOKENS, "{used}");
        prop_assert!(used * 100 >= LIMIT_TOKENS * 97, "only {used} of {LIMIT_TOKENS} are used");
        let draws = cluster.store.draws;
        prop_assert!(draws * 4 < requests, "{draws} draws for {requests} requests");
    }
}
