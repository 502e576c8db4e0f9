//! Group commit: one `fdatasync` for all that wait. While one runs, the next group gathers.

use super::segment::Segment;
use crate::error::Error;
use parking_lot::{Condvar, Mutex};
use std::io;
use std::sync::Arc;
use tokio::sync::oneshot;

/// The thread that syncs; it ends with this value.
#[derive(Debug)]
pub(super) struct Syncer(Arc<Queue>);

#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    due: Condvar,
}

/// Segments to sync, with the waiting receipts of each.
type Group = Vec<(Arc<Segment>, oneshot::Sender<Result<(), Error>>)>;

#[derive(Debug, Default)]
struct Waiting {
    group: Group,
    is_closed: bool,
}

/// Tells when an appended record is durable.
#[must_use = "a record is durable when `durable` has returned"]
#[derive(Debug)]
pub struct Receipt(Option<oneshot::Receiver<Result<(), Error>>>);

impl Receipt {
    pub(super) fn done() -> Self {
        Self(None)
    }

    /// Returns when the record is durable: at once but in synced mode.
    ///
    /// # Errors
    /// When the disk does not sync.
    pub async fn durable(self) -> Result<(), Error> {
        match self.0 {
            None => Ok(()),
            Some(synced) => {
                let ended = |_| Error::Journal("the thread that syncs has ended".to_owned());
                synced.await.map_err(ended)?
            }
        }
    }
}

impl Syncer {
    pub(super) fn start() -> io::Result<Self> {
        let queue = Arc::new(Queue::default());
        let shared = Arc::clone(&queue);
        let thread = std::thread::Builder::new().name("ledger-sync".to_owned());
        thread.spawn(move || shared.run())?;
        Ok(Self(queue))
    }

    /// Asks for a sync of what was appended.
    pub(super) fn sync(&self, segment: Arc<Segment>) -> Receipt {
        let (sender, synced) = oneshot::channel();
        self.0.waiting.lock().group.push((segment, sender));
        self.0.due.notify_one();
        Receipt(Some(synced))
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.0.waiting.lock().is_closed = true;
        self.0.due.notify_one();
    }
}

impl Queue {
    fn run(&self) {
        loop {
            let group = {
                let mut waiting = self.waiting.lock();
                self.due
                    .wait_while(&mut waiting, |waiting| waiting.group.is_empty() && !waiting.is_closed);
                if waiting.group.is_empty() {
                    return;
                }
                std::mem::take(&mut waiting.group)
            };
            sync_group(group);
        }
    }
}

/// Syncs each segment once; a group has lines of two at most around a rotation.
fn sync_group(mut group: Group) {
    while let Some((segment, _)) = group.first() {
        let segment = Arc::clone(segment);
        let synced = segment.sync().map_err(Error::from);
        let (done, rest): (Vec<_>, Vec<_>) = group.into_iter().partition(|(one, _)| Arc::ptr_eq(one, &segment));
        for (_, sender) in done {
            let _ = sender.send(synced.clone());
        }
        group = rest;
    }
}
