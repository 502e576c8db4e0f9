//! Sluice's decisions, and nothing else: who may pass now, who waits, who is refused and why.
//!
//! Pure by rule: no I/O, no async, no clock of its own. Time comes in as an argument ([`Time`]), so an hour
//! of traffic is simulated in a second. The caller holds one short lock around [`Policy`].
//!
//! The order of the rules is the order of the calls in [`Policy::offer`].

mod admission;
mod allowance;
mod ask;
mod breaker;
mod capacity;
mod cell;
mod decision;
mod degradation;
mod fairness;
mod limits;
mod names;
mod retries;
mod routing;
mod rules;
mod tickets;
mod time;

pub use admission::Waiting;
pub use allowance::{Alert, Balance, RecordedUsage};
pub use ask::{
    AdmissionRequest, Class, Estimate, KeyId, ModelId, NanoEuro, PlanId, Priority, ProjectId, Usage, UserId,
};
pub use breaker::{Breaker, BreakerDecision, BreakerRules};
pub use capacity::Pace;
pub use cell::Figure;
pub use decision::{
    Decision, DegradationsApplied, Grant, Measure, Period, QueueTicket, RateLimitStatus, Refusal, Terms,
};
pub use limits::{Counted, Scope};
pub use names::UnknownName;
pub use retries::RetryBudget;
pub use routing::{Candidate, pick};
pub use rules::{
    Allowance, AllowanceActions, Caps, Concurrency, Degradation, GlobalLimits, Level, LevelActions, ModelRules, Order,
    Prices, ProjectRules, Rates, Rules, Scheduling, SubjectRules,
};
pub use tickets::TicketId;
pub use time::Time;

use admission::{Admission, Ended, Verdict};
use allowance::{AllowanceReservation, Allowances, Fit};
use degradation::PressureMonitor;
use limits::{Charge, Limits};
use std::time::Duration;

/// The whole state of policy: rate cells, allowances, the level of degradation, places and queues.
#[derive(Debug)]
pub struct Policy {
    rules: Rules,
    limits: Limits,
    allowances: Allowances,
    watch: PressureMonitor,
    admission: Admission,
    /// What each ticket holds, by its index.
    held: Vec<Option<Reservation>>,
}

/// What is held for a ticket until it is settled or cancelled.
#[derive(Debug, Clone, Copy)]
struct Reservation {
    ask: AdmissionRequest,
    terms: Terms,
    charge: Charge,
    reservation: AllowanceReservation,
}

/// How a request that ran has ended.
#[derive(Debug, Clone, Copy, Default)]
pub struct Settlement {
    /// What it used.
    pub usage: Usage,
    /// How the upstream's answer came.
    pub pace: Pace,
    /// Whether the upstream answered to the end; else nothing is learned of its speed.
    pub has_completed: bool,
    /// Whether the upstream answered at all, be it with a refusal.
    pub was_answered: bool,
}

/// What a settlement brought to light.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settled {
    /// Allowances that have reached the share at which operators want to know.
    pub alerts: Vec<Alert>,
    /// Tokens used beyond what was reserved.
    pub overrun_tokens: u64,
}

impl Policy {
    /// Starts with nothing running, nothing waiting, nothing used.
    pub fn new(rules: Rules) -> Self {
        Self {
            limits: Limits::new(&rules),
            allowances: Allowances::default(),
            watch: PressureMonitor::default(),
            admission: Admission::new(&rules),
            held: Vec::new(),
            rules,
        }
    }

    /// Decides on one request, all or nothing: what an earlier rule took goes back when a later one
    /// refuses. Says too where the caller stands with its rates.
    pub fn offer(&mut self, ask: &AdmissionRequest, now: Time) -> (Decision, RateLimitStatus) {
        let decision = self.decide(ask, now).unwrap_or_else(Decision::Reject);
        (decision, self.limits.standing(&self.rules, ask, now))
    }

    fn decide(&mut self, ask: &AdmissionRequest, now: Time) -> Result<Decision, Refusal> {
        let mut held = self.charge(ask, now)?;
        let decided = self
            .reserve(&mut held, now)
            .and_then(|()| self.degrade(&mut held, now))
            .and_then(|emergency| self.admit(&held, emergency, now));
        if decided.is_err() {
            self.give_back(&held, true, now);
        }
        decided
    }

    /// Step one: the rates of every level.
    fn charge(&mut self, ask: &AdmissionRequest, now: Time) -> Result<Reservation, Refusal> {
        let estimate = ask.estimate(&self.rules);
        let charge = Charge {
            requests: 1,
            tokens: estimate.tokens(),
        };
        self.limits.charge(&self.rules, ask, charge, now)?;
        let terms = Terms {
            model: ask.model,
            max_tokens: ask.max_tokens,
            estimate,
            ..Terms::default()
        };
        Ok(Reservation {
            ask: *ask,
            terms,
            charge,
            reservation: AllowanceReservation::default(),
        })
    }

    /// Step two: the worst case from every quota and budget; where one is used up and says so, from the
    /// smaller model's prices.
    fn reserve(&mut self, held: &mut Reservation, now: Time) -> Result<(), Refusal> {
        let Self { rules, allowances, .. } = self;
        let may_downgrade = !rules.model(held.ask.model).is_fallback;
        let fit = allowances.reserve(rules, &held.ask, &held.terms.estimate, may_downgrade, now)?;
        let fit = match fit {
            Fit::Downgrade(refusal) => {
                let mut ask = held.ask;
                if !degradation::route_to_smaller(rules, &mut ask) {
                    return Err(refusal);
                }
                held.terms.degradations.routed_by_budget = true;
                change(rules, held, &ask);
                allowances.reserve(rules, &ask, &held.terms.estimate, false, now)?
            }
            reserved @ Fit::Reserved(_) => reserved,
        };
        match fit {
            Fit::Reserved(reservation) => held.reservation = reservation,
            Fit::Downgrade(refusal) => return Err(refusal),
        }
        Ok(())
    }

    /// Step three: what gives way at the level that holds. Says whether only what can run at once may.
    fn degrade(&mut self, held: &mut Reservation, now: Time) -> Result<Option<Refusal>, Refusal> {
        let index = self.level_index(now);
        let Self { rules, allowances, .. } = self;
        let Some(level) = rules.degradation.levels.get(index) else {
            return Ok(None);
        };
        held.terms.level = level.number;
        let mut ask = degraded(held);
        if let Some(refusal) = degradation::refuse(level, &ask) {
            return Err(refusal);
        }
        let emergency = level.actions.emergency.then(|| degradation::emergency(level));
        if let Some(refusal) = emergency.clone().filter(|_| ask.priority < Priority::High) {
            return Err(refusal);
        }
        let degradations = degradation::shrink(level, rules, &mut ask);
        if degradations.any() {
            held.terms.degradations.max_tokens_reduced |= degradations.max_tokens_reduced;
            held.terms.degradations.routed_by_pressure |= degradations.routed_by_pressure;
            change(rules, held, &ask);
            allowances.shrink(rules, &held.ask, &mut held.reservation, &held.terms.estimate);
        }
        Ok(emergency)
    }

    /// Step four: a place at once, a place in the queue, or none.
    fn admit(&mut self, held: &Reservation, emergency: Option<Refusal>, now: Time) -> Result<Decision, Refusal> {
        self.throttle(&held.ask, now);
        let is_paused = self.is_paused(now);
        let offered = self
            .admission
            .offer(&self.rules, &held.ask, &held.terms, is_paused, now);
        let terms = held.terms;
        match (offered, emergency) {
            (Verdict::Run(ticket), _) => {
                self.hold(ticket, *held, now);
                Ok(Decision::Admit(Grant { ticket, terms }))
            }
            (Verdict::Refuse(refusal), _) => Err(refusal),
            (Verdict::Wait { ticket, displaced, .. }, Some(refusal)) => {
                self.admission.cancel(&self.rules, ticket);
                if let Some(displaced) = displaced {
                    // A newcomer of the highest band found the queue full: who lost its place for it has lost it.
                    self.forget(displaced, now);
                }
                Err(refusal)
            }
            (
                Verdict::Wait {
                    ticket,
                    deadline,
                    expected,
                    displaced,
                },
                None,
            ) => {
                if let Some(displaced) = displaced {
                    self.forget(displaced, now);
                }
                self.hold(ticket, *held, now);
                Ok(Decision::Queue(QueueTicket {
                    ticket,
                    terms,
                    deadline,
                    expected,
                    displaced,
                }))
            }
        }
    }

    /// Whoever waits and may run now. To be asked after every offer, settlement and cancellation, and now
    /// and then, until it names nobody.
    pub fn next(&mut self, now: Time) -> Option<TicketId> {
        let is_paused = self.is_paused(now);
        self.admission.next(&self.rules, is_paused, now)
    }

    /// A request that ran has ended: the actual replaces what was charged and reserved, and its place is
    /// free. A ticket that is settled already changes nothing.
    pub fn settle(&mut self, ticket: TicketId, settlement: &Settlement, now: Time) -> Settled {
        if !self.admission.ticket(ticket).is_some_and(|ticket| ticket.is_running) {
            return Settled::default();
        }
        let Some(held) = self.held[ticket.index as usize].take() else {
            return Settled::default();
        };
        let usage = settlement.usage;
        let actual = Charge {
            requests: 1,
            tokens: usage.tokens(),
        };
        self.limits.correct(&self.rules, &held.ask, held.charge, actual, now);
        let alerts = self
            .allowances
            .settle(&self.rules, &held.ask, &held.reservation, &usage);
        let ended = Ended {
            input_tokens: usage.input_tokens,
            output_tokens: usage.output_tokens,
            pace: settlement.pace,
            has_completed: settlement.has_completed,
        };
        self.admission.finish(&self.rules, ticket, &ended, now);
        if settlement.was_answered {
            self.watch.heard(settlement.pace.is_overloaded, now);
        }
        self.throttle(&held.ask, now);
        Settled {
            alerts,
            overrun_tokens: usage.tokens().saturating_sub(held.terms.estimate.tokens()),
        }
    }

    /// A request that ran came to nothing with its model's servers: it is as if it had not been made, and another is
    /// decided on in its place.
    pub fn replace(&mut self, ticket: TicketId, ask: &AdmissionRequest, now: Time) -> (Decision, RateLimitStatus) {
        let runs = self.admission.ticket(ticket).is_some_and(|ticket| ticket.is_running);
        if let Some(held) = self
            .held
            .get_mut(ticket.index as usize)
            .filter(|_| runs)
            .and_then(Option::take)
        {
            self.give_back(&held, true, now);
            self.admission.finish(&self.rules, ticket, &Ended::default(), now);
        }
        self.offer(ask, now)
    }

    /// Whoever waits has gone, or was told to: everything goes back but the request itself, which was
    /// made. False if it does not wait (any more).
    pub fn cancel(&mut self, ticket: TicketId, now: Time) -> bool {
        let waited = self.admission.cancel(&self.rules, ticket);
        if let Some(held) = self
            .held
            .get_mut(ticket.index as usize)
            .filter(|_| waited)
            .and_then(Option::take)
        {
            self.give_back(&held, false, now);
        }
        waited
    }

    /// A ticket has waited as long as one may: everything goes back. `None` if it does not wait (any more).
    pub fn expire(&mut self, ticket: TicketId, now: Time) -> Option<Refusal> {
        let waiting = *self.admission.ticket(ticket).filter(|ticket| !ticket.is_running)?;
        let refusal = self.admission.gave_up(&self.rules, &waiting);
        self.admission.cancel(&self.rules, ticket);
        self.forget(ticket, now);
        Some(refusal)
    }

    /// The refusal of a ticket that lost its place in a full queue.
    pub fn displaced(&self) -> Refusal {
        Refusal::QueueFull {
            size: self.admission.waiting(),
            retry_after: Duration::from_secs(2),
        }
    }

    /// At least so much has been used, by the ledger: before this process began, or by another beside it.
    pub fn restore_usage(&mut self, scope: Scope, id: u32, period: Period, usage: RecordedUsage, now: Time) {
        self.allowances.restore_usage(scope, id, period, usage, now);
    }

    /// Corrects what a project, user or key has used, today and this month: tokens and nano-euros, more or less.
    pub fn correct(&mut self, scope: Scope, id: u32, tokens: i64, nano_eur: i64, now: Time) {
        self.allowances.correct(scope, id, tokens, nano_eur, now);
    }

    /// Takes over changed rules. What runs and waits stays, and is subject to the new ones from now on.
    pub fn reconfigure(&mut self, rules: Rules) {
        self.limits.reconfigure(&rules);
        self.admission.reconfigure(&rules);
        self.rules = rules;
    }

    // === what others may see

    /// The rules in force.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Requests that run.
    pub fn running(&self) -> usize {
        self.admission.running()
    }

    /// Requests that run for a model.
    pub fn running_for(&self, model: ModelId) -> usize {
        self.admission.running_for(model)
    }

    /// How many a model may run now; `None` where nothing limits, or where nobody has asked for it yet.
    pub fn slots_of(&self, model: ModelId) -> Option<usize> {
        self.admission.slots_of(model).filter(|places| *places < usize::MAX)
    }

    /// Requests that wait.
    pub fn waiting(&self) -> usize {
        self.admission.waiting()
    }

    /// Requests that wait, by lane: high, normal, low, batch class.
    pub fn waiting_by_lane(&self) -> [usize; 4] {
        std::array::from_fn(|lane| self.admission.waiting_in(lane))
    }

    /// Everyone who waits, lane by lane, the oldest first.
    pub fn everyone(&self, now: Time) -> impl Iterator<Item = Waiting> {
        self.admission.everyone(now)
    }

    /// How long a ticket that waits will have to wait in all, at the present pace.
    pub fn expected(&self, ticket: TicketId) -> Option<Duration> {
        self.admission.expected_of(&self.rules, ticket)
    }

    /// The degradation level that holds; `None` where none is configured.
    pub fn level(&mut self, now: Time) -> Option<&Level> {
        let index = self.level_index(now);
        self.rules.degradation.levels.get(index)
    }

    /// How pressed the gateway is, 0 to 1: the worst of the queue's fill, the oldest wait and upstreams'
    /// saturation.
    pub fn pressure(&self, now: Time) -> f64 {
        let oldest = self.admission.oldest_wait(&self.rules, now);
        self.queue_usage().max(oldest).max(self.watch.saturation(now))
    }

    /// How full the queue is, 0 to 1.
    #[allow(clippy::cast_precision_loss)]
    pub fn queue_usage(&self) -> f64 {
        let most = self.rules.global.max_queue_size;
        if most == 0 {
            0.0
        } else {
            self.admission.waiting() as f64 / most as f64
        }
    }

    /// Where a project, user or key stands with its allowance.
    pub fn balances(&self, scope: Scope, id: u32, now: Time) -> Vec<Balance> {
        self.allowances
            .balances(scope, id, &self.limits_of(scope, id).allowance, now)
    }

    /// Where a subject stands with its rates. A plan's are those of a project: `plan` says of which plan.
    pub fn rates(&self, scope: Scope, id: u32, plan: Option<PlanId>, now: Time) -> Vec<(Counted, Figure)> {
        let rates = match plan {
            Some(plan) => self.rules.plan(plan),
            None => self.limits_of(scope, id).rates,
        };
        self.limits.figures((scope, id), rates, now)
    }

    fn limits_of(&self, scope: Scope, id: u32) -> SubjectRules {
        match scope {
            Scope::Plan | Scope::Project => self.rules.project(ProjectId(id)).limits,
            Scope::User => self.rules.user(UserId(id)),
            Scope::Key => self.rules.key(KeyId(id)),
            Scope::Model => SubjectRules {
                rates: self.rules.model(ModelId(id)).rates,
                ..SubjectRules::default()
            },
        }
    }

    fn level_index(&mut self, now: Time) -> usize {
        let pressure = self.pressure(now);
        self.watch.level(&self.rules.degradation, pressure, now)
    }

    fn is_paused(&mut self, now: Time) -> bool {
        self.level(now).is_some_and(|level| level.actions.pause_batch)
    }

    fn throttle(&mut self, ask: &AdmissionRequest, now: Time) {
        let project = self.rules.project(ask.project).limits.allowance;
        let user = self.rules.user(ask.user).allowance;
        let project = self
            .allowances
            .is_throttled(Scope::Project, ask.project.0, &project, now);
        let user = self.allowances.is_throttled(Scope::User, ask.user.0, &user, now);
        self.admission.throttle(&self.rules, ask, project, user);
    }

    fn hold(&mut self, ticket: TicketId, held: Reservation, now: Time) {
        let index = ticket.index as usize;
        if self.held.len() <= index {
            self.held.resize(index + 1, None);
        }
        self.held[index] = Some(held);
        // What gave way is not charged for.
        let tokens = held.terms.estimate.tokens().min(held.charge.tokens);
        let charge = Charge { requests: 1, tokens };
        self.limits.correct(&self.rules, &held.ask, held.charge, charge, now);
        if let Some(held) = &mut self.held[index] {
            held.charge = charge;
        }
    }

    /// Gives back what a ticket held that is out of the queue already.
    fn forget(&mut self, ticket: TicketId, now: Time) {
        if let Some(held) = self.held.get_mut(ticket.index as usize).and_then(Option::take) {
            self.give_back(&held, true, now);
        }
    }

    fn give_back(&mut self, held: &Reservation, and_the_request: bool, now: Time) {
        let nothing = Charge {
            requests: u64::from(!and_the_request),
            tokens: 0,
        };
        self.limits.correct(&self.rules, &held.ask, held.charge, nothing, now);
        self.allowances.give_back(&self.rules, &held.ask, &held.reservation);
    }
}

/// The ask as it may run.
fn degraded(held: &Reservation) -> AdmissionRequest {
    AdmissionRequest {
        model: held.terms.model,
        max_tokens: held.terms.max_tokens,
        ..held.ask
    }
}

/// Makes the terms those of a changed ask.
fn change(rules: &Rules, held: &mut Reservation, ask: &AdmissionRequest) {
    held.terms.model = ask.model;
    held.terms.max_tokens = ask.max_tokens;
    held.terms.estimate = ask.estimate(rules);
}
