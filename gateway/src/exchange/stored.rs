//! Stored requests: accepted with `queued`, kept in the ledger's database until they are done, and polled for. A stop or a
//! crash loses none; the next process resumes them.

use super::Step;
use super::admit::Queued;
use super::conversation::Conversation;
use super::detached::{self, DetachedRequest, Postponed, Purpose, unavailable};
use super::final_part::FinalPart;
use super::job_answer::{Asked, failed_response, labelled, response, status_body, status_name};
use super::recorder::Recorder;
use super::reply::Reply;
use super::storage;
use crate::clock::now_ms;
use crate::record::{Evicted, Record};
use crate::registry::Status;
use crate::services::Services;
use bytes::Bytes;
use futures_util::FutureExt;
use ledger::jobs::{self, Job, JobState};
use ledger::{Answer, Claim, GatewayId, Work, Written};
use policy::ProjectId;
use protocol::error::{ErrorCode, RequestError};
use protocol::{Operation, responses};
use serde_json::{Value, json};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

/// A request that was forwarded this often and never ended is given up.
const MAX_ATTEMPTS: i64 = 3;

/// A job that was refused for what only time changes is admitted again after this, at least.
const SHORTEST_PAUSE: Duration = Duration::from_millis(200);

impl Queued {
    /// Stores the request, answers `queued`, and goes on in a task of its own.
    pub(super) async fn detach(self, body: Bytes) -> Step<Box<Reply>> {
        let job = job(&self.recorder, &body);
        let accepted = match accept(&self.recorder, &job, &body).await {
            Ok(reply) => reply,
            Err(error) => return self.recorder.reject(error),
        };
        let mut queued = self;
        let project = queued.recorder.record.project_id().to_owned();
        queued.recorder.claim = Some(claim_of(&job));
        tokio::spawn(run(queued, project, body));
        Ok(Box::new(accepted))
    }
}

/// The job of a request.
pub(super) fn job(recorder: &Recorder, body: &Bytes) -> Job {
    let (record, conversation) = (&recorder.record, &recorder.conversation);
    let key = record.caller.as_ref().and_then(|caller| caller.key.as_ref());
    Job {
        id: record.request_id.as_str().into(),
        endpoint: record.operation.client_path().to_owned(),
        user_id: record.user_id().to_owned(),
        project_id: record.project_id().to_owned(),
        key_id: key.map(|key| key.id.clone()),
        class: record.class,
        priority: record.priority,
        body: body.to_vec(),
        attempts: 0,
        previous_response_id: conversation.previous_response_id.clone(),
        kept_input: conversation.kept_input.clone(),
        epoch: 0,
    }
}

fn claim_of(job: &Job) -> Claim {
    Claim {
        work: Work::Job(job.id.clone()),
        epoch: job.epoch,
    }
}

/// Stores a job, and makes the reply that it is queued.
pub(super) async fn accept(recorder: &Recorder, job: &Job, body: &Bytes) -> Result<Reply, RequestError> {
    let ledger = &recorder.services.ledger;
    jobs::add(ledger.store(), ledger.owner(), job, now_ms())
        .await
        .map_err(|error| unavailable(&error))?;
    let queued = match recorder.record.operation {
        Operation::Responses => Asked::of(recorder, body).pending("queued"),
        _ => status_body(&recorder.record, "queued", "Request queued for background processing"),
    };
    Reply::json(recorder, &queued)
        .map_err(|_| RequestError::new(ErrorCode::BadRequest, "`x-request-id` cannot be sent back in a header"))
}

/// Runs a stored request to its end and writes its answer; as often as it is evicted, it is queued anew.
async fn run(queued: Queued, project: String, body: Bytes) {
    let mut queued = Some(queued);
    while let Some(attempt) = queued {
        queued = run_attempt(attempt, &project, &body).await;
    }
}

/// Runs a stored request to its end and writes its answer, or until it is evicted; then it is queued anew.
async fn run_attempt(queued: Queued, project: &str, body: &Bytes) -> Option<Queued> {
    let recorder = &queued.recorder;
    let (services, accepted) = (Arc::clone(&recorder.services), recorder.record.clone());
    let (conversation, claim) = (recorder.conversation.clone(), recorder.claim.clone());
    let purpose = Purpose::Job {
        project,
        epoch: claim.as_ref().map_or(0, |claim| claim.epoch),
    };
    let ran = async {
        match queued.run(body, purpose).await? {
            Ok((recorder, result)) => {
                write_answer(recorder, body, result).await;
                None
            }
            Err(Postponed::Evicted(held)) => Some(held),
            Err(Postponed::Unavailable(_)) => None,
        }
    };
    if let Ok(evicted) = AssertUnwindSafe(ran).catch_unwind().await {
        let claim = claim?;
        return queue_anew(&services, &accepted, (conversation, &claim), body, evicted?).await;
    }
    // Its record was written while the stack unwound.
    let asked = Asked {
        services: &services,
        record: &accepted,
        conversation: &conversation,
        body,
    };
    let answer = answer(asked, None, Err(super::panicked())).await;
    if let Some(claim) = claim {
        let written = services.ledger.finish(&claim, answer, None).await;
        report(&accepted.request_id, &written);
    }
    None
}

/// Queues a stored request again that was evicted after it had its slot for so long.
async fn queue_anew(
    services: &Arc<Services>,
    evicted: &Record,
    (conversation, claim): (Conversation, &Claim),
    body: &Bytes,
    held: Duration,
) -> Option<Queued> {
    let id = &evicted.request_id;
    let mut recorder = Recorder::resume(services, id, evicted.operation, claim.clone());
    recorder.conversation = conversation;
    recorder.record.evicted = evicted.evicted.plus(held);
    detached::forget_attempt(services, (evicted.project_id(), id, claim.epoch)).await;
    let key = evicted.caller.as_ref().and_then(|caller| caller.key.as_ref());
    let request = DetachedRequest {
        id,
        operation: evicted.operation,
        user_id: evicted.user_id(),
        key_id: key.map(|key| key.id.as_str()),
        class: evicted.class,
        priority: evicted.priority,
        project_id: evicted.project_id(),
        body,
        claim,
        is_cancelled: None,
        evicted: recorder.record.evicted,
    };
    match admit_again(recorder, &request).await {
        Ok(queued) => Some(queued),
        Err(rejected) => {
            end_rejected(*rejected, body).await;
            None
        }
    }
}

/// Ends a stored request that was rejected, unless the next process resumes it.
async fn end_rejected((mut recorder, error): (Box<Recorder>, RequestError), body: &[u8]) {
    if error.code == ErrorCode::ShuttingDown {
        recorder.abandon();
        return;
    }
    let result = recorder.conclude(Err(error), None);
    write_answer(recorder, body, result).await;
}

/// Writes the answer of a stored request, and its record with it.
async fn write_answer(recorder: Box<Recorder>, body: &[u8], result: Result<FinalPart, RequestError>) {
    let answer = answer(Asked::of(&recorder, body), recorder.claim.as_ref(), result).await;
    let id = recorder.record.request_id.clone();
    report(&id, &recorder.finish(answer).await);
}

fn report(id: &str, written: &Result<Written, ledger::Error>) {
    match written {
        Ok(Written::Yes) => {}
        Ok(Written::TakenOver) => tracing::warn!(request_id = id, "another gateway had taken a stored request over"),
        Err(error) => tracing::error!(%error, request_id = id, "an answer was not stored; its request is done again"),
    }
}

/// The answer of a stored request; its response is stored, if that was asked for.
async fn answer(asked: Asked<'_>, claim: Option<&Claim>, result: Result<FinalPart, RequestError>) -> Answer {
    let Asked { services, record, .. } = asked;
    let is_response = record.operation == Operation::Responses;
    let answer = match result {
        Ok(part) if is_response => {
            let mut answer = response(&asked, part);
            if let Some(input) = asked.conversation.kept_input.clone() {
                answer["store"] = storage::store(services, record, claim, asked.conversation, input, &answer)
                    .await
                    .into();
            }
            answer
        }
        Err(error) if is_response => failed_response(&asked, &error),
        Ok(FinalPart::Body { body, .. } | FinalPart::Refused { body, .. }) => {
            serde_json::from_slice(&body).unwrap_or_default()
        }
        Ok(FinalPart::StreamEnd(_) | FinalPart::Relayed { .. }) => Value::Null,
        Err(error) => {
            let mut answer = status_body(record, status_name(&error), &error.message);
            answer["detail"] = error.code.name().into();
            answer
        }
    };
    Answer::Job {
        answer: answer.to_string(),
        finished_at_ms: now_ms(),
    }
}

/// Resumes the stored requests of `owner`, a process that has ended, each in a task of its own.
pub(crate) async fn recover(services: &Arc<Services>, owner: &GatewayId) -> Result<(), ledger::Error> {
    let abandoned = jobs::claim(services.ledger.store(), owner, services.ledger.owner()).await?;
    resume_all(services, abandoned);
    Ok(())
}

/// Takes over some stored requests of gateways that are silent or gone; how many.
pub(crate) async fn take_over(services: &Arc<Services>, limit: i64) -> Result<usize, ledger::Error> {
    let abandoned = jobs::take_over(services.ledger.store(), services.ledger.owner(), limit).await?;
    let count = abandoned.len();
    resume_all(services, abandoned);
    Ok(count)
}

/// Claims those of this gateway's stored requests anew that do not run here, because the answer to their claim was lost or
/// their answer was refused. A gateway that stops sets them free for another.
pub(crate) async fn recover_forgotten(services: &Arc<Services>, is_leaving: bool) -> Result<(), ledger::Error> {
    let (store, owner) = (services.ledger.store(), services.ledger.owner());
    for id in jobs::owned(store, owner).await? {
        if services.registry.has(&id) {
            continue;
        }
        if is_leaving {
            jobs::release(store, owner, &id).await?;
        } else {
            resume_all(
                services,
                jobs::claim_again(store, owner, &id).await?.into_iter().collect(),
            );
        }
    }
    Ok(())
}

fn resume_all(services: &Arc<Services>, abandoned: Vec<Job>) {
    if !abandoned.is_empty() {
        tracing::info!(jobs = abandoned.len(), "resuming stored requests");
    }
    for job in abandoned {
        tokio::spawn(resume(Arc::clone(services), job));
    }
}

/// Resumes a request that an earlier process had accepted.
async fn resume(services: Arc<Services>, mut job: Job) {
    let operation = if job.endpoint == Operation::Responses.client_path() {
        Operation::Responses
    } else {
        Operation::Generate
    };
    let claim = claim_of(&job);
    let mut recorder = Recorder::resume(&services, &job.id, operation, claim.clone());
    recorder.conversation = Conversation {
        previous_response_id: job.previous_response_id.take(),
        kept_input: job.kept_input.take(),
    };
    let request = DetachedRequest {
        id: &job.id,
        operation,
        user_id: &job.user_id,
        key_id: job.key_id.as_deref(),
        class: job.class,
        priority: job.priority,
        project_id: &job.project_id,
        body: &job.body,
        claim: &claim,
        is_cancelled: None,
        evicted: Evicted::default(),
    };
    let admitted = if job.attempts >= MAX_ATTEMPTS {
        let message = format!("the gateway was killed during each of {MAX_ATTEMPTS} attempts");
        Err(Box::new((
            recorder,
            RequestError::new(ErrorCode::UpstreamError, message),
        )))
    } else {
        admit_again(recorder, &request).await
    };
    match admitted {
        Ok(queued) => run(queued, job.project_id, Bytes::from(job.body)).await,
        Err(rejected) => end_rejected(*rejected, &job.body).await,
    }
}

/// Admits a job that was accepted before. What only time changes (a rate limit, a full queue) delays it; it does not fail
/// for a limit that it had passed when it was accepted.
async fn admit_again(
    recorder: Box<Recorder>,
    request: &DetachedRequest<'_>,
) -> Result<Queued, Box<(Box<Recorder>, RequestError)>> {
    let services = Arc::clone(&recorder.services);
    let mut recorder = recorder;
    loop {
        let (same, error) = match detached::admit(recorder, request).await {
            Ok(queued) => return Ok(queued),
            Err(rejected) => *rejected,
        };
        recorder = same;
        let Some(pause) = error.retry_after else {
            return Err(Box::new((recorder, error)));
        };
        tokio::select! {
            () = services.shutdown.stopping() => return Err(Box::new((recorder, super::client::shutting_down()))),
            () = tokio::time::sleep(pause.max(SHORTEST_PAUSE)) => {}
        }
    }
}

/// The body of `GET /requests/{id}`: the answer, or how far the request has come.
pub(crate) async fn status(
    services: &Services,
    id: &str,
    project: Option<ProjectId>,
) -> Result<Option<Value>, ledger::Error> {
    let state = |status: &str, message: &str| json!({"request_id": id, "status": status, "message": message});
    match services.registry.status(id, project) {
        Some(Status::Processing) => return Ok(Some(state("processing", "Request is being processed"))),
        Some(Status::Queued(ticket)) => {
            let mut body = state("queued", "Request is waiting in the queue");
            if let Some((position, expected)) = services.gate.position_of(ticket) {
                body["position"] = position.into();
                body["expected_wait_seconds"] = expected.as_secs_f64().into();
            }
            return Ok(Some(body));
        }
        None => {}
    }
    let snapshot = services.current.get();
    let project = project.map(|project| snapshot.config.project(project).id.as_str());
    let job = jobs::find(services.ledger.store(), project, id).await?;
    Ok(job.map(|job| match job {
        JobState::Finished(answer) => answer,
        JobState::Unfinished { is_running: true, .. } => state("processing", "Request is being processed"),
        JobState::Unfinished { .. } => state("queued", "Request is waiting in the queue"),
    }))
}

/// Cancels a request that runs or waits here, or a stored one at whichever gateway has it, which notices within a second;
/// false if there is none.
pub(crate) async fn cancel(services: &Services, id: &str, project: Option<ProjectId>) -> Result<bool, ledger::Error> {
    if services.registry.cancel(id, project) {
        return Ok(true);
    }
    let snapshot = services.current.get();
    let project = project.map(|project| snapshot.config.project(project).id.as_str());
    jobs::cancel(services.ledger.store(), project, id).await
}

/// Cancels the stored requests that this gateway has and another was asked to cancel.
pub(crate) async fn cancel_marked(services: &Services) -> Result<(), ledger::Error> {
    for id in jobs::to_cancel(services.ledger.store(), services.ledger.owner()).await? {
        services.registry.cancel(&id, None);
    }
    Ok(())
}

/// A background response, done or not.
pub(crate) async fn find_response(
    services: &Services,
    id: &str,
    project: Option<ProjectId>,
) -> Result<Option<Value>, ledger::Error> {
    let snapshot = services.current.get();
    let project_id = project.map(|project| snapshot.config.project(project).id.as_str());
    let job = jobs::find(services.ledger.store(), project_id, id).await?;
    Ok(job.map(|job| match job {
        JobState::Finished(answer) => answer,
        JobState::Unfinished {
            body,
            created_at_ms,
            previous_response_id,
            is_kept,
            is_running,
        } => {
            let is_running = is_running || services.registry.status(id, project) == Some(Status::Processing);
            let status = if is_running { "in_progress" } else { "queued" };
            let shown = responses::pending(&body, id, created_at_ms / 1000, status);
            labelled(shown, previous_response_id, is_kept)
        }
    }))
}
