//! One model behind the real policy: requests arrive, policy decides which one is sent, an [`Engine`] answers.

use super::engine::{Engine, Profile, Sequence};
use super::python_random::PythonRandom;
use policy::{
    AdmissionRequest, Class, Concurrency, Decision, GlobalLimits, ModelId, ModelRules, Order, Pace, PlanId, Policy,
    Priority, ProjectId, Rules, Scheduling, ServerLoad, Settlement, TicketId, Time, Usage, UserId,
};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;

/// The interval at which the gateway reads the server's metrics.
const REPORTS_EVERY_MS: f64 = 5_000.0;

/// A request to come.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// Milliseconds.
    pub at: f64,
    pub input: u64,
    pub output: u64,
}

/// A workload: so many requests a second, some with a long prompt.
#[derive(Debug, Clone, Copy)]
pub struct Mix {
    pub name: &'static str,
    pub rate: f64,
    pub long_share: f64,
}

/// Three mixes that load an H100 fully: chats, chats and one document in ten, one document in two.
pub const MIXES: [Mix; 3] = [
    Mix {
        name: "chat only",
        rate: 40.0,
        long_share: 0.0,
    },
    Mix {
        name: "10 % long",
        rate: 16.0,
        long_share: 0.1,
    },
    Mix {
        name: "50 % long",
        rate: 6.0,
        long_share: 0.5,
    },
];

impl Mix {
    /// The requests of so many seconds. Chats have prompts of 700 tokens in the median and answers of 220, documents
    /// 30,000 and 400, log-normally.
    pub fn requests(&self, seconds: f64, seed: u32) -> Vec<Request> {
        let mut random = PythonRandom::new(seed);
        let mut at = 0.0;
        let mut requests = Vec::new();
        let tokens = |random: &mut PythonRandom, median: f64, sigma: f64, least: f64, most: f64| {
            random.log_normal(median.ln(), sigma).max(least).min(most) as u64
        };
        while at < seconds * 1000.0 {
            at += random.exponential(self.rate) * 1000.0;
            let (input, output) = if random.unit() < self.long_share {
                let input = tokens(&mut random, 30_000.0, 0.4, 8_000.0, 60_000.0);
                (input, tokens(&mut random, 400.0, 0.6, 10.0, 1_500.0))
            } else {
                let input = tokens(&mut random, 700.0, 0.8, 20.0, 8_000.0);
                (input, tokens(&mut random, 220.0, 0.7, 5.0, 1_500.0))
            };
            requests.push(Request { at, input, output });
        }
        requests
    }
}

/// The rule that limits the server's requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    Fixed(usize),
    /// The rule before: time to first token against the best of all prompts.
    Before(usize),
    Auto(usize),
    /// The same, where the server shows no metrics.
    AutoBlind(usize),
}

/// The measured result. Times are in seconds, gaps in milliseconds.
#[derive(Debug, Default)]
pub struct Served {
    pub done: usize,
    pub preempted: u64,
    /// From being sent to the first token.
    pub first_tokens: Vec<f64>,
    pub gaps: Vec<f64>,
    /// When each answer ended, and its tokens.
    pub ended: Vec<(f64, u64)>,
    /// The limit, by the second.
    pub limits: Vec<usize>,
    seconds: f64,
}

impl Served {
    pub fn tokens_per_second(&self) -> f64 {
        self.ended.iter().map(|(_, tokens)| *tokens).sum::<u64>() as f64 / self.seconds
    }

    /// Tokens a second of answers that ended between two moments.
    pub fn tokens_between(&self, from: f64, until: f64) -> f64 {
        let ended = self.ended.iter().filter(|(at, _)| (from..until).contains(at));
        ended.map(|(_, tokens)| *tokens).sum::<u64>() as f64 / (until - from)
    }

    /// The mean limit of the later two thirds.
    pub fn mean_limit(&self) -> f64 {
        let later = &self.limits[self.limits.len() / 3..];
        later.iter().sum::<usize>() as f64 / later.len().max(1) as f64
    }
}

/// The value at a part of a list, from 0 to 1.
pub fn percentile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
        .get((part * sorted.len().saturating_sub(1) as f64) as usize)
        .copied()
        .unwrap_or(f64::NAN)
}

struct World<'a> {
    policy: Policy,
    engine: Engine,
    before: Option<Before>,
    reports: bool,
    requests: &'a [Request],
    waiting: HashMap<TicketId, usize>,
    sent: HashMap<usize, (TicketId, f64)>,
    served: Served,
}

/// Sends `requests` for so many seconds of virtual time.
pub fn serve(profile: Profile, requests: &[Request], limit: Limit, seconds: f64) -> Served {
    let mut world = World::new(profile, requests, limit);
    world.served.seconds = seconds;
    let (mut now, mut arrived, mut reported) = (0.0, 0, 0.0);
    while now < seconds * 1000.0 {
        while arrived < requests.len() && requests[arrived].at <= now {
            world.arrive(arrived, now);
            arrived += 1;
        }
        if now >= reported {
            world.report(now);
            reported = now + REPORTS_EVERY_MS;
        }
        world.sample(now);
        if let Some((end, finished)) = world.engine.step(now) {
            now = end;
            for sequence in finished {
                world.finish(&sequence, now);
            }
            world.send(now);
            continue;
        }
        let next = requests.get(arrived).map(|request| request.at);
        let Some(next) = next.into_iter().chain(world.engine.next_arrival()).reduce(f64::min) else {
            break;
        };
        now = next.max(now + 0.1);
    }
    world.served.preempted = world.engine.preempted;
    world.served
}

fn time(millis: f64) -> Time {
    Time::after_epoch(Duration::from_secs(1) + Duration::from_secs_f64(millis / 1000.0))
}

fn rules(concurrency: Concurrency) -> Rules {
    Rules {
        global: GlobalLimits {
            max_active_requests: 4096,
            max_queue_size: 1_000_000,
            max_queue_wait: Duration::from_secs(1_000_000),
        },
        scheduling: Scheduling {
            order: Order::Fifo,
            ..Scheduling::default()
        },
        models: vec![ModelRules {
            concurrency,
            ..ModelRules::default()
        }],
        ..Rules::default()
    }
}

impl<'a> World<'a> {
    fn new(profile: Profile, requests: &'a [Request], limit: Limit) -> Self {
        let (concurrency, before) = match limit {
            Limit::Fixed(limit) => (Concurrency::Fixed(limit), None),
            Limit::Before(most) => (Concurrency::Fixed(4), Some(Before::new(most))),
            Limit::Auto(most) | Limit::AutoBlind(most) => (Concurrency::Auto(most), None),
        };
        Self {
            policy: Policy::new(rules(concurrency)),
            engine: Engine::new(profile),
            before,
            reports: matches!(limit, Limit::Auto(_)),
            requests,
            waiting: HashMap::new(),
            sent: HashMap::new(),
            served: Served::default(),
        }
    }

    fn arrive(&mut self, at: usize, now: f64) {
        match self.policy.offer(&ask(self.requests[at].input), time(now)).0 {
            Decision::Admit(grant) => self.dispatch(at, grant.ticket, now),
            Decision::Queue(queued) => {
                self.waiting.insert(queued.ticket, at);
            }
            Decision::Reject(refusal) => panic!("{refusal}"),
            Decision::NeedsCredit(_) => unreachable!("nothing is shared"),
        }
    }

    fn send(&mut self, now: f64) {
        while let Some(ticket) = self.policy.next(time(now)) {
            let at = self.waiting.remove(&ticket).expect("the next one waits");
            self.dispatch(at, ticket, now);
        }
    }

    fn dispatch(&mut self, at: usize, ticket: TicketId, now: f64) {
        self.sent.insert(at, (ticket, now));
        self.engine
            .send(at, self.requests[at].input, self.requests[at].output, now);
    }

    fn report(&mut self, now: f64) {
        let (running, waiting, kv_used) = self.engine.load(now);
        let load = ServerLoad {
            running,
            waiting,
            kv_used: Some(kv_used),
        };
        if self.reports {
            self.policy.observe_load(ModelId(0), &load, time(now));
            self.send(now);
        }
    }

    fn sample(&mut self, now: f64) {
        while self.served.limits.len() <= (now / 1000.0) as usize {
            let limit = self.policy.slots_of(ModelId(0)).unwrap_or(0);
            self.served.limits.push(limit);
        }
    }

    fn finish(&mut self, sequence: &Sequence, now: f64) {
        let (ticket, sent) = self.sent.remove(&sequence.id).expect("it was sent");
        let first = sequence.first_token.expect("it has answered");
        let first_token = (first - sent) / 1000.0;
        let gap = (now - first) / (sequence.output.max(2) - 1) as f64;
        self.served.done += 1;
        self.served.first_tokens.push(first_token);
        self.served.gaps.push(gap);
        self.served.ended.push((now / 1000.0, sequence.output));
        if let Some(before) = &mut self.before {
            before.learn(first_token, gap, self.policy.running());
            self.policy
                .reconfigure(rules(Concurrency::Fixed(before.limit as usize)));
        }
        let settlement = settlement(
            sequence.input,
            sequence.output,
            Duration::from_secs_f64(first_token),
            Duration::from_secs_f64(gap / 1000.0),
        );
        self.policy.settle(ticket, &settlement, time(now));
    }
}

/// A server whose speed never depends on its load: a prompt takes the time of its size, and every answer has 200
/// tokens, 20 ms apart. The limit after each answer, from the 10,000th on.
pub fn limits_of_a_boundless_server(long_share: f64, most: usize, answers: usize) -> Vec<usize> {
    let mut policy = Policy::new(rules(Concurrency::Auto(most)));
    let mut random = PythonRandom::new(42);
    let first_token = |input: u64| Duration::from_micros(8_000 + 22 * input + input * input / 2_000);
    let mut running: BinaryHeap<Reverse<(Time, u64, TicketId)>> = BinaryHeap::new();
    let mut inputs: HashMap<TicketId, u64> = HashMap::new();
    let mut limits = Vec::new();
    let mut now = time(0.0);
    for at in 0..answers {
        while policy.waiting() < 600 {
            let input = if random.unit() < long_share { 30_000 } else { 700 };
            match policy.offer(&ask(input), now).0 {
                Decision::Admit(grant) => {
                    let end = now + first_token(input) + Duration::from_secs(4);
                    running.push(Reverse((end, input, grant.ticket)));
                }
                Decision::Queue(queued) => {
                    inputs.insert(queued.ticket, input);
                }
                Decision::Reject(refusal) => panic!("{refusal}"),
                Decision::NeedsCredit(_) => unreachable!("nothing is shared"),
            }
        }
        while let Some(ticket) = policy.next(now) {
            let input = inputs.remove(&ticket).expect("the next one waits");
            running.push(Reverse((
                now + first_token(input) + Duration::from_secs(4),
                input,
                ticket,
            )));
        }
        let Reverse((end, input, ticket)) = running.pop().expect("something runs");
        now = end;
        policy.settle(
            ticket,
            &settlement(input, 200, first_token(input), Duration::from_millis(20)),
            now,
        );
        if at >= 10_000 {
            limits.push(policy.slots_of(ModelId(0)).expect("it is limited"));
        }
    }
    limits
}

fn ask(input_tokens: u64) -> AdmissionRequest {
    AdmissionRequest {
        project: ProjectId(0),
        user: UserId(0),
        key: None,
        plan: PlanId(0),
        model: ModelId(0),
        smaller: None,
        class: Class::Interactive,
        priority: Priority::Normal,
        input_tokens,
        least_input_tokens: input_tokens,
        max_tokens: 1_500,
        answers: 1,
        units: policy::Units::default(),
        hints: policy::Hints::default(),
    }
}

fn settlement(input_tokens: u64, output_tokens: u64, first_token: Duration, gap: Duration) -> Settlement {
    Settlement {
        usage: Usage {
            input_tokens,
            output_tokens,
            ..Usage::default()
        },
        pace: Pace {
            first_token: Some(first_token),
            gap: Some(gap),
            is_overloaded: false,
        },
        has_completed: true,
        was_answered: true,
        was_forwarded: true,
    }
}

/// The rule that `auto` followed before: the mean time to first token of eight answers, whatever their prompts, at
/// most twice the best seen; the gap at most three times.
struct Before {
    limit: f64,
    most: f64,
    first_tokens: Vec<f64>,
    gaps: Vec<f64>,
    best: Option<(f64, f64)>,
    was_full: bool,
}

impl Before {
    fn new(most: usize) -> Self {
        Self {
            limit: 4.0,
            most: most as f64,
            first_tokens: Vec::new(),
            gaps: Vec::new(),
            best: None,
            was_full: false,
        }
    }

    fn learn(&mut self, first_token: f64, gap: f64, active: usize) {
        self.was_full |= active >= self.limit as usize;
        self.first_tokens.push(first_token);
        self.gaps.push(gap);
        if self.gaps.len() < 8 {
            return;
        }
        let mean = |values: &mut Vec<f64>| values.drain(..).sum::<f64>() / 8.0;
        let (first_token, gap) = (mean(&mut self.first_tokens), mean(&mut self.gaps));
        let (best_first, best_gap) = self.best.unwrap_or((first_token, gap));
        let best = ((best_first * 1.005).min(first_token), (best_gap * 1.005).min(gap));
        self.best = Some(best);
        if first_token / best.0 > 2.0 || gap / best.1 > 3.0 {
            self.limit *= 0.85;
        } else if self.was_full {
            self.limit += 1.0 + self.limit / 16.0;
        }
        self.limit = self.limit.clamp(1.0, self.most);
        self.was_full = false;
    }
}
