//! Capacity questions in virtual time: requests through one engine or several, as fast as they can be computed, and
//! always with the same outcome.

mod trace;

pub use trace::{read_file, read_trace};

use crate::engine::{Engine, EngineRequest, Profile};
use crate::slo::Slo;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// A request of a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// After the beginning.
    pub at: Duration,
    /// Tokens of its prompt.
    pub prompt_tokens: usize,
    /// Tokens of its answer.
    pub output_tokens: usize,
}

/// The outcome of a request; times are since the start of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// The request, and its time of arrival.
    pub arrival: Arrival,
    /// When its first token was there.
    pub first_token: Duration,
    /// When its last token was there.
    pub finished: Duration,
}

impl Outcome {
    /// Time to first token, in seconds.
    pub fn ttft(&self) -> f64 {
        self.first_token.saturating_sub(self.arrival.at).as_secs_f64()
    }

    /// Time per output token after the first, in seconds.
    #[allow(clippy::cast_precision_loss)]
    pub fn tpot(&self) -> f64 {
        let gaps = self.arrival.output_tokens.saturating_sub(1).max(1);
        self.finished.saturating_sub(self.first_token).as_secs_f64() / gaps as f64
    }

    /// From its arrival to its last token, in seconds.
    pub fn end_to_end(&self) -> f64 {
        self.finished.saturating_sub(self.arrival.at).as_secs_f64()
    }
}

/// The outcome of a run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Run {
    /// Every request that was finished, by when it was.
    pub outcomes: Vec<Outcome>,
    /// Requests that can never fit into the memory of a server.
    pub impossible: usize,
    /// The most memory that was in use on any server, 0 to 1.
    pub kv_most: f64,
    /// Memory in use, on average over steps.
    pub kv_mean: f64,
    /// The number of preemptions.
    pub preemptions: u64,
    /// By the second: requests in all engines together, and those that wait.
    pub load: Vec<(usize, usize)>,
}

/// One server, with a clock of its own.
struct Replica {
    engine: Engine,
    now: Duration,
    /// When its front end is free again.
    front: Duration,
    /// Requests on their way into the queue.
    coming: VecDeque<(Duration, EngineRequest)>,
    underway: HashMap<u64, (Arrival, Option<Duration>)>,
    outstanding: usize,
    kv_most: f64,
    kv_sum: f64,
    steps: u64,
}

impl Replica {
    fn new(profile: &Profile, seed: u64) -> Self {
        Self {
            engine: Engine::new(profile.clone(), seed),
            now: Duration::ZERO,
            front: Duration::ZERO,
            coming: VecDeque::new(),
            underway: HashMap::new(),
            outstanding: 0,
            kv_most: 0.0,
            kv_sum: 0.0,
            steps: 0,
        }
    }

    fn take(&mut self, id: u64, arrival: Arrival) {
        let profile = self.engine.profile();
        self.front = self.front.max(arrival.at) + profile.front_time();
        let entered = self.front + profile.api_time();
        let request = EngineRequest {
            id,
            prompt_tokens: arrival.prompt_tokens,
            blocks: Vec::new(),
            output_tokens: arrival.output_tokens,
        };
        self.coming.push_back((entered, request));
        self.underway.insert(id, (arrival, None));
        self.outstanding += arrival.prompt_tokens + arrival.output_tokens;
    }

    /// Computes until `until`; the step that is under way then is finished. False when there was nothing to compute.
    fn advance(&mut self, until: Duration, outcomes: &mut Vec<Outcome>) {
        while self.now < until && self.step(until, outcomes) {}
    }

    /// One step that begins before `until`.
    fn step(&mut self, until: Duration, outcomes: &mut Vec<Outcome>) -> bool {
        if self.engine.is_idle() {
            match self.coming.front() {
                Some((at, _)) if *at < until => self.now = self.now.max(*at),
                _ => return false,
            }
        }
        while self.coming.front().is_some_and(|(at, _)| *at <= self.now) {
            if let Some((_, request)) = self.coming.pop_front() {
                self.engine.add(request);
            }
        }
        let Some(step) = self.engine.step() else { return false };
        let usage = self.engine.gauges().kv_usage;
        self.kv_most = self.kv_most.max(usage);
        self.kv_sum += usage;
        self.steps += 1;
        self.now += step.took;
        for made in step.made {
            let Some((arrival, first)) = self.underway.get_mut(&made.id) else {
                continue;
            };
            let first = *first.get_or_insert(self.now);
            if made.is_last {
                outcomes.push(Outcome {
                    arrival: *arrival,
                    first_token: first,
                    finished: self.now,
                });
                self.outstanding -= arrival.prompt_tokens + arrival.output_tokens;
                self.underway.remove(&made.id);
            }
        }
        true
    }
}

/// Requests that come when they come, to the server that has least to do.
pub fn open_loop(profile: &Profile, seed: u64, replicas: usize, arrivals: &[Arrival]) -> Run {
    let mut servers: Vec<Replica> = (0..replicas.max(1))
        .map(|number| Replica::new(profile, seed.wrapping_add(number as u64)))
        .collect();
    let mut run = Run::default();
    let mut next_second = Duration::ZERO;
    for (id, arrival) in (0u64..).zip(arrivals) {
        while next_second <= arrival.at {
            note_load(&mut servers, next_second, &mut run);
            next_second += Duration::from_secs(1);
        }
        for server in &mut servers {
            server.advance(arrival.at, &mut run.outcomes);
        }
        let Some(server) = servers.iter_mut().min_by_key(|server| server.outstanding) else {
            break;
        };
        if server.engine.fits(arrival.prompt_tokens + arrival.output_tokens) {
            server.take(id, *arrival);
        } else {
            run.impossible += 1;
        }
    }
    while servers.iter().any(|server| !server.underway.is_empty()) {
        note_load(&mut servers, next_second, &mut run);
        next_second += Duration::from_secs(1);
    }
    finish(&servers, &mut run);
    run
}

/// The fewest servers with which this share of the requests is within all bounds; `None` if `most` are too few.
pub fn servers_for(
    profile: &Profile,
    seed: u64,
    arrivals: &[Arrival],
    slo: Slo,
    good: f64,
    most: usize,
) -> Option<usize> {
    let is_enough = |servers: usize| open_loop(profile, seed, servers, arrivals).share_good(slo) >= good;
    // Twice as many until it is enough, then halving the gap.
    let mut enough = 1;
    while !is_enough(enough) {
        if enough == most {
            return None;
        }
        enough = (enough * 2).min(most);
    }
    let mut too_few = enough / 2;
    while enough - too_few > 1 {
        let middle = usize::midpoint(too_few, enough);
        if is_enough(middle) {
            enough = middle;
        } else {
            too_few = middle;
        }
    }
    Some(enough)
}

fn note_load(servers: &mut [Replica], at: Duration, run: &mut Run) {
    let mut load = (0, 0);
    for server in servers {
        server.advance(at, &mut run.outcomes);
        load.0 += server.underway.len();
        load.1 += server.engine.gauges().waiting + server.coming.len();
    }
    run.load.push(load);
}

/// `concurrency` clients, each of which asks anew as soon as it has its answer, until there were so many requests.
pub fn closed_loop(profile: &Profile, seed: u64, concurrency: usize, requests: usize, size: (usize, usize)) -> Run {
    closed_loop_of(profile, seed, concurrency, requests, |_| size)
}

/// The same with the sizes of each request, prompt and answer, by its number.
pub fn closed_loop_of(
    profile: &Profile,
    seed: u64,
    concurrency: usize,
    requests: usize,
    mut size: impl FnMut(usize) -> (usize, usize),
) -> Run {
    let mut server = Replica::new(profile, seed);
    let mut run = Run::default();
    let mut begun = 0;
    let mut begin = |server: &mut Replica, at| {
        if begun < requests {
            let (prompt_tokens, output_tokens) = size(begun);
            let arrival = Arrival {
                at,
                prompt_tokens,
                output_tokens,
            };
            server.take(begun as u64, arrival);
            begun += 1;
        }
    };
    for _ in 0..concurrency {
        begin(&mut server, Duration::ZERO);
    }
    let mut seen = 0;
    while server.step(Duration::MAX, &mut run.outcomes) {
        while seen < run.outcomes.len() {
            seen += 1;
            let now = server.now;
            begin(&mut server, now);
        }
    }
    finish(&[server], &mut run);
    run
}

#[allow(clippy::cast_precision_loss)]
fn finish(servers: &[Replica], run: &mut Run) {
    run.outcomes.sort_by_key(|outcome| outcome.finished);
    let steps: u64 = servers.iter().map(|server| server.steps).sum();
    run.kv_mean = servers.iter().map(|server| server.kv_sum).sum::<f64>() / steps.max(1) as f64;
    for server in servers {
        run.kv_most = run.kv_most.max(server.kv_most);
        run.preemptions += server.engine.gauges().preemptions;
    }
}

impl Run {
    /// A percentile, 0 to 1, of a figure of all outcomes; 0 if there are none.
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss
    )]
    pub fn percentile(&self, part: f64, of: impl Fn(&Outcome) -> f64) -> f64 {
        let mut all: Vec<f64> = self.outcomes.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        let at = (all.len() as f64 * part).ceil() as usize;
        all.get(at.saturating_sub(1)).copied().unwrap_or(0.0)
    }

    /// The mean of a figure.
    #[allow(clippy::cast_precision_loss)]
    pub fn mean(&self, of: impl Fn(&Outcome) -> f64) -> f64 {
        self.outcomes.iter().map(of).sum::<f64>() / self.outcomes.len().max(1) as f64
    }

    /// Tokens of answers a second, from the first arrival to the last token.
    #[allow(clippy::cast_precision_loss)]
    pub fn throughput(&self) -> f64 {
        let tokens: usize = self.outcomes.iter().map(|outcome| outcome.arrival.output_tokens).sum();
        tokens as f64 / self.seconds()
    }

    /// Requests a second that were within all bounds.
    #[allow(clippy::cast_precision_loss)]
    pub fn goodput(&self, slo: Slo) -> f64 {
        let is_good = |outcome: &&Outcome| {
            outcome.ttft() <= slo.ttft && outcome.tpot() <= slo.tpot && outcome.end_to_end() <= slo.e2e
        };
        self.outcomes.iter().filter(is_good).count() as f64 / self.seconds()
    }

    /// The share of all requests that was within all bounds.
    #[allow(clippy::cast_precision_loss)]
    pub fn share_good(&self, slo: Slo) -> f64 {
        let all = self.outcomes.len() + self.impossible;
        self.goodput(slo) * self.seconds() / all.max(1) as f64
    }

    fn seconds(&self) -> f64 {
        let first = self
            .outcomes
            .iter()
            .map(|outcome| outcome.arrival.at)
            .min()
            .unwrap_or_default();
        let last = self.outcomes.last().map_or(Duration::ZERO, |outcome| outcome.finished);
        (last.saturating_sub(first)).as_secs_f64().max(1e-9)
    }
}
