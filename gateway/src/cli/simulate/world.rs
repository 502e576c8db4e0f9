//! The events of a simulated run: requests come, policy decides, servers answer.

use super::server::{Pool, Sent};
use super::workload::{Request, Workload};
use policy::{Decision, ModelId, Pace, Policy, QueueClass, Refusal, Rules, Settlement, TicketId, Time, Usage};
use protocol::error::RequestError;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;

/// The interval at which policy is asked for what only time changes, as in the gateway.
const TICK: Duration = Duration::from_millis(250);

/// The interval of the servers' reports.
const REPORTS: Duration = Duration::from_secs(5);

/// The shortest pause before a batch line is offered again, and the time after the last request for which it is.
const SHORTEST_RETRY: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(3600);

/// From the decision to evict a request until its server has stopped.
const ABORT: Duration = Duration::from_millis(10);

/// Evictions of one request, at most.
const MOST_EVICTIONS: u32 = 3;

/// What became of a request; times are since the beginning of the run.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Outcome {
    /// When it got its slot, for good.
    pub(super) started: Option<Duration>,
    pub(super) first_token: Option<Duration>,
    pub(super) ended: Option<Duration>,
    /// Why it was refused, if it was.
    pub(super) refused: Option<&'static str>,
    pub(super) evictions: u32,
}

/// The state of a run at a moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) running: usize,
    pub(super) waiting: usize,
}

/// A run's result.
#[derive(Debug, Default)]
pub(super) struct Run {
    /// Of each request, in the order of the workload.
    pub(super) outcomes: Vec<Outcome>,
    /// By the second.
    pub(super) load: Vec<Load>,
    /// Seconds for which slots were taken, all together.
    pub(super) busy: f64,
    /// Its length.
    pub(super) length: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A request comes, or comes again.
    Arrives(usize),
    FirstToken(usize, u32),
    Ends(usize, u32),
    StepEnds(ModelId, usize),
    Expires(TicketId),
    Aborted(TicketId),
    Reports(ModelId),
    Tick,
}

/// A request that waits or runs.
#[derive(Debug, Clone, Copy)]
struct Live {
    ticket: TicketId,
    server: usize,
    is_running: bool,
    cached_tokens: u64,
}

struct World<'a> {
    policy: Policy,
    rules: &'a Rules,
    requests: &'a [Request],
    pools: HashMap<ModelId, Pool>,
    begins: Duration,
    now: Duration,
    events: BinaryHeap<Reverse<(Duration, u64, Event)>>,
    sequence: u64,
    live: HashMap<usize, Live>,
    tickets: HashMap<TicketId, usize>,
    is_ticking: bool,
    last: Duration,
    run: Run,
}

/// Runs a workload through policy, with these servers of each model.
pub(super) fn run(rules: &Rules, pools: HashMap<ModelId, Pool>, workload: &Workload) -> Run {
    let requests = &workload.requests[..];
    let models: Vec<ModelId> = pools.keys().copied().collect();
    let mut world = World {
        policy: Policy::new(rules.clone()),
        rules,
        requests,
        pools,
        begins: workload.begins,
        now: Duration::ZERO,
        events: BinaryHeap::new(),
        sequence: 0,
        live: HashMap::new(),
        tickets: HashMap::new(),
        is_ticking: false,
        last: requests.last().map_or(Duration::ZERO, |last| last.at),
        run: Run {
            outcomes: vec![Outcome::default(); requests.len()],
            ..Run::default()
        },
    };
    for (at, request) in requests.iter().enumerate() {
        world.push(request.at, Event::Arrives(at));
    }
    for model in models {
        if world.pools[&model].report().is_some() {
            world.push(REPORTS, Event::Reports(model));
        }
    }
    while let Some(Reverse((at, _, event))) = world.events.pop() {
        // The deadline of a wait that is over changes nothing.
        if matches!(event, Event::Expires(ticket) if !world.tickets.contains_key(&ticket)) {
            continue;
        }
        world.advance(at);
        world.handle(event);
        world.wake();
    }
    world.run.length = world.now;
    world.run
}

impl World<'_> {
    fn push(&mut self, at: Duration, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((at, self.sequence, event)));
    }

    /// The moment as policy has it.
    fn time(&self) -> Time {
        Time::after_epoch(self.begins + self.now)
    }

    #[allow(clippy::cast_precision_loss)]
    fn advance(&mut self, to: Duration) {
        let load = Load {
            running: self.policy.running(),
            waiting: self.policy.waiting(),
        };
        self.run.busy += (to.saturating_sub(self.now)).as_secs_f64() * load.running as f64;
        while (self.run.load.len() as u64) < to.as_secs() {
            self.run.load.push(load);
        }
        self.now = to;
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Arrives(at) => self.offer(at),
            Event::FirstToken(at, attempt) if self.run.outcomes[at].evictions == attempt => {
                self.run.outcomes[at].first_token = Some(self.now);
            }
            Event::Ends(at, attempt) if self.run.outcomes[at].evictions == attempt => self.end(at),
            Event::FirstToken(..) | Event::Ends(..) => {}
            Event::StepEnds(model, server) => self.step_ends(model, server),
            Event::Expires(ticket) => {
                if let Some(refusal) = self.policy.expire(ticket, self.time()) {
                    self.lost(ticket, refusal);
                }
            }
            Event::Aborted(ticket) => self.aborted(ticket),
            Event::Reports(model) => self.report(model),
            Event::Tick => self.is_ticking = false,
        }
    }

    fn offer(&mut self, at: usize) {
        let request = &self.requests[at];
        let mut ask = request.ask;
        ask.hints.is_durable &= self.run.outcomes[at].evictions < MOST_EVICTIONS;
        if !self.pools.get(&ask.model).is_some_and(|pool| pool.fits(request)) {
            self.run.outcomes[at].refused = Some("context_length_exceeded");
            return;
        }
        match self.policy.offer(&ask, self.time()).0 {
            Decision::Admit(grant) => {
                self.keep(at, grant.ticket);
                self.start(grant.ticket);
            }
            Decision::Queue(queued) => {
                if let Some(displaced) = queued.displaced {
                    let refusal = self.policy.displaced();
                    self.lost(displaced, refusal);
                }
                self.keep(at, queued.ticket);
                let wait = queued.deadline - self.time();
                self.push(self.now + wait, Event::Expires(queued.ticket));
            }
            Decision::Reject(refusal) => self.refused(at, refusal),
            Decision::NeedsCredit(_) => {}
        }
    }

    fn keep(&mut self, at: usize, ticket: TicketId) {
        self.tickets.insert(ticket, at);
        let live = Live {
            ticket,
            server: 0,
            is_running: false,
            cached_tokens: self.requests[at].cached_tokens,
        };
        self.live.insert(at, live);
    }

    /// A request lost its position in the queue.
    fn lost(&mut self, ticket: TicketId, refusal: Refusal) {
        if let Some(at) = self.tickets.remove(&ticket) {
            self.live.remove(&at);
            self.refused(at, refusal);
        }
    }

    /// A line of a batch is offered again later, as the gateway does; any other request is refused.
    fn refused(&mut self, at: usize, refusal: Refusal) {
        let error = RequestError::from(refusal);
        let is_line = QueueClass::of(self.requests[at].ask.class, self.requests[at].ask.priority) == QueueClass::Batch;
        if let Some(after) = error.retry_after.filter(|_| is_line)
            && self.now + after < self.last + PATIENCE
        {
            self.push(self.now + after.max(SHORTEST_RETRY), Event::Arrives(at));
            return;
        }
        self.run.outcomes[at].refused = Some(error.code.name());
    }

    fn start(&mut self, ticket: TicketId) {
        let Some(at) = self.tickets.get(&ticket).copied() else {
            return;
        };
        let request = &self.requests[at];
        let (model, id) = (request.ask.model, at as u64);
        let Some(pool) = self.pools.get_mut(&model) else { return };
        let (server, sent) = pool.send(id, request);
        if let Some(live) = self.live.get_mut(&at) {
            (live.server, live.is_running) = (server, true);
        }
        let outcome = &mut self.run.outcomes[at];
        outcome.started = Some(self.now);
        let attempt = outcome.evictions;
        match sent {
            Sent::Known(first, end) => {
                self.push(self.now + first, Event::FirstToken(at, attempt));
                self.push(self.now + end, Event::Ends(at, attempt));
            }
            Sent::Stepping(server, took) => self.push(self.now + took, Event::StepEnds(model, server)),
            Sent::Joined(_) => {}
        }
    }

    fn step_ends(&mut self, model: ModelId, server: usize) {
        let Some(pool) = self.pools.get_mut(&model) else { return };
        let (made, next) = pool.end_step(server);
        if let Some(took) = next {
            self.push(self.now + took, Event::StepEnds(model, server));
        }
        for token in made {
            let at = usize::try_from(token.id).unwrap_or(usize::MAX);
            let Some(live) = self.live.get_mut(&at).filter(|live| live.is_running) else {
                continue;
            };
            if token.index == 0 {
                live.cached_tokens = token.cached_tokens as u64;
                self.run.outcomes[at].first_token = Some(self.now);
            }
            if token.is_last {
                self.end(at);
            }
        }
    }

    fn end(&mut self, at: usize) {
        let Some(live) = self.live.remove(&at) else { return };
        self.tickets.remove(&live.ticket);
        let request = &self.requests[at];
        if let Some(pool) = self.pools.get_mut(&request.ask.model) {
            pool.release(live.server, at as u64, request, false);
        }
        let outcome = &mut self.run.outcomes[at];
        outcome.ended = Some(self.now);
        let (started, first) = (
            outcome.started.unwrap_or(self.now),
            outcome.first_token.unwrap_or(self.now),
        );
        let gaps = u32::try_from(request.output_tokens.saturating_sub(1)).unwrap_or(u32::MAX);
        let (input, cached, output) = (request.ask.input_tokens, live.cached_tokens, request.output_tokens);
        let settlement = Settlement {
            usage: Usage {
                input_tokens: input,
                cached_input_tokens: cached,
                output_tokens: output,
                cost: self.rules.model(request.ask.model).prices.of(input, cached, output),
            },
            pace: Pace {
                first_token: Some(first.saturating_sub(started)),
                gap: (gaps > 0).then(|| self.now.saturating_sub(first) / gaps),
                is_overloaded: false,
            },
            has_completed: true,
            was_answered: true,
            was_forwarded: true,
        };
        let now = self.time();
        self.policy.settle(live.ticket, &settlement, now);
    }

    /// An evicted request has ended at its server: it is offered again.
    fn aborted(&mut self, ticket: TicketId) {
        let Some(at) = self.tickets.remove(&ticket) else { return };
        let Some(live) = self.live.remove(&at) else { return };
        let request = &self.requests[at];
        if let Some(pool) = self.pools.get_mut(&request.ask.model) {
            pool.release(live.server, at as u64, request, true);
        }
        let now = self.time();
        self.policy.withdraw(ticket, now);
        let outcome = &mut self.run.outcomes[at];
        outcome.evictions += 1;
        (outcome.started, outcome.first_token) = (None, None);
        self.wake();
        self.offer(at);
    }

    fn report(&mut self, model: ModelId) {
        let load = self.pools.get(&model).and_then(Pool::report);
        if let Some(load) = load {
            let now = self.time();
            self.policy.observe_load(model, &load, now);
        }
        if self.now < self.last || !self.live.is_empty() {
            self.push(self.now + REPORTS, Event::Reports(model));
        }
    }

    /// Starts all that may run now, and evicts what has to go.
    fn wake(&mut self) {
        let now = self.time();
        while let Some(ticket) = self.policy.next(now) {
            self.start(ticket);
        }
        while let Some(ticket) = self.policy.evict(now) {
            self.push(self.now + ABORT, Event::Aborted(ticket));
        }
        if self.policy.waiting() > 0 && !self.is_ticking {
            self.is_ticking = true;
            self.push(self.now + TICK, Event::Tick);
        }
    }
}
