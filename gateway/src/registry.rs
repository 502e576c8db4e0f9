//! The requests that run or wait in this process, by their id: how far each has come, and the way to cancel it.
//!
//! Ids are the gateway's own (random, see [`random_request_id`]); what a client sends as `x-request-id` is no key here.

use crate::clock::now_ms;
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use policy::{ProjectId, TicketId};
use std::cell::RefCell;
use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::task::Poll;

/// All live requests of this process.
#[derive(Debug, Default)]
pub(crate) struct Registry(Mutex<HashMap<Arc<str>, Arc<Live>>>);

/// A request that runs or waits.
#[derive(Debug, Default)]
struct Live {
    cancellation: Cancellation,
    /// Its project once that is known, and its ticket while it is queued.
    state: Mutex<(Option<ProjectId>, Option<TicketId>)>,
}

/// Set when a request is to end early. One task listens and polls again for every piece of an answer, so listening takes
/// no lock.
#[derive(Debug, Default)]
struct Cancellation {
    is_cancelled: AtomicBool,
    listener: AtomicWaker,
}

impl Cancellation {
    fn cancel(&self) {
        self.is_cancelled.store(true, Release);
        self.listener.wake();
    }

    async fn cancelled(&self) {
        poll_fn(|context| {
            self.listener.register(context.waker());
            if self.is_cancelled.load(Acquire) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }
}

/// A request's entry in the registry; dropping it removes the entry.
#[derive(Debug)]
pub(crate) struct Registration {
    registry: Arc<Registry>,
    id: Arc<str>,
    live: Arc<Live>,
}

/// The receiving end of a request's cancellation.
#[derive(Debug, Clone)]
pub(crate) struct CancelListener(Arc<Live>);

/// The state of a live request.
#[derive(Debug, PartialEq)]
pub(crate) enum Status {
    Queued(TicketId),
    Processing,
}

impl Registry {
    /// Registers a request. An id is registered once; a second registration under the same id (a job that is resumed
    /// while its first run ends) replaces the first in lookups and leaves its state alone.
    pub(crate) fn register(self: &Arc<Self>, id: &str) -> Registration {
        let id: Arc<str> = id.into();
        let live = Arc::new(Live::default());
        self.0.lock().insert(Arc::clone(&id), Arc::clone(&live));
        Registration {
            registry: Arc::clone(self),
            id,
            live,
        }
    }

    /// Returns whether a request runs or waits.
    pub(crate) fn has(&self, id: &str) -> bool {
        self.0.lock().contains_key(id)
    }

    /// The status of a live request; `project` limits the lookup to that project's requests.
    pub(crate) fn status(&self, id: &str, project: Option<ProjectId>) -> Option<Status> {
        let live = self.find(id, project)?;
        let (_, ticket) = *live.state.lock();
        Some(ticket.map_or(Status::Processing, Status::Queued))
    }

    /// Cancels a live request; false if there is none with this id (in this project).
    pub(crate) fn cancel(&self, id: &str, project: Option<ProjectId>) -> bool {
        let live = self.find(id, project);
        if let Some(live) = &live {
            live.cancellation.cancel();
        }
        live.is_some()
    }

    /// Cancels the queued requests whose ids begin with `prefix`; those that run go on.
    pub(crate) fn cancel_queued(&self, prefix: &str) {
        for (id, live) in &*self.0.lock() {
            if id.starts_with(prefix) && live.state.lock().1.is_some() {
                live.cancellation.cancel();
            }
        }
    }

    /// The ids of the queued requests, by their tickets.
    pub(crate) fn queued(&self) -> HashMap<TicketId, Arc<str>> {
        let entries = self.0.lock();
        let queued = entries
            .iter()
            .filter_map(|(id, live)| Some((live.state.lock().1?, Arc::clone(id))));
        queued.collect()
    }

    fn find(&self, id: &str, project: Option<ProjectId>) -> Option<Arc<Live>> {
        let live = Arc::clone(self.0.lock().get(id)?);
        let owner = live.state.lock().0;
        (project.is_none() || owner == project).then_some(live)
    }
}

impl Registration {
    /// Notes the request's project and, while it is queued, its ticket.
    pub(crate) fn update(&self, project: ProjectId, ticket: Option<TicketId>) {
        *self.live.state.lock() = (Some(project), ticket);
    }

    /// Cancels the request.
    pub(crate) fn cancel(&self) {
        self.live.cancellation.cancel();
    }

    /// A listener for the request's cancellation.
    pub(crate) fn cancel_listener(&self) -> CancelListener {
        CancelListener(Arc::clone(&self.live))
    }
}

impl CancelListener {
    /// Returns once the request is cancelled.
    pub(crate) async fn cancelled(&self) {
        self.0.cancellation.cancelled().await;
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut entries = self.registry.0.lock();
        if entries.get(&self.id).is_some_and(|live| Arc::ptr_eq(live, &self.live)) {
            entries.remove(&self.id);
        }
    }
}

/// Random bytes are taken from the operating system in blocks of this size.
const ENTROPY_BLOCK: usize = 1024;

/// Bytes of the second in which an id is made.
const TIME_BYTES: usize = 4;

/// Random bytes of an id: 96 bits cannot be guessed.
const ID_BYTES: usize = 12;

/// Makes a request id: `req_`, the second in which it is made and 96 random bits, in hexadecimal. Ids of one time are near
/// each other in the database's indices, so that a record does not change a page of its own there.
///
/// # Errors
/// The operating system has no randomness to give.
pub(crate) fn random_request_id() -> Result<String, getrandom::Error> {
    thread_local! {
        static ENTROPY: RefCell<([u8; ENTROPY_BLOCK], usize)> = const { RefCell::new(([0; ENTROPY_BLOCK], ENTROPY_BLOCK)) };
    }
    ENTROPY.with_borrow_mut(|(block, used)| {
        if *used + ID_BYTES > block.len() {
            getrandom::fill(block)?;
            *used = 0;
        }
        let bytes = &mut block[*used..*used + ID_BYTES];
        let mut id = String::with_capacity("req_".len() + 2 * (TIME_BYTES + ID_BYTES));
        id.push_str("req_");
        let seconds = u32::try_from(now_ms() / 1000).unwrap_or_default();
        id.extend(seconds.to_be_bytes().into_iter().flat_map(hex_digits));
        id.extend(bytes.iter().copied().flat_map(hex_digits));
        bytes.fill(0);
        *used += ID_BYTES;
        Ok(id)
    })
}

fn hex_digits(byte: u8) -> [char; 2] {
    [byte >> 4, byte & 15].map(|digit| char::from_digit(u32::from(digit), 16).unwrap_or('0'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_request_is_found_while_it_lives_and_only_by_its_own_project() {
        let registry = Arc::new(Registry::default());
        let registration = registry.register("a");
        registration.update(ProjectId(1), None);
        assert_eq!(registry.status("a", Some(ProjectId(1))), Some(Status::Processing));
        assert_eq!(registry.status("a", Some(ProjectId(2))), None);
        drop(registration);
        assert_eq!(registry.status("a", None), None);
        assert!(!registry.cancel("a", None));
    }

    #[test]
    fn a_second_registration_under_an_id_never_changes_the_first() {
        let registry = Arc::new(Registry::default());
        let first = registry.register("a");
        first.update(ProjectId(1), None);
        let second = registry.register("a");
        second.update(ProjectId(2), None);
        drop(first);
        assert_eq!(registry.status("a", Some(ProjectId(2))), Some(Status::Processing));
        drop(second);
        assert_eq!(registry.status("a", None), None);
    }

    #[tokio::test]
    async fn a_request_is_cancelled_by_its_own_project_or_an_operator() {
        let registry = Arc::new(Registry::default());
        let registration = registry.register("a");
        registration.update(ProjectId(1), None);
        assert!(!registry.cancel("a", Some(ProjectId(2))));
        assert!(registry.cancel("a", None));
        registration.cancel_listener().cancelled().await;
    }

    #[test]
    fn ids_are_never_given_twice() {
        let ids: HashSet<String> = (0..10_000).map(|_| random_request_id().expect("entropy")).collect();
        assert_eq!(ids.len(), 10_000);
        assert!(ids.iter().all(|id| id.len() == 36));
        // What is not the time differs everywhere: nobody finds one from another.
        for at in 12..36 {
            let digits: HashSet<u8> = ids.iter().map(|id| id.as_bytes()[at]).collect();
            assert_eq!(digits.len(), 16, "digit {at}");
        }
    }
}
