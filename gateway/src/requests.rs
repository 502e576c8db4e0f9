//! Requests that run or wait, by their id, so that they can be asked about and cancelled.

use futures_util::task::AtomicWaker;
use parking_lot::{Mutex, MutexGuard};
use policy::{ProjectId, TicketId};
use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::task::Poll;

/// All requests that somebody may ask about.
#[derive(Debug, Default)]
pub(crate) struct Requests(Mutex<HashMap<Arc<str>, Live>>);

/// One that runs or waits.
#[derive(Debug, Clone)]
struct Live {
    cancel: Arc<Cancel>,
    project: Option<ProjectId>,
    waits: Option<TicketId>,
}

/// Told when a request is to end before its time. One task listens, and asks anew for every piece of an answer,
/// so listening takes no lock.
#[derive(Debug, Default)]
pub(crate) struct Cancel {
    is_told: AtomicBool,
    listener: AtomicWaker,
}

impl Cancel {
    fn tell(&self) {
        self.is_told.store(true, Release);
        self.listener.wake();
    }

    /// Pending until told.
    pub(crate) async fn told(&self) {
        poll_fn(|context| {
            self.listener.register(context.waker());
            if self.is_told.load(Acquire) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }
}

/// Removes a request from the list when it has ended.
#[derive(Debug)]
pub(crate) struct Listed {
    requests: Arc<Requests>,
    id: Arc<str>,
    pub(crate) cancel: Arc<Cancel>,
}

/// How far a request has come.
#[derive(Debug, PartialEq)]
pub(crate) enum Status {
    /// It waits, with this ticket.
    Queued(TicketId),
    Processing,
}

impl Requests {
    /// Lists a request. Of two with the same id, the later one is found.
    pub(crate) fn list(self: &Arc<Self>, id: &str) -> Listed {
        let id: Arc<str> = id.into();
        let cancel = Arc::new(Cancel::default());
        let live = Live {
            cancel: Arc::clone(&cancel),
            project: None,
            waits: None,
        };
        self.lock().insert(Arc::clone(&id), live);
        Listed {
            requests: Arc::clone(self),
            id,
            cancel,
        }
    }

    /// How far a request has come, if it runs or waits; `of` limits it to a project's own.
    pub(crate) fn status(&self, id: &str, of: Option<ProjectId>) -> Option<Status> {
        let known = self.lock();
        let live = known.get(id).filter(|live| of.is_none() || live.project == of)?;
        Some(live.waits.map_or(Status::Processing, Status::Queued))
    }

    /// Tells a request to end. False if none with this id runs or waits.
    pub(crate) fn cancel(&self, id: &str, of: Option<ProjectId>) -> bool {
        let known = self.lock();
        let live = known.get(id).filter(|live| of.is_none() || live.project == of);
        if let Some(live) = live {
            live.cancel.tell();
        }
        live.is_some()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Live>> {
        self.0.lock()
    }
}

impl Listed {
    /// Whose it is, and whether it waits.
    pub(crate) fn note(&self, project: ProjectId, waits: Option<TicketId>) {
        if let Some(live) = self.requests.lock().get_mut(&self.id) {
            (live.project, live.waits) = (Some(project), waits);
        }
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        let mut known = self.requests.lock();
        let is_own = known
            .get(&self.id)
            .is_some_and(|live| Arc::ptr_eq(&live.cancel, &self.cancel));
        if is_own {
            known.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_known_while_it_lives() {
        let requests = Arc::new(Requests::default());
        let listed = requests.list("a");
        listed.note(ProjectId(1), None);
        assert_eq!(requests.status("a", Some(ProjectId(1))), Some(Status::Processing));
        assert_eq!(
            requests.status("a", Some(ProjectId(2))),
            None,
            "only its own project may ask"
        );
        drop(listed);
        assert_eq!(requests.status("a", None), None);
        assert!(!requests.cancel("a", None));
    }

    #[tokio::test]
    async fn a_request_can_be_cancelled_by_its_own_project_and_an_operator() {
        let requests = Arc::new(Requests::default());
        let listed = requests.list("a");
        listed.note(ProjectId(1), None);
        assert!(!requests.cancel("a", Some(ProjectId(2))));
        assert!(requests.cancel("a", None));
        listed.cancel.told().await;
    }
}
