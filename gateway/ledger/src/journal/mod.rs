//! The journal: every record is appended here, by one `write`, before the client has the end of its answer; from here
//! records are moved into the database in groups (`docs/decisions/003-a-journal-before-the-database.md`). What an
//! appended record survives is its [`Durability`].
//!
//! A journal is a row of segments, files of one JSON list and its checksum a line. A segment is closed when its records are about to be
//! moved and removed when they have been, so what is found at a start is what had not been moved.
//!
//! A journal that cannot be written says so ([`Journal::failure`]) before anyone relies on it. A reserve of disk space
//! is given up at the first failure, so that requests that run already still get their records.

mod checksum;
mod disk;
mod reader;
mod segment;
mod sync;

#[cfg(test)]
pub(crate) use disk::faulty;
pub(crate) use disk::{Disk, FileSystem};
pub(crate) use reader::{Lines, keep_aside, read, segments};
pub use sync::Receipt;

use crate::durability::Durability;
use crate::row::Row;
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use segment::{Intent, Segment};
use serde::Serialize;
use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use sync::Syncer;

/// Bytes that are kept free for the records of requests that run when the disk is full.
const RESERVE: u64 = 512 * 1024;

/// A gateway's own journal, open for appending.
#[derive(Debug)]
pub(crate) struct Journal {
    /// The base name of segments.
    base: PathBuf,
    disk: Arc<dyn Disk>,
    durability: Durability,
    segment: ArcSwap<Segment>,
    /// Lines of closed segments that have not been moved. Locked while segments are changed, so that no line is missing
    /// from the count meanwhile.
    closed: Mutex<usize>,
    /// Fast answer to whether there is a failure.
    has_failed: AtomicBool,
    failure: Mutex<Option<String>>,
    /// Lines of records that could not be written: of requests that were running when the disk filled up.
    unwritten: Mutex<Vec<Vec<u8>>>,
    syncer: Option<Syncer>,
}

thread_local! {
    /// The line that this thread writes.
    static LINE: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(1024));
}

impl Journal {
    /// Begins segment 1; what was there before has been moved.
    pub(crate) fn open(base: &Path, disk: Arc<dyn Disk>, durability: Durability) -> io::Result<Self> {
        let first = Segment::create(&*disk, base, 1, durability)?;
        let syncer = (durability == Durability::Synced).then(Syncer::start).transpose()?;
        let journal = Self {
            base: base.to_owned(),
            disk,
            durability,
            segment: ArcSwap::from_pointee(first),
            closed: Mutex::new(0),
            has_failed: AtomicBool::new(false),
            failure: Mutex::new(None),
            unwritten: Mutex::default(),
            syncer,
        };
        if let Err(error) = journal.disk.reserve(&journal.reserve_file(), RESERVE) {
            journal.fail(&error);
        }
        Ok(journal)
    }

    /// Appends the row of a finished request: lines in the segment then, and when the record is durable.
    ///
    /// # Errors
    /// The disk does not take it. It is written when it can be again, if the process lives until then.
    pub(crate) fn append(&self, row: &Row<'_>) -> io::Result<(usize, Receipt)> {
        self.write(row).inspect_err(|_| {
            let line = LINE.with_borrow(Clone::clone);
            self.unwritten.lock().push(line);
        })
    }

    /// Appends the row that a request will have if the gateway is killed before it is finished.
    pub(crate) fn intend(&self, row: &Row<'_>) -> io::Result<()> {
        self.write(&Intent { intent: row }).map(drop)
    }

    fn write(&self, what: &impl Serialize) -> io::Result<(usize, Receipt)> {
        let segment = self.segment.load();
        let lines = LINE.with_borrow_mut(|line| {
            line.clear();
            // A line begins with a newline as well as ending with one, so that a torn one ends at the next.
            line.push(b'\n');
            serde_json::to_writer(&mut *line, what)?;
            checksum::append(line, 1);
            line.push(b'\n');
            segment.append(line).or_else(|error| {
                self.fail(&error);
                segment.append(line)
            })
        })?;
        let receipt = match &self.syncer {
            Some(syncer) => syncer.sync(Arc::clone(&*segment)),
            None => Receipt::done(),
        };
        Ok((lines, receipt))
    }

    /// Lines that have not been moved.
    pub(crate) fn waiting(&self) -> usize {
        let closed = self.closed.lock();
        *closed + self.segment.load().lines()
    }

    /// Notes that the closed segments have been moved.
    pub(crate) fn moved(&self) {
        *self.closed.lock() = 0;
    }

    /// The number of that segment; those before it may be moved.
    pub(crate) fn number(&self) -> u64 {
        self.segment.load().number
    }

    /// Writes what was gathered in memory.
    pub(crate) fn flush(&self) -> io::Result<()> {
        let segment = self.segment.load();
        segment.flush().inspect_err(|error| self.fail(error))
    }

    /// Sends new records to a new segment, and waits for threads that still write to the old one.
    pub(crate) fn rotate(&self) -> io::Result<()> {
        let current = self.segment.load();
        if current.lines() == 0 {
            return Ok(());
        }
        current.flush().inspect_err(|error| self.fail(error))?;
        let next = Segment::create(&*self.disk, &self.base, current.number + 1, self.durability)?;
        drop(current);
        let (closed, counted) = {
            let mut lines = self.closed.lock();
            let closed = self.segment.swap(Arc::new(next));
            let counted = closed.lines();
            *lines += counted;
            (closed, counted)
        };
        while Arc::strong_count(&closed) > 1 {
            std::thread::sleep(Duration::from_micros(50));
        }
        // Lines that were gathered since.
        while let Err(error) = closed.flush() {
            self.fail(&error);
            std::thread::sleep(Duration::from_millis(100));
        }
        *self.closed.lock() += closed.lines() - counted;
        Ok(())
    }

    /// The reason why records cannot be written, if they cannot.
    pub(crate) fn failure(&self) -> Option<String> {
        if !self.has_failed.load(Relaxed) {
            return None;
        }
        self.failure.lock().clone()
    }

    /// Takes note of a failure, and gives up the reserve.
    pub(crate) fn fail(&self, error: &io::Error) {
        let mut failure = self.failure.lock();
        if failure.is_none() {
            tracing::error!(%error, journal = %self.base.display(), "journal cannot be written; new requests are refused");
        }
        *failure = Some(error.to_string());
        self.has_failed.store(true, Relaxed);
        drop(failure);
        let _ = self.disk.release(&self.reserve_file());
    }

    /// After a failure: whether records can be written again, with the reserve back in place.
    pub(crate) fn probe(&self) {
        if !self.has_failed.load(Relaxed) {
            return;
        }
        let segment = self.segment.load();
        let probed = segment
            .flush()
            .and_then(|()| segment.probe(self.durability))
            .and_then(|()| self.write_kept(&segment))
            .and_then(|()| self.disk.reserve(&self.reserve_file(), RESERVE));
        match probed {
            Ok(()) => {
                *self.failure.lock() = None;
                self.has_failed.store(false, Relaxed);
                tracing::info!("journal can be written again");
            }
            Err(error) => {
                *self.failure.lock() = Some(error.to_string());
                let _ = self.disk.release(&self.reserve_file());
            }
        }
    }

    /// Writes what could not be written before.
    fn write_kept(&self, segment: &Segment) -> io::Result<()> {
        let mut unwritten = self.unwritten.lock();
        while let Some(line) = unwritten.last() {
            segment.append(line)?;
            unwritten.pop();
        }
        Ok(())
    }

    fn reserve_file(&self) -> PathBuf {
        let mut name = self.base.as_os_str().to_owned();
        name.push(".reserve");
        PathBuf::from(name)
    }
}

#[cfg(test)]
mod tests;
