//! Requests by their id: those that run or wait, so that they can be cancelled, and the answers of those that
//! went on in the background, until they are fetched or too old.

use futures_util::task::AtomicWaker;
use parking_lot::{Mutex, MutexGuard};
use policy::{ProjectId, TicketId};
use serde_json::Value;
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::task::Poll;
use std::time::{Duration, Instant};

/// Answers are kept for so long,
const KEEP: Duration = Duration::from_secs(3600);

/// and at most so many of them.
const KEEP_MOST: usize = 10_000;

/// All requests that somebody may ask about.
#[derive(Debug, Default)]
pub(crate) struct Requests(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    live: HashMap<Arc<str>, Live>,
    answers: HashMap<Arc<str>, Answer>,
    by_age: VecDeque<(Instant, Arc<str>)>,
}

/// One that runs or waits.
#[derive(Debug, Clone)]
struct Live {
    cancel: Arc<Cancel>,
    project: Option<ProjectId>,
    waits: Option<TicketId>,
}

#[derive(Debug)]
struct Answer {
    project: ProjectId,
    body: Value,
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

/// What is known of a request.
#[derive(Debug, PartialEq)]
pub(crate) enum Status {
    /// It waits, with this ticket.
    Queued(Option<TicketId>),
    Processing,
    /// It has ended; the answer as `/generate` gives it.
    Ended(Value),
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
        self.lock().live.insert(Arc::clone(&id), live);
        Listed {
            requests: Arc::clone(self),
            id,
            cancel,
        }
    }

    /// What is known of a request; `of` limits it to a project's own.
    pub(crate) fn status(&self, id: &str, of: Option<ProjectId>) -> Option<Status> {
        let known = self.lock();
        if let Some(live) = known.live.get(id) {
            let is_own = of.is_none() || live.project == of;
            return is_own.then(|| {
                live.waits
                    .map_or(Status::Processing, |ticket| Status::Queued(Some(ticket)))
            });
        }
        let answer = known.answers.get(id)?;
        (of.is_none() || of == Some(answer.project)).then(|| Status::Ended(answer.body.clone()))
    }

    /// Tells a request to end. False if none with this id runs or waits.
    pub(crate) fn cancel(&self, id: &str, of: Option<ProjectId>) -> bool {
        let known = self.lock();
        let live = known.live.get(id).filter(|live| of.is_none() || live.project == of);
        if let Some(live) = live {
            live.cancel.tell();
        }
        live.is_some()
    }

    /// Keeps the answer of a request that went on in the background.
    pub(crate) fn keep(&self, id: &str, project: ProjectId, body: Value) {
        let mut known = self.lock();
        let id: Arc<str> = id.into();
        known.by_age.push_back((Instant::now(), Arc::clone(&id)));
        known.answers.insert(id, Answer { project, body });
        let known = &mut *known;
        while let Some((since, id)) = known.by_age.front()
            && (since.elapsed() > KEEP || known.by_age.len() > KEEP_MOST)
        {
            known.answers.remove(id);
            known.by_age.pop_front();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock()
    }
}

impl Listed {
    /// Whose it is, and whether it waits.
    pub(crate) fn note(&self, project: ProjectId, waits: Option<TicketId>) {
        if let Some(live) = self.requests.lock().live.get_mut(&self.id) {
            (live.project, live.waits) = (Some(project), waits);
        }
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        let mut known = self.requests.lock();
        let is_own = known
            .live
            .get(&self.id)
            .is_some_and(|live| Arc::ptr_eq(&live.cancel, &self.cancel));
        if is_own {
            known.live.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_request_is_known_while_it_lives_and_its_answer_afterwards() {
        let requests = Arc::new(Requests::default());
        let listed = requests.list("a");
        listed.note(ProjectId(1), None);
        assert_eq!(requests.status("a", Some(ProjectId(1))), Some(Status::Processing));
        assert_eq!(
            requests.status("a", Some(ProjectId(2))),
            None,
            "only its own project may ask"
        );
        requests.keep("a", ProjectId(1), json!(1));
        drop(listed);
        assert_eq!(requests.status("a", None), Some(Status::Ended(json!(1))));
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

    #[test]
    fn answers_are_bounded() {
        let requests = Requests::default();
        for number in 0..KEEP_MOST + 5 {
            requests.keep(&number.to_string(), ProjectId(0), json!(number));
        }
        assert_eq!(requests.lock().answers.len(), KEEP_MOST);
        assert_eq!(requests.status("0", None), None);
    }
}
