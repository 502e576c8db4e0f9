//! Stored requests: accepted with `queued`, kept in the ledger's database until they are done, and polled for. A stop or a
//! crash loses none; the next process resumes them.

use super::Step;
use super::admit::Queued;
use super::aside;
use super::conversation::{Conversation, response_id};
use super::detached::{self, DetachedRequest, Purpose, unavailable};
use super::final_part::FinalPart;
use super::job_answer::{Asked, failed_response, labelled, response, status_body, status_name};
use super::recorder::Recorder;
use super::reply::Reply;
use super::storage;
use crate::clock::now_ms;
use crate::registry::Status;
use crate::services::Services;
use bytes::Bytes;
use futures_util::FutureExt;
use ledger::GatewayId;
use ledger::jobs::{self, Job, JobState};
use policy::ProjectId;
use protocol::error::{ErrorCode, RequestError};
use protocol::{Operation, responses};
use serde_json::{Value, json};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

/// A request that was forwarded this often and never ended is given up.
const MAX_ATTEMPTS: i64 = 3;

/// Pauses before an answer that could not be stored is stored again: the first, which doubles, and the longest.
const SHORTEST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

impl Queued {
    /// Stores the request, answers `queued`, and goes on in a task of its own.
    pub(super) async fn detach(self, body: Bytes) -> Step<Box<Reply>> {
        let job = job(&self.recorder, &body);
        let accepted = match accept(&self.recorder, &job, &body).await {
            Ok(reply) => reply,
            Err(error) => return self.recorder.reject(error),
        };
        tokio::spawn(run(self, body));
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

/// Runs a stored request to its end and stores its answer.
pub(super) async fn run(queued: Queued, body: Bytes) {
    let project = queued.recorder.record.project_id().to_owned();
    run_job(queued, &project, body).await;
}

async fn run_job(mut queued: Queued, project: &str, body: Bytes) {
    let recorder = &mut queued.recorder;
    recorder.is_detached = true;
    let (services, accepted) = (Arc::clone(&recorder.services), recorder.record.clone());
    let conversation = recorder.conversation.clone();
    let ran = AssertUnwindSafe(queued.run(&body, Purpose::Job(project))).catch_unwind();
    match ran.await {
        Ok(Some(Ok((mut recorder, result)))) => {
            let result = match recorder.durable().await {
                Ok(()) => result,
                Err(error) => Err(unavailable(&error)),
            };
            store_answer(Asked::of(&recorder, &body), project, result).await;
        }
        Ok(_) => {}
        // Its record was written while the stack unwound.
        Err(_) => {
            let asked = Asked {
                services: &services,
                record: &accepted,
                conversation: &conversation,
                body: &body,
            };
            store_answer(asked, project, Err(super::panicked())).await;
        }
    }
}

async fn store_answer(asked: Asked<'_>, project: &str, result: Result<FinalPart, RequestError>) {
    let Asked { services, record, .. } = asked;
    let is_response = record.operation == Operation::Responses;
    let answer = match result {
        Ok(part) if is_response => {
            let mut answer = response(&asked, part);
            if let Some(input) = asked.conversation.kept_input.clone() {
                answer["store"] = storage::store(services, record, asked.conversation, input, &answer)
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
    keep_answer(services, project, &record.request_id, &answer).await;
}

/// Stores a job's answer; again while the database fails, until the gateway stops.
async fn keep_answer(services: &Services, project: &str, id: &str, answer: &Value) {
    let mut pause = SHORTEST_PAUSE;
    while let Err(error) = jobs::finish(services.ledger.store(), project, id, answer, now_ms()).await {
        tracing::error!(%error, request_id = id, "cannot store an answer; trying again");
        tokio::select! {
            () = services.shutdown.stopping() => return,
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
        }
    }
    aside::remove(services, id).await;
}

/// Resumes the stored requests of `owner`, a process that has ended, each in a task of its own.
pub(crate) async fn recover(services: &Arc<Services>, owner: &GatewayId) -> Result<(), ledger::Error> {
    let abandoned = jobs::claim(services.ledger.store(), owner, services.ledger.owner()).await?;
    if !abandoned.is_empty() {
        tracing::info!(jobs = abandoned.len(), "resuming stored requests");
    }
    aside::remove_finished(services).await?;
    for job in abandoned {
        tokio::spawn(resume(Arc::clone(services), job));
    }
    Ok(())
}

/// Resumes a request that an earlier process had accepted.
async fn resume(services: Arc<Services>, mut job: Job) {
    let operation = if job.endpoint == Operation::Responses.client_path() {
        Operation::Responses
    } else {
        Operation::Generate
    };
    let mut recorder = Recorder::resume(&services, &job.id, operation);
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
        is_cancelled: None,
    };
    let recorded = jobs::recorded(services.ledger.store(), &job.project_id, &job.id).await;
    if recorded.is_ok_and(|ids| ids.contains(&*job.id)) {
        keep_recorded(&mut recorder, &request, &job).await;
        recorder.abandon();
        return;
    }
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
        Ok(queued) => run_job(queued, &job.project_id, Bytes::from(job.body)).await,
        Err(rejected) => {
            let (mut recorder, error) = *rejected;
            if error.code == ErrorCode::ShuttingDown {
                // The next process resumes the job.
                recorder.abandon();
                return;
            }
            let result = recorder.conclude(Err(error), None);
            store_answer(Asked::of(&recorder, &job.body), &job.project_id, result).await;
        }
    }
}

/// Keeps the answer of a job whose record was written before the gateway was killed.
async fn keep_recorded(recorder: &mut Recorder, request: &DetachedRequest<'_>, job: &Job) {
    let services = Arc::clone(&recorder.services);
    if let Some(answer) = stored_answer(&services, job).await {
        keep_answer(&services, &job.project_id, &job.id, &answer).await;
        return;
    }
    let result = aside::find(&services, &job.id).await.unwrap_or_else(|| {
        let message = "the request completed, and its answer was lost when the gateway was killed";
        Err(RequestError::new(ErrorCode::UpstreamError, message))
    });
    if detached::identify_again(recorder, request).is_err() {
        // Nobody is left to store a response for.
        recorder.conversation.kept_input = None;
    }
    store_answer(Asked::of(recorder, &job.body), &job.project_id, result).await;
}

/// The response that a job had stored before the gateway was killed.
async fn stored_answer(services: &Services, job: &Job) -> Option<Value> {
    let (store, id) = (services.ledger.store(), response_id(&job.id));
    let found = ledger::responses::find(store, Some(&job.project_id), &id, now_ms() / 1000).await;
    serde_json::from_str(&found.ok()??).ok()
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
        JobState::Unfinished { .. } => state("queued", "Request is waiting in the queue"),
    }))
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
        } => {
            let is_running = services.registry.status(id, project) == Some(Status::Processing);
            let status = if is_running { "in_progress" } else { "queued" };
            let shown = responses::pending(&body, id, created_at_ms / 1000, status);
            labelled(shown, previous_response_id, is_kept)
        }
    }))
}
