//! Policy behind one short lock, and the waking of those who wait. What is handed out is a guard: dropping
//! it gives it back, so a vanished client or a panic cannot leak.

use policy::{
    AdmissionRequest, Balance, Counted, Decision, Figure, ModelId, PlanId, Policy, RateLimitStatus, Refusal, Rules,
    Scope, Settled, Settlement, Terms, TicketId, Time, Waiting,
};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::oneshot;

/// How often policy is asked again who is next, for what only time changes: a level that is left, a new day.
const TICK: Duration = Duration::from_millis(250);

/// The one place where requests are decided on.
#[derive(Debug)]
pub(crate) struct Gate {
    state: Mutex<State>,
    /// The time of day at the start, moved on by a clock that never goes back.
    started_at: Time,
    started: Instant,
}

#[derive(Debug)]
struct State {
    policy: Policy,
    waiters: HashMap<TicketId, oneshot::Sender<Wakeup>>,
}

/// What whoever waits is told.
#[derive(Debug)]
enum Wakeup {
    Granted,
    /// The place in the queue went to somebody else.
    Displaced(Refusal),
}

/// What becomes of a request that was offered.
#[derive(Debug)]
pub(crate) enum Admission {
    Admitted(AdmittedRequest),
    Queued(QueuedRequest),
    Rejected(Refusal),
}

/// An admitted request.
#[derive(Debug)]
pub(crate) struct AdmittedRequest {
    pub(crate) permit: SlotPermit,
    pub(crate) terms: Terms,
    pub(crate) waited: Option<Duration>,
}

/// A place with the upstreams, and what is reserved with it. Dropped unsettled, nothing was used.
#[derive(Debug)]
pub(crate) struct SlotPermit {
    gate: Arc<Gate>,
    ticket: Option<TicketId>,
}

/// A place in the queue; dropping it gives it up.
#[derive(Debug)]
pub(crate) struct QueuedRequest {
    gate: Arc<Gate>,
    /// `None` once it has become a permit or a refusal.
    ticket: Option<TicketId>,
    terms: Terms,
    since: Instant,
    longest: Duration,
    word: oneshot::Receiver<Wakeup>,
}

/// How many run and wait, and how pressed the gateway is.
#[derive(Debug, Clone)]
pub(crate) struct Occupancy {
    pub(crate) active: usize,
    pub(crate) waiting: usize,
    /// By lane: high, normal, low, batch class.
    pub(crate) waiting_by_lane: [usize; 4],
    /// By the index of the model: how many run, and how many may.
    pub(crate) models: Vec<(usize, Option<usize>)>,
    pub(crate) level: u32,
    pub(crate) pressure: f64,
    pub(crate) queue_usage: f64,
}

impl Gate {
    pub(crate) fn new(rules: Rules) -> Arc<Self> {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Arc::new(Self {
            state: Mutex::new(State {
                policy: Policy::new(rules),
                waiters: HashMap::new(),
            }),
            started_at: Time::after_epoch(since_epoch),
            started: Instant::now(),
        })
    }

    /// Decides. The standing with the rates is known at once, also of the refused.
    pub(crate) fn offer(self: &Arc<Self>, ask: &AdmissionRequest) -> (Admission, RateLimitStatus) {
        self.decide(|policy, now| policy.offer(ask, now))
    }

    fn decide(
        self: &Arc<Self>,
        decide: impl FnOnce(&mut Policy, Time) -> (Decision, RateLimitStatus),
    ) -> (Admission, RateLimitStatus) {
        let now = self.now();
        let mut state = self.lock();
        let (decision, standing) = decide(&mut state.policy, now);
        let offer = match decision {
            Decision::Admit(grant) => Admission::Admitted(AdmittedRequest {
                permit: self.permit(grant.ticket),
                terms: grant.terms,
                waited: None,
            }),
            Decision::Reject(refusal) => Admission::Rejected(refusal),
            Decision::Queue(place) => {
                if let Some(displaced) = place.displaced.and_then(|ticket| state.waiters.remove(&ticket)) {
                    let _ = displaced.send(Wakeup::Displaced(state.policy.displaced()));
                }
                let (tell, word) = oneshot::channel();
                state.waiters.insert(place.ticket, tell);
                Admission::Queued(QueuedRequest {
                    gate: Arc::clone(self),
                    ticket: Some(place.ticket),
                    terms: place.terms,
                    since: Instant::now(),
                    longest: place.deadline - now,
                    word,
                })
            }
        };
        state.wake(now);
        (offer, standing)
    }

    /// Asks policy now and then who is next, for as long as the process runs.
    pub(crate) async fn keep_time(self: Arc<Self>) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let now = self.now();
            self.lock().wake(now);
        }
    }

    /// Takes over changed rules; they act on those who wait, too. They are asked for under the lock, so that of two
    /// changes the later one stays.
    pub(crate) fn reconfigure(&self, rules: impl FnOnce() -> Rules) {
        let now = self.now();
        let mut state = self.lock();
        state.policy.reconfigure(rules());
        state.wake(now);
    }

    /// Who runs and waits now, of the first `models` models.
    pub(crate) fn occupancy(&self, models: usize) -> Occupancy {
        let now = self.now();
        let policy = &mut self.lock().policy;
        let ids = (0..u32::try_from(models).unwrap_or(u32::MAX)).map(ModelId);
        Occupancy {
            active: policy.running(),
            waiting: policy.waiting(),
            waiting_by_lane: policy.waiting_by_lane(),
            models: ids
                .map(|model| (policy.running_for(model), policy.slots_of(model)))
                .collect(),
            level: policy.level(now).map_or(0, |level| level.number),
            pressure: policy.pressure(now),
            queue_usage: policy.queue_usage(),
        }
    }

    /// Everyone who waits, lane by lane, the oldest first, with the wait that is still expected.
    pub(crate) fn everyone(&self) -> Vec<(Waiting, Duration)> {
        let now = self.now();
        let policy = &self.lock().policy;
        let all = policy.everyone(now);
        all.map(|waiting| (waiting, policy.expected(waiting.ticket).unwrap_or_default()))
            .collect()
    }

    /// Where a ticket that waits stands, and how long it will still take.
    pub(crate) fn position_of(&self, ticket: TicketId) -> Option<(usize, Duration)> {
        let now = self.now();
        let policy = &self.lock().policy;
        let expected = policy.expected(ticket)?;
        let mut all = policy.everyone(now);
        let position = all.find(|waiting| waiting.ticket == ticket)?.position;
        Some((position, expected))
    }

    /// Where a subject stands with its allowance and its rates.
    pub(crate) fn standing_of(
        &self,
        scope: Scope,
        id: u32,
        plan: Option<PlanId>,
    ) -> (Vec<Balance>, Vec<(Scope, Counted, Figure)>) {
        let now = self.now();
        let policy = &self.lock().policy;
        let of_plan = plan.map(|plan| policy.rates(Scope::Plan, id, Some(plan), now));
        let of_plan = of_plan
            .into_iter()
            .flatten()
            .map(|(counted, figure)| (Scope::Plan, counted, figure));
        let own = policy.rates(scope, id, None, now).into_iter();
        let own = own.map(|(counted, figure)| (scope, counted, figure));
        (policy.balances(scope, id, now), of_plan.chain(own).collect())
    }

    /// Does something with the policy, such as telling it what had been used before the start.
    pub(crate) fn with<T>(&self, what: impl FnOnce(&mut Policy, Time) -> T) -> T {
        let now = self.now();
        what(&mut self.lock().policy, now)
    }

    fn permit(self: &Arc<Self>, ticket: TicketId) -> SlotPermit {
        SlotPermit {
            gate: Arc::clone(self),
            ticket: Some(ticket),
        }
    }

    fn settle(&self, ticket: TicketId, settlement: &Settlement) -> Settled {
        let now = self.now();
        let mut state = self.lock();
        let settled = state.policy.settle(ticket, settlement, now);
        state.wake(now);
        settled
    }

    pub(crate) fn now(&self) -> Time {
        self.started_at + self.started.elapsed()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under this lock leaves counts that are still consistent: go on.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Tells everyone who may run now.
    fn wake(&mut self, now: Time) {
        while let Some(ticket) = self.policy.next(now) {
            let waiter = self.waiters.remove(&ticket);
            if waiter.is_none_or(|waiter| waiter.send(Wakeup::Granted).is_err()) {
                // Nobody is there to take it: it was used for nothing, and the next may have it.
                self.policy.settle(ticket, &Settlement::default(), now);
            }
        }
    }
}

impl QueuedRequest {
    /// A wait that is over before it began.
    pub(crate) fn over(entry: AdmittedRequest) -> Self {
        let (tell, word) = oneshot::channel();
        let _ = tell.send(Wakeup::Granted);
        let mut permit = entry.permit;
        Self {
            gate: Arc::clone(&permit.gate),
            ticket: permit.ticket.take(),
            terms: entry.terms,
            since: Instant::now(),
            longest: Duration::MAX,
            word,
        }
    }

    /// The ticket that waits.
    pub(crate) fn ticket(&self) -> Option<TicketId> {
        self.ticket
    }

    /// What it will be granted.
    pub(crate) fn terms(&self) -> Terms {
        self.terms
    }

    /// Returns when it may run, or when waiting has come to an end.
    pub(crate) async fn granted(mut self) -> Result<AdmittedRequest, Refusal> {
        let left = self.longest.saturating_sub(self.since.elapsed());
        let told = tokio::time::timeout(left, &mut self.word).await;
        match told {
            Ok(word) => self.told(word.ok()),
            Err(_) => match self.expire() {
                Some(refusal) => Err(refusal),
                // The word crossed the deadline: it has been sent.
                None => {
                    let word = self.word.try_recv().ok();
                    self.told(word)
                }
            },
        }
    }

    fn told(&mut self, word: Option<Wakeup>) -> Result<AdmittedRequest, Refusal> {
        match word {
            Some(Wakeup::Granted) => Ok(AdmittedRequest {
                permit: SlotPermit {
                    gate: Arc::clone(&self.gate),
                    ticket: self.ticket.take(),
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
        let now = self.gate.now();
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
    /// The actual takes the place of what was reserved, and the next in the queue may run.
    pub(crate) fn settle(mut self, settlement: &Settlement) -> Settled {
        match self.ticket.take() {
            Some(ticket) => self.gate.settle(ticket, settlement),
            None => Settled::default(),
        }
    }

    /// It came to nothing: as if it had not been asked for, and another request is decided on in its place.
    pub(crate) fn replace(mut self, ask: &AdmissionRequest) -> (Admission, RateLimitStatus) {
        let gate = Arc::clone(&self.gate);
        match self.ticket.take() {
            Some(ticket) => gate.decide(|policy, now| policy.replace(ticket, ask, now)),
            None => gate.offer(ask),
        }
    }
}

impl Drop for SlotPermit {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.gate.settle(ticket, &Settlement::default());
        }
    }
}

impl Drop for QueuedRequest {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket.take() else { return };
        let now = self.gate.now();
        let mut state = self.gate.lock();
        state.waiters.remove(&ticket);
        if !state.policy.cancel(ticket, now) {
            // It was granted, and nobody has come for it.
            state.policy.settle(ticket, &Settlement::default(), now);
        }
        state.wake(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::{Class, GlobalLimits, Priority, ProjectId, UserId};

    fn gate(active: usize, queue: usize) -> Arc<Gate> {
        Gate::new(Rules {
            global: GlobalLimits {
                max_active_requests: active,
                max_queue_size: queue,
                max_queue_wait: Duration::from_secs(30),
            },
            ..Rules::default()
        })
    }

    async fn enter(gate: &Arc<Gate>, priority: Priority) -> Result<AdmittedRequest, Refusal> {
        let ask = AdmissionRequest {
            project: ProjectId(0),
            user: UserId(0),
            key: None,
            plan: PlanId(0),
            model: ModelId(0),
            smaller: None,
            class: Class::Interactive,
            priority,
            input_tokens: 1,
            max_tokens: 1,
            answers: 1,
        };
        match gate.offer(&ask).0 {
            Admission::Admitted(entry) => Ok(entry),
            Admission::Queued(wait) => wait.granted().await,
            Admission::Rejected(refusal) => Err(refusal),
        }
    }

    fn counts(gate: &Gate) -> (usize, usize) {
        let occupancy = gate.occupancy(1);
        (occupancy.active, occupancy.waiting)
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiter_is_woken_by_the_permit_that_comes_back() {
        let gate = gate(1, 1);
        let first = enter(&gate, Priority::Normal).await.expect("free");
        let other = Arc::clone(&gate);
        let second = tokio::spawn(async move { enter(&other, Priority::Normal).await });
        tokio::task::yield_now().await;
        assert_eq!(counts(&gate), (1, 1));
        drop(first);
        let second = second.await.expect("no panic").expect("woken");
        assert!(second.waited.is_some());
        drop(second);
        assert_eq!(counts(&gate), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_grant_that_crosses_a_cancellation_wakes_the_next() {
        let gate = gate(1, 2);
        let first = enter(&gate, Priority::Normal).await.expect("free");
        let (one, two) = (Arc::clone(&gate), Arc::clone(&gate));
        let mut leaving = Box::pin(async move { enter(&one, Priority::Normal).await });
        assert!(futures_util::poll!(leaving.as_mut()).is_pending());
        let staying = tokio::spawn(async move { enter(&two, Priority::Normal).await });
        tokio::task::yield_now().await;
        drop(first); // grants to `leaving`, which has not been polled since
        drop(leaving);
        let staying = staying.await.expect("no panic").expect("woken");
        drop(staying);
        assert_eq!(counts(&gate), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_too_long_is_refused_and_leaves_nothing_behind() {
        let gate = gate(1, 1);
        let held = enter(&gate, Priority::Normal).await.expect("free");
        let refused = enter(&gate, Priority::Normal).await.expect_err("nobody gives back");
        assert!(matches!(refused, Refusal::QueueTimeout { .. }));
        assert_eq!(counts(&gate), (1, 0));
        drop(held);
        assert_eq!(counts(&gate), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_displaced_is_told_so() {
        let gate = gate(1, 1);
        let held = enter(&gate, Priority::Normal).await.expect("free");
        let (one, two) = (Arc::clone(&gate), Arc::clone(&gate));
        let low = tokio::spawn(async move { enter(&one, Priority::Low).await });
        tokio::task::yield_now().await;
        let high = tokio::spawn(async move { enter(&two, Priority::High).await });
        let displaced = low.await.expect("no panic").expect_err("its place is gone");
        assert!(matches!(displaced, Refusal::QueueFull { .. }));
        drop(held);
        drop(high.await.expect("no panic").expect("woken"));
        assert_eq!(counts(&gate), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_permit_that_is_dropped_unsettled_has_used_nothing() {
        let gate = gate(2, 0);
        drop(enter(&gate, Priority::Normal).await.expect("free"));
        let (balances, _) = gate.standing_of(Scope::Project, 0, None);
        assert!(balances.iter().all(|balance| balance.reserved == 0));
        assert_eq!(balances[0].used, 0);
    }
}
