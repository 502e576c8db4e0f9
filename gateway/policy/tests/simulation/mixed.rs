//! One user with requests of mixed sizes before one server of so many slots: who waits how long in which order.

use super::{Arrival, Random, service};
use policy::{
    AdmissionRequest, Class, Decision, GlobalLimits, Hints, ModelId, Objectives, Order, PlanId, Policy, Priority,
    ProjectId, Rules, Scheduling, Settlement, TicketId, Time, Units, Usage, UserId, UserOrder,
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
    pub bands: Order,
    pub order: UserOrder,
    /// The projects' priorities; each sends as much.
    pub projects: &'static [Priority],
    /// What is wanted of answers; each of the requests wants one of them.
    pub wanted: &'static [Objectives],
    /// True if requests tell it.
    pub tells_wanted: bool,
    pub seed: u64,
}

/// Waits in seconds: of all, of those served within 2 s, of those that take 8 s and more.
#[derive(Debug, Default)]
pub struct Waits {
    pub all: Vec<f64>,
    pub short: Vec<f64>,
    pub long: Vec<f64>,
    pub lost: usize,
    /// Requests that got what was wanted.
    pub met: usize,
    /// Work served, by project: a token of the prompt counts 1, one of the answer 2.
    pub work: Vec<f64>,
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

    fn add(&mut self, wait: Duration, request: &Known) {
        let takes = takes(&request.size);
        let first = wait + service(request.size.input_tokens, 0);
        let is_met = request.wanted.first_token.is_none_or(|within| first <= within)
            && request.wanted.total.is_none_or(|within| wait + takes <= within);
        self.met += usize::from(is_met);
        self.work[request.project] += (request.size.input_tokens + 2 * request.size.output_tokens) as f64;
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
        // The same requests come whatever they tell.
        let (mut random, mut telling) = (Random(self.seed), Random(self.seed + 1000));
        let mean = sizes.iter().map(|size| takes(size).as_secs_f64()).sum::<f64>() / sizes.len() as f64;
        let rate = self.load * self.slots as f64 / mean;
        let mut server = Server {
            policy: Policy::new(self.rules()),
            running: BinaryHeap::new(),
            known: HashMap::new(),
            waits: Waits {
                work: vec![0.0; self.projects.len()],
                ..Waits::default()
            },
            expiries: BinaryHeap::new(),
            now: Time::after_epoch(Duration::from_secs(1)),
        };
        let mut seconds = 1.0;
        for _ in 0..self.requests {
            seconds -= (1.0 - random.unit()).ln() / rate;
            server.run_until(Time::after_epoch(Duration::from_secs_f64(seconds)));
            let size = sizes[random.next() as usize % sizes.len()];
            let wanted = self.wanted.get(random.next() as usize % self.wanted.len().max(1));
            let wanted = wanted.copied().unwrap_or_default();
            let project = random.next() as usize % self.projects.len();
            let mut ask = self.ask(&size, &mut telling);
            (ask.project, ask.user) = (ProjectId(project as u32), UserId(project as u32));
            ask.priority = self.projects[project];
            if self.tells_wanted {
                ask.hints.objectives = wanted;
            }
            server.offer(&ask, size, wanted, project);
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
                order: self.bands,
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

struct Known {
    came: Time,
    size: Arrival,
    wanted: Objectives,
    project: usize,
}

struct Server {
    policy: Policy,
    running: BinaryHeap<Reverse<(Time, TicketId)>>,
    expiries: BinaryHeap<Reverse<(Time, TicketId)>>,
    known: HashMap<TicketId, Known>,
    waits: Waits,
    now: Time,
}

impl Server {
    fn run_until(&mut self, until: Time) {
        loop {
            let due = |events: &BinaryHeap<Reverse<(Time, TicketId)>>| {
                events.peek().map(|Reverse((at, _))| *at).filter(|at| *at <= until)
            };
            match (due(&self.running), due(&self.expiries)) {
                (None, None) => break,
                (Some(end), expiry) if expiry.is_none_or(|expiry| end <= expiry) => {
                    let Reverse((end, ticket)) = self.running.pop().expect("it is due");
                    self.now = end;
                    self.settle(ticket);
                }
                _ => {
                    let Reverse((at, ticket)) = self.expiries.pop().expect("it is due");
                    self.now = at;
                    if self.policy.expire(ticket, at).is_some() {
                        self.known.remove(&ticket);
                        self.waits.lost += 1;
                    }
                }
            }
            while let Some(ticket) = self.policy.next(self.now) {
                self.start(ticket);
            }
        }
        self.now = until;
    }

    fn offer(&mut self, ask: &AdmissionRequest, size: Arrival, wanted: Objectives, project: usize) {
        let known = Known {
            came: self.now,
            size,
            wanted,
            project,
        };
        match self.policy.offer(ask, self.now).0 {
            Decision::Admit(grant) => {
                self.known.insert(grant.ticket, known);
                self.start(grant.ticket);
            }
            Decision::Queue(queued) => {
                self.known.insert(queued.ticket, known);
                self.expiries.push(Reverse((queued.deadline, queued.ticket)));
                if let Some(displaced) = queued.displaced {
                    self.known.remove(&displaced);
                    self.waits.lost += 1;
                }
            }
            Decision::Reject(_) | Decision::NeedsCredit(_) => self.waits.lost += 1,
        }
    }

    fn start(&mut self, ticket: TicketId) {
        let request = &self.known[&ticket];
        self.waits.add(self.now - request.came, request);
        self.running.push(Reverse((self.now + takes(&request.size), ticket)));
    }

    fn settle(&mut self, ticket: TicketId) {
        let Some(Known { size, .. }) = self.known.remove(&ticket) else {
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
