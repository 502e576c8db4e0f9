//! Lines of a batch that hold every slot for long, and high priority now and then: what eviction brings, and what it costs.

use crate::simulation::Random;
use policy::{
    AdmissionRequest, Class, Decision, GlobalLimits, Hints, ModelId, PlanId, Policy, Priority, ProjectId, Rules,
    Scheduling, Settlement, TicketId, Time, Units, Usage, UserId,
};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;

const SEEDS: std::ops::Range<u64> = 1..11;
const SLOTS: usize = 20;
/// Seconds of a line, and of a request of high priority, on average.
const LINE: f64 = 60.0;
const HIGH: f64 = 4.0;
const HOURS: f64 = 4.0;
/// From the decision to the end of an evicted attempt.
const ABORT: Duration = Duration::from_millis(50);
/// High priority, of what the slots can serve.
const LOADS: [f64; 4] = [0.002, 0.01, 0.05, 0.2];

/// Prints the table; returns the promises that are missed.
pub fn print_table() -> Vec<String> {
    println!(
        "\n{SLOTS} slots full of batch lines of {LINE} s, high priority of {HIGH} s beside them; {HOURS} h, ten seeds.\n"
    );
    println!(
        "| high priority, of the capacity | eviction | waits, mean / p99 s | evicted an hour | lost of the slots' time |"
    );
    println!("|---|---|---|---|---|");
    let mut missed = Vec::new();
    for load in LOADS {
        for evict_for in [None, Some(Priority::High)] {
            let mut runs: Vec<Outcome> = SEEDS.map(|seed| World::new(evict_for, seed).run(load)).collect();
            let count = runs.len() as f64;
            let mean = |of: &dyn Fn(&Outcome) -> f64| runs.iter().map(of).sum::<f64>() / count;
            let wait = mean(&|run| run.waits.iter().sum::<f64>() / run.waits.len() as f64);
            let evicted = mean(&|run| run.evicted as f64) / HOURS;
            let lost = mean(&|run| run.lost) / (SLOTS as f64 * HOURS * 3600.0);
            let p99 = runs.iter_mut().map(Outcome::p99).sum::<f64>() / count;
            let name = evict_for.map_or("off", |_| "on");
            println!(
                "| {:.1} % | {name} | {wait:.3} / {p99:.2} | {evicted:.1} | {:.2} % |",
                load * 100.0,
                lost * 100.0
            );
            if evict_for.is_some() && lost > 0.1 {
                missed.push(format!("eviction loses {lost:.3} of the slots' time"));
            }
            if evict_for.is_some() && load <= 0.01 && p99 > 0.2 {
                missed.push(format!("high priority waits {p99:.2} s at a load of {load}"));
            }
        }
    }
    missed
}

#[derive(Debug, Default)]
struct Outcome {
    waits: Vec<f64>,
    evicted: u64,
    lost: f64,
}

impl Outcome {
    fn p99(&mut self) -> f64 {
        self.waits.sort_by(f64::total_cmp);
        self.waits[self.waits.len() * 99 / 100]
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Ends(TicketId),
    Aborted(TicketId),
    Comes,
}

#[derive(Clone, Copy)]
struct Known {
    is_line: bool,
    evictions: u32,
    since: Time,
}

struct World {
    policy: Policy,
    random: Random,
    events: BinaryHeap<Reverse<(Time, Event)>>,
    known: HashMap<TicketId, Known>,
    lines_waiting: usize,
    outcome: Outcome,
}

impl World {
    fn new(evict_for: Option<Priority>, seed: u64) -> Self {
        let rules = Rules {
            global: GlobalLimits {
                max_active_requests: SLOTS,
                max_queue_size: 10_000,
                max_queue_wait: Duration::from_secs(36_000),
            },
            scheduling: Scheduling {
                evict_for,
                ..Scheduling::default()
            },
            ..Rules::default()
        };
        Self {
            policy: Policy::new(rules),
            random: Random(seed),
            events: BinaryHeap::new(),
            known: HashMap::new(),
            lines_waiting: 0,
            outcome: Outcome::default(),
        }
    }

    fn run(mut self, load: f64) -> Outcome {
        let rate = load * SLOTS as f64 / HIGH;
        let end = Time::after_epoch(Duration::from_secs_f64(HOURS * 3600.0));
        let first = self.exponential(1.0 / rate);
        self.events.push(Reverse((Time::after_epoch(first), Event::Comes)));
        self.feed(Time::default());
        while let Some(Reverse((now, event))) = self.events.pop().filter(|Reverse((at, _))| *at < end) {
            match event {
                Event::Comes => {
                    let next = now + self.exponential(1.0 / rate);
                    self.events.push(Reverse((next, Event::Comes)));
                    self.offer(false, 0, now);
                }
                Event::Ends(ticket) => {
                    if self.known.remove(&ticket).is_some() {
                        let usage = Usage {
                            input_tokens: 100,
                            output_tokens: 100,
                            ..Usage::default()
                        };
                        let settlement = Settlement {
                            usage,
                            has_completed: true,
                            was_answered: true,
                            was_forwarded: true,
                            ..Settlement::default()
                        };
                        self.policy.settle(ticket, &settlement, now);
                    }
                }
                Event::Aborted(ticket) => {
                    if let Some(known) = self.known.remove(&ticket) {
                        self.outcome.lost += self.policy.withdraw(ticket, now).as_secs_f64();
                        self.outcome.evicted += 1;
                        self.wake(now);
                        self.offer(true, known.evictions + 1, now);
                    }
                }
            }
            self.wake(now);
            self.feed(now);
        }
        self.outcome
    }

    /// Keeps lines waiting, as a batch does.
    fn feed(&mut self, now: Time) {
        while self.lines_waiting < SLOTS {
            self.offer(true, 0, now);
            self.wake(now);
        }
    }

    fn offer(&mut self, is_line: bool, evictions: u32, now: Time) {
        let ask = AdmissionRequest {
            project: ProjectId(u32::from(is_line)),
            user: UserId(u32::from(is_line)),
            key: None,
            plan: PlanId(0),
            model: ModelId(0),
            smaller: None,
            class: if is_line { Class::Batch } else { Class::Interactive },
            priority: if is_line { Priority::Normal } else { Priority::High },
            input_tokens: 100,
            least_input_tokens: 100,
            max_tokens: 100,
            answers: 1,
            units: Units::default(),
            hints: Hints {
                is_durable: is_line && evictions < 3,
                ..Hints::default()
            },
        };
        let known = Known {
            is_line,
            evictions,
            since: now,
        };
        match self.policy.offer(&ask, now).0 {
            Decision::Admit(grant) => {
                self.known.insert(grant.ticket, known);
                self.start(grant.ticket, now);
            }
            Decision::Queue(queued) => {
                self.known.insert(queued.ticket, known);
                self.lines_waiting += usize::from(is_line);
            }
            other => panic!("{other:?}"),
        }
        self.wake(now);
    }

    fn wake(&mut self, now: Time) {
        while let Some(ticket) = self.policy.next(now) {
            self.lines_waiting -= usize::from(self.known[&ticket].is_line);
            self.start(ticket, now);
        }
        while let Some(ticket) = self.policy.evict(now) {
            self.events.push(Reverse((now + ABORT, Event::Aborted(ticket))));
        }
    }

    fn start(&mut self, ticket: TicketId, now: Time) {
        let known = self.known[&ticket];
        if !known.is_line {
            self.outcome.waits.push((now - known.since).as_secs_f64());
        }
        let seconds = self.exponential(if known.is_line { LINE } else { HIGH });
        self.events.push(Reverse((now + seconds, Event::Ends(ticket))));
    }

    fn exponential(&mut self, mean: f64) -> Duration {
        Duration::from_secs_f64(-(1.0 - self.random.unit()).ln() * mean)
    }
}
