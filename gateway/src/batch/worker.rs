//! Does a batch: a task a batch, some requests of it at a time, each through the gate like any other.

use super::{expires_at, lines};
use crate::clock::now_ms;
use crate::exchange::detached::{self, Answered, DetachedRequest, Outcome};
use crate::record::Evicted;
use crate::services::Services;
use futures_util::FutureExt;
use futures_util::stream::{self, StreamExt};
use ledger::batches::{self, Batch};
use ledger::files::File;
use ledger::{Answer, BatchId, BatchStatus, Claim, FileId, FilePurpose, GatewayId, Store, Work, Written, contents};
use parking_lot::Mutex;
use policy::Class;
use protocol::Operation;
use serde_json::Value;
use std::collections::{BTreeSet, HashMap};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Requests of one batch that wait or run at once, at most.
const AT_ONCE: usize = 32;

/// Batches of one project that are done at once; each has its input file in memory.
const TURNS: usize = 2;

/// Pauses before a request that the model's servers could not serve is made again: the first, which doubles, and the
/// longest.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A batch that cannot go on, because the disk or the database fails, is tried again after this.
const AGAIN: Duration = Duration::from_secs(10);

/// The batches that have not ended.
#[derive(Debug, Default)]
pub(crate) struct Batches {
    /// By their ids: the epoch of the claim, and whether they are to be cancelled.
    batches: Mutex<HashMap<String, (i64, Arc<AtomicBool>)>>,
    /// A project's batches take turns.
    turns: Mutex<HashMap<String, Arc<Semaphore>>>,
}

impl Batches {
    /// Tells a batch that this gateway runs to end: what is queued of it is cancelled, what runs is not.
    pub(crate) fn cancel(&self, services: &Services, id: &str) {
        if let Some((_, is_cancelled)) = self.batches.lock().get(id) {
            is_cancelled.store(true, Relaxed);
        }
        services.registry.cancel_queued(&format!("{id}-"));
    }

    fn turn(&self, project: &str) -> Arc<Semaphore> {
        let mut turns = self.turns.lock();
        let turn = turns.entry(project.to_owned());
        Arc::clone(turn.or_insert_with(|| Arc::new(Semaphore::new(TURNS))))
    }
}

/// A batch that this gateway runs; dropping it forgets the batch, unless it was claimed again meanwhile.
struct Entry {
    unfinished: Arc<Batches>,
    id: BatchId,
    epoch: i64,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut batches = self.unfinished.batches.lock();
        if batches.get(&*self.id).is_some_and(|(epoch, _)| *epoch == self.epoch) {
            batches.remove(&*self.id);
        }
    }
}

/// Resumes the batches of `owner`, a process that has ended.
pub(crate) async fn recover(
    services: &Arc<Services>,
    unfinished: &Arc<Batches>,
    owner: &GatewayId,
) -> Result<(), ledger::Error> {
    let abandoned = batches::claim(services.ledger.store(), owner, services.ledger.owner()).await?;
    resume_all(services, unfinished, abandoned);
    Ok(())
}

/// Takes over some batches of gateways that are silent or gone; how many.
pub(crate) async fn take_over(
    services: &Arc<Services>,
    unfinished: &Arc<Batches>,
    limit: i64,
) -> Result<usize, ledger::Error> {
    let abandoned = batches::take_over(services.ledger.store(), services.ledger.owner(), limit).await?;
    let count = abandoned.len();
    resume_all(services, unfinished, abandoned);
    Ok(count)
}

/// Claims those of this gateway's batches anew that do not run here, because the answer to their claim was lost. A gateway
/// that stops sets them free for another.
pub(crate) async fn recover_forgotten(
    services: &Arc<Services>,
    unfinished: &Arc<Batches>,
    is_leaving: bool,
) -> Result<(), ledger::Error> {
    let (store, owner) = (services.ledger.store(), services.ledger.owner());
    for id in batches::owned(store, owner).await? {
        if unfinished.batches.lock().contains_key(&id) {
            continue;
        }
        if is_leaving {
            batches::release(store, owner, &id).await?;
        } else {
            let claimed = batches::claim_again(store, owner, &id).await?;
            resume_all(services, unfinished, claimed.into_iter().collect());
        }
    }
    Ok(())
}

fn resume_all(services: &Arc<Services>, unfinished: &Arc<Batches>, abandoned: Vec<Batch>) {
    for batch in abandoned {
        tracing::info!(batch = %batch.id, "resuming a batch");
        start(services, unfinished, batch);
    }
}

/// Cancels the batches that this gateway has and that any gateway was asked to cancel.
pub(crate) async fn cancel_marked(services: &Services, unfinished: &Batches) -> Result<(), ledger::Error> {
    for id in batches::to_cancel(services.ledger.store(), services.ledger.owner()).await? {
        unfinished.cancel(services, &id);
    }
    Ok(())
}

/// Runs a batch in a task of its own.
pub(crate) fn start(services: &Arc<Services>, unfinished: &Arc<Batches>, batch: Batch) {
    let (services, unfinished) = (Arc::clone(services), Arc::clone(unfinished));
    let is_cancelled = Arc::new(AtomicBool::new(batch.status == BatchStatus::Cancelling));
    let state = (batch.epoch, Arc::clone(&is_cancelled));
    unfinished.batches.lock().insert(batch.id.to_string(), state);
    let entry = Entry {
        unfinished: Arc::clone(&unfinished),
        id: batch.id.clone(),
        epoch: batch.epoch,
    };
    tokio::spawn(async move {
        let _entry = entry;
        let turn = unfinished.turn(&batch.project_id);
        let _turn = tokio::select! {
            () = services.shutdown.stopping() => return,
            turn = turn.acquire() => turn,
        };
        while let Err(error) = run(&services, batch.clone(), &is_cancelled).await {
            tracing::error!(batch = %batch.id, error, "a batch failed; it is tried again");
            tokio::select! {
                () = services.shutdown.stopping() => break,
                () = tokio::time::sleep(AGAIN) => {}
            }
        }
    });
}

/// A batch under way.
struct BatchRun<'a> {
    services: &'a Arc<Services>,
    batch: Batch,
    operation: Operation,
    is_cancelled: &'a AtomicBool,
    /// Set when no further request is to be made: the gateway stops, the database refuses an answer, or another gateway
    /// has taken the batch over.
    is_halted: AtomicBool,
    claim: Claim,
}

async fn run(services: &Arc<Services>, mut batch: Batch, is_cancelled: &AtomicBool) -> Result<(), String> {
    let (store, owner) = (services.ledger.store(), services.ledger.owner());
    let message = |error: ledger::Error| error.to_string();
    let operation = lines::endpoint(&batch.endpoint).ok_or("the endpoint is not known any more")?;
    let asked = match requests(services, &batch).await? {
        Ok(asked) => asked,
        Err(problems) => {
            batch.status = BatchStatus::Failed;
            (batch.problems, batch.finished_at) = (Some(problems.to_string()), Some(now_ms() / 1000));
            return batches::end(store, owner, &batch, &[]).await.map(drop).map_err(message);
        }
    };
    let (answered, failed) = written(store, &batch).await.map_err(message)?;
    batch.total = i64::try_from(asked.len()).unwrap_or(i64::MAX);
    batch.completed = i64::try_from(answered.len()).unwrap_or(0);
    batch.failed = i64::try_from(failed.len()).unwrap_or(0);
    if !batches::begin(store, owner, &batch).await.map_err(message)? {
        return Ok(());
    }
    let claim = Claim {
        work: Work::Batch(batch.id.clone()),
        epoch: batch.epoch,
    };
    let work = BatchRun {
        services,
        batch,
        operation,
        is_cancelled,
        is_halted: AtomicBool::new(false),
        claim,
    };
    let left = asked
        .into_iter()
        .zip(0..)
        .filter(|(_, number)| !answered.contains(number) && !failed.contains(number));
    let mut under_way = stream::iter(left)
        .map(|(line, number)| work.one(number, line))
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
        // The next start goes on, or another gateway.
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

impl BatchRun<'_> {
    /// Does one request; false if it is not done here, because the gateway stops or has lost the batch.
    async fn one(&self, number: i64, line: lines::Line) -> Result<bool, String> {
        if self.is_halted.load(Relaxed) {
            return Ok(false);
        }
        let id = format!("{}-{number}", self.batch.id);
        let Some(end) = self.answer(&id, &line).await else {
            return Ok(false);
        };
        match self.write(&id, number, &line.custom_id, end).await {
            Ok(Written::Yes) => Ok(true),
            Ok(Written::TakenOver) => {
                if !self.is_halted.swap(true, Relaxed) {
                    tracing::warn!(batch = %self.batch.id, "another gateway has taken a batch over");
                }
                Ok(false)
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// Makes a request until it has an answer. `None` if the gateway stops first.
    async fn answer(&self, id: &str, line: &lines::Line) -> Option<LineEnd> {
        let batch = &self.batch;
        let mut request = DetachedRequest {
            id,
            operation: self.operation,
            user_id: &batch.user_id,
            key_id: batch.key_id.as_deref(),
            class: Class::Batch,
            priority: batch.priority,
            project_id: &batch.project_id,
            body: line.body.get().as_bytes(),
            claim: &self.claim,
            is_cancelled: Some(self.is_cancelled),
            evicted: Evicted::default(),
        };
        let mut pause = FIRST_PAUSE;
        loop {
            if self.is_halted.load(Relaxed) {
                return None;
            }
            if let Some((code, why)) = self.is_over() {
                return Some(LineEnd::NotMade(code, why));
            }
            let (after, is_patient) = match detached::run(self.services, &request).await? {
                Outcome::Answered(answered) => return Some(LineEnd::Answered(answered)),
                Outcome::Evicted(held) => {
                    request.evicted = request.evicted.plus(held);
                    continue;
                }
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

    /// Writes the end of a line into the file that it belongs to.
    async fn write(&self, id: &str, number: i64, custom_id: &str, end: LineEnd) -> Result<Written, ledger::Error> {
        match end {
            LineEnd::Answered(answered) => {
                let written = AssertUnwindSafe(self.write_answer(id, number, custom_id, answered)).catch_unwind();
                match written.await {
                    Ok(written) => written,
                    // Its record was written while the stack unwound.
                    Err(_) => {
                        let answered = Answered::panicked(self.operation, id);
                        self.write_answer(id, number, custom_id, answered).await
                    }
                }
            }
            LineEnd::NotMade(code, why) => {
                let text = lines::not_made(id, custom_id, code, why);
                let ledger = &self.services.ledger;
                ledger.finish(&self.claim, self.part(number, false, text), None).await
            }
        }
    }

    async fn write_answer(
        &self,
        id: &str,
        number: i64,
        custom_id: &str,
        answered: Answered,
    ) -> Result<Written, ledger::Error> {
        let body: Value = serde_json::from_slice(&answered.body).unwrap_or_default();
        let text = lines::answer(id, custom_id, answered.status, &body);
        let part = self.part(number, answered.status == 200, text);
        answered.write(self.services, &self.claim, part).await
    }

    fn part(&self, number: i64, is_completed: bool, text: String) -> Answer {
        Answer::Line {
            file_id: lines::file_id(&self.batch.id, is_completed),
            number,
            contents: text.into_bytes(),
            is_completed,
        }
    }

    /// Waits; false if the gateway stops.
    async fn wait(&self, pause: Duration) -> bool {
        tokio::select! {
            () = self.services.shutdown.stopping() => false,
            () = tokio::time::sleep(pause) => true,
        }
    }

    /// Why no further request is made, if none is: a code, and in words.
    fn is_over(&self) -> Option<(&'static str, &'static str)> {
        if self.is_cancelled.load(Relaxed) {
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

    /// Ends the batch with the files that were written to, unless another gateway has it now.
    async fn finish(self) -> Result<(), String> {
        let is_late = self.is_late();
        let mut batch = self.batch;
        let (output, errors) = (
            file(self.services, &batch, true).await?,
            file(self.services, &batch, false).await?,
        );
        batch.status = if self.is_cancelled.load(Relaxed) {
            BatchStatus::Cancelled
        } else if is_late && errors.is_some() {
            BatchStatus::Expired
        } else {
            BatchStatus::Completed
        };
        batch.finished_at = Some(now_ms() / 1000);
        batch.output_file_id = output.as_ref().map(|file| file.id.clone());
        batch.error_file_id = errors.as_ref().map(|file| file.id.clone());
        let files: Vec<File> = output.into_iter().chain(errors).collect();
        let ledger = &self.services.ledger;
        let ended = batches::end(ledger.store(), ledger.owner(), &batch, &files).await;
        ended.map(drop).map_err(|error| error.to_string())
    }
}

/// The end of a line.
enum LineEnd {
    Answered(Answered),
    /// It was not made: a code, and in words.
    NotMade(&'static str, &'static str),
}

/// The file of a batch's answers, or of its failed requests; `None` if there are none.
async fn file(services: &Services, batch: &Batch, is_output: bool) -> Result<Option<File>, String> {
    let id = FileId::from(lines::file_id(&batch.id, is_output));
    let bytes = contents::size(services.ledger.store(), &id).await;
    let bytes = bytes.map_err(|error| error.to_string())?;
    let now = now_ms() / 1000;
    Ok((bytes > 0).then(|| File {
        filename: format!("{id}.jsonl"),
        id,
        project_id: batch.project_id.clone(),
        purpose: FilePurpose::BatchOutput,
        bytes,
        created_at: now,
        expires_at: expires_at(services, now, batch.output_expires_seconds),
    }))
}
