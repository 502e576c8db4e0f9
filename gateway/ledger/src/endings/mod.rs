//! Results of work that goes on without its client: a job's answer, or a line of a batch, written in one transaction with
//! its record, and only by the gateway that has the work. So there is one answer and one record of it, whichever gateway
//! is killed, paused or cut off at whatever moment
//! (`docs/decisions/045-answers-are-written-with-their-records.md`).

mod postgres;
mod sqlite;

pub(crate) use postgres::finish as finish_in_postgres;
pub(crate) use sqlite::finish as finish_in_sqlite;

use crate::error::Error;
use crate::id::{BatchId, RequestId};
use crate::row::Row;
use std::collections::{BTreeMap, VecDeque};
use tokio::sync::oneshot;

/// Endings that one transaction writes at most, and the bytes of their answers after which it takes no further one.
const AT_ONCE: usize = 256;
const BYTES_AT_ONCE: usize = 4 << 20;

/// Work that goes on without its client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    /// A job, by its request's id.
    Job(RequestId),
    /// A batch.
    Batch(BatchId),
}

/// The right to write the results of some work. It is void once another gateway has taken the work over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The work.
    pub work: Work,
    /// Raised whenever the work is claimed.
    pub epoch: i64,
}

/// A result of work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The answer of a job, which ends with it.
    Job {
        /// As JSON.
        answer: String,
        /// In milliseconds since 1970.
        finished_at_ms: i64,
    },
    /// The answer to a line of a batch.
    Line {
        /// The file that it is a part of.
        file_id: String,
        /// The line's number in the batch's input.
        number: i64,
        /// The part.
        contents: Vec<u8>,
        /// True if it counts as completed, false if as failed.
        is_completed: bool,
    },
}

/// What became of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It is in the database.
    Yes,
    /// It was not written, since another gateway has taken the work over.
    TakenOver,
}

/// A result that is to be written, with its record.
#[derive(Debug, Clone)]
pub(crate) struct Ending {
    pub(crate) claim: Claim,
    pub(crate) answer: Answer,
    /// `None` for what is not recorded.
    pub(crate) row: Option<Row<'static>>,
}

impl Ending {
    fn bytes(&self) -> usize {
        match &self.answer {
            Answer::Job { answer, .. } => answer.len(),
            Answer::Line { contents, .. } => contents.len(),
        }
    }
}

/// An ending, and the caller that waits for it.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) ending: Ending,
    pub(crate) done: oneshot::Sender<Result<Written, Error>>,
}

/// The endings that wait, in their order.
#[derive(Debug, Default)]
pub(crate) struct Queue(VecDeque<Pending>);

impl Queue {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether there are as many as one transaction writes.
    pub(crate) fn is_full(&self) -> bool {
        self.0.len() >= AT_ONCE
    }

    pub(crate) fn push(&mut self, pending: Pending) {
        self.0.push_back(pending);
    }

    /// Takes what one transaction writes. What nobody waits for any longer is left out.
    pub(crate) fn take(&mut self) -> Vec<Pending> {
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while taken.len() < AT_ONCE && bytes < BYTES_AT_ONCE {
            let Some(pending) = self.0.pop_front() else { break };
            if !pending.done.is_closed() {
                bytes += pending.ending.bytes();
                taken.push(pending);
            }
        }
        taken
    }

    /// Puts back what was not written.
    pub(crate) fn put_back(&mut self, pending: Vec<Pending>) {
        for pending in pending.into_iter().rev() {
            self.0.push_front(pending);
        }
    }
}

/// The ids of the work of endings, in their order, so that transactions never wait for each other in a circle.
fn ids<'a>(endings: &'a [Ending], of: impl Fn(&'a Work) -> Option<&'a str>) -> Vec<&'a str> {
    let ids = endings.iter().filter_map(|ending| of(&ending.claim.work));
    let mut ids: Vec<&str> = ids.collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

fn job(work: &Work) -> Option<&str> {
    match work {
        Work::Job(id) => Some(id),
        Work::Batch(_) => None,
    }
}

fn batch(work: &Work) -> Option<&str> {
    match work {
        Work::Batch(id) => Some(id),
        Work::Job(_) => None,
    }
}

/// The work that a gateway has: the epoch of each job and batch, and whether the job has its answer already.
#[derive(Debug, Default)]
struct Held {
    jobs: BTreeMap<String, (i64, bool)>,
    batches: BTreeMap<String, i64>,
}

/// The part of an ending that is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Write,
    /// It was written by a transaction whose result was not known.
    IsWritten,
    TakenOver,
}

impl Held {
    fn step(&self, claim: &Claim) -> Step {
        match &claim.work {
            Work::Job(id) => match self.jobs.get(&**id) {
                Some((epoch, false)) if *epoch == claim.epoch => Step::Write,
                Some((epoch, true)) if *epoch == claim.epoch => Step::IsWritten,
                _ => Step::TakenOver,
            },
            Work::Batch(id) if self.batches.get(&**id) == Some(&claim.epoch) => Step::Write,
            Work::Batch(_) => Step::TakenOver,
        }
    }

    fn written(&self, endings: &[Ending]) -> Vec<Written> {
        let written = endings.iter().map(|ending| match self.step(&ending.claim) {
            Step::Write | Step::IsWritten => Written::Yes,
            Step::TakenOver => Written::TakenOver,
        });
        written.collect()
    }

    fn to_write<'a>(&'a self, endings: &'a [Ending]) -> impl Iterator<Item = &'a Ending> {
        let is_due = |ending: &&Ending| self.step(&ending.claim) == Step::Write;
        endings.iter().filter(is_due)
    }

    fn rows(&self, endings: &[Ending]) -> Vec<Row<'static>> {
        self.to_write(endings).filter_map(|ending| ending.row.clone()).collect()
    }
}

/// The lines that a batch has got: completed and failed.
type Counts = BTreeMap<String, [i64; 2]>;

fn count(counts: &mut Counts, batch_id: &str, is_completed: bool) {
    counts.entry(batch_id.to_owned()).or_default()[usize::from(!is_completed)] += 1;
}

#[cfg(test)]
mod tests;
