//! Does a batch: a task a batch, some requests of it at a time, each through the gate like any other.

use super::{expires_at, lines};
use crate::clock::now_ms;
use crate::exchange::aside;
use crate::exchange::detached::{self, DetachedRequest, Outcome};
use crate::services::Services;
use futures_util::stream::{self, StreamExt};
use ledger::batches::{self, Batch};
use ledger::files::{self, File};
use ledger::{BatchStatus, FileId, FilePurpose, GatewayId, Store, contents, jobs};
use parking_lot::Mutex;
use policy::Class;
use protocol::Operation;
use serde_json::Value;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Requests of one batch that wait or run at once, at most.
const AT_ONCE: usize = 32;

/// Batches of one project that are done at once; each has its input file in memory.
const TURNS: usize = 2;

/// The number of answers after which a batch's progress is stored.
const TELL_EVERY: i64 = 50;

/// Pauses before a request that the model's servers could not serve is made again: the first, which doubles, and the
/// longest.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A batch that cannot go on, because the disk or the database fails, is tried again after this.
const AGAIN: Duration = Duration::from_secs(10);

/// The batches that have not ended.
#[derive(Debug, Default)]
pub(crate) struct Batches {
    /// By their ids: whether they are to be cancelled.
    batches: Mutex<HashMap<String, Arc<AtomicBool>>>,
    /// A project's batches take turns.
    turns: Mutex<HashMap<String, Arc<Semaphore>>>,
}

impl Batches {
    /// Tells a batch to end.
    pub(crate) fn cancel(&self, id: &str) {
        if let Some(is_cancelled) = self.batches.lock().get(id) {
            is_cancelled.store(true, Relaxed);
        }
    }

    fn turn(&self, project: &str) -> Arc<Semaphore> {
        let mut turns = self.turns.lock();
        let turn = turns.entry(project.to_owned());
        Arc::clone(turn.or_insert_with(|| Arc::new(Semaphore::new(TURNS))))
    }
}

/// Resumes the batches of `owner`, a process that has ended.
pub(crate) async fn recover(
    services: &Arc<Services>,
    unfinished: &Arc<Batches>,
    owner: &GatewayId,
) -> Result<(), ledger::Error> {
    for batch in batches::claim(services.ledger.store(), owner, services.ledger.owner()).await? {
        tracing::info!(batch = %batch.id, "resuming a batch");
        start(services, unfinished, batch);
    }
    Ok(())
}

/// Runs a batch in a task of its own.
pub(crate) fn start(services: &Arc<Services>, unfinished: &Arc<Batches>, mut batch: Batch) {
    let (services, unfinished) = (Arc::clone(services), Arc::clone(unfinished));
    let is_cancelled = Arc::new(AtomicBool::new(batch.status == BatchStatus::Cancelling));
    let entry = Arc::clone(&is_cancelled);
    unfinished.batches.lock().insert(batch.id.to_string(), entry);
    tokio::spawn(async move {
        let turn = unfinished.turn(&batch.project_id);
        let _turn = tokio::select! {
            () = services.shutdown.stopping() => return,
            turn = turn.acquire() => turn,
        };
        while let Err(error) = run(&services, batch.clone(), &is_cancelled).await {
            tracing::error!(batch = %batch.id, error, "a batch failed; it is tried again");
            batch.status = BatchStatus::InProgress;
            tokio::select! {
                () = services.shutdown.stopping() => break,
                () = tokio::time::sleep(AGAIN) => {}
            }
        }
        unfinished.batches.lock().remove(&*batch.id);
    });
}

/// A batch under way.
struct Work<'a> {
    services: &'a Arc<Services>,
    batch: Batch,
    operation: Operation,
    is_cancelled: &'a AtomicBool,
    /// Set when no further request is to be made: the gateway stops, or the disk fails.
    is_halted: AtomicBool,
    /// Requests that the process before had done, by their ids.
    recorded: HashSet<String>,
    /// Answered and failed requests.
    progress: Mutex<(i64, i64)>,
}

async fn run(services: &Arc<Services>, mut batch: Batch, is_cancelled: &AtomicBool) -> Result<(), String> {
    let store = services.ledger.store();
    let message = |error: ledger::Error| error.to_string();
    let operation = lines::endpoint(&batch.endpoint).ok_or("the endpoint is not known any more")?;
    let asked = match requests(services, &batch).await? {
        Ok(asked) => asked,
        Err(problems) => {
            batch.status = BatchStatus::Failed;
            (batch.problems, batch.finished_at) = (Some(problems.to_string()), Some(now_ms() / 1000));
            return batches::update(store, &batch).await.map_err(message);
        }
    };
    let (answered, failed) = written(store, &batch).await.map_err(message)?;
    batch.total = i64::try_from(asked.len()).unwrap_or(i64::MAX);
    batch.completed = i64::try_from(answered.len()).unwrap_or(0);
    batch.failed = i64::try_from(failed.len()).unwrap_or(0);
    let is_new = batch.status == BatchStatus::Validating;
    if is_new {
        batch.status = BatchStatus::InProgress;
    }
    batches::update(store, &batch).await.map_err(message)?;
    let recorded = if is_new {
        HashSet::new()
    } else {
        jobs::recorded(store, &batch.project_id, &format!("{}-", batch.id))
            .await
            .map_err(message)?
    };
    let progress = Mutex::new((batch.completed, batch.failed));
    let work = Work {
        services,
        batch,
        operation,
        is_cancelled,
        is_halted: AtomicBool::new(false),
        recorded,
        progress,
    };
    let (done, left): (Vec<_>, Vec<_>) = asked
        .into_iter()
        .zip(0..)
        .map(|(line, number)| (number, line))
        .partition(|(number, _)| answered.contains(number) || failed.contains(number));
    for (number, _) in done {
        // A kill may have left it after its line was written.
        aside::remove(services, &format!("{}-{number}", work.batch.id)).await;
    }
    let mut under_way = stream::iter(left)
        .map(|(number, line)| work.one(number, line))
        .buffer_unordered(AT_ONCE);
    let mut end = Ok(true);
    while let Some(done) = under_way.next().await {
        if end == Ok(true) && done != Ok(true) {
            end = done;
            // Requests that run are not dropped, since their tokens are spent: they end first.
            work.is_halted.store(true, Relaxed);
        }
    }
    drop(under_way);
    if end? {
        work.finish().await
    } else {
        // The gateway stops: the next start goes on.
        Ok(())
    }
}

/// Reads the requests of a batch, or the problems of its input file.
async fn requests(services: &Services, batch: &Batch) -> Result<Result<Vec<lines::Line>, Value>, String> {
    let read = contents::read(services.ledger.store(), &batch.input_file_id).await;
    let Some(contents) = read.map_err(|error| error.to_string())? else {
        return Ok(Err(lines::no_file(&batch.input_file_id)));
    };
    Ok(lines::read(&String::from_utf8_lossy(&contents), &batch.endpoint))
}

/// The numbers of the requests that have an answer, and of those that failed.
async fn written(store: &Store, batch: &Batch) -> Result<(BTreeSet<i64>, BTreeSet<i64>), ledger::Error> {
    let answered = contents::numbers(store, &lines::file_id(&batch.id, true)).await?;
    let failed = contents::numbers(store, &lines::file_id(&batch.id, false)).await?;
    Ok((answered, failed))
}

impl Work<'_> {
    /// Does one request; false if the gateway stops before it was done.
    async fn one(&self, number: i64, line: lines::Line) -> Result<bool, String> {
        if self.is_halted.load(Relaxed) {
            return Ok(false);
        }
        let id = format!("{}-{number}", self.batch.id);
        let Some((is_completed, text)) = self.answer(&id, &line).await else {
            return Ok(false);
        };
        self.put(number, is_completed, &text).await?;
        aside::remove(self.services, &id).await;
        Ok(true)
    }

    /// Makes a request until it has an answer: whether it completed, and its line. `None` if the gateway stops first.
    async fn answer(&self, id: &str, line: &lines::Line) -> Option<(bool, String)> {
        let batch = &self.batch;
        let request = DetachedRequest {
            id,
            operation: self.operation,
            user_id: &batch.user_id,
            key_id: batch.key_id.as_deref(),
            class: Class::Batch,
            priority: batch.priority,
            project_id: &batch.project_id,
            body: line.body.get().as_bytes(),
            is_cancelled: Some(self.is_cancelled),
        };
        let answered = |status: u16, body: &[u8]| {
            let body: Value = serde_json::from_slice(body).unwrap_or_default();
            (status == 200, lines::answer(id, &line.custom_id, status, &body))
        };
        if self.recorded.contains(id)
            && let Some((status, body)) = detached::put_aside(self.services, &request).await
        {
            return Some(answered(status, &body));
        }
        let mut pause = FIRST_PAUSE;
        loop {
            if self.is_halted.load(Relaxed) {
                return None;
            }
            if let Some((code, why)) = self.is_over_for(id) {
                return Some((false, lines::not_made(id, &line.custom_id, code, why)));
            }
            let (after, is_patient) = match detached::run(self.services, &request).await? {
                Outcome::Answered(status, body) => return Some(answered(status, &body)),
                // There was no room: nothing was recorded, and it is asked again.
                Outcome::RetryAfter(after) => (after.min(LONGEST_PAUSE), false),
                // The servers will be back, and the batch has time until it expires.
                Outcome::Unavailable(after) => (after.unwrap_or_default().clamp(pause, LONGEST_PAUSE), true),
            };
            if !self.wait(after).await {
                return None;
            }
            if is_patient {
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }

    /// Waits; false if the gateway stops.
    async fn wait(&self, pause: Duration) -> bool {
        tokio::select! {
            () = self.services.shutdown.stopping() => false,
            () = tokio::time::sleep(pause) => true,
        }
    }

    /// Why a request is not made any more, if it is not: a code, and in words.
    fn is_over_for(&self, request_id: &str) -> Option<(&'static str, &'static str)> {
        if self.recorded.contains(request_id) {
            let why = "the request was done, and its answer was lost when the gateway was killed";
            Some(("answer_lost", why))
        } else if self.is_cancelled.load(Relaxed) {
            Some(("batch_cancelled", "the batch was cancelled before this request ran"))
        } else if self.is_late() {
            Some(("batch_expired", "the batch expired before this request ran"))
        } else {
            None
        }
    }

    fn is_late(&self) -> bool {
        now_ms() / 1000 >= self.batch.expires_at
    }

    /// Writes an answer, and now and then how far the batch has come.
    async fn put(&self, number: i64, is_completed: bool, line: &str) -> Result<(), String> {
        let (store, batch) = (self.services.ledger.store(), &self.batch);
        let file_id = lines::file_id(&batch.id, is_completed);
        let added = contents::add(store, &file_id, number, line.as_bytes()).await;
        added.map_err(|error| error.to_string())?;
        let (completed, failed) = {
            let mut progress = self.progress.lock();
            progress.0 += i64::from(is_completed);
            progress.1 += i64::from(!is_completed);
            *progress
        };
        if (completed + failed) % TELL_EVERY != 0 {
            return Ok(());
        }
        // Only a figure for status answers: the files hold what is done.
        if let Err(error) = batches::update_counts(store, batch, completed, failed).await {
            tracing::warn!(%error, batch = %batch.id, "counts of a batch not updated");
        }
        Ok(())
    }

    /// Adds the files that were written to, and ends the batch.
    async fn finish(self) -> Result<(), String> {
        let is_late = self.is_late();
        let mut batch = self.batch;
        (batch.completed, batch.failed) = *self.progress.lock();
        let store = self.services.ledger.store();
        batch.output_file_id = add_file(self.services, &batch, true).await?;
        batch.error_file_id = add_file(self.services, &batch, false).await?;
        let status = if self.is_cancelled.load(Relaxed) {
            BatchStatus::Cancelled
        } else if is_late && batch.failed > 0 {
            BatchStatus::Expired
        } else {
            BatchStatus::Completed
        };
        (batch.status, batch.finished_at) = (status, Some(now_ms() / 1000));
        batches::update(store, &batch).await.map_err(|error| error.to_string())
    }
}

/// Adds the file of a batch's answers, or of its failed requests, unless there are none.
async fn add_file(services: &Services, batch: &Batch, is_output: bool) -> Result<Option<FileId>, String> {
    let store = services.ledger.store();
    let message = |error: ledger::Error| error.to_string();
    let id = FileId::from(lines::file_id(&batch.id, is_output));
    let bytes = contents::size(store, &id).await.map_err(message)?;
    if bytes == 0 {
        return Ok(None);
    }
    let now = now_ms() / 1000;
    let file = File {
        id: id.clone(),
        project_id: batch.project_id.clone(),
        filename: format!("{id}.jsonl"),
        purpose: FilePurpose::BatchOutput,
        bytes,
        created_at: now,
        expires_at: expires_at(services, now, batch.output_expires_seconds),
    };
    files::add(store, &file).await.map_err(message)?;
    Ok(Some(id))
}
