//! The state of the ledger, for `/ready`, metrics and the acceptance of requests.

use crate::endings::Queue;
use crate::segments::SetAside;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// The writer is reported as stuck when it has not finished a turn for so long. Its statements have shorter limits.
const STUCK_AFTER: Duration = Duration::from_secs(60);

/// State shared with the thread that moves records.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) is_due: bool,
    pub(crate) is_closed: bool,
    pub(crate) readers: Vec<oneshot::Sender<()>>,
    /// Results that wait for the database.
    pub(crate) endings: Queue,
    /// Why the database does not take records, if it does not.
    pub(crate) trouble: Option<String>,
    /// When the last turn ended, one way or the other.
    pub(crate) turned_at: Instant,
    pub(crate) restarts: u64,
    pub(crate) aside: SetAside,
}

impl State {
    pub(crate) fn new(aside: SetAside) -> Self {
        Self {
            is_due: false,
            is_closed: false,
            readers: Vec::new(),
            endings: Queue::default(),
            trouble: None,
            turned_at: Instant::now(),
            restarts: 0,
            aside,
        }
    }

    /// A turn has moved everything.
    pub(crate) fn succeed(&mut self) {
        if self.trouble.take().is_some() {
            tracing::info!("the database takes records again");
        }
        self.turned_at = Instant::now();
    }

    /// A turn has failed.
    pub(crate) fn fail(&mut self, error: String) {
        self.trouble = Some(error);
        self.turned_at = Instant::now();
    }

    /// Why the database does not take records, if it does not.
    pub(crate) fn database_error(&self) -> Option<String> {
        let stuck = self.turned_at.elapsed();
        if self.trouble.is_none() && stuck > STUCK_AFTER {
            return Some(format!(
                "the ledger's writer has not come back for {} s",
                stuck.as_secs()
            ));
        }
        self.trouble.clone()
    }
}

/// The state of the ledger.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LedgerHealth {
    /// Why the journal cannot be written, if it cannot; new requests are to be refused then.
    pub journal_error: Option<String>,
    /// Why records do not get into the database, if they do not; they gather in the journal.
    pub database_error: Option<String>,
    /// True if so many records wait for the database that new requests are to be refused.
    pub is_full: bool,
    /// Records that wait for the database.
    pub backlog: usize,
    /// Lines of the journal that could not be read and were set aside since the start.
    pub damaged_lines: u64,
    /// Records that the database refused for what they say and that were set aside since the start.
    pub rejected_records: u64,
    /// Panics of the writer since the start.
    pub writer_restarts: u64,
}

impl LedgerHealth {
    /// Why the ledger is not healthy; `None` if it is.
    pub fn reason(&self) -> Option<String> {
        if let Some(error) = &self.journal_error {
            return Some(format!("the journal cannot be written: {error}"));
        }
        if self.is_full {
            return Some(format!("{} records wait for the database", self.backlog));
        }
        let error = self.database_error.as_ref()?;
        Some(format!("records do not get into the database: {error}"))
    }
}
