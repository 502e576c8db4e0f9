use super::*;
use proptest::prelude::*;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

const MOST: usize = 512;

fn auto(most: usize) -> Capacity {
    Capacity::new(&ModelRules {
        concurrency: Concurrency::Auto(most),
        ..ModelRules::default()
    })
}

/// A server with so many slots and a queue of its own, always offered more than the limit lets through. An answer takes
/// 400 ms, its first token 40 ms; prompts are short, or a tenth are of 30,000 tokens and take a second longer.
struct Server {
    capacity: Capacity,
    slots: usize,
    has_metrics: bool,
    /// Of an answer without load.
    first_token: u64,
    now: Time,
    reported: Time,
    queue: VecDeque<(Time, u64)>,
    running: BinaryHeap<Reverse<(Time, Time, Time, u64)>>,
    sent: u64,
}

impl Server {
    fn new(slots: usize, has_metrics: bool) -> Self {
        Self {
            capacity: auto(MOST),
            slots,
            has_metrics,
            first_token: 40,
            now: Time::default(),
            reported: Time::default(),
            queue: VecDeque::new(),
            running: BinaryHeap::new(),
            sent: 0,
        }
    }

    fn send_and_start(&mut self, long_share: u64) {
        while self.capacity.has_slot() {
            // Answers differ in length, or all would end at the same time.
            let prompt = if self.sent % 100 < long_share { 30_000 } else { 700 };
            self.sent += 37;
            self.capacity.start(100);
            self.queue.push_back((self.now, prompt));
        }
        while self.running.len() < self.slots
            && let Some((sent, prompt)) = self.queue.pop_front()
        {
            let first = self.now + Duration::from_micros(self.first_token * 1000 + prompt * 33);
            let end = first + Duration::from_millis(300 + (self.sent * 7919 + prompt) % 120);
            self.sent += 1;
            self.running.push(Reverse((end, sent, first, prompt)));
        }
    }

    fn answer(&mut self, answers: u32, long_share: u64) -> usize {
        for _ in 0..answers {
            self.send_and_start(long_share);
            let Reverse((end, sent, first, prompt)) = self.running.pop().expect("something runs");
            self.now = end;
            let pace = Pace {
                first_token: Some(first - sent),
                gap: Some(Duration::from_millis(20)),
                is_overloaded: false,
            };
            let ended = Occupation {
                sent,
                tokens: 100,
                uncached: prompt,
                output: 20,
                has_completed: true,
            };
            self.capacity.finish(&ended, &pace, self.now);
            if self.has_metrics && self.now - self.reported >= Duration::from_secs(5) {
                self.report();
            }
        }
        self.capacity.limit()
    }

    fn report(&mut self) {
        self.reported = self.now;
        self.send_and_start(0);
        let load = ServerLoad {
            running: self.running.len(),
            waiting: self.queue.len(),
            kv_used: None,
        };
        self.capacity.observe(&load, self.now);
    }
}

#[test]
fn auto_finds_a_servers_slots_and_leaves_nearly_nobody_in_its_queue() {
    for has_metrics in [false, true] {
        for slots in [4, 16, 64] {
            let found = Server::new(slots, has_metrics).answer(20_000, 0);
            let case = format!("{found} for {slots}, metrics: {has_metrics}");
            assert!(found * 10 >= slots * 8, "{case}: too few");
            assert!(found * 10 <= slots * 16, "{case}: they wait in the server");
        }
    }
}

#[test]
fn auto_follows_a_server_that_loses_slots_and_gets_them_back() {
    for has_metrics in [false, true] {
        let mut server = Server::new(64, has_metrics);
        let mut found = Vec::new();
        for slots in [64, 8, 64] {
            server.slots = slots;
            let limit = server.answer(40_000, 0);
            assert!(
                limit * 10 >= slots * 8 && limit <= slots * 16 / 10,
                "{limit} for {slots}, metrics: {has_metrics}, after {found:?}"
            );
            found.push(limit);
        }
    }
}

#[test]
fn a_server_that_has_become_slower_for_good_gets_its_slots_back() {
    let mut server = Server::new(64, false);
    server.answer(20_000, 0);
    server.first_token = 400;
    let found = server.answer(200_000, 0);
    assert!(found >= 51, "{found} of 64");
}

#[test]
fn long_prompts_among_short_ones_do_not_lower_the_limit() {
    for has_metrics in [false, true] {
        for long_share in [2, 10, 30, 50] {
            let found = Server::new(64, has_metrics).answer(20_000, long_share);
            assert!(
                found >= 51,
                "{found} of 64 with {long_share} % long, metrics: {has_metrics}"
            );
        }
    }
}

#[test]
fn a_server_that_reports_a_queue_is_given_no_more() {
    let mut capacity = auto(MOST);
    let mut now = Time::after_epoch(Duration::from_secs(1));
    for _ in 0..40 {
        while capacity.has_slot() {
            capacity.start(100);
        }
        let (before, running) = (capacity.limit(), capacity.running());
        let load = ServerLoad {
            running: running.min(3),
            waiting: running.saturating_sub(3),
            kv_used: None,
        };
        now = now + Duration::from_secs(5);
        capacity.observe(&load, now);
        assert!(
            load.waiting == 0 || capacity.limit() <= before,
            "{before} and then {}",
            capacity.limit()
        );
        let ended = Occupation {
            sent: now,
            tokens: 100,
            uncached: 80,
            output: 20,
            has_completed: false,
        };
        capacity.finish(&ended, &Pace::default(), now);
    }
    assert!((3..=4).contains(&capacity.limit()), "{}", capacity.limit());
}

#[test]
fn auto_backs_off_once_for_a_burst_that_is_refused_together() {
    let mut capacity = auto(MOST);
    for _ in 0..50 {
        capacity.start(100);
    }
    let overloaded = Pace {
        is_overloaded: true,
        ..Pace::default()
    };
    let refused = Occupation {
        sent: Time::after_epoch(Duration::from_secs(1)),
        tokens: 100,
        uncached: 80,
        output: 0,
        has_completed: false,
    };
    let before = capacity.limit();
    for millis in 0..50 {
        capacity.finish(&refused, &overloaded, refused.sent + Duration::from_millis(millis + 1));
    }
    assert_eq!(capacity.limit(), before * 7 / 10);
}

#[test]
fn the_kv_cache_bounds_tokens_while_reports_are_fresh_and_no_longer() {
    let mut capacity = auto(MOST);
    let now = Time::after_epoch(Duration::from_secs(1));
    capacity.start(50_000);
    let load = ServerLoad {
        running: 1,
        waiting: 0,
        kv_used: Some(0.5),
    };
    capacity.observe(&load, now);
    // Half of the cache holds 50,000 tokens, so four fifths of it hold 80,000.
    assert_eq!(capacity.token_limit(now), Some(80_000));
    assert!(capacity.has_tokens(30_000, now));
    assert!(!capacity.has_tokens(30_001, now));
    assert_eq!(capacity.token_limit(now + Duration::from_secs(31)), None);
}

/// Anything that a server, a clock or a client may report.
#[derive(Debug, Clone)]
enum Step {
    Start(u64),
    Finish(Pace, u64, u64, bool),
    Observe(ServerLoad),
    Pass(u64),
    Bound(usize),
}

fn duration() -> impl Strategy<Value = Option<Duration>> {
    prop_oneof![
        Just(None),
        Just(Some(Duration::ZERO)),
        Just(Some(Duration::MAX)),
        (0..10_000u64).prop_map(|millis| Some(Duration::from_millis(millis))),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    let pace = (duration(), duration(), prop::bool::weighted(0.1)).prop_map(|(first_token, gap, is_overloaded)| Pace {
        first_token,
        gap,
        is_overloaded,
    });
    let count = || prop_oneof![0..2000usize, Just(usize::MAX)];
    let used = prop_oneof![Just(f64::NAN), Just(f64::INFINITY), Just(-1.0), 0.0..1.0, Just(1e300),];
    let load = (count(), count(), prop::option::of(used)).prop_map(|(running, waiting, kv_used)| ServerLoad {
        running,
        waiting,
        kv_used,
    });
    let tokens = || prop_oneof![0..50_000u64, Just(u64::MAX)];
    prop_oneof![
        4 => (0..50_000u64).prop_map(Step::Start),
        8 => (pace, tokens(), tokens(), any::<bool>()).prop_map(|(pace, input, output, done)| Step::Finish(pace, input, output, done)),
        2 => load.prop_map(Step::Observe),
        2 => (0..100_000u64).prop_map(Step::Pass),
        1 => (0..300usize).prop_map(Step::Bound),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn the_limit_stays_between_one_and_its_bound_whatever_is_reported(
        steps in prop::collection::vec(any_step(), 1..400),
    ) {
        let (mut capacity, mut most) = (auto(MOST), MOST);
        let mut now = Time::after_epoch(Duration::from_secs(1));
        let mut running: Vec<(Time, u64)> = Vec::new();
        for step in steps {
            match step {
                Step::Start(tokens) if capacity.has_slot() && capacity.has_tokens(tokens, now) => {
                    capacity.start(tokens);
                    running.push((now, tokens));
                }
                Step::Finish(pace, uncached, output, has_completed) if !running.is_empty() => {
                    let (sent, tokens) = running.remove(0);
                    capacity.finish(&Occupation { sent, tokens, uncached, output, has_completed }, &pace, now);
                }
                Step::Observe(load) => capacity.observe(&load, now),
                Step::Pass(millis) => now = now + Duration::from_millis(millis),
                Step::Bound(bound) => {
                    most = bound;
                    capacity.reconfigure(&ModelRules { concurrency: Concurrency::Auto(most), ..ModelRules::default() });
                }
                Step::Start(_) | Step::Finish(..) => {}
            }
            let limit = capacity.limit();
            prop_assert!((1..=most.max(1)).contains(&limit), "{limit} of {most}");
            prop_assert_eq!(capacity.running(), running.len());
            prop_assert_eq!(capacity.tokens(), running.iter().map(|(_, tokens)| tokens).sum::<u64>());
        }
        // Nothing that was reported keeps an idle model from answering.
        for (sent, tokens) in running {
            let ended = Occupation { sent, tokens, uncached: 0, output: 0, has_completed: false };
            capacity.finish(&ended, &Pace::default(), now);
        }
        prop_assert!(capacity.has_slot() && capacity.has_tokens(u64::MAX, now));
    }
}
