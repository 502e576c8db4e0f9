//! Group commit without a timer on anybody's path: a record is acknowledged when it is in the journal, and a
//! thread of its own moves what has gathered into the database, a segment a transaction. A start moves what
//! was left behind in the same way.
//!
//! While the database is away, segments gather on disk. When there are too many records in them,
//! [`Ledger::is_full`] says so and the gateway refuses new requests; nothing is ever forgotten.

use crate::entry::{Correction, Entry};
use crate::error::Error;
use crate::id::{EntryNumber, GatewayId};
use crate::journal::{self, Lines, Segment};
use crate::row::Row;
use crate::slot::{Slot, Slots};
use crate::store::{Database, Store};
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
pub(crate) const DELETE_AT_ONCE: i64 = 1000;

/// A record's id is the microsecond of its making, and then the gateway's number among those that share the database.
const NUMBERS: i64 = 1024;

/// Writes records into a database.
pub(crate) trait Writer: Send {
    /// Writes a segment's lines in one transaction: records that are not there yet, their sums, and intents of requests
    /// that run on.
    fn write(&mut self, lines: &Lines) -> Result<(), Error>;
    /// Makes records of the intents that a gateway has left when it was killed; how many.
    fn conclude_intents(&mut self, owner: &GatewayId) -> Result<usize, Error>;
    /// The greatest id of a record.
    fn last_id(&mut self) -> Result<i64, Error>;
    /// Deletes a small batch of the records that are older than `keep`, oldest first; their sums stay.
    fn forget_old(&mut self, keep: Duration) -> Result<u64, Error>;
}

/// The only writer of records.
#[derive(Debug)]
pub struct Ledger {
    /// The segment that is written to.
    segment: ArcSwap<Segment>,
    next_id: AtomicI64,
    mover: Mutex<Mover>,
    due: Condvar,
    bounds: Bounds,
    store: Store,
    owner: GatewayId,
    /// The owner of the other slot, where it was found abandoned.
    abandoned: Option<GatewayId>,
    /// Receives the owner of the other slot when its gateway has ended.
    predecessor_ended: Mutex<Option<oneshot::Receiver<GatewayId>>>,
    gateway_number: i64,
    observer: Observer,
}

/// Called with the time that each commit took.
pub struct Observer(Box<dyn Fn(Duration) + Send + Sync>);

impl Observer {
    /// Calls a function after each commit.
    pub fn new(observe: impl Fn(Duration) + Send + Sync + 'static) -> Self {
        Self(Box::new(observe))
    }
}

impl std::fmt::Debug for Observer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Observer")
    }
}

/// How much is kept.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Records that may wait for the database.
    pub backlog: usize,
    /// How long records are kept in it; `None`: for ever.
    pub keep: Option<Duration>,
    /// Whether records of the last moment may be lost at a kill.
    pub is_relaxed: bool,
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
    pub async fn open(database: Database, bounds: Bounds, observer: Observer) -> Result<Arc<Self>, Error> {
        let Database {
            store,
            mut writer,
            slots,
            gateway_number,
        } = database;
        let Slot { journal, owner } = slots.own.slot.clone();
        let abandoned = slots.abandoned.as_ref().map(|locked| locked.slot.owner.clone());
        let (recovered_sender, recovered) = oneshot::channel();
        let (ended_sender, predecessor_ended) = oneshot::channel();
        let (hand_over, handed) = std::sync::mpsc::channel::<Weak<Self>>();
        std::thread::Builder::new().name("ledger".to_owned()).spawn(move || {
            let Slots {
                own,
                abandoned,
                predecessor,
            } = slots;
            let found = [Some(&own), abandoned.as_ref()].into_iter().flatten();
            let recovered = found.map(|locked| recover(&mut *writer, &locked.slot));
            let _ = recovered_sender.send(
                recovered
                    .collect::<Result<Vec<i64>, _>>()
                    .and_then(|_| writer.last_id()),
            );
            // It is free for a successor.
            drop(abandoned);
            let mut predecessor = predecessor.map(|slot| (slot, ended_sender));
            let Ok(ledger) = handed.recv() else { return };
            while let Some(ledger) = ledger.upgrade() {
                ledger.move_what_has_gathered(&mut *writer, &own.slot.journal);
                predecessor = predecessor.and_then(|(slot, sender)| recover_predecessor(&mut *writer, slot, sender));
            }
        })?;
        let last = recovered
            .await
            .map_err(|_| Error::Setup("the ledger's thread has ended".to_owned()))??;
        let ledger = Arc::new(Self {
            segment: ArcSwap::from_pointee(Segment::create(&journal, 1, bounds.is_relaxed)?),
            next_id: AtomicI64::new(last / NUMBERS * NUMBERS + gateway_number % NUMBERS),
            mover: Mutex::default(),
            due: Condvar::new(),
            bounds,
            store,
            owner,
            abandoned,
            predecessor_ended: Mutex::new(Some(predecessor_ended)),
            gateway_number: gateway_number % NUMBERS,
            observer,
        });
        let _ = hand_over.send(Arc::downgrade(&ledger));
        Ok(ledger)
    }

    /// Returns when the record is in the journal.
    ///
    /// # Errors
    /// When the journal cannot be written.
    pub fn commit(&self, entry: &Entry<'_>) -> Result<(), Error> {
        let since = Instant::now();
        let row = Row::of(entry, entry.number.unwrap_or_else(|| self.next_number()).0);
        let gathered = self.segment.load().append(&row)?;
        if gathered == GATHER {
            self.mover.lock().is_due = true;
            self.due.notify_one();
        }
        (self.observer.0)(since.elapsed());
        Ok(())
    }

    /// Returns when the correction is in the journal.
    ///
    /// # Errors
    /// When the journal cannot be written.
    pub fn correct(&self, correction: &Correction, config_version: u64) -> Result<(), Error> {
        let row = Row::correction(correction, self.next_number().0, config_version);
        self.segment.load().append(&row)?;
        Ok(())
    }

    /// A number for an entry to come, for an intent before it: greater than all before it, and no other gateway's.
    pub fn next_number(&self) -> EntryNumber {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(since.as_micros()).unwrap_or(0).saturating_mul(NUMBERS) + self.gateway_number;
        let mut last = self.next_id.load(Relaxed);
        loop {
            let next = now.max(last + NUMBERS);
            match self.next_id.compare_exchange_weak(last, next, Relaxed, Relaxed) {
                Ok(_) => return EntryNumber(next),
                Err(other) => last = other,
            }
        }
    }

    /// This gateway's id among those that share the database.
    pub fn owner(&self) -> &GatewayId {
        &self.owner
    }

    /// The gateway whose jobs and batches were found abandoned, beside its own.
    pub fn abandoned(&self) -> Option<&GatewayId> {
        self.abandoned.as_ref()
    }

    /// Receives the id of the gateway that this one takes over from, when that has ended; for one caller.
    pub fn predecessor_ended(&self) -> Option<oneshot::Receiver<GatewayId>> {
        self.predecessor_ended.lock().take()
    }

    /// Notes that a request runs: if the gateway is killed before its entry is committed, this becomes it. An entry
    /// without a number is not noted.
    pub fn intend(&self, entry: &Entry<'_>) {
        let Some(EntryNumber(id)) = entry.number else { return };
        if let Err(error) = self.segment.load().intend(&Row::of(entry, id)) {
            tracing::warn!(%error, request_id = entry.request_id, "intent not written");
        }
    }

    /// The database, for everything but records.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Records that wait for the database.
    pub fn backlog(&self) -> usize {
        self.segment.load().records() + self.mover.lock().moving
    }

    /// Whether so many records wait that no request should be taken on.
    pub fn is_full(&self) -> bool {
        self.backlog() >= self.bounds.backlog
    }

    /// Why the database does not take records, if it does not.
    pub fn trouble(&self) -> Option<String> {
        self.mover.lock().trouble.clone()
    }

    /// Returns when all that has been committed so far is in the database, for whoever wants to read it; or
    /// after a second, if the database does not take it.
    pub async fn flush(&self) {
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

/// Recovers the slot of a gateway that has ended; returns it while it has not.
fn recover_predecessor(
    writer: &mut dyn Writer,
    slot: Slot,
    sender: oneshot::Sender<GatewayId>,
) -> Option<(Slot, oneshot::Sender<GatewayId>)> {
    let recovered = match slot.lock() {
        Ok(None) => return Some((slot, sender)),
        Ok(Some(locked)) => recover(writer, &locked.slot),
        Err(error) => Err(error),
    };
    match recovered {
        Ok(_) => {
            let _ = sender.send(slot.owner);
            None
        }
        Err(error) => {
            tracing::error!(%error, "journal of the previous gateway not moved yet");
            Some((slot, sender))
        }
    }
}

/// Moves what a crash has left: segments, and intents of requests that ran. The greatest id then.
fn recover(writer: &mut dyn Writer, slot: &Slot) -> Result<i64, Error> {
    move_segments(writer, &slot.journal, u64::MAX)?;
    let interrupted = writer.conclude_intents(&slot.owner)?;
    if interrupted > 0 {
        tracing::warn!(
            requests = interrupted,
            "requests were running when the gateway was killed"
        );
    }
    writer.last_id()
}

/// Moves the segments before number `until` into the database, in their order.
fn move_segments(writer: &mut dyn Writer, journal: &Path, until: u64) -> Result<(), Error> {
    for (_, segment) in journal::segments(journal)?
        .into_iter()
        .take_while(|(number, _)| *number < until)
    {
        writer.write(&journal::read(&segment)?)?;
        std::fs::remove_file(&segment)?;
    }
    Ok(())
}
