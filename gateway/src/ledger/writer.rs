//! Group commit without a timer on anybody's path: a record is acknowledged when it is in the journal, and a
//! thread of its own moves what has gathered into the database, a segment a transaction. A start moves what
//! was left behind in the same way.
//!
//! While the database is away, segments gather on disk. When there are too many records in them,
//! [`Ledger::is_full`] says so and the gateway refuses new requests; nothing is ever forgotten.

use super::journal::{self, Lines, Segment};
use super::report::Filter;
use super::rollup::Rollup;
use super::row::{COLUMNS, Row, iso};
use super::store::Database;
use super::{Record, Store, Unavailable};
use arc_swap::ArcSwap;
use parking_lot::{Condvar, Mutex};
use rusqlite::{Connection, params};
use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::oneshot;

/// Records are moved when so many have gathered,
const GATHER: usize = 4096;

/// or after so long,
const MOVE_EVERY: Duration = Duration::from_secs(1);

/// or when somebody wants to read them. If the database fails, it is tried again after so long.
const TRY_AGAIN: Duration = Duration::from_millis(250);

/// Old records are deleted so many at a time, at most once a second.
const DELETE_AT_ONCE: usize = 1000;

static INSERT: LazyLock<String> = LazyLock::new(|| {
    let marks = vec!["?"; COLUMNS.len()].join(",");
    let columns = COLUMNS.join(",");
    // A row that is there already was moved before a crash could remove its segment.
    format!("INSERT OR IGNORE INTO requests ({columns}) VALUES ({marks})")
});

/// The only writer of records.
#[derive(Debug)]
pub(crate) struct Ledger {
    /// The segment that is written to.
    segment: ArcSwap<Segment>,
    next_id: AtomicI64,
    mover: Mutex<Mover>,
    due: Condvar,
    bounds: Bounds,
    store: Store,
    commit_seconds: prometheus::Histogram,
}

/// How much is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Records that may wait for the database.
    pub(crate) backlog: usize,
    /// How long records are kept in it; `None`: for ever.
    pub(crate) keep: Option<Duration>,
}

/// What the thread that moves records is told, and tells.
#[derive(Debug, Default)]
struct Mover {
    is_due: bool,
    /// Records in closed segments, which are being moved.
    moving: usize,
    readers: Vec<oneshot::Sender<()>>,
    /// Why the database does not take them, if it does not.
    trouble: Option<String>,
}

impl Ledger {
    /// Moves what a crash has left in the journal, then takes records.
    pub(crate) fn open(
        database: Database,
        bounds: Bounds,
        commit_seconds: prometheus::Histogram,
    ) -> Result<Arc<Self>, Unavailable> {
        let Database {
            writer: mut connection,
            pool: store,
            file,
        } = database;
        move_segments(&mut connection, &file, u64::MAX)?;
        let interrupted = conclude_intents(&mut connection)?;
        if interrupted > 0 {
            tracing::warn!(
                requests = interrupted,
                "requests were running when the gateway was killed"
            );
        }
        let last: i64 = connection.query_row("SELECT coalesce(max(id), 0) FROM requests", [], |row| row.get(0))?;
        let ledger = Arc::new(Self {
            segment: ArcSwap::from_pointee(Segment::create(&file, 1)?),
            next_id: AtomicI64::new(last + 1),
            mover: Mutex::default(),
            due: Condvar::new(),
            bounds,
            store,
            commit_seconds,
        });
        let mover = Arc::downgrade(&ledger);
        std::thread::Builder::new()
            .name("ledger".to_owned())
            .spawn(move || {
                while let Some(ledger) = mover.upgrade() {
                    ledger.move_what_has_gathered(&mut connection, &file);
                }
            })
            .map_err(Unavailable::from)?;
        Ok(ledger)
    }

    /// Returns when the record is in the journal.
    pub(crate) fn commit(&self, record: &Record) -> Result<(), Unavailable> {
        let since = Instant::now();
        let row = Row::of(record, record.ledger_id.unwrap_or_else(|| self.next_id()));
        let gathered = self.segment.load().append(&row)?;
        if gathered == GATHER {
            self.mover.lock().is_due = true;
            self.due.notify_one();
        }
        self.commit_seconds.observe(since.elapsed().as_secs_f64());
        Ok(())
    }

    /// An id for a record to come, for an intent before it.
    pub(crate) fn next_id(&self) -> i64 {
        self.next_id.fetch_add(1, Relaxed)
    }

    /// Notes that a request runs: if the gateway is killed before its record is committed, this becomes it.
    pub(crate) fn intend(&self, record: &Record) {
        let Some(id) = record.ledger_id else { return };
        if let Err(error) = self.segment.load().intend(&Row::interrupted(record, id)) {
            tracing::warn!(%error, request_id = record.request_id, "intent not written");
        }
    }

    /// A summary of what one project, user or key has used, everything that was committed so far included.
    pub(crate) async fn usage_of(&self, only: (&'static str, String)) -> Result<serde_json::Value, Unavailable> {
        self.flush().await;
        let filter = Filter {
            only: Some(only),
            ..Filter::default()
        };
        super::report::summary(&self.store, &filter).await
    }

    /// Where everything but records is written, too.
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Records that wait for the database.
    pub(crate) fn backlog(&self) -> usize {
        self.segment.load().records() + self.mover.lock().moving
    }

    /// Whether so many records wait that no request should be taken on.
    pub(crate) fn is_full(&self) -> bool {
        self.backlog() >= self.bounds.backlog
    }

    /// Why the database does not take records, if it does not.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.mover.lock().trouble.clone()
    }

    /// Returns when all that has been committed so far is in the database, for whoever wants to read it; or
    /// after a second, if the database does not take it.
    pub(crate) async fn flush(&self) {
        if self.backlog() == 0 {
            return;
        }
        let (tell, told) = oneshot::channel();
        {
            let mut mover = self.mover.lock();
            mover.readers.push(tell);
            mover.is_due = true;
        }
        self.due.notify_one();
        let _ = tokio::time::timeout(Duration::from_secs(1), told).await;
    }

    fn move_what_has_gathered(&self, connection: &mut Connection, database: &Path) {
        let readers = self.wait_until_due();
        if let Err(error) = self.close_the_segment(database) {
            tracing::error!(%error, "journal not rotated");
        }
        let moved = move_segments(connection, database, self.segment.load().number);
        let mut mover = self.mover.lock();
        match moved {
            Ok(()) => (mover.moving, mover.trouble) = (0, None),
            Err(error) => {
                tracing::error!(%error, records = mover.moving, "records not moved into the database");
                mover.trouble = Some(error.to_string());
                drop(mover);
                std::thread::sleep(TRY_AGAIN);
                return;
            }
        }
        drop(mover);
        for reader in readers {
            let _ = reader.send(());
        }
        if let Some(keep) = self.bounds.keep
            && let Err(error) = forget_old(connection, keep)
        {
            tracing::warn!(%error, "old records not deleted");
        }
    }

    fn wait_until_due(&self) -> Vec<oneshot::Sender<()>> {
        let mut mover = self.mover.lock();
        self.due.wait_while_for(&mut mover, |mover| !mover.is_due, MOVE_EVERY);
        mover.is_due = false;
        std::mem::take(&mut mover.readers)
    }

    /// Sends new records to a new segment, and waits for those who still write to the old one.
    fn close_the_segment(&self, database: &Path) -> std::io::Result<()> {
        let current = self.segment.load();
        if current.records() == 0 {
            return Ok(());
        }
        let next = Segment::create(database, current.number + 1)?;
        drop(current);
        let closed = self.segment.swap(Arc::new(next));
        while Arc::strong_count(&closed) > 1 {
            std::thread::yield_now();
        }
        self.mover.lock().moving += closed.records();
        Ok(())
    }
}

/// Moves the segments before number `until` into the database, in their order.
fn move_segments(connection: &mut Connection, database: &Path, until: u64) -> Result<(), Unavailable> {
    for (_, segment) in journal::segments(database)?
        .into_iter()
        .take_while(|(number, _)| *number < until)
    {
        let lines = journal::read(&segment)?;
        let transaction = connection.transaction()?;
        write(&transaction, &lines.rows)?;
        keep_intents(&transaction, &lines)?;
        transaction.commit()?;
        std::fs::remove_file(&segment)?;
    }
    Ok(())
}

/// Writes rows, and adds to the sums those that were not there.
fn write(connection: &Connection, rows: &[Row<'_>]) -> rusqlite::Result<()> {
    let mut rollup = Rollup::default();
    let mut insert = connection.prepare_cached(&INSERT)?;
    for row in rows {
        if insert.execute(&row.values()[..])? == 1 {
            rollup.add(row);
        }
    }
    rollup.write(connection)
}

/// Keeps the intents of requests that run on, and forgets those that have been finished.
fn keep_intents(connection: &Connection, lines: &Lines) -> Result<(), Unavailable> {
    let finished: HashSet<i64> = lines.rows.iter().map(|row| row.id).collect();
    for intent in lines.intents.iter().filter(|intent| !finished.contains(&intent.id)) {
        let line = serde_json::to_string(intent).map_err(|error| Unavailable(error.to_string()))?;
        connection
            .prepare_cached("INSERT OR REPLACE INTO intents VALUES (?1, ?2)")?
            .execute(params![intent.id, line])?;
    }
    connection
        .prepare_cached("DELETE FROM intents WHERE id IN (SELECT id FROM requests)")?
        .execute([])?;
    Ok(())
}

/// Makes records of the intents that a killed gateway has left; how many.
fn conclude_intents(connection: &mut Connection) -> Result<usize, Unavailable> {
    let transaction = connection.transaction()?;
    let mut rows: Vec<Row<'static>> = Vec::new();
    {
        let mut intents = transaction.prepare("SELECT line FROM intents ORDER BY id")?;
        for line in intents.query_map([], |row| row.get::<_, String>(0))? {
            rows.push(serde_json::from_str(&line?).map_err(|error| Unavailable(error.to_string()))?);
        }
    }
    write(&transaction, &rows)?;
    transaction.execute("DELETE FROM intents", [])?;
    transaction.commit()?;
    Ok(rows.len())
}

/// Deletes a small batch of the records that are older than `keep`, oldest first; their sums stay.
fn forget_old(connection: &Connection, keep: Duration) -> rusqlite::Result<()> {
    let before = iso(SystemTime::now() - keep);
    let oldest = "SELECT id, created_at FROM requests ORDER BY id LIMIT ?1";
    let deleted = connection.execute(
        &format!("DELETE FROM requests WHERE id IN (SELECT id FROM ({oldest}) WHERE created_at < ?2)"),
        params![DELETE_AT_ONCE, before],
    )?;
    if deleted > 0 {
        let day = before.get(..10).unwrap_or_default();
        connection.execute(
            "INSERT INTO settings VALUES ('deleted_until', ?1) ON CONFLICT DO UPDATE SET value = ?1",
            [day],
        )?;
        tracing::info!(records = deleted, before, "old records deleted");
    }
    Ok(())
}
