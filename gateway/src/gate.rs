//! The gate: policy behind one short lock, and the wake-ups of queued requests. Slots and queue positions are
//! guards: dropping one releases it, so that a lost client or a panic leaks nothing.

mod credit;
mod eviction;
mod view;

pub(crate) use credit::{Desk, DrawRequest};
pub(crate) use eviction::EvictionNotice;

use crate::clock;
use eviction::EvictionNotices;
use policy::{
    AdmissionRequest, Attempt, CreditNeed, CreditNeeds, Decision, ModelId, Policy, RateLimitStatus, RateNeed, Refusal,
    Rules, ServerLoad, Settled, Settlement, Terms, TicketId, Time,
};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, oneshot};

/// The interval at which policy is asked again for the next request, for what only time changes: a level that is
/// left, a new day.
const TICK: Duration = Duration::from_millis(250);

/// The single point where requests are admitted, queued or rejected.
#[derive(Debug)]
pub(crate) struct Gate {
    state: Mutex<State>,
    credit: Desk<CreditNeed>,
    rates: Desk<RateNeed>,
    slots_wanted: Notify,
}

#[derive(Debug)]
struct State {
    policy: Policy,
    waiters: HashMap<TicketId, oneshot::Sender<Wakeup>>,
    evictions: EvictionNotices,
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
    /// For a durable request.
    eviction: Option<EvictionNotice>,
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
    /// For a durable request.
    eviction: Option<EvictionNotice>,
}

impl Gate {
    pub(crate) fn new(rules: Rules) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                policy: Policy::new(rules),
                waiters: HashMap::new(),
                evictions: EvictionNotices::default(),
            }),
            credit: Desk::default(),
            rates: Desk::default(),
            slots_wanted: Notify::new(),
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
        self.decide(ask, now, |policy| policy.offer(ask, now))
    }

    fn offer_again(self: &Arc<Self>, ask: &AdmissionRequest, attempt: Attempt) -> Offered {
        let now = clock::now();
        self.decide(ask, now, |policy| policy.offer_again(ask, attempt, now))
    }

    /// Where requests wait for credit of quotas and budgets, and who draws it finds them.
    pub(crate) fn credit(&self) -> &Desk<CreditNeed> {
        &self.credit
    }

    /// Where requests wait for credit of rate limits, and who draws it finds them.
    pub(crate) fn rates(&self) -> &Desk<RateNeed> {
        &self.rates
    }

    fn decide(
        self: &Arc<Self>,
        ask: &AdmissionRequest,
        now: Time,
        decide: impl FnOnce(&mut Policy) -> (Decision, RateLimitStatus),
    ) -> Offered {
        let mut state = self.lock();
        let (decision, rate_limits) = decide(&mut state.policy);
        let admission = match decision {
            Decision::NeedsCredit(needs) => return Offered::NeedsCredit(needs),
            Decision::Admit(grant) => Admission::Admitted(AdmittedRequest {
                permit: self.permit(grant.ticket, state.evictions.notice(ask, grant.ticket)),
                terms: grant.terms,
                waited: None,
            }),
            Decision::Reject(refusal) => Admission::Rejected(refusal),
            Decision::Queue(position) => {
                if state.policy.may_have_more_slots(ask) {
                    self.slots_wanted.notify_one();
                }
                if let Some(displaced) = position.displaced {
                    state.displace(displaced);
                }
                let (sender, wakeup) = oneshot::channel();
                state.waiters.insert(position.ticket, sender);
                let eviction = state.evictions.notice(ask, position.ticket);
                Admission::Queued(QueuedRequest {
                    gate: Arc::clone(self),
                    ticket: Some(position.ticket),
                    terms: position.terms,
                    since: Instant::now(),
                    longest: position.deadline - now,
                    wakeup,
                    eviction,
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

    /// Calls `what` with the policy, such as to restore what had been used before the start.
    pub(crate) fn with<T>(&self, what: impl FnOnce(&mut Policy, Time) -> T) -> T {
        let now = clock::now();
        what(&mut self.lock().policy, now)
    }

    /// Calls `what` with the policy, and wakes the requests that may run afterwards.
    pub(crate) fn update<T>(&self, what: impl FnOnce(&mut Policy, Time) -> T) -> T {
        let now = clock::now();
        let mut state = self.lock();
        let done = what(&mut state.policy, now);
        state.wake(now);
        done
    }

    /// Waits until a request waits for slots that other gateways may have.
    pub(crate) async fn slots_wanted(&self) {
        self.slots_wanted.notified().await;
    }

    fn permit(self: &Arc<Self>, ticket: TicketId, eviction: Option<EvictionNotice>) -> SlotPermit {
        SlotPermit {
            gate: Arc::clone(self),
            ticket: Some(ticket),
            settlement: Settlement::default(),
            eviction,
        }
    }

    fn settle(&self, ticket: TicketId, settlement: &Settlement) -> Settled {
        let now = clock::now();
        let mut state = self.lock();
        let settled = state.settle(ticket, settlement, now);
        state.wake(now);
        settled
    }

    fn withdraw(&self, ticket: TicketId) -> Duration {
        let now = clock::now();
        let mut state = self.lock();
        state.evictions.forget(ticket);
        let held = state.policy.withdraw(ticket, now);
        state.wake(now);
        held
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under this lock leaves counts that are still consistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Tells a request that another one has its position in the queue.
    fn displace(&mut self, ticket: TicketId) {
        self.evictions.forget(ticket);
        if let Some(waiter) = self.waiters.remove(&ticket) {
            let _ = waiter.send(Wakeup::Displaced(self.policy.displaced()));
        }
    }

    fn settle(&mut self, ticket: TicketId, settlement: &Settlement, now: Time) -> Settled {
        self.evictions.forget(ticket);
        self.policy.settle(ticket, settlement, now)
    }

    /// Wakes every request that may run now, and evicts what has to go for those that still wait.
    fn wake(&mut self, now: Time) {
        while let Some(ticket) = self.policy.next(now) {
            let waiter = self.waiters.remove(&ticket);
            if waiter.is_none_or(|waiter| waiter.send(Wakeup::Granted).is_err()) {
                // The client is gone: the slot goes to the next one.
                self.settle(ticket, &Settlement::default(), now);
            }
        }
        while let Some(ticket) = self.policy.evict(now) {
            self.evictions.send(ticket);
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
            eviction: permit.eviction.take(),
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
                    eviction: self.eviction.take(),
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
        state.evictions.forget(ticket);
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

    /// Returns everything, for a request that is made again later and leaves no record now. Returns the time for which it
    /// had its slot.
    pub(crate) fn withdraw(mut self) -> Duration {
        let ticket = self.ticket.take();
        ticket.map_or(Duration::ZERO, |ticket| self.gate.withdraw(ticket))
    }

    /// The notice that the request is evicted, if it may be.
    pub(crate) fn eviction(&self) -> Option<EvictionNotice> {
        self.eviction.clone()
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
        if self.eviction.is_some() {
            gate.lock().evictions.forget(ticket);
        }
        let first = gate.decide(ask, now, |policy| {
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
        state.evictions.forget(ticket);
        if !state.policy.cancel(ticket, now) {
            // It was granted meanwhile.
            state.settle(ticket, &Settlement::default(), now);
        }
        state.wake(now);
    }
}

#[cfg(test)]
mod tests;
