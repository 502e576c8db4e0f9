//! A deterministic simulation: arrivals in, a made-up clock, the real policy, figures out. A server is so
//! many slots; how long a request holds one depends on its tokens.

pub mod cached;
pub mod engine;
pub mod mixed;
pub mod python_random;
pub mod server;

use policy::{
    AdmissionRequest, Class, Decision, ModelId, PlanId, Policy, Priority, ProjectId, Rules, Settlement, TicketId, Time,
    Usage, UserId,
};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;

/// A project that sends requests.
#[derive(Debug, Clone, Copy)]
pub struct Source {
    pub project: ProjectId,
    pub priority: Priority,
    /// Its part of all arrivals, against the other sources'.
    pub rate: f64,
}

/// One request to come.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    pub at: Duration,
    pub input_tokens: u64,
    pub output_tokens: u64,
}

/// A run.
pub struct Run {
    pub rules: Rules,
    pub sources: Vec<Source>,
    /// The client's limit of an answer; its actual length comes with the arrival.
    pub max_tokens: u64,
    /// The time until slots have filled up; nothing before it is counted.
    pub warm_up: Duration,
    pub end: Duration,
    pub seed: u64,
}

/// The result of a simulation.
#[derive(Debug, Default)]
pub struct Outcome {
    pub offered: u64,
    pub served: u64,
    pub refused: u64,
    pub expired: u64,
    /// Of all slots, how many were in use, on average.
    pub usage: f64,
    pub work_by_project: HashMap<ProjectId, u64>,
    pub work_by_band: [u64; 3],
    /// Waits of those who were served, in seconds, by band.
    pub waits: [Vec<f32>; 3],
    pub mean_service: f64,
}

/// The time that a request holds its slot: 50 ms, 0.1 ms a token of the prompt, 20 ms a token of the answer.
pub fn service(input_tokens: u64, output_tokens: u64) -> Duration {
    Duration::from_micros(50_000 + 100 * input_tokens + 20_000 * output_tokens)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Departs(TicketId),
    Expires(TicketId),
}

struct Known {
    arrival: Arrival,
    source: Source,
    offered_at: Time,
}

impl Run {
    pub fn go(self, arrivals: impl Iterator<Item = Arrival>) -> Outcome {
        let slots = self.rules.global.max_active_requests;
        let mut random = Random(self.seed);
        let total: f64 = self.sources.iter().map(|source| source.rate).sum();
        let mut world = World {
            policy: Policy::new(self.rules),
            events: BinaryHeap::new(),
            known: HashMap::new(),
            outcome: Outcome::default(),
            warm_up: Time::after_epoch(self.warm_up),
            end: Time::after_epoch(self.end),
            busy: 0.0,
            service: (0.0, 0),
            now: Time::default(),
        };
        for arrival in arrivals.take_while(|arrival| arrival.at < self.end) {
            let at = Time::after_epoch(arrival.at);
            world.run_until(at);
            let mut left = random.unit() * total;
            let chosen = self.sources.iter().find(|source| {
                left -= source.rate;
                left < 0.0
            });
            let source = *chosen.unwrap_or(&self.sources[0]);
            world.arrive(arrival, source, self.max_tokens);
        }
        world.run_until(Time::after_epoch(self.end));
        let seconds = (self.end - self.warm_up).as_secs_f64();
        world.outcome.usage = world.busy / (seconds * slots as f64);
        world.outcome.mean_service = world.service.0 / world.service.1.max(1) as f64;
        world.outcome
    }
}

struct World {
    policy: Policy,
    events: BinaryHeap<Reverse<(Time, Event)>>,
    known: HashMap<TicketId, Known>,
    outcome: Outcome,
    warm_up: Time,
    end: Time,
    /// Seconds of slots in use.
    busy: f64,
    service: (f64, u64),
    now: Time,
}

impl World {
    fn run_until(&mut self, until: Time) {
        while let Some(Reverse((at, event))) = self.events.peek().copied().filter(|Reverse((at, _))| *at <= until) {
            self.events.pop();
            self.advance(at);
            match event {
                Event::Departs(ticket) => self.depart(ticket),
                Event::Expires(ticket) => {
                    if self.policy.expire(ticket, at).is_some() {
                        self.known.remove(&ticket);
                        self.outcome.expired += 1;
                    }
                }
            }
            self.start_whoever_is_next();
        }
        self.advance(until);
    }

    fn advance(&mut self, to: Time) {
        let from = self.now.max(self.warm_up);
        let until = to.min(self.end);
        if until > from {
            self.busy += (until - from).as_secs_f64() * self.policy.running() as f64;
        }
        self.now = to;
    }

    fn arrive(&mut self, arrival: Arrival, source: Source, max_tokens: u64) {
        let ask = AdmissionRequest {
            project: source.project,
            user: UserId(source.project.0),
            key: None,
            plan: PlanId(0),
            model: ModelId(0),
            smaller: None,
            class: Class::Interactive,
            priority: source.priority,
            input_tokens: arrival.input_tokens,
            least_input_tokens: arrival.input_tokens,
            max_tokens,
            answers: 1,
            units: policy::Units::default(),
            hints: policy::Hints::default(),
        };
        self.outcome.offered += 1;
        let known = Known {
            arrival,
            source,
            offered_at: self.now,
        };
        match self.policy.offer(&ask, self.now).0 {
            Decision::Admit(grant) => {
                self.known.insert(grant.ticket, known);
                self.start(grant.ticket);
            }
            Decision::Queue(queued) => {
                if let Some(displaced) = queued.displaced {
                    self.known.remove(&displaced);
                    self.outcome.refused += 1;
                }
                self.known.insert(queued.ticket, known);
                self.events
                    .push(Reverse((queued.deadline, Event::Expires(queued.ticket))));
            }
            Decision::Reject(_) | Decision::NeedsCredit(_) => self.outcome.refused += 1,
        }
        self.start_whoever_is_next();
    }

    fn start_whoever_is_next(&mut self) {
        while let Some(ticket) = self.policy.next(self.now) {
            self.start(ticket);
        }
    }

    fn start(&mut self, ticket: TicketId) {
        let known = &self.known[&ticket];
        let takes = service(known.arrival.input_tokens, known.arrival.output_tokens);
        if self.now >= self.warm_up {
            self.outcome.waits[band(known.source.priority)].push((self.now - known.offered_at).as_secs_f32());
            self.service.0 += takes.as_secs_f64();
            self.service.1 += 1;
        }
        self.events.push(Reverse((self.now + takes, Event::Departs(ticket))));
    }

    fn depart(&mut self, ticket: TicketId) {
        let Some(known) = self.known.remove(&ticket) else {
            return;
        };
        let usage = Usage {
            input_tokens: known.arrival.input_tokens,
            output_tokens: known.arrival.output_tokens,
            ..Usage::default()
        };
        let settlement = Settlement {
            usage,
            has_completed: true,
            was_answered: true,
            was_forwarded: true,
            ..Settlement::default()
        };
        self.policy.settle(ticket, &settlement, self.now);
        self.outcome.served += 1;
        if self.now >= self.warm_up {
            // What is shared: a token of the prompt counts 1, one of the answer 2.
            let work = usage.input_tokens + 2 * usage.output_tokens;
            *self.outcome.work_by_project.entry(known.source.project).or_default() += work;
            self.outcome.work_by_band[band(known.source.priority)] += work;
        }
    }
}

impl Outcome {
    /// Jain's index of fairness between projects: 1 when all were served the same.
    pub fn jain(&self) -> f64 {
        let served: Vec<f64> = self.work_by_project.values().map(|work| *work as f64).collect();
        let sum: f64 = served.iter().sum();
        let squares: f64 = served.iter().map(|work| work * work).sum();
        sum * sum / (served.len() as f64 * squares)
    }

    /// A band's part of all work served.
    pub fn share(&self, band: usize) -> f64 {
        self.work_by_band[band] as f64 / self.work_by_band.iter().sum::<u64>().max(1) as f64
    }

    /// A percentile of a band's waits, in seconds.
    pub fn wait(&mut self, band: usize, part: f64) -> f64 {
        let waits = &mut self.waits[band];
        if waits.is_empty() {
            return 0.0;
        }
        let at = ((waits.len() - 1) as f64 * part) as usize;
        f64::from(*waits.select_nth_unstable_by(at, f32::total_cmp).1)
    }
}

fn band(priority: Priority) -> usize {
    match priority {
        Priority::High => 0,
        Priority::Normal => 1,
        Priority::Low => 2,
    }
}

/// SplitMix64 (Steele, Lea and Flood, 2014): small, fast, the same everywhere.
#[derive(Debug, Clone, Copy)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to below 1.
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Arrivals without memory, so many a second, with the sizes of `sizes` over and over.
pub fn poisson(rate: f64, sizes: Vec<(u64, u64)>, seed: u64) -> impl Iterator<Item = Arrival> {
    let mut random = Random(seed);
    let mut at = 0.0;
    sizes.into_iter().cycle().map(move |(input_tokens, output_tokens)| {
        at -= (1.0 - random.unit()).ln() / rate;
        Arrival {
            at: Duration::from_secs_f64(at),
            input_tokens,
            output_tokens,
        }
    })
}

/// The arrivals of a trace, `times` as many: each stands for so many, spread until the next.
pub fn scaled(trace: Vec<Arrival>, times: f64, seed: u64) -> impl Iterator<Item = Arrival> {
    let mut random = Random(seed);
    let nexts: Vec<Duration> = trace.iter().skip(1).map(|next| next.at).collect();
    let mut owed = 0.0;
    trace.into_iter().zip(nexts).flat_map(move |(arrival, next)| {
        owed += times;
        let count = owed as u64;
        owed -= count as f64;
        let gap = next.saturating_sub(arrival.at).as_secs_f64();
        let mut offsets: Vec<f64> = (0..count).map(|_| random.unit() * gap).collect();
        offsets.sort_by(f64::total_cmp);
        offsets.into_iter().map(move |offset| Arrival {
            at: arrival.at + Duration::from_secs_f64(offset),
            ..arrival
        })
    })
}
