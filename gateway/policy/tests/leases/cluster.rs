//! Gateways around policy that share a rate limit through a model of the store, in virtual time: what they send is delayed and
//! lost, they are killed and started, their clocks differ, and traffic moves between them; all drawn by seed.

use crate::store::{Answer, Hello, Store};
use crate::support;
use policy::{
    AdmissionRequest, Decision, GlobalLimits, Membership, ModelRules, Policy, ProjectRules, RateNeed, RateReport,
    Rates, Rules, Settlement, SharedRate, SlotGrant, SlotReport, SubjectRules, TicketId, Time, Usage,
};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::num::NonZeroU64;
use std::time::Duration;

const MICROS: u64 = 1_000_000;
const START: u64 = 1_800_000_000 * MICROS;

/// A request waits at most so long for credit, and for so many refreshes.
const LONGEST_WAIT: u64 = 20_000;
const MOST_WAITS: u8 = 2;

const GIVE_UP_AFTER: u64 = 500_000;
/// The sums of a run are floating-point numbers of up to a million, thousands of which are added.
const ROUNDING: f64 = 1e-6;

/// What is simulated.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) gateways: usize,
    /// Tokens, or requests, a minute.
    pub(crate) limit: u64,
    /// The mean worst case of a request; 1 where requests are limited.
    pub(crate) size: u64,
    /// The demand, as a part of the limit.
    pub(crate) demand: f64,
    pub(crate) seconds: u64,
    /// Before this, nothing is measured.
    pub(crate) from: u64,
    pub(crate) refresh: Duration,
    /// The longest time that an operation takes on its way, and its answer.
    pub(crate) delay: Duration,
    /// The part of operations, and of answers, that is lost; and of gateways that are killed in a second.
    pub(crate) lost: f64,
    pub(crate) killed: f64,
    pub(crate) seed: u64,
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outcome {
    pub(crate) offered: u64,
    pub(crate) served: u64,
    /// What was asked for, used, and could have been used.
    pub(crate) asked: f64,
    pub(crate) used: f64,
    pub(crate) possible: f64,
    /// The most by which the actual use exceeded the limit, in its unit, beyond the rounding of this sum.
    pub(crate) overshoot: f64,
    pub(crate) trips: u64,
    /// By gateway: offered and served.
    pub(crate) gateways: Vec<(u64, u64)>,
}

impl Outcome {
    /// How evenly gateways were served what they were asked for.
    pub(crate) fn jain(&self) -> f64 {
        let parts = self.gateways.iter().filter(|(offered, _)| *offered > 0);
        let parts: Vec<f64> = parts
            .map(|(offered, served)| *served as f64 / *offered as f64)
            .collect();
        let (sum, squares) = parts
            .iter()
            .fold((0.0, 0.0), |(sum, squares), part| (sum + part, squares + part * part));
        sum * sum / (parts.len() as f64 * squares)
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.next() % (to - from).max(1)
    }

    /// The time until the next of events at a rate a second, in microseconds.
    fn pause(&mut self, rate: f64) -> u64 {
        (-(1.0 - self.unit()).ln() / rate * MICROS as f64) as u64
    }
}

enum Event {
    Arrive,
    Tick(usize, u64),
    /// An operation arrives at the store, and its answer at the gateway.
    Reach(usize, u64, u64, Operation),
    Return(usize, u64, Option<Box<(Operation, Response)>>),
    GiveUp(usize, u64),
    Settle(usize, u64, TicketId, u64),
    Kill(usize),
    Start(usize),
}

enum Operation {
    Hello,
    TakeOver,
    Refresh(Vec<RateReport>, Vec<SlotReport>, u64),
}

enum Response {
    Hello(Hello),
    TakeOver(Option<Vec<(SharedRate, u64)>>),
    Refresh(Answer, Vec<SlotGrant>),
}

struct Waiting {
    since: u64,
    tries: u8,
    tokens: u64,
    actual: u64,
}

struct Gateway {
    policy: Policy,
    /// Counts its starts, and its connections to the store.
    life: u64,
    session: u64,
    ahead: u64,
    is_up: bool,
    /// What the pending operation has sent, and its number.
    pending: Option<(u64, Vec<RateReport>)>,
    needs: Vec<RateNeed>,
    waiting: Vec<Waiting>,
    is_due: bool,
}

pub(crate) struct Cluster {
    plan: Plan,
    store: Store,
    gateways: Vec<Gateway>,
    events: BinaryHeap<Reverse<(u64, u64)>>,
    bodies: std::collections::HashMap<u64, Event>,
    number: u64,
    now: u64,
    random: Random,
    /// The level of the actual use, in units of the limit, and its time.
    level: (f64, u64),
    outcome: Outcome,
}

fn rules(plan: &Plan) -> Rules {
    let limit = NonZeroU64::new(plan.limit);
    let rates = if plan.size > 1 {
        Rates {
            tokens_per_minute: limit,
            ..Rates::default()
        }
    } else {
        Rates {
            requests_per_minute: limit,
            ..Rates::default()
        }
    };
    Rules {
        global: GlobalLimits {
            max_active_requests: 1_000_000,
            max_queue_size: 0,
            max_queue_wait: Duration::from_secs(1),
        },
        projects: vec![ProjectRules {
            limits: SubjectRules {
                rates,
                ..SubjectRules::default()
            },
            max_concurrent_requests: None,
        }],
        models: vec![ModelRules::default()],
        ..Rules::default()
    }
}

fn request(tokens: u64) -> AdmissionRequest {
    AdmissionRequest {
        input_tokens: 0,
        least_input_tokens: 0,
        max_tokens: tokens,
        ..support::request()
    }
}

impl Cluster {
    pub(crate) fn run(plan: Plan) -> Outcome {
        let mut random = Random(plan.seed);
        let gateways = (0..plan.gateways).map(|_| Gateway {
            policy: Policy::new(rules(&plan)),
            life: 0,
            session: 0,
            // Clocks differ by up to two seconds.
            ahead: random.between(0, 2 * MICROS),
            is_up: false,
            pending: None,
            needs: Vec::new(),
            waiting: Vec::new(),
            is_due: false,
        });
        let mut cluster = Self {
            plan,
            store: Store::new(plan.gateways),
            gateways: gateways.collect(),
            events: BinaryHeap::new(),
            bodies: std::collections::HashMap::new(),
            number: 0,
            now: START,
            random,
            level: (0.0, START),
            outcome: Outcome {
                gateways: vec![(0, 0); plan.gateways],
                ..Outcome::default()
            },
        };
        for gateway in 0..plan.gateways {
            let at = cluster.random.between(0, 100_000);
            cluster.after(at, Event::Start(gateway));
        }
        cluster.after(MICROS, Event::Arrive);
        let end = START + plan.seconds * MICROS;
        let mut measured = None;
        while let Some(Reverse((at, number))) = cluster.events.pop() {
            if at >= end {
                break;
            }
            cluster.now = at;
            if measured.is_none() && at >= START + plan.from * MICROS {
                measured = Some((cluster.outcome.used, cluster.free()));
            }
            if let Some(event) = cluster.bodies.remove(&number) {
                cluster.happen(event);
            }
        }
        cluster.now = end;
        cluster.sum_up(measured.unwrap_or_default())
    }

    /// What could have been used since the measurement began: what was free, what came, or what was asked for.
    fn sum_up(self, (used, free): (f64, f64)) -> Outcome {
        let seconds = (self.plan.seconds - self.plan.from) as f64;
        let rate = self.plan.limit as f64 / 60.0;
        let mut outcome = self.outcome;
        outcome.possible = (free + rate * seconds).min(outcome.asked);
        outcome.used -= used;
        outcome
    }

    fn is_measured(&self) -> bool {
        self.now >= START + self.plan.from * MICROS
    }

    /// What a request uses on average.
    fn mean_use(&self) -> f64 {
        if self.plan.size > 1 {
            self.plan.size as f64 / 2.0
        } else {
            1.0
        }
    }

    /// What is free of the limit, by the actual use.
    fn free(&self) -> f64 {
        let (level, at) = self.level;
        let rate = self.plan.limit as f64 / 60.0;
        let drained = (self.now - at) as f64 / MICROS as f64 * rate;
        self.plan.limit as f64 - (level - drained).max(0.0)
    }

    fn after(&mut self, micros: u64, event: Event) {
        self.number += 1;
        self.events.push(Reverse((self.now + micros, self.number)));
        self.bodies.insert(self.number, event);
    }

    fn time(&self, gateway: usize) -> Time {
        let ahead = self.gateways[gateway].ahead;
        Time::after_epoch(Duration::from_micros(self.now + ahead))
    }

    fn delay(&mut self) -> u64 {
        let most = self.plan.delay.as_micros() as u64;
        // Most are quick.
        let part = self.random.unit().powi(4);
        200 + (part * most as f64) as u64
    }

    fn is_lost(&mut self) -> bool {
        self.random.unit() < self.plan.lost
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrive => self.arrive(),
            Event::Tick(gateway, life) => self.tick(gateway, life),
            Event::Reach(gateway, session, number, operation) => self.reach(gateway, session, number, operation),
            Event::Return(gateway, number, answer) => self.end(gateway, number, answer),
            Event::GiveUp(gateway, number) => self.end(gateway, number, None),
            Event::Settle(gateway, life, ticket, actual) => self.settle(gateway, life, ticket, actual),
            Event::Kill(gateway) => self.kill(gateway),
            Event::Start(gateway) => self.start(gateway),
        }
    }

    fn start(&mut self, at: usize) {
        let session = self.store.join(at);
        let mut policy = Policy::new(rules(&self.plan));
        policy.join(self.time(at));
        let gateway = &mut self.gateways[at];
        (gateway.policy, gateway.session, gateway.is_up, gateway.is_due) = (policy, session, true, true);
        let life = gateway.life;
        self.after(0, Event::Tick(at, life));
        if self.plan.killed > 0.0 {
            let lives = self.random.pause(self.plan.killed);
            self.after(lives, Event::Kill(at));
        }
    }

    /// A gateway that is alone is spared: it forgets what it has used, as one without others does.
    fn kill(&mut self, at: usize) {
        let up = self.gateways.iter().filter(|gateway| gateway.is_up).count();
        if up == 1 || self.store.is_sole(at) {
            self.after(MICROS, Event::Kill(at));
            return;
        }
        let gateway = &mut self.gateways[at];
        (gateway.is_up, gateway.pending) = (false, None);
        gateway.life += 1;
        gateway.needs.clear();
        gateway.waiting.clear();
        let pause = self.random.between(MICROS / 10, 10 * MICROS);
        self.after(pause, Event::Start(at));
    }

    fn tick(&mut self, at: usize, life: u64) {
        if self.gateways[at].life == life {
            self.gateways[at].is_due = true;
            self.operate(at);
            self.after(self.plan.refresh.as_micros() as u64, Event::Tick(at, life));
        }
    }

    /// Sends the next operation, if there is one and none is pending.
    fn operate(&mut self, at: usize) {
        let (now, refresh) = (self.time(at), self.plan.refresh);
        let gateway = &mut self.gateways[at];
        if gateway.pending.is_some() || (!gateway.is_due && gateway.needs.is_empty()) {
            return;
        }
        let needs = std::mem::take(&mut gateway.needs);
        gateway.is_due &= !needs.is_empty();
        let mut reports = Vec::new();
        let operation = if gateway.policy.is_sharing(now) {
            reports = gateway.policy.rate_reports(&needs, refresh, now);
            Operation::Refresh(reports.clone(), gateway.policy.slot_reports(now), self.now)
        } else {
            Operation::Hello
        };
        self.send(at, operation, reports);
    }

    fn send(&mut self, at: usize, operation: Operation, reports: Vec<RateReport>) {
        self.outcome.trips += u64::from(self.is_measured());
        self.number += 1;
        let number = self.number;
        self.gateways[at].pending = Some((number, reports));
        let session = self.gateways[at].session;
        let mut delay = self.delay();
        if self.is_lost() {
            // It may arrive when its gateway has given it up.
            delay = self.random.between(1, 6) * MICROS;
        }
        self.after(delay, Event::Reach(at, session, number, operation));
        self.after(GIVE_UP_AFTER, Event::GiveUp(at, number));
    }

    fn reach(&mut self, at: usize, session: u64, number: u64, operation: Operation) {
        let now = self.now;
        let response = match &operation {
            Operation::Hello => self.store.hello(at, session, now).map(Response::Hello),
            Operation::TakeOver => Some(Response::TakeOver(self.store.take_over(at, session, now))),
            Operation::Refresh(reports, slots, _) => self.store.refresh(at, session, reports, now).and_then(|answer| {
                let slots: &[SlotReport] = if answer.waits { &[] } else { slots };
                let grants = self.store.refresh_slots(at, session, slots, now)?;
                Some(Response::Refresh(answer, grants))
            }),
        };
        if let (Some(response), false) = (response, self.is_lost()) {
            let delay = self.delay();
            self.after(delay, Event::Return(at, number, Some(Box::new((operation, response)))));
        }
    }

    /// An operation has ended, with an answer or without one.
    fn end(&mut self, at: usize, number: u64, answer: Option<Box<(Operation, Response)>>) {
        let now = self.time(at);
        let ahead = self.gateways[at].ahead;
        let gateway = &mut self.gateways[at];
        if gateway.pending.as_ref().is_none_or(|(pending, _)| *pending != number) {
            return;
        }
        let (_, reports) = gateway.pending.take().unwrap_or_default();
        let policy = &mut gateway.policy;
        let mut next = None;
        match answer.map(|answer| *answer) {
            None => {
                policy.keep_rate_reports(&reports, now);
                policy.use_part_after_lapse(now);
                // It connects anew: what it has sent before is void from then on.
                gateway.session = self.store.reconnect(at);
            }
            Some((_, Response::Hello(hello))) => {
                if !hello.is_sole || hello.others > 0 {
                    policy.share(hello.others, now);
                    gateway.is_due = true;
                }
            }
            Some((_, Response::TakeOver(levels))) => {
                if let Some(levels) = levels {
                    policy.take_over(&levels, now);
                }
            }
            Some((Operation::Refresh(reports, slots, sent), Response::Refresh(answer, grants))) => {
                let sent = Time::after_epoch(Duration::from_micros(sent + ahead));
                let membership = Membership {
                    members: answer.members,
                    rank: answer.rank,
                    sent,
                };
                if answer.waits {
                    policy.keep_rate_reports(&reports, now);
                    policy.set_rate_grants(&[], &[], membership, now);
                } else {
                    policy.set_rate_grants(&reports, &answer.grants, membership, now);
                    policy.set_slot_grants(&slots, &grants);
                    next = (answer.members == 1).then_some(Operation::TakeOver);
                }
            }
            Some(_) => unreachable!("answers are of their operations"),
        }
        self.offer_again(at);
        match next {
            Some(operation) => self.send(at, operation, Vec::new()),
            None => self.operate(at),
        }
    }

    fn arrive(&mut self) {
        let plan = self.plan;
        let rate = plan.demand * plan.limit as f64 / 60.0 / self.mean_use();
        let pause = self.random.pause(rate);
        self.after(pause, Event::Arrive);
        // 70 % come to one gateway, which changes every 10 seconds.
        let hot = ((self.now / MICROS / 10) % plan.gateways as u64) as usize;
        let is_hot = self.random.unit() < 0.7;
        let any = self.random.between(0, plan.gateways as u64) as usize;
        let gateway = if is_hot { hot } else { any };
        let (mut tokens, mut actual) = (1, 1);
        if plan.size > 1 {
            tokens = self.random.between(plan.size / 4, plan.size * 7 / 4);
            actual = self.random.between(1, tokens + 1);
        }
        if self.is_measured() {
            self.outcome.offered += 1;
            self.outcome.asked += actual as f64;
            self.outcome.gateways[gateway].0 += 1;
        }
        self.offer(
            gateway,
            Waiting {
                since: self.now,
                tries: 0,
                tokens,
                actual,
            },
        );
        self.operate(gateway);
    }

    fn offer_again(&mut self, at: usize) {
        for mut waiting in std::mem::take(&mut self.gateways[at].waiting) {
            waiting.tries += 1;
            self.offer(at, waiting);
        }
    }

    fn offer(&mut self, at: usize, waiting: Waiting) {
        let (now, micros) = (self.time(at), self.now);
        let gateway = &mut self.gateways[at];
        let is_late = micros - waiting.since > LONGEST_WAIT || waiting.tries > MOST_WAITS;
        if !gateway.is_up || is_late {
            return;
        }
        match gateway.policy.offer(&request(waiting.tokens), now).0 {
            Decision::Admit(grant) => {
                let life = gateway.life;
                self.use_limit(at, waiting.actual);
                let runs_for = self.random.between(1, 4 * MICROS);
                self.after(runs_for, Event::Settle(at, life, grant.ticket, waiting.actual));
            }
            Decision::NeedsCredit(needs) => {
                gateway.needs.extend(needs.rates);
                gateway.waiting.push(waiting);
            }
            Decision::Reject(_) => {}
            Decision::Queue(_) => unreachable!("there is no queue"),
        }
    }

    fn use_limit(&mut self, at: usize, actual: u64) {
        let level = self.plan.limit as f64 - self.free() + actual as f64;
        self.level = (level, self.now);
        let over = level - self.plan.limit as f64 - ROUNDING;
        self.outcome.overshoot = self.outcome.overshoot.max(over);
        self.outcome.used += actual as f64;
        if self.is_measured() {
            self.outcome.served += 1;
            self.outcome.gateways[at].1 += 1;
        }
    }

    fn settle(&mut self, at: usize, life: u64, ticket: TicketId, actual: u64) {
        if self.gateways[at].life != life {
            return;
        }
        let now = self.time(at);
        let settlement = Settlement {
            usage: Usage {
                output_tokens: actual,
                ..Usage::default()
            },
            was_forwarded: true,
            ..Settlement::default()
        };
        self.gateways[at].policy.settle(ticket, &settlement, now);
    }
}
