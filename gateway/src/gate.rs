//! Policy behind one short lock, and the waking of those who wait. What is handed out is a guard:
//! dropping it gives it back, so a vanished client or a panic cannot leak.

use policy::{Ask, Decision, ModelId, PermitId, Policy, Priority, Refusal, Rules, Standing, TicketId, Time};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// The one place where requests are decided on.
#[derive(Debug)]
pub(crate) struct Gate {
    state: Mutex<State>,
    origin: Instant,
}

#[derive(Debug)]
struct State {
    policy: Policy,
    waiters: HashMap<TicketId, oneshot::Sender<Permit>>,
}

/// A place with the upstreams; goes to the next in the queue when dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    gate: Arc<Gate>,
    id: Option<PermitId>,
}

/// How many run and wait.
#[derive(Debug, Clone)]
pub(crate) struct Occupancy {
    pub(crate) active: usize,
    pub(crate) waiting: usize,
    /// By the index of the model.
    pub(crate) active_by_model: Vec<usize>,
    pub(crate) waiting_by_band: [(Priority, usize); 3],
}

/// The bands, as they are listed.
const BANDS: [Priority; 3] = [Priority::High, Priority::Normal, Priority::Low];

/// An admitted request.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) permit: Permit,
    pub(crate) waited: Option<Duration>,
}

/// Takes a ticket out of the queue if whoever waits goes away.
struct Waiting<'a> {
    gate: &'a Gate,
    ticket: TicketId,
}

impl Gate {
    pub(crate) fn new(rules: &Rules) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                policy: Policy::new(rules),
                waiters: HashMap::new(),
            }),
            origin: Instant::now(),
        })
    }

    /// Decides, and waits where policy says so. The standing is known at once, also of the refused.
    pub(crate) async fn enter(self: &Arc<Self>, ask: &Ask, standing: &mut Standing) -> Result<Entry, Refusal> {
        let (granted, ticket, longest) = {
            let mut state = self.lock();
            let (decision, now_standing) = state.policy.offer(ask, self.now());
            *standing = now_standing;
            match decision {
                Decision::Admit(id) => {
                    let permit = self.permit(id);
                    return Ok(Entry { permit, waited: None });
                }
                Decision::Refuse(refusal) => return Err(refusal),
                Decision::Wait(ticket) => {
                    let (grant, granted) = oneshot::channel();
                    state.waiters.insert(ticket, grant);
                    (granted, ticket, state.policy.admission().limits().max_queue_wait)
                }
            }
        };
        let since = Instant::now();
        let _waiting = Waiting { gate: self, ticket };
        let refused = || Refusal::QueueTimeout {
            waited: since.elapsed(),
            retry_after: Duration::from_secs(1),
        };
        match tokio::time::timeout(longest, granted).await {
            Ok(Ok(permit)) => Ok(Entry {
                permit,
                waited: Some(since.elapsed()),
            }),
            Ok(Err(_)) | Err(_) => Err(refused()),
        }
    }

    /// Who runs and waits now, of the first `models` models.
    pub(crate) fn occupancy(&self, models: usize) -> Occupancy {
        let state = self.lock();
        let admission = state.policy.admission();
        let ids = (0..u32::try_from(models).unwrap_or(u32::MAX)).map(ModelId);
        Occupancy {
            active: admission.active(),
            waiting: admission.waiting(),
            active_by_model: ids.map(|model| admission.active_for(model)).collect(),
            waiting_by_band: BANDS.map(|band| (band, admission.waiting_in(band))),
        }
    }

    fn permit(self: &Arc<Self>, id: PermitId) -> Permit {
        Permit {
            gate: Arc::clone(self),
            id: Some(id),
        }
    }

    fn now(&self) -> Time {
        Time::after_origin(self.origin.elapsed())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under this lock leaves counts that are still consistent: go on.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Some(id) = self.id.take() else { return };
        let next = {
            let mut state = self.gate.lock();
            state
                .policy
                .release(id)
                .map(|(ticket, id)| (state.waiters.remove(&ticket), id))
        };
        // Outside the lock: if the waiter is gone, the new guard is dropped here and wakes the next.
        if let Some((waiter, id)) = next {
            let permit = self.gate.permit(id);
            if let Some(waiter) = waiter {
                let _ = waiter.send(permit);
            }
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.gate.lock();
        if state.waiters.remove(&self.ticket).is_some() {
            state.policy.cancel(self.ticket);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::{Class, Estimate, GlobalLimits, PlanId, ProjectId, UserId};

    fn gate(active: usize, queue: usize) -> Arc<Gate> {
        Gate::new(&Rules {
            global: GlobalLimits {
                max_active_requests: active,
                max_queue_size: queue,
                max_queue_wait: Duration::from_secs(30),
            },
            plans: Vec::new(),
        })
    }

    fn ask() -> Ask {
        Ask {
            project: ProjectId(0),
            user: UserId(0),
            plan: PlanId(0),
            model: ModelId(0),
            class: Class::Interactive,
            priority: Priority::Normal,
            estimate: Estimate::default(),
        }
    }

    async fn enter(gate: &Arc<Gate>) -> Result<Entry, Refusal> {
        gate.enter(&ask(), &mut Standing::default()).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiter_is_woken_by_the_permit_that_comes_back() {
        let gate = gate(1, 1);
        let first = enter(&gate).await.expect("free");
        let other = Arc::clone(&gate);
        let second = tokio::spawn(async move { enter(&other).await });
        tokio::task::yield_now().await;
        assert_eq!(gate.occupancy(1).waiting, 1);
        drop(first);
        let second = second.await.expect("no panic").expect("woken");
        assert!(second.waited.is_some());
        drop(second);
        assert_eq!((gate.occupancy(1).active, gate.occupancy(1).waiting), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_grant_that_crosses_a_cancellation_wakes_the_next() {
        let gate = gate(1, 2);
        let first = enter(&gate).await.expect("free");
        let (one, two) = (Arc::clone(&gate), Arc::clone(&gate));
        let mut leaving = Box::pin(async move { enter(&one).await });
        assert!(futures_util::poll!(leaving.as_mut()).is_pending());
        let staying = tokio::spawn(async move { enter(&two).await });
        tokio::task::yield_now().await;
        drop(first); // grants to `leaving`, which has not been polled since
        drop(leaving);
        let staying = staying.await.expect("no panic").expect("woken");
        drop(staying);
        assert_eq!((gate.occupancy(1).active, gate.occupancy(1).waiting), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_too_long_is_refused_and_leaves_nothing_behind() {
        let gate = gate(1, 1);
        let held = enter(&gate).await.expect("free");
        let refused = enter(&gate).await.expect_err("nobody gives back");
        assert!(matches!(refused, Refusal::QueueTimeout { .. }));
        assert_eq!(gate.occupancy(1).waiting, 0);
        drop(held);
        assert_eq!(gate.occupancy(1).active, 0);
    }
}
