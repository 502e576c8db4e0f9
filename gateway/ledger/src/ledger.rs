//! The front of the ledger: entries go in, and it says how it is.

use crate::database::Database;
use crate::durability::Durability;
use crate::endings::{Answer, Claim, Ending, Pending, Written};
use crate::entry::{Correction, Entry};
use crate::error::Error;
use crate::health::{LedgerHealth, State};
use crate::id::{EntryNumber, GatewayId};
use crate::journal::{Disk, FileSystem, Journal, Receipt};
use crate::mover::{self, GATHER, Shared};
use crate::row::Row;
use crate::slot::Slot;
use crate::store::Store;
use crate::time::Clock;
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::{Duration, Instant, UNIX_EPOCH};
use tokio::sync::oneshot;

/// An entry's number is the microsecond of its making, and then the gateway's number among those that share the database.
pub(crate) const NUMBERS: i64 = 1024;

/// Readers wait at most this long for records to get into the database.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The only writer of records. An entry is acknowledged when it is in the journal; while the database is down,
/// segments gather on disk, up to a bound at which new requests are to be refused.
#[derive(Debug)]
pub struct Ledger {
    shared: Arc<Shared>,
    next_number: AtomicI64,
    gateway_number: i64,
    backlog_bound: usize,
    store: Store,
    owner: GatewayId,
    /// The owner of the other slot, where it was found abandoned.
    abandoned: Option<GatewayId>,
    /// Receives the owner of the other slot when its gateway has ended.
    predecessor_ended: Mutex<Option<oneshot::Receiver<GatewayId>>>,
    observer: Observer,
}

/// Called with the time that each append took.
pub struct Observer(Box<dyn Fn(Duration) + Send + Sync>);

impl Observer {
    /// Calls a function after each append.
    pub fn new(observe: impl Fn(Duration) + Send + Sync + 'static) -> Self {
        Self(Box::new(observe))
    }
}

impl std::fmt::Debug for Observer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Observer")
    }
}

/// Bounds of the backlog and of retention.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Records that may wait for the database.
    pub backlog: usize,
    /// Retention of records; `None`: for ever.
    pub keep: Option<Duration>,
}

impl Ledger {
    /// Moves what a crash has left in the journal, then takes entries.
    ///
    /// # Errors
    /// When the database does not take what was left, or the journal cannot be created.
    pub async fn open(
        database: Database,
        bounds: Bounds,
        observer: Observer,
        clock: Clock,
    ) -> Result<Arc<Self>, Error> {
        Self::open_on(database, bounds, observer, clock, Arc::new(FileSystem)).await
    }

    pub(crate) async fn open_on(
        database: Database,
        bounds: Bounds,
        observer: Observer,
        clock: Clock,
        disk: Arc<dyn Disk>,
    ) -> Result<Arc<Self>, Error> {
        let Database {
            store,
            connect,
            slots,
            gateway_number,
            durability,
        } = database;
        let Slot { journal, owner } = slots.own.slot.clone();
        let abandoned = slots.abandoned.as_ref().map(|locked| locked.slot.owner.clone());
        let (recovered_sender, recovered) = oneshot::channel();
        let (ended_sender, predecessor_ended) = oneshot::channel();
        let (share, shared_receiver) = std::sync::mpsc::channel();
        mover::start(connect, slots, recovered_sender, shared_receiver, ended_sender)?;
        let recovered = recovered
            .await
            .map_err(|_| Error::Setup("the ledger's thread has ended".to_owned()))??;
        let opened = tokio::task::spawn_blocking(move || Journal::open(&journal, disk, durability));
        let journal = opened.await.map_err(|error| Error::Setup(error.to_string()))??;
        let shared = Arc::new(Shared {
            journal,
            state: Mutex::new(State::new(recovered.aside)),
            due: Condvar::new(),
            keep: bounds.keep,
            clock,
            is_relaxed: durability == Durability::Relaxed,
        });
        let gateway_number = gateway_number % NUMBERS;
        let last = recovered.last_number / NUMBERS * NUMBERS;
        let ledger = Arc::new(Self {
            next_number: AtomicI64::new(last.saturating_add(gateway_number)),
            gateway_number,
            backlog_bound: bounds.backlog,
            store,
            owner,
            abandoned,
            predecessor_ended: Mutex::new(Some(predecessor_ended)),
            observer,
            shared,
        });
        let _ = share.send(Arc::downgrade(&ledger.shared));
        Ok(ledger)
    }

    /// Appends an entry to the journal and returns when it is durable.
    ///
    /// # Errors
    /// When the journal cannot be written.
    pub async fn commit(&self, entry: &Entry<'_>) -> Result<(), Error> {
        self.append(entry)?.durable().await
    }

    /// Appends an entry to the journal: for callers that cannot wait, such as a guard that is dropped. Of two entries with one
    /// number the first one counts, so that a guard may append what another way out has appended already.
    ///
    /// # Errors
    /// When the journal cannot be written.
    pub fn append(&self, entry: &Entry<'_>) -> Result<Receipt, Error> {
        let number = entry.number.unwrap_or_else(|| self.next_number());
        self.append_row(&Row::of(entry, number.0))
    }

    /// Appends a correction to the journal and returns when it is durable.
    ///
    /// # Errors
    /// When the journal cannot be written.
    pub async fn correct(&self, correction: &Correction, config_version: u64) -> Result<(), Error> {
        let number = self.next_number();
        let receipt = self.append_row(&Row::correction(
            correction,
            number.0,
            config_version,
            (self.shared.clock)(),
        ))?;
        receipt.durable().await
    }

    /// Writes a result of work that goes on without its client, and the record of its request with it, if this gateway
    /// still has the work. Returns when both are in the database, however long that is unreachable.
    ///
    /// # Errors
    /// When the database refuses the answer for what it says, or the ledger is closed.
    pub async fn finish(&self, claim: &Claim, answer: Answer, entry: Option<&Entry<'_>>) -> Result<Written, Error> {
        let row = entry.map(|entry| {
            let number = entry.number.unwrap_or_else(|| self.next_number());
            // A row of its own.
            Row::of_line(&Row::of(entry, number.0).line()?)
        });
        let ending = Ending {
            claim: claim.clone(),
            answer,
            row: row.transpose()?,
        };
        let (done, written) = oneshot::channel();
        self.shared.state.lock().endings.push(Pending { ending, done });
        self.shared.due.notify_one();
        let closed = |_| Err(Error::Database("the ledger is closed".to_owned()));
        written.await.unwrap_or_else(closed)
    }

    fn append_row(&self, row: &Row<'_>) -> Result<Receipt, Error> {
        let since = Instant::now();
        let (lines, receipt) = self.shared.journal.append(row)?;
        if lines == GATHER {
            self.shared.state.lock().is_due = true;
            self.shared.due.notify_one();
        }
        (self.observer.0)(since.elapsed());
        Ok(receipt)
    }

    /// Notes that a request runs: if the gateway is killed before its entry is appended, this becomes it. An entry
    /// without a number is not noted.
    pub fn intend(&self, entry: &Entry<'_>) {
        let Some(EntryNumber(number)) = entry.number else {
            return;
        };
        if let Err(error) = self.shared.journal.intend(&Row::of(entry, number)) {
            tracing::warn!(%error, request_id = entry.request_id, "intent not written");
        }
    }

    /// A number for an entry to come: greater than all before it, and no other gateway's.
    pub fn next_number(&self) -> EntryNumber {
        let since = (self.shared.clock)().duration_since(UNIX_EPOCH).unwrap_or_default();
        let micros = i64::try_from(since.as_micros()).unwrap_or(0);
        let now = micros.saturating_mul(NUMBERS).saturating_add(self.gateway_number);
        let mut last = self.next_number.load(Relaxed);
        loop {
            let next = now.max(last.saturating_add(NUMBERS));
            match self.next_number.compare_exchange_weak(last, next, Relaxed, Relaxed) {
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

    /// The database, for everything but records.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Records that wait for the database.
    pub fn backlog(&self) -> usize {
        self.shared.journal.waiting()
    }

    /// Returns whether a record of a request that is taken on now can be written; cheap enough to ask for each.
    ///
    /// # Errors
    /// Why not.
    pub fn check_writable(&self) -> Result<(), Error> {
        if let Some(reason) = self.shared.journal.failure() {
            return Err(Error::Journal(reason));
        }
        let backlog = self.backlog();
        if backlog >= self.backlog_bound {
            return Err(Error::Database(format!("{backlog} records wait for it")));
        }
        Ok(())
    }

    /// The health of the ledger.
    pub fn health(&self) -> LedgerHealth {
        let backlog = self.backlog();
        let state = self.shared.state.lock();
        LedgerHealth {
            journal_error: self.shared.journal.failure(),
            database_error: state.database_error(),
            is_full: backlog >= self.backlog_bound,
            backlog,
            damaged_lines: state.aside.damaged_lines,
            rejected_records: state.aside.rejected_records,
            writer_restarts: state.restarts,
        }
    }

    /// Returns when all that has been appended so far is in the database, for readers; or after a
    /// second, if the database does not take it.
    pub async fn flush(&self) {
        if self.backlog() == 0 {
            return;
        }
        let (sender, moved) = oneshot::channel();
        {
            let mut state = self.shared.state.lock();
            state.readers.push(sender);
            state.is_due = true;
        }
        self.shared.due.notify_one();
        let _ = tokio::time::timeout(FLUSH_TIMEOUT, moved).await;
    }
}

impl Drop for Ledger {
    /// Ends the thread. What is not in the database is in the journal.
    fn drop(&mut self) {
        let _ = self.shared.journal.flush();
        self.shared.state.lock().is_closed = true;
        self.shared.due.notify_one();
    }
}
