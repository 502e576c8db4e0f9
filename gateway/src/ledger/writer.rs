//! Group commit without a timer on anybody's path: a record is acknowledged when it is in the journal, and a
//! thread of its own moves what has gathered into the database, a segment a transaction. A start moves what
//! was left behind in the same way.
//!
//! While the database is away, segments gather on disk. When there are too many records in them,
//! [`Ledger::is_full`] says so and the gateway refuses new requests; nothing is ever forgotten.

use super::journal::{self, Lines, Segment};
use super::place::{Place, Places};
use super::record::Correction;
use super::report::Filter;
use super::row::Row;
use super::store::Database;
use super::{Record, Store, Unavailable};
use arc_swap::ArcSwap;
use parking_lot::{Condvar, Mutex};
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::oneshot;

/// Records are moved when so many have gathered,
const GATHER: usize = 4096;

/// or after so long,
const MOVE_EVERY: Duration = Duration::from_secs(1);

/// or when somebody wants to read them. If the database fails, it is tried again after so long.
const TRY_AGAIN: Duration = Duration::from_millis(250);

/// Old records are deleted so many at a time, at most once a second.
pub(super) const DELETE_AT_ONCE: i64 = 1000;

/// A record's id is the microsecond of its making, and then the gateway's number among those that share the database.
const NUMBERS: i64 = 1024;

/// Writes records into a database.
pub(super) trait Writer: Send {
    /// Writes a segment's lines in one transaction: records that are not there yet, their sums, and intents of requests
    /// that run on.
    fn write(&mut self, lines: &Lines) -> Result<(), Unavailable>;
    /// Makes records of the intents that a gateway has left when it was killed; how many.
    fn conclude_intents(&mut self, owner: &str) -> Result<usize, Unavailable>;
    /// The greatest id of a record.
    fn last_id(&mut self) -> Result<i64, Unavailable>;
    /// Deletes a small batch of the records that are older than `keep`, oldest first; their sums stay.
    fn forget_old(&mut self, keep: Duration) -> Result<u64, Unavailable>;
}

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
    owner: String,
    /// Whose jobs and batches it has found left behind.
    left: Option<String>,
    /// Told the owner of the other place when its gateway has ended.
    adopted: Mutex<Option<oneshot::Receiver<String>>>,
    number: i64,
    commit_seconds: prometheus::Histogram,
}

/// How much is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Records that may wait for the database.
    pub(crate) backlog: usize,
    /// How long records are kept in it; `None`: for ever.
    pub(crate) keep: Option<Duration>,
    /// Whether records of the last moment may be lost at a kill.
    pub(crate) is_relaxed: bool,
}

/// What was gathered is written so often, where it need not be at once.
const WRITE_EVERY: Duration = Duration::from_millis(100);

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
    pub(crate) async fn open(
        database: Database,
        bounds: Bounds,
        commit_seconds: prometheus::Histogram,
    ) -> Result<Arc<Self>, Unavailable> {
        let Database {
            pool: store,
            mut writer,
            places,
            number,
        } = database;
        let Place { journal, owner } = places.mine.place.clone();
        let left = places.left.as_ref().map(|held| held.place.owner.clone());
        let (tell, told) = oneshot::channel();
        let (tell_adopted, adopted) = oneshot::channel();
        let (hand_over, handed) = std::sync::mpsc::channel::<Weak<Self>>();
        std::thread::Builder::new().name("ledger".to_owned()).spawn(move || {
            let Places { mine, left, awaited } = places;
            let found = [Some(&mine), left.as_ref()].into_iter().flatten();
            let recovered = found.map(|held| recover(&mut *writer, &held.place));
            let _ = tell.send(
                recovered
                    .collect::<Result<Vec<i64>, _>>()
                    .and_then(|_| writer.last_id()),
            );
            // Whoever comes next may have it.
            drop(left);
            let mut awaited = awaited.map(|place| (place, tell_adopted));
            let Ok(ledger) = handed.recv() else { return };
            while let Some(ledger) = ledger.upgrade() {
                ledger.move_what_has_gathered(&mut *writer, &mine.place.journal);
                awaited = awaited.and_then(|(place, tell)| adopt(&mut *writer, place, tell));
            }
        })?;
        let last = told
            .await
            .map_err(|_| Unavailable("the ledger's thread has ended".to_owned()))??;
        let ledger = Arc::new(Self {
            segment: ArcSwap::from_pointee(Segment::create(&journal, 1, bounds.is_relaxed)?),
            next_id: AtomicI64::new(last / NUMBERS * NUMBERS + number % NUMBERS),
            mover: Mutex::default(),
            due: Condvar::new(),
            bounds,
            store,
            owner,
            left,
            adopted: Mutex::new(Some(adopted)),
            number: number % NUMBERS,
            commit_seconds,
        });
        let _ = hand_over.send(Arc::downgrade(&ledger));
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

    /// Returns when the correction is in the journal.
    pub(crate) fn correct(&self, correction: &Correction, config_version: u64) -> Result<(), Unavailable> {
        let row = Row::correction(correction, self.next_id(), config_version);
        self.segment.load().append(&row)?;
        Ok(())
    }

    /// An id for a record to come, for an intent before it: greater than all before it, and nobody else's.
    pub(crate) fn next_id(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(since.as_micros()).unwrap_or(0).saturating_mul(NUMBERS) + self.number;
        let mut last = self.next_id.load(Relaxed);
        loop {
            let next = now.max(last + NUMBERS);
            match self.next_id.compare_exchange_weak(last, next, Relaxed, Relaxed) {
                Ok(_) => return next,
                Err(other) => last = other,
            }
        }
    }

    /// This gateway's id among those that share the database.
    pub(crate) fn owner(&self) -> &str {
        &self.owner
    }

    /// Whose jobs and batches it has found left behind, beside its own.
    pub(crate) fn left(&self) -> Option<&str> {
        self.left.as_deref()
    }

    /// Told the owner of the other place when its gateway has ended; for one caller.
    pub(crate) fn adopted(&self) -> Option<oneshot::Receiver<String>> {
        self.adopted.lock().take()
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

    fn move_what_has_gathered(&self, writer: &mut dyn Writer, journal: &Path) {
        let readers = self.wait_until_due();
        if let Err(error) = self.close_the_segment(journal) {
            tracing::error!(%error, "journal not rotated");
        }
        let moved = move_segments(writer, journal, self.segment.load().number);
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
        match self.bounds.keep.map(|keep| writer.forget_old(keep)) {
            Some(Ok(records)) if records > 0 => tracing::info!(records, "old records deleted"),
            Some(Err(error)) => tracing::warn!(%error, "old records not deleted"),
            Some(Ok(_)) | None => {}
        }
    }

    fn wait_until_due(&self) -> Vec<oneshot::Sender<()>> {
        let since = Instant::now();
        let step = if self.bounds.is_relaxed {
            WRITE_EVERY
        } else {
            MOVE_EVERY
        };
        let mut mover = self.mover.lock();
        loop {
            self.due.wait_while_for(&mut mover, |mover| !mover.is_due, step);
            if mover.is_due || since.elapsed() >= MOVE_EVERY {
                break;
            }
            if let Err(error) = self.segment.load().flush() {
                tracing::error!(%error, "journal not written");
            }
        }
        mover.is_due = false;
        std::mem::take(&mut mover.readers)
    }

    /// Sends new records to a new segment, and waits for those who still write to the old one.
    fn close_the_segment(&self, database: &Path) -> std::io::Result<()> {
        let current = self.segment.load();
        if current.records() == 0 {
            return Ok(());
        }
        let next = Segment::create(database, current.number + 1, self.bounds.is_relaxed)?;
        drop(current);
        let closed = self.segment.swap(Arc::new(next));
        while Arc::strong_count(&closed) > 1 {
            std::thread::yield_now();
        }
        closed.flush()?;
        self.mover.lock().moving += closed.records();
        Ok(())
    }
}

/// Moves what is left in a place whose gateway has ended; gives the place back while it is not.
fn adopt(
    writer: &mut dyn Writer,
    place: Place,
    tell: oneshot::Sender<String>,
) -> Option<(Place, oneshot::Sender<String>)> {
    let recovered = match place.lock() {
        Ok(None) => return Some((place, tell)),
        Ok(Some(held)) => recover(writer, &held.place),
        Err(error) => Err(error),
    };
    match recovered {
        Ok(_) => {
            let _ = tell.send(place.owner);
            None
        }
        Err(error) => {
            tracing::error!(%error, "what the gateway before has left is not moved yet");
            Some((place, tell))
        }
    }
}

/// Moves what a crash has left: segments, and intents of requests that ran. The greatest id then.
fn recover(writer: &mut dyn Writer, place: &Place) -> Result<i64, Unavailable> {
    move_segments(writer, &place.journal, u64::MAX)?;
    let interrupted = writer.conclude_intents(&place.owner)?;
    if interrupted > 0 {
        tracing::warn!(
            requests = interrupted,
            "requests were running when the gateway was killed"
        );
    }
    writer.last_id()
}

/// Moves the segments before number `until` into the database, in their order.
fn move_segments(writer: &mut dyn Writer, journal: &Path, until: u64) -> Result<(), Unavailable> {
    for (_, segment) in journal::segments(journal)?
        .into_iter()
        .take_while(|(number, _)| *number < until)
    {
        writer.write(&journal::read(&segment)?)?;
        std::fs::remove_file(&segment)?;
    }
    Ok(())
}
