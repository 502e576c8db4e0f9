//! Moves records from the journal into the database, a segment a transaction, on a thread of its own, which writes the
//! results of work without a client, too. A start moves what was left behind in the same way.
//!
//! The thread cannot end unseen: a panic is caught, reported and followed by a new connection, and so is every error,
//! with growing pauses. Every statement has a time limit, so it cannot hang either.

use crate::endings::{Ending, Pending};
use crate::error::Error;
use crate::finishing;
use crate::health::State;
use crate::id::GatewayId;
use crate::jobs;
use crate::journal::Journal;
use crate::segments::{self, SetAside};
use crate::slot::{Slot, Slots};
use crate::time::Clock;
use crate::writer::{Connect, DELETE_AT_ONCE, Writer};
use parking_lot::{Condvar, Mutex};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::oneshot;

/// Records are moved when so many have gathered,
pub(crate) const GATHER: usize = 4096;

/// or after so long, or when a reader waits for them.
const MOVE_EVERY: Duration = Duration::from_secs(1);

/// Results wait so long for others, to be written with them.
const GATHER_ENDINGS: Duration = Duration::from_millis(10);

/// The interval at which sums in memory are written.
const WRITE_EVERY: Duration = Duration::from_millis(100);

/// After an error, the first pause, which doubles up to the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// Statements of housekeeping between two segments.
const DELETIONS: usize = 10;

/// Expired answers are looked for so often.
const EXPIRE_EVERY: Duration = Duration::from_secs(60);

/// State that the ledger and the thread share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) journal: Journal,
    pub(crate) state: Mutex<State>,
    pub(crate) due: Condvar,
    /// Retention of records in the database; `None`: for ever.
    pub(crate) keep: Option<Duration>,
    pub(crate) clock: Clock,
    pub(crate) is_relaxed: bool,
}

/// The thread's own.
pub(crate) struct Mover {
    connect: Connect,
    writer: Option<Box<dyn Writer>>,
    /// The slot of the gateway that this one takes over from, and the receiver that waits for its end.
    predecessor: Option<(Slot, oneshot::Sender<GatewayId>)>,
    own: Slot,
    pause: Duration,
    moved_at: Instant,
    expired_at: Option<Instant>,
}

/// What is to be done in a turn.
#[derive(Debug)]
struct Turn {
    /// Results to write.
    endings: Vec<Pending>,
    /// True if records are to be moved,
    is_move: bool,
    /// for which these readers wait.
    readers: Vec<oneshot::Sender<()>>,
}

/// The findings of a start.
pub(crate) struct Recovered {
    /// The greatest number of a record.
    pub(crate) last_number: i64,
    /// The lines that were set aside.
    pub(crate) aside: SetAside,
}

/// Starts the thread: it recovers what is in the slots, tells, and then waits for what to move.
pub(crate) fn start(
    connect: Connect,
    slots: Slots,
    recovered: oneshot::Sender<Result<Recovered, Error>>,
    shared: std::sync::mpsc::Receiver<Weak<Shared>>,
    predecessor_ended: oneshot::Sender<GatewayId>,
) -> std::io::Result<()> {
    let thread = std::thread::Builder::new().name("ledger".to_owned());
    thread.spawn(move || {
        let Slots {
            own,
            abandoned,
            predecessor,
        } = slots;
        let found = [Some(&own), abandoned.as_ref()].into_iter().flatten();
        let (writer, result) = match recover_all(&connect, found.map(|locked| &locked.slot)) {
            Ok((writer, found)) => (Some(writer), Ok(found)),
            Err(error) => (None, Err(error)),
        };
        let _ = recovered.send(result);
        // It is free for a successor.
        drop(abandoned);
        let mut mover = Mover {
            connect,
            writer,
            predecessor: predecessor.map(|slot| (slot, predecessor_ended)),
            own: own.slot.clone(),
            pause: PAUSES.0,
            moved_at: Instant::now(),
            expired_at: None,
        };
        let Ok(shared) = shared.recv() else { return };
        while let Some(shared) = shared.upgrade() {
            let Some(turn) = shared.wait_until_due(mover.moved_at) else {
                return;
            };
            mover.take_turn(&shared, turn);
        }
    })?;
    Ok(())
}

fn recover_all<'a>(
    connect: &Connect,
    slots: impl Iterator<Item = &'a Slot>,
) -> Result<(Box<dyn Writer>, Recovered), Error> {
    let mut writer = connect()?;
    let mut aside = SetAside::default();
    for slot in slots {
        aside += segments::recover(&mut *writer, slot)?;
    }
    let last_number = writer.last_number()?;
    Ok((writer, Recovered { last_number, aside }))
}

impl Shared {
    /// Returns when there is something to do; `None` when the ledger is closed. Records were last moved at `moved_at`.
    fn wait_until_due(&self, moved_at: Instant) -> Option<Turn> {
        let step = if self.is_relaxed { WRITE_EVERY } else { MOVE_EVERY };
        let mut state = self.state.lock();
        loop {
            let is_idle = |state: &mut State| !state.is_due && !state.is_closed && state.endings.is_empty();
            self.due.wait_while_for(&mut state, is_idle, step);
            if !state.endings.is_empty() {
                let gathers = |state: &mut State| !state.is_due && !state.is_closed && !state.endings.is_full();
                self.due.wait_while_for(&mut state, gathers, GATHER_ENDINGS);
            }
            if state.is_closed {
                return None;
            }
            let is_move = state.is_due || moved_at.elapsed() >= MOVE_EVERY;
            let endings = state.endings.take();
            if is_move || !endings.is_empty() {
                let readers = if is_move {
                    state.is_due = false;
                    std::mem::take(&mut state.readers)
                } else {
                    Vec::new()
                };
                return Some(Turn {
                    endings,
                    is_move,
                    readers,
                });
            }
            // A failure is kept by the journal.
            let _ = self.journal.flush();
        }
    }
}

impl Mover {
    /// Writes results, moves what has gathered, tidies up, and reports. An error or a panic costs the connection and a
    /// pause.
    fn take_turn(&mut self, shared: &Arc<Shared>, turn: Turn) {
        let Turn {
            mut endings,
            is_move,
            readers,
        } = turn;
        shared.journal.probe();
        let done = catch_unwind(AssertUnwindSafe(|| {
            self.finish(&mut endings)?;
            if is_move { self.move_all(shared) } else { Ok(()) }
        }));
        let error = match done {
            Ok(Ok(())) => {
                self.pause = PAUSES.0;
                shared.state.lock().succeed();
                for reader in readers {
                    let _ = reader.send(());
                }
                return;
            }
            Ok(Err(error)) => error.to_string(),
            Err(panic) => {
                shared.state.lock().restarts += 1;
                format!("the ledger's writer has panicked: {}", message(&*panic))
            }
        };
        self.writer = None;
        let mut state = shared.state.lock();
        state.endings.put_back(endings);
        tracing::error!(
            error,
            records = shared.journal.waiting(),
            "records not moved into the database"
        );
        state.fail(error);
        // Waiting readers get what is there; a close ends the pause.
        drop(readers);
        shared
            .due
            .wait_while_for(&mut state, |state| !state.is_closed, self.pause);
        self.pause = (self.pause * 2).min(PAUSES.1);
    }

    fn writer(&mut self) -> Result<&mut dyn Writer, Error> {
        Ok(&mut **match &mut self.writer {
            Some(writer) => writer,
            none => none.insert((self.connect)()?),
        })
    }

    /// Writes results and tells who waits for them; after an error all of them are still there.
    fn finish(&mut self, endings: &mut Vec<Pending>) -> Result<(), Error> {
        if endings.is_empty() {
            return Ok(());
        }
        let all: Vec<Ending> = endings.iter().map(|pending| pending.ending.clone()).collect();
        let slot = self.own.clone();
        let written = finishing::write(self.writer()?, &slot, &all)?;
        for (pending, written) in endings.drain(..).zip(written) {
            let _ = pending.done.send(written);
        }
        Ok(())
    }

    fn move_all(&mut self, shared: &Shared) -> Result<(), Error> {
        let closed = shared.journal.rotate();
        self.moved_at = Instant::now();
        let writer = match &mut self.writer {
            Some(writer) => writer,
            none => none.insert((self.connect)()?),
        };
        let aside = segments::move_before(&mut **writer, &self.own, shared.journal.number())?;
        shared.journal.moved();
        shared.state.lock().aside += aside;
        closed?;
        let now = (shared.clock)();
        delete_old(&mut **writer, shared.keep, now)?;
        if self.expired_at.is_none_or(|at| at.elapsed() >= EXPIRE_EVERY) {
            self.expired_at = delete_expired(&mut **writer, now)?.then(Instant::now);
        }
        if let Some((slot, sender)) = self.predecessor.take() {
            match recover_predecessor(&mut **writer, &slot) {
                Ok(Some(aside)) => {
                    shared.state.lock().aside += aside;
                    let _ = sender.send(slot.owner);
                }
                Ok(None) => self.predecessor = Some((slot, sender)),
                Err(error) => {
                    self.predecessor = Some((slot, sender));
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}

/// Deletes records that retention does not keep.
fn delete_old(writer: &mut dyn Writer, keep: Option<Duration>, now: SystemTime) -> Result<(), Error> {
    // A time before all calendars has no records.
    let Some(before) = keep.and_then(|keep| now.checked_sub(keep)) else {
        return Ok(());
    };
    for _ in 0..DELETIONS {
        let records = writer.delete_old_records(before)?;
        if records > 0 {
            tracing::info!(records, "old records deleted");
        }
        if records < DELETE_AT_ONCE.unsigned_abs() {
            break;
        }
    }
    Ok(())
}

/// Deletes answers that have expired and sums that are not kept; whether all are deleted.
fn delete_expired(writer: &mut dyn Writer, now: SystemTime) -> Result<bool, Error> {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let now_ms = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
    writer.delete_old_spans(now_ms / 1000)?;
    for _ in 0..DELETIONS {
        let deleted = writer.delete_finished_jobs(now_ms.saturating_sub(jobs::KEEP_MS))?;
        if deleted < DELETE_AT_ONCE.unsigned_abs() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Recovers the slot of a gateway that has ended; `None` while it has not.
fn recover_predecessor(writer: &mut dyn Writer, slot: &Slot) -> Result<Option<SetAside>, Error> {
    match slot.lock()? {
        None => Ok(None),
        Some(locked) => segments::recover(writer, &locked.slot).map(Some),
    }
}

/// The message of a panic.
fn message(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message")
}
