//! The gate: policy behind one short lock, and the wake-ups of queued requests. Slots and queue positions are
//! guards: dropping one releases it, so that a lost client or a panic leaks nothing.

mod credit;

pub(crate) use credit::{Desk, DrawRequest};

use crate::clock;
use policy::{
    AdmissionRequest, Attempt, Balance, ByClass, CreditNeed, CreditNeeds, Decision, ModelId, PlanId, Policy,
    QueueEntry, RateLimitKind, RateLimitStatus, RateNeed, RateWindow, Refusal, Rules, ServerLoad, Settled, Settlement,
    Subject, Terms, TicketId, Time,
};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// The interval at which policy is asked again for the next request, for what only time changes: a level that is
/// left, a new day.
const TICK: Duration = Duration::from_millis(250);

/// The single point where requests are admitted, queued or rejected.
#[derive(Debug)]
pub(crate) struct Gate {
    state: Mutex<State>,
    credit: Desk<CreditNeed>,
    rates: Desk<RateNeed>,
}

#[derive(Debug)]
struct State {
    policy: Policy,
    waiters: HashMap<TicketId, oneshot::Sender<Wakeup>>,
}

/// The end of a wait in the queue.
#[derive(Debug)]
enum Wakeup {
    Granted,
    /// The position in the queue went to another request.
    Displaced(Refusal),
}

/// The decision on a request.
#[derive(Debug)]
pub(crate) enum Admission {
    Admitted(AdmittedRequest),
    Queued(QueuedRequest),
    Rejected(Refusal),
}

/// A decision, with the state of the rate limits, which is known also of a rejected request.
#[derive(Debug)]
pub(crate) struct Decided {
    pub(crate) admission: Admission,
    pub(crate) rate_limits: RateLimitStatus,
    /// The moment of the decision: the request counts for its day.
    pub(crate) at: Time,
}

/// A decision, or the credit that it lacks.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // Nearly all are decided: a box would cost every request.
enum Offered {
    Decided(Decided),
    NeedsCredit(CreditNeeds),
}

/// An admitted request.
#[derive(Debug)]
pub(crate) struct AdmittedRequest {
    pub(crate) permit: SlotPermit,
    pub(crate) terms: Terms,
    pub(crate) waited: Option<Duration>,
}

/// A slot with the upstreams, and what is reserved with it. However it goes, it is settled with what was noted last.
#[derive(Debug)]
pub(crate) struct SlotPermit {
    gate: Arc<Gate>,
    ticket: Option<TicketId>,
    settlement: Settlement,
}

/// A position in the queue; dropping it gives it up.
#[derive(Debug)]
pub(crate) struct QueuedRequest {
    gate: Arc<Gate>,
    /// `None` once it has become a permit or a refusal.
    ticket: Option<TicketId>,
    terms: Terms,
    since: Instant,
    longest: Duration,
    wakeup: oneshot::Receiver<Wakeup>,
}

/// A rate limit with its holder and its present state.
pub(crate) type RateLimit = (Subject, RateLimitKind, RateWindow);

/// The numbers of running and waiting requests, and the pressure on the gateway.
#[derive(Debug, Clone)]
pub(crate) struct Occupancy {
    pub(crate) active: usize,
    pub(crate) waiting: usize,
    pub(crate) waiting_by_class: ByClass<usize>,
    /// By the index of the model: how many run, and how many may.
    pub(crate) models: Vec<(usize, Option<usize>)>,
    pub(crate) level: u32,
    pub(crate) pressure: f64,
    pub(crate) queue_usage: f64,
}

impl Gate {
    pub(crate) fn new(rules: Rules) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                policy: Policy::new(rules),
                waiters: HashMap::new(),
            }),
            credit: Desk::default(),
            rates: Desk::default(),
        })
    }

    /// Decides on a request. It waits only where several gateways share limits, while more credit is drawn.
    pub(crate) async fn admit(self: &Arc<Self>, ask: &AdmissionRequest) -> Decided {
        let first = self.offer(ask);
        self.with_credit(first, |gate| gate.offer(ask)).await
    }

    /// Decides on a request again, for another model, after an attempt that failed: it counts once.
    pub(crate) async fn admit_again(self: &Arc<Self>, ask: &AdmissionRequest, attempt: Attempt) -> Decided {
        let first = self.offer_again(ask, attempt);
        self.with_credit(first, |gate| gate.offer_again(ask, attempt)).await
    }

    fn offer(self: &Arc<Self>, ask: &AdmissionRequest) -> Offered {
        let now = clock::now();
        self.decide(now, |policy| policy.offer(ask, now))
    }

    fn offer_again(self: &Arc<Self>, ask: &AdmissionRequest, attempt: Attempt) -> Offered {
        let now = clock::now();
        self.decide(now, |policy| policy.offer_again(ask, attempt, now))
    }

    /// Where requests wait for credit of quotas and budgets, and who draws it finds them.
    pub(crate) fn credit(&self) -> &Desk<CreditNeed> {
        &self.credit
    }

    /// Where requests wait for credit of rate limits, and who draws it finds them.
    pub(crate) fn rates(&self) -> &Desk<RateNeed> {
        &self.rates
    }

    fn decide(self: &Arc<Self>, now: Time, decide: impl FnOnce(&mut Policy) -> (Decision, RateLimitStatus)) -> Offered {
        let mut state = self.lock();
        let (decision, rate_limits) = decide(&mut state.policy);
        let admission = match decision {
            Decision::NeedsCredit(needs) => return Offered::NeedsCredit(needs),
            Decision::Admit(grant) => Admission::Admitted(AdmittedRequest {
                permit: self.permit(grant.ticket),
                terms: grant.terms,
                waited: None,
            }),
            Decision::Reject(refusal) => Admission::Rejected(refusal),
            Decision::Queue(position) => {
                if let Some(displaced) = position.displaced.and_then(|ticket| state.waiters.remove(&ticket)) {
                    let _ = displaced.send(Wakeup::Displaced(state.policy.displaced()));
                }
                let (sender, wakeup) = oneshot::channel();
                state.waiters.insert(position.ticket, sender);
                Admission::Queued(QueuedRequest {
                    gate: Arc::clone(self),
                    ticket: Some(position.ticket),
                    terms: position.terms,
                    since: Instant::now(),
                    longest: position.deadline - now,
                    wakeup,
                })
            }
        };
        state.wake(now);
        Offered::Decided(Decided {
            admission,
            rate_limits,
            at: now,
        })
    }

    /// Starts requests that only time has made eligible, for as long as the process runs.
    pub(crate) async fn keep_time(self: Arc<Self>) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let now = clock::now();
            self.lock().wake(now);
        }
    }

    /// Applies changed rules, also to requests that wait. They are made under the lock, so that of two changes the
    /// later one stays.
    pub(crate) fn reconfigure(&self, rules: impl FnOnce() -> Rules) {
        let now = clock::now();
        let mut state = self.lock();
        state.policy.reconfigure(rules());
        state.wake(now);
    }

    /// Applies the loads that the models' servers report.
    pub(crate) fn observe_loads(&self, loads: &[(ModelId, ServerLoad)]) {
        let now = clock::now();
        let mut state = self.lock();
        for (model, load) in loads {
            state.policy.observe_load(*model, load, now);
        }
        state.wake(now);
    }

    /// The requests that run and wait now, with those of the first `models` models.
    pub(crate) fn occupancy(&self, models: usize) -> Occupancy {
        let now = clock::now();
        let policy = &mut self.lock().policy;
        let ids = (0..u32::try_from(models).unwrap_or(u32::MAX)).map(ModelId);
        Occupancy {
            active: policy.running(),
            waiting: policy.waiting(),
            waiting_by_class: policy.waiting_by_class(),
            models: ids
                .map(|model| (policy.running_for(model), policy.slots_of(model)))
                .collect(),
            level: policy.level(now).map_or(0, |level| level.number),
            pressure: policy.pressure(now),
            queue_usage: policy.queue_usage(),
        }
    }

    /// All requests that wait, class by class, the oldest first, with the wait that is still expected.
    pub(crate) fn queue(&self) -> Vec<(QueueEntry, Duration)> {
        let now = clock::now();
        let policy = &self.lock().policy;
        let all = policy.queue(now);
        all.map(|entry| (entry, policy.expected(entry.ticket).unwrap_or_default()))
            .collect()
    }

    /// The position of a ticket that waits, and the wait that is still expected.
    pub(crate) fn position_of(&self, ticket: TicketId) -> Option<(usize, Duration)> {
        let now = clock::now();
        let policy = &self.lock().policy;
        let expected = policy.expected(ticket)?;
        let mut all = policy.queue(now);
        let position = all.find(|entry| entry.ticket == ticket)?.position;
        Some((position, expected))
    }

    /// The state of a subject's allowances and rate limits, for a project with those of its plan.
    pub(crate) fn limits_of(&self, subject: Subject, plan: Option<PlanId>) -> (Vec<Balance>, Vec<RateLimit>) {
        let now = clock::now();
        let policy = &mut self.lock().policy;
        // What other gateways use of it is known from the next second on.
        policy.follow_shared(subject, now);
        let of_plan = match (subject, plan) {
            (Subject::Project(project), Some(plan)) => Some(Subject::Plan(plan, project)),
            _ => None,
        };
        let rates = of_plan.into_iter().chain([subject]).flat_map(|subject| {
            let rates = policy.rates(subject, now).into_iter();
            rates.map(move |(kind, window)| (subject, kind, window))
        });
        (policy.balances(subject, now), rates.collect())
    }

    /// Calls `what` with the policy, such as to restore what had been used before the start.
    pub(crate) fn with<T>(&self, what: impl FnOnce(&mut Policy, Time) -> T) -> T {
        let now = clock::now();
        what(&mut self.lock().policy, now)
    }

    fn permit(self: &Arc<Self>, ticket: TicketId) -> SlotPermit {
        SlotPermit {
            gate: Arc::clone(self),
            ticket: Some(ticket),
            settlement: Settlement::default(),
        }
    }

    fn settle(&self, ticket: TicketId, settlement: &Settlement) -> Settled {
        let now = clock::now();
        let mut state = self.lock();
        let settled = state.policy.settle(ticket, settlement, now);
        state.wake(now);
        settled
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under this lock leaves counts that are still consistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Wakes every request that may run now.
    fn wake(&mut self, now: Time) {
        while let Some(ticket) = self.policy.next(now) {
            let waiter = self.waiters.remove(&ticket);
            if waiter.is_none_or(|waiter| waiter.send(Wakeup::Granted).is_err()) {
                // The client is gone: the slot goes to the next one.
                self.policy.settle(ticket, &Settlement::default(), now);
            }
        }
    }
}

impl QueuedRequest {
    /// A request that was admitted at once, as one whose wait is over.
    pub(crate) fn over(entry: AdmittedRequest) -> Self {
        let (sender, wakeup) = oneshot::channel();
        let _ = sender.send(Wakeup::Granted);
        let mut permit = entry.permit;
        Self {
            gate: Arc::clone(&permit.gate),
            ticket: permit.ticket.take(),
            terms: entry.terms,
            since: Instant::now(),
            longest: Duration::MAX,
            wakeup,
        }
    }

    /// The ticket in the queue.
    pub(crate) fn ticket(&self) -> Option<TicketId> {
        self.ticket
    }

    /// The terms on which it will be admitted.
    pub(crate) fn terms(&self) -> Terms {
        self.terms
    }

    /// Waits until it may run, is displaced or has waited for the longest time.
    pub(crate) async fn granted(mut self) -> Result<AdmittedRequest, Refusal> {
        let left = self.longest.saturating_sub(self.since.elapsed());
        match tokio::time::timeout(left, &mut self.wakeup).await {
            Ok(wakeup) => self.woken(wakeup.ok()),
            Err(_) => match self.expire() {
                Some(refusal) => Err(refusal),
                // The wake-up crossed the deadline: it has been sent.
                None => {
                    let wakeup = self.wakeup.try_recv().ok();
                    self.woken(wakeup)
                }
            },
        }
    }

    fn woken(&mut self, wakeup: Option<Wakeup>) -> Result<AdmittedRequest, Refusal> {
        match wakeup {
            Some(Wakeup::Granted) => Ok(AdmittedRequest {
                permit: SlotPermit {
                    gate: Arc::clone(&self.gate),
                    ticket: self.ticket.take(),
                    settlement: Settlement::default(),
                },
                terms: self.terms,
                waited: Some(self.since.elapsed()),
            }),
            Some(Wakeup::Displaced(refusal)) => {
                self.ticket = None;
                Err(refusal)
            }
            None => Err(Refusal::Cancelled),
        }
    }

    fn expire(&mut self) -> Option<Refusal> {
        let ticket = self.ticket?;
        let now = clock::now();
        let mut state = self.gate.lock();
        let refusal = state.policy.expire(ticket, now)?;
        state.waiters.remove(&ticket);
        state.wake(now);
        drop(state);
        self.ticket = None;
        Some(refusal)
    }
}

impl SlotPermit {
    /// Notes that the request is sent to a server: from now on it counts as a request, as it does in the ledger.
    pub(crate) fn mark_forwarded(&mut self) {
        self.settlement.was_forwarded = true;
    }

    /// Notes what the request has used. The record is to say the same from then on.
    pub(crate) fn note(&mut self, settlement: Settlement) {
        self.settlement = settlement;
    }

    /// Replaces what was reserved by what was noted, and lets the next request run.
    pub(crate) fn settle(mut self) -> Settled {
        match self.ticket.take() {
            Some(ticket) => self.gate.settle(ticket, &self.settlement),
            None => Settled::default(),
        }
    }

    /// Returns everything, for a request that is made again later and leaves no record now.
    pub(crate) fn withdraw(mut self) {
        self.note(Settlement::default());
        self.settle();
    }

    /// Settles an attempt that failed, and decides on its request again, for another model. What the attempt used stays
    /// used, and a request that was forwarded stays counted, whatever is decided; the attempt that is returned is for
    /// [`Gate::admit_again`], where this model is refused, too.
    pub(crate) async fn replace(
        mut self,
        settlement: &Settlement,
        ask: &AdmissionRequest,
    ) -> Option<(Decided, Attempt)> {
        let gate = Arc::clone(&self.gate);
        let ticket = self.ticket.take()?;
        let mut failed = None;
        let now = clock::now();
        let first = gate.decide(now, |policy| {
            let (decision, status, attempt) = policy.replace(ticket, settlement, ask, now);
            failed = Some(attempt);
            (decision, status)
        });
        let attempt = failed?;
        let decided = gate.with_credit(first, |gate| gate.offer_again(ask, attempt)).await;
        Some((decided, attempt))
    }
}

impl Drop for SlotPermit {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.gate.settle(ticket, &self.settlement);
        }
    }
}

impl Drop for QueuedRequest {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket.take() else { return };
        let now = clock::now();
        let mut state = self.gate.lock();
        state.waiters.remove(&ticket);
        if !state.policy.cancel(ticket, now) {
            // It was granted meanwhile.
            state.policy.settle(ticket, &Settlement::default(), now);
        }
        state.wake(now);
    }
}

#[cfg(test)]
mod tests;
