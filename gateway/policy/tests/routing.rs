//! Which server gets a request, when a server is left alone, and how much is tried again.

#![allow(clippy::cast_precision_loss)]

use policy::{Breaker, BreakerDecision, BreakerRules, Candidate, Failure, RetryBudget, Time, pick};
use proptest::prelude::*;
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;

const RULES: BreakerRules = BreakerRules {
    failures: 5,
    rest: Duration::from_secs(1),
    longest_rest: Duration::from_secs(30),
    slow_start: Duration::from_secs(10),
};

fn at(millis: u64) -> Time {
    Time::after_epoch(Duration::from_millis(millis))
}

fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
    let one = (any::<u64>(), 0u64..100_000, 1u64..5_000);
    prop::collection::vec(one, 1..8).prop_map(|all| {
        let made = all
            .into_iter()
            .map(|(hash, load, weight)| Candidate { hash, load, weight });
        made.collect()
    })
}

proptest! {
    #[test]
    fn somebody_is_always_picked_and_nobody_is_far_above_its_share(
        all in candidates(), prefix_hash in any::<Option<u64>>(), tokens in 1u64..10_000
    ) {
        let picked = pick(&all, prefix_hash, tokens).expect("there is somebody");
        let load: u64 = all.iter().map(|one| one.load).sum();
        let weight: u64 = all.iter().map(|one| one.weight).sum();
        let share = (load + tokens) as f64 * all[picked].weight as f64 / weight as f64;
        let most = (share * 1.25).max(share + 4.0 * tokens as f64) + 1.0;
        let per_weight = |one: &Candidate| (one.load + 1) as f64 / one.weight as f64;
        let is_least = all.iter().all(|one| per_weight(&all[picked]) <= per_weight(one) + 0.001);
        prop_assert!(is_least || ((all[picked].load + tokens) as f64) <= most);
    }

    #[test]
    fn the_same_beginning_goes_to_the_same_server_while_there_is_room(
        hashes in prop::collection::hash_set(any::<u64>(), 2..8), prefix_hash in any::<u64>()
    ) {
        let idle: Vec<Candidate> = hashes.iter().map(|hash| Candidate { hash: *hash, load: 0, weight: 1000 }).collect();
        let first = pick(&idle, Some(prefix_hash), 10).expect("somebody");
        prop_assert_eq!(pick(&idle, Some(prefix_hash), 10), Some(first));
        // Another server that goes away moves nothing.
        let gone = (first + 1) % idle.len();
        let mut fewer = idle.clone();
        fewer.remove(gone);
        let again = pick(&fewer, Some(prefix_hash), 10).expect("somebody");
        prop_assert_eq!(fewer[again].hash, idle[first].hash);
    }

    /// Over any history, a breaker that is open lets no request through before its time, and half-open one probe until
    /// its deadline.
    #[test]
    fn an_open_breaker_lets_nobody_through_and_a_half_open_one_a_probe_each_rest(
        history in prop::collection::vec((0u64..3000, 0u8..4), 1..200)
    ) {
        let mut breaker = Breaker::new(RULES);
        let (mut now, mut probe): (u64, Option<u64>) = (0, None);
        for (passed, what) in history {
            now += passed;
            let time = at(now);
            let before = breaker.passage(time, false);
            match what {
                0 => {
                    let may = breaker.enter(time, false);
                    prop_assert_eq!(may, !matches!(before, BreakerDecision::Deny(_)));
                    if let Some(since) = probe {
                        prop_assert_eq!(may, now >= since + 1000, "another probe goes after the first one's deadline");
                    }
                    if before == BreakerDecision::Probe { probe = Some(now); }
                }
                1 => {
                    breaker.succeeded(time);
                    probe = None;
                    prop_assert_eq!(breaker.passage(time, false), BreakerDecision::Allow);
                }
                2 => {
                    breaker.failed(Failure::NoAnswer, time, 0.5);
                    probe = probe.filter(|_| breaker.word() == "half_open");
                }
                _ => { breaker.withdrawn(time); probe = None; }
            }
            prop_assert!((100..=1000).contains(&breaker.share(time)));
        }
    }

    /// Errors that a server answers never close the only server of a model, however they come and whatever succeeds in
    /// between; no answer at all, several times in a row, does.
    #[test]
    fn the_only_server_is_never_ejected_for_answers(
        history in prop::collection::vec((0u64..3000, 0u8..4), 1..200)
    ) {
        let mut breaker = Breaker::new(RULES);
        let (mut now, mut unanswered) = (0, 0);
        for (passed, what) in history {
            now += passed;
            let time = at(now);
            if breaker.enter(time, true) {
                match what {
                    0 => { breaker.succeeded(time); unanswered = 0; }
                    1 => breaker.withdrawn(time),
                    2 => { breaker.failed(Failure::AnsweredError, time, 0.5); unanswered = 0; }
                    _ => { breaker.failed(Failure::NoAnswer, time, 0.5); unanswered += 1; }
                }
            }
            let may = breaker.passage(time, true) == BreakerDecision::Allow;
            prop_assert_eq!(may, unanswered < RULES.failures, "{} without an answer", unanswered);
        }
    }

    /// However failures come, what is tried again is at most a share of the requests, a burst and a little a second.
    #[test]
    fn retries_are_a_share_of_the_traffic(gaps in prop::collection::vec(0u64..50, 1..2000)) {
        let mut budget = RetryBudget::new(0.2);
        let (mut now, mut spent, mut requests) = (0, 0.0, 0.0);
        for gap in gaps {
            now += gap;
            requests += 1.0;
            budget.earn();
            if budget.spend(at(now)) { spent += 1.0; }
            prop_assert!(spent <= 50.0 + requests * 0.2 + now as f64 / 1000.0 * 2.0 + 1.0);
        }
    }
}

#[test]
fn a_breaker_opens_after_failures_in_a_row_rests_longer_each_time_and_comes_back_slowly() {
    let mut breaker = Breaker::new(RULES);
    for _ in 0..4 {
        assert!(!breaker.failed(Failure::NoAnswer, at(0), 0.0));
    }
    breaker.succeeded(at(0));
    for _ in 0..4 {
        assert!(!breaker.failed(Failure::NoAnswer, at(0), 0.0), "in a row");
    }
    assert!(breaker.failed(Failure::NoAnswer, at(0), 0.0));
    assert_eq!(breaker.passage(at(999), false), BreakerDecision::Deny(at(1000)));
    assert!(breaker.enter(at(1000), false));
    assert!(!breaker.enter(at(1000), false), "one finds out");
    assert!(breaker.failed(Failure::NoAnswer, at(1000), 0.0));
    assert_eq!(
        breaker.passage(at(1001), false),
        BreakerDecision::Deny(at(3000)),
        "twice as long"
    );
    assert!(breaker.enter(at(3000), false));
    breaker.succeeded(at(3000));
    assert_eq!(breaker.passage(at(3000), false), BreakerDecision::Allow);
    assert_eq!(
        (
            breaker.share(at(3000)),
            breaker.share(at(8000)),
            breaker.share(at(13_000))
        ),
        (100, 500, 1000)
    );
}

#[test]
fn a_server_among_others_is_ejected_for_errors() {
    let mut breaker = Breaker::new(RULES);
    for _ in 0..5 {
        assert_eq!(breaker.passage(at(0), false), BreakerDecision::Allow);
        breaker.failed(Failure::AnsweredError, at(0), 0.0);
    }
    assert_eq!(breaker.passage(at(0), false), BreakerDecision::Deny(at(1000)));
    assert_eq!(
        breaker.passage(at(0), true),
        BreakerDecision::Allow,
        "but not where it is the only one"
    );
}

#[test]
fn no_share_means_no_retry() {
    let mut budget = RetryBudget::new(0.0);
    budget.earn();
    assert!(!budget.spend(at(1_000_000)));
}

/// A random number from a seed (Marsaglia, "Xorshift RNGs", 2003).
fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Conversations of several turns over four servers with prefix caches, in virtual time: what the caches could serve
/// at best is what each conversation has said before.
#[test]
fn conversations_find_their_caches_and_the_servers_are_loaded_alike() {
    const SERVERS: usize = 4;
    let mut state = 7;
    let mut caches = vec![HashMap::<u64, u64>::new(); SERVERS];
    let (mut outstanding, mut served) = ([0u64; SERVERS], [0u64; SERVERS]);
    let (mut hits, mut best) = (0u64, 0u64);
    // What happens next: (time, is it an end, conversation, server, tokens).
    let mut events = BinaryHeap::new();
    let mut turns: HashMap<u64, (u64, u64)> = HashMap::new();
    for conversation in 0..600u64 {
        let begins = random(&mut state) % 300_000;
        events.push(std::cmp::Reverse((begins, 0u8, conversation, 0usize, 0u64)));
        turns.insert(conversation, (3 + random(&mut state) % 8, 0));
    }
    while let Some(std::cmp::Reverse((now, is_end, conversation, server, tokens))) = events.pop() {
        if is_end == 1 {
            outstanding[server] -= tokens;
            let (left, _) = turns[&conversation];
            if left > 0 {
                let thinks = 1000 + random(&mut state) % 5000;
                events.push(std::cmp::Reverse((now + thinks, 0, conversation, 0, 0)));
            }
            continue;
        }
        let (left, said) = turns[&conversation];
        let prompt = said + 100 + random(&mut state) % 400;
        let answer = 50 + random(&mut state) % 300;
        let all: Vec<Candidate> = (0..SERVERS)
            .map(|server| Candidate {
                hash: (server as u64 + 1) * 1_000_003,
                load: outstanding[server],
                weight: 1000,
            })
            .collect();
        let server = pick(&all, Some(conversation * 7919), prompt + answer).expect("somebody");
        hits += caches[server].get(&conversation).copied().unwrap_or(0).min(said);
        best += said;
        caches[server].insert(conversation, prompt + answer);
        outstanding[server] += prompt + answer;
        served[server] += prompt + answer;
        turns.insert(conversation, (left - 1, prompt + answer));
        // 20 ms a token of the answer, and the prompt's reading.
        let takes = answer * 20 + prompt / 10;
        events.push(std::cmp::Reverse((
            now + takes,
            1,
            conversation,
            server,
            prompt + answer,
        )));
    }
    let mean = served.iter().sum::<u64>() as f64 / SERVERS as f64;
    let imbalance = *served.iter().max().expect("servers") as f64 / mean;
    let share = hits as f64 / best as f64;
    println!("hits {share:.3} of the best possible, the busiest server {imbalance:.3} of the mean");
    assert!(share >= 0.9, "{share}");
    assert!(imbalance <= 1.25, "{imbalance}");
}
