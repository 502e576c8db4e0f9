//! Group commit without a timer on anybody's path: a record is acknowledged when it is in the journal, and a
//! thread of its own moves what has gathered into the database, a segment a transaction. A start moves what
//! was left behind in the same way.
//!
//! While the database is away, segments gather on disk. When there are too many records in them,
//! [`Ledger::is_full`] says so and the gateway refuses new requests; nothing is ever forgotten.

use super::journal::{self, Journal};
use super::row::{COLUMNS, Row};
use super::{Record, Unavailable};
use rusqlite::Connection;
use std::path::Path;
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Records are moved when so many have gathered,
const GATHER: usize = 4096;

/// or after so long,
const MOVE_EVERY: Duration = Duration::from_secs(1);

/// or when somebody wants to read them. If the database fails, it is tried again after so long.
const TRY_AGAIN: Duration = Duration::from_millis(250);

static INSERT: LazyLock<String> = LazyLock::new(|| {
    let marks = vec!["?"; COLUMNS.len()].join(",");
    let columns = COLUMNS.join(",");
    // A row that is there already was moved before a crash could remove its segment.
    format!("INSERT OR IGNORE INTO requests ({columns}) VALUES ({marks})")
});

/// The only writer of records.
#[derive(Debug)]
pub(crate) struct Ledger {
    state: Mutex<State>,
    due: Condvar,
    most: usize,
    commit_seconds: prometheus::Histogram,
}

#[derive(Debug)]
struct State {
    journal: Journal,
    next_id: i64,
    /// Records in the segment that is written to.
    gathered: usize,
    /// Records in closed segments, which are being moved.
    moving: usize,
    readers: Vec<oneshot::Sender<()>>,
    /// Why the database does not take them, if it does not.
    trouble: Option<String>,
}

impl Ledger {
    /// Moves what a crash has left in the journal, then takes records; at most `most` may wait.
    pub(crate) fn open(
        mut connection: Connection,
        database: &Path,
        most: usize,
        commit_seconds: prometheus::Histogram,
    ) -> Result<Arc<Self>, Unavailable> {
        move_segments(&mut connection, database, u64::MAX)?;
        let last: i64 = connection.query_row("SELECT coalesce(max(id), 0) FROM requests", [], |row| row.get(0))?;
        let ledger = Arc::new(Self {
            state: Mutex::new(State {
                journal: Journal::begin(database).map_err(Unavailable::from)?,
                next_id: last + 1,
                gathered: 0,
                moving: 0,
                readers: Vec::new(),
                trouble: None,
            }),
            due: Condvar::new(),
            most,
            commit_seconds,
        });
        let mover = Arc::downgrade(&ledger);
        let database = database.to_owned();
        std::thread::Builder::new()
            .name("ledger".to_owned())
            .spawn(move || {
                while let Some(ledger) = mover.upgrade() {
                    ledger.move_what_has_gathered(&mut connection, &database);
                }
            })
            .map_err(Unavailable::from)?;
        Ok(ledger)
    }

    /// Returns when the record is in the journal.
    pub(crate) fn commit(&self, record: &Record) -> Result<(), Unavailable> {
        let since = Instant::now();
        let mut state = self.lock();
        let row = Row::of(record, state.next_id);
        state.journal.append(&row)?;
        state.next_id += 1;
        state.gathered += 1;
        if state.gathered == GATHER {
            self.due.notify_one();
        }
        drop(state);
        self.commit_seconds.observe(since.elapsed().as_secs_f64());
        Ok(())
    }

    /// Records that wait for the database.
    pub(crate) fn backlog(&self) -> usize {
        let state = self.lock();
        state.gathered + state.moving
    }

    /// Whether so many records wait that no request should be taken on.
    pub(crate) fn is_full(&self) -> bool {
        self.backlog() >= self.most
    }

    /// Why the database does not take records, if it does not.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.lock().trouble.clone()
    }

    /// Returns when all that has been committed so far is in the database, for whoever wants to read it; or
    /// after a second, if the database does not take it.
    pub(crate) async fn flush(&self) {
        let (tell, told) = oneshot::channel();
        {
            let mut state = self.lock();
            if state.gathered + state.moving == 0 {
                return;
            }
            state.readers.push(tell);
        }
        self.due.notify_one();
        let _ = tokio::time::timeout(Duration::from_secs(1), told).await;
    }

    fn move_what_has_gathered(&self, connection: &mut Connection, database: &Path) {
        let readers = self.close_a_segment();
        let moved = move_segments(connection, database, self.lock().journal.number());
        let mut state = self.lock();
        match moved {
            Ok(()) => (state.moving, state.trouble) = (0, None),
            Err(error) => {
                tracing::error!(%error, records = state.moving, "records not moved into the database");
                state.trouble = Some(error.to_string());
                drop(state);
                std::thread::sleep(TRY_AGAIN);
                return;
            }
        }
        drop(state);
        for reader in readers {
            let _ = reader.send(());
        }
    }

    /// Waits until there is something to move, and closes the segment that it is in. Returns who wants to
    /// read it.
    fn close_a_segment(&self) -> Vec<oneshot::Sender<()>> {
        let state = self.lock();
        let waited = self.due.wait_timeout_while(state, MOVE_EVERY, |state| {
            state.gathered < GATHER && state.readers.is_empty()
        });
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if state.gathered > 0 {
            match state.journal.rotate() {
                Ok(()) => (state.moving, state.gathered) = (state.moving + state.gathered, 0),
                Err(error) => tracing::error!(%error, "journal not rotated"),
            }
        }
        std::mem::take(&mut state.readers)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Moves the segments before number `until` into the database, in their order.
fn move_segments(connection: &mut Connection, database: &Path, until: u64) -> Result<(), Unavailable> {
    for (_, segment) in journal::segments(database)?
        .into_iter()
        .take_while(|(number, _)| *number < until)
    {
        write(connection, &journal::read(&segment)?)?;
        std::fs::remove_file(&segment)?;
    }
    Ok(())
}

fn write(connection: &mut Connection, rows: &[Row<'_>]) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    {
        let mut insert = transaction.prepare_cached(&INSERT)?;
        for row in rows {
            insert.execute(&row.values()[..])?;
        }
    }
    transaction.commit()
}
