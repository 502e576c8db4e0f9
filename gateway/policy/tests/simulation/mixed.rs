//! One user with requests of mixed sizes before one server of so many slots: who waits how long in which order.

use super::{Arrival, Random, service};
use policy::{
    AdmissionRequest, Class, Decision, GlobalLimits, Hints, ModelId, PlanId, Policy, Priority, ProjectId, Rules,
    Scheduling, Settlement, TicketId, Time, Units, Usage, UserId, UserOrder,
};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;

/// What requests tell about the length of their answers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Told {
    /// Nothing but the size of the prompt.
    Nothing,
    /// A third of them set `max_tokens` to half more than they need, the others to 1024.
    MaxTokens,
    /// The beginnings of their prompts are of some kinds; the length within a kind varies by e to so many.
    Kinds(f64),
}

/// A server and its load.
#[derive(Debug, Clone, Copy)]
pub struct Mixed {
    pub slots: usize,
    /// The load, of what the slots can serve.
    pub load: f64,
    pub max_queue_wait: Duration,
    pub requests: usize,
    pub told: Told,
    pub order: UserOrder,
    pub seed: u64,
}

/// Waits in seconds: of all, of those served within 2 s, of those that take 8 s and more.
#[derive(Debug, Default)]
pub struct Waits {
    pub all: Vec<f64>,
    pub short: Vec<f64>,
    pub long: Vec<f64>,
    pub lost: usize,
}

impl Waits {
    pub fn mean(&self) -> f64 {
        self.all.iter().sum::<f64>() / self.all.len().max(1) as f64
    }

    pub fn short_p95(&mut self) -> f64 {
        part(&mut self.short, 0.95)
    }

    pub fn long_p99(&mut self) -> f64 {
        part(&mut self.long, 0.99)
    }

    fn add(&mut self, wait: Duration, takes: Duration) {
        let wait = wait.as_secs_f64();
        self.all.push(wait);
        if takes < Duration::from_secs(2) {
            self.short.push(wait);
        }
        if takes >= Duration::from_secs(8) {
            self.long.push(wait);
        }
    }
}

fn part(waits: &mut [f64], part: f64) -> f64 {
    waits.sort_by(f64::total_cmp);
    waits
        .get((waits.len() as f64 * part) as usize)
        .copied()
        .unwrap_or_default()
}

/// Normally distributed, mean 0 and variance 1 (Box and Muller, 1958).
fn normal(random: &mut Random) -> f64 {
    (-2.0 * (1.0 - random.unit()).ln()).sqrt() * (std::f64::consts::TAU * random.unit()).cos()
}

impl Mixed {
    /// Serves requests of the given sizes, drawn at random.
    pub fn go(&self, sizes: &[Arrival]) -> Waits {
        let mut random = Random(self.seed);
        let mean = sizes.iter().map(|size| takes(size).as_secs_f64()).sum::<f64>() / sizes.len() as f64;
        let rate = self.load * self.slots as f64 / mean;
        let mut server = Server {
            policy: Policy::new(self.rules()),
            running: BinaryHeap::new(),
            known: HashMap::new(),
            waits: Waits::default(),
            now: Time::after_epoch(Duration::from_secs(1)),
        };
        let mut seconds = 1.0;
        for _ in 0..self.requests {
            seconds -= (1.0 - random.unit()).ln() / rate;
            server.run_until(Time::after_epoch(Duration::from_secs_f64(seconds)));
            let size = sizes[random.next() as usize % sizes.len()];
            let ask = self.ask(&size, &mut random);
            server.offer(&ask, size);
        }
        server.waits
    }

    fn rules(&self) -> Rules {
        Rules {
            global: GlobalLimits {
                max_active_requests: self.slots,
                max_queue_size: 100_000,
                max_queue_wait: self.max_queue_wait,
            },
            scheduling: Scheduling {
                user_order: self.order,
                ..Scheduling::default()
            },
            ..Rules::default()
        }
    }

    fn ask(&self, size: &Arrival, random: &mut Random) -> AdmissionRequest {
        let (mut max_tokens, mut hints) = (1024, Hints::default());
        match self.told {
            Told::Nothing => {}
            Told::MaxTokens => {
                if random.unit() < 0.33 {
                    max_tokens = (size.output_tokens + size.output_tokens / 2 + 16).min(1024);
                }
            }
            Told::Kinds(spread) => {
                let noisy = (size.output_tokens.max(1) as f64).ln() + spread * normal(random);
                hints.prompt = Some((1.5 * noisy).max(0.0) as u64);
            }
        }
        AdmissionRequest {
            project: ProjectId(0),
            user: UserId(0),
            key: None,
            plan: PlanId(0),
            model: ModelId(0),
            smaller: None,
            class: Class::Interactive,
            priority: Priority::Normal,
            input_tokens: size.input_tokens,
            least_input_tokens: size.input_tokens,
            max_tokens,
            answers: 1,
            units: Units::default(),
            hints,
        }
    }
}

fn takes(size: &Arrival) -> Duration {
    service(size.input_tokens, size.output_tokens)
}

struct Server {
    policy: Policy,
    running: BinaryHeap<Reverse<(Time, TicketId)>>,
    known: HashMap<TicketId, (Time, Arrival, Time)>,
    waits: Waits,
    now: Time,
}

impl Server {
    fn run_until(&mut self, until: Time) {
        while let Some(Reverse((end, ticket))) = self.running.peek().copied().filter(|Reverse((end, _))| *end <= until)
        {
            self.running.pop();
            self.now = end;
            self.settle(ticket);
            self.start_next();
        }
        self.now = until;
    }

    fn offer(&mut self, ask: &AdmissionRequest, size: Arrival) {
        match self.policy.offer(ask, self.now).0 {
            Decision::Admit(grant) => {
                self.known.insert(grant.ticket, (self.now, size, self.now));
                self.start(grant.ticket);
            }
            Decision::Queue(queued) => {
                self.known.insert(queued.ticket, (self.now, size, queued.deadline));
            }
            Decision::Reject(_) => self.waits.lost += 1,
        }
    }

    /// Starts those that are next; the waits of some have ended before.
    fn start_next(&mut self) {
        while let Some(ticket) = self.policy.next(self.now) {
            if self.known[&ticket].2 < self.now {
                self.known.remove(&ticket);
                self.waits.lost += 1;
                self.policy.settle(ticket, &Settlement::default(), self.now);
            } else {
                self.start(ticket);
            }
        }
    }

    fn start(&mut self, ticket: TicketId) {
        let (came, size, _) = self.known[&ticket];
        self.waits.add(self.now - came, takes(&size));
        self.running.push(Reverse((self.now + takes(&size), ticket)));
    }

    fn settle(&mut self, ticket: TicketId) {
        let Some((_, size, _)) = self.known.remove(&ticket) else {
            return;
        };
        let settlement = Settlement {
            usage: Usage {
                input_tokens: size.input_tokens,
                output_tokens: size.output_tokens,
                ..Usage::default()
            },
            has_completed: true,
            was_answered: true,
            was_forwarded: true,
            ..Settlement::default()
        };
        self.policy.settle(ticket, &settlement, self.now);
    }
}
