//! `/generate` when no place is free, and `/v1/responses` with `background: true`: the client is told `queued` at once, the request goes on without it, and its
//! answer is kept to be fetched at `/requests/{id}`. Both survive a stop and a crash: what was not done is taken over by
//! the next start.

use super::Gateway;
use super::answer::FinalPart;
use super::client::Client;
use super::exchange::{Exchange, ask, conclude};
use super::forward::forward;
use super::outbound;
use crate::clock::now_ms;
use crate::gate::{Admission, QueuedRequest};
use crate::identity;
use crate::requests::Status;
use bytes::Bytes;
use ledger::GatewayId;
use ledger::jobs::{self, Job, JobState};
use pingora_core::protocols::http::HttpTask;
use policy::{Class, Priority, ProjectId};
use protocol::refuse::{ErrorCode, RequestError};
use protocol::{self, Operation, responses};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// A request that found no room is made again after this, at least.
const SOON: Duration = Duration::from_millis(200);

/// The longest pause before something that failed is tried again.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A request that was begun so often and never came to an end is given up.
const ATTEMPTS: i64 = 3;

/// Keeps a request that is to go on without its client; the original's answer to it.
pub(super) async fn keep(exchange: &Exchange, body: &Bytes) -> Result<Vec<HttpTask>, RequestError> {
    let record = &exchange.record;
    let key = record.caller.as_ref().and_then(|caller| caller.key.as_ref());
    let job = Job {
        id: record.request_id.as_str().into(),
        endpoint: endpoint(record.call).to_owned(),
        user_id: record.user_id().to_owned(),
        project_id: record.project_id().to_owned(),
        key_id: key.map(|key| key.id.clone()),
        class: record.class,
        priority: record.priority,
        body: body.to_vec(),
        attempts: 0,
    };
    jobs::add(
        exchange.gateway.ledger.store(),
        exchange.gateway.ledger.owner(),
        &job,
        now_ms(),
    )
    .await
    .map_err(|error| {
        tracing::error!(%error, "a queued request was not kept");
        RequestError::new(
            ErrorCode::LedgerUnavailable,
            "the gateway cannot keep the request now; try again",
        )
    })?;
    let queued = match record.call {
        Operation::Responses => responses::pending(body, &record.request_id, now_ms() / 1000, "queued"),
        _ => status_body(exchange, "queued", "Request queued for background processing"),
    };
    let body = Bytes::from(queued.to_string());
    let head = outbound::head(exchange, 200, b"application/json", Some(body.len()));
    head.map(|head| vec![HttpTask::Header(head, false), outbound::last(Some(body))])
        .map_err(|_| RequestError::new(ErrorCode::BadRequest, "the request's id cannot be sent back"))
}

/// Waits, runs and concludes without a client; keeps the answer. A gateway that stops leaves what still waits to
/// the next.
pub(super) async fn run(exchange: Exchange, wait: QueuedRequest, body: Bytes) {
    let project = exchange.record.project_id().to_owned();
    run_job(exchange, &project, wait, body).await;
}

/// Runs the job of a project to its end.
async fn run_job(mut exchange: Exchange, project: &str, wait: QueuedRequest, body: Bytes) {
    let Some(walked) = walk(&mut exchange, Some(project), wait, body.clone()).await else {
        return;
    };
    finish(exchange, project, walked, &body).await;
}

async fn finish(mut exchange: Exchange, project: &str, walked: Result<FinalPart, RequestError>, asked: &[u8]) {
    let concluded = conclude(&mut exchange, walked).await;
    let call = exchange.record.call;
    let answer = match concluded {
        Ok(rest) if call == Operation::Responses => response(&exchange, rest, asked),
        Err(stop) if call == Operation::Responses => unanswered(&exchange, &stop, asked),
        Ok(FinalPart::Body { body, .. }) => serde_json::from_slice(&body).unwrap_or_default(),
        Ok(FinalPart::StreamEnd(_)) => Value::Null,
        Err(stop) => {
            let mut answer = status_body(&exchange, word(&stop), &stop.message);
            answer["detail"] = stop.reason.name().into();
            answer
        }
    };
    let id = &exchange.record.request_id;
    keep_answer(&exchange.gateway, project, id, &answer).await;
}

/// Keeps a job's answer; again while the database fails, until the gateway stops.
async fn keep_answer(gateway: &Gateway, project: &str, id: &str, answer: &Value) {
    let mut stopping = gateway.stopping.clone();
    let mut pause = SOON;
    while let Err(error) = jobs::finish(gateway.ledger.store(), project, id, answer, now_ms()).await {
        tracing::error!(%error, request_id = id, "answer of a job not kept; it is tried again");
        tokio::select! {
            _ = stopping.wait_for(|stopping| *stopping) => return,
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
        }
    }
}

/// A response as it is fetched later, also where its server has said no.
fn response(exchange: &Exchange, rest: FinalPart, asked: &[u8]) -> Value {
    let (status, body) = match rest {
        FinalPart::Body { status, body, .. } => (status, body),
        FinalPart::StreamEnd(_) => (502, Bytes::new()),
    };
    let mut answer: Value = serde_json::from_slice(&body).unwrap_or_default();
    let id = &exchange.record.request_id;
    if status != 200 || !answer.is_object() {
        let mut failed = responses::pending(asked, id, now_ms() / 1000, "failed");
        let message = answer.pointer("/error/message").cloned();
        let message = message.unwrap_or_else(|| "the model's server did not answer".into());
        failed["error"] = json!({"code": "server_error", "message": message});
        return failed;
    }
    answer["id"] = format!("resp_{id}").into();
    answer["background"] = true.into();
    answer
}

/// A response that did not come about.
fn unanswered(exchange: &Exchange, stop: &RequestError, asked: &[u8]) -> Value {
    let is_cancelled = matches!(stop.reason, ErrorCode::Cancelled | ErrorCode::ClientGone);
    let status = if is_cancelled { "cancelled" } else { "failed" };
    let mut answer = responses::pending(asked, &exchange.record.request_id, now_ms() / 1000, status);
    if !is_cancelled {
        answer["error"] = json!({"code": stop.reason.name(), "message": stop.message});
    }
    answer
}

/// Where a request that can go on without its client is asked for.
fn endpoint(call: Operation) -> &'static str {
    match call {
        Operation::Responses => "/v1/responses",
        _ => "/generate",
    }
}

/// Waits and runs; `job` is the project of a request that is a job. `None`: the gateway stops, and the request has not
/// begun.
async fn walk(
    exchange: &mut Exchange,
    job: Option<&str>,
    wait: QueuedRequest,
    body: Bytes,
) -> Option<Result<FinalPart, RequestError>> {
    let gateway = Arc::clone(&exchange.gateway);
    let _buffered = match gateway.buffer(&exchange.record.snapshot.config, body.len()) {
        Ok(buffered) => buffered,
        Err(stop) => return Some(Err(stop)),
    };
    let mut client = Client::away(Arc::clone(&exchange.listed.cancel));
    let mut stopping = gateway.stopping.clone();
    let entry = tokio::select! {
        biased;
        _ = stopping.wait_for(|stopping| *stopping) => return None,
        gone = client.gone() => return Some(Err(gone)),
        entry = wait.granted() => entry,
    };
    let entry = match entry {
        Ok(entry) => entry,
        Err(refusal) => return Some(Err(refusal.into())),
    };
    exchange.enter(entry);
    if let Some(project) = job
        && let Err(error) = jobs::count_attempt(gateway.ledger.store(), project, &exchange.record.request_id).await
    {
        // The count is a bound on crashes alone.
        tracing::warn!(%error, request_id = exchange.record.request_id, "attempt of a job not counted");
    }
    gateway.in_background.fetch_add(1, Relaxed);
    let answered = async {
        let parsed = protocol::parse(exchange.record.call, &body)?;
        forward(exchange, &mut client, &body, &parsed).await
    };
    let answered = answered.await;
    gateway.in_background.fetch_sub(1, Relaxed);
    Some(answered)
}

/// Takes over what the process before has left, each as a task of its own.
pub(crate) async fn take_over(gateway: &Arc<Gateway>, owner: &GatewayId) -> Result<(), ledger::Error> {
    let left = jobs::claim(gateway.ledger.store(), owner, gateway.ledger.owner()).await?;
    if !left.is_empty() {
        tracing::info!(jobs = left.len(), "taking over what had been queued");
    }
    for job in left {
        tokio::spawn(resume(Arc::clone(gateway), job));
    }
    Ok(())
}

/// Goes on with a request that the process before had queued or begun.
async fn resume(gateway: Arc<Gateway>, job: Job) {
    let call = if job.endpoint == endpoint(Operation::Responses) {
        Operation::Responses
    } else {
        Operation::Generate
    };
    let mut exchange = Exchange::new(&gateway, job.id.to_string(), call);
    let recorded = jobs::recorded(gateway.ledger.store(), &job.project_id, &job.id).await;
    if recorded.is_ok_and(|ids| ids.contains(&*job.id)) {
        let message = "the request was done, and its answer was lost when the gateway stopped";
        let answer = match call {
            Operation::Responses => unanswered(
                &exchange,
                &RequestError::new(ErrorCode::UpstreamError, message),
                &job.body,
            ),
            _ => status_body(&exchange, "failed", message),
        };
        keep_answer(&gateway, &job.project_id, &job.id, &answer).await;
        return;
    }
    let alone = DetachedRequest {
        id: &job.id,
        call,
        user_id: &job.user_id,
        key_id: job.key_id.as_deref(),
        class: job.class,
        priority: job.priority,
        body: &job.body,
    };
    let offered = if job.attempts >= ATTEMPTS {
        let message = format!("forwarded {ATTEMPTS} times, and the gateway stopped each time before the answer came");
        Err(RequestError::new(ErrorCode::UpstreamError, message))
    } else {
        offer(&mut exchange, &alone)
    };
    match offered {
        Ok(wait) => run_job(exchange, &job.project_id, wait, Bytes::from(job.body)).await,
        Err(stop) => finish(exchange, &job.project_id, Err(stop), &job.body).await,
    }
}

/// A request whose record could not be written is made after this.
const LEDGER_PAUSE: Duration = Duration::from_secs(1);

/// Whether the model's servers could not serve a request at the moment: unreachable, 429 or 503; and the pause that they
/// ask for. Nothing of the answer was made.
fn is_unavailable(exchange: &Exchange, walked: &Result<FinalPart, RequestError>) -> Option<Duration> {
    match walked {
        Err(stop) if stop.reason == ErrorCode::NoHealthyUpstream => Some(stop.retry_after.unwrap_or_default()),
        Err(stop) if stop.reason == ErrorCode::UpstreamError && exchange.upstream_status.is_none() => {
            Some(stop.retry_after.unwrap_or_default())
        }
        Ok(FinalPart::Body { status: 429 | 503, .. }) => Some(Duration::ZERO),
        _ => None,
    }
}

/// A request that is made without a client, in the name of whoever had asked for it.
#[derive(Debug)]
pub(crate) struct DetachedRequest<'a> {
    pub(crate) id: &'a str,
    pub(crate) call: Operation,
    pub(crate) user_id: &'a str,
    pub(crate) key_id: Option<&'a str>,
    pub(crate) class: Class,
    pub(crate) priority: Priority,
    pub(crate) body: &'a [u8],
}

/// What became of it.
pub(crate) enum Done {
    /// A status and a body, as a client would have got them; and it is in the ledger.
    Answered(u16, Bytes),
    /// There was no room, and nothing was recorded: it may be made again after so long.
    Later(Duration),
    /// The model's servers were unreachable, overloaded or limiting, and nothing was recorded: it may be made again
    /// after a pause, at least as long as they ask for.
    Unavailable(Duration),
}

/// Makes a request alone, to its end. `None`: the gateway stops, and the request has not begun.
pub(crate) async fn alone(gateway: &Arc<Gateway>, alone: &DetachedRequest<'_>) -> Option<Done> {
    if gateway.ledger.check_writable().is_err() {
        return Some(Done::Later(LEDGER_PAUSE));
    }
    let mut exchange = Exchange::new(gateway, alone.id.to_owned(), alone.call);
    let walked = match offer(&mut exchange, alone) {
        Ok(wait) => walk(&mut exchange, None, wait, Bytes::copy_from_slice(alone.body)).await?,
        Err(stop) => Err(stop),
    };
    if let Some(after) = is_unavailable(&exchange, &walked) {
        return Some(Done::Unavailable(after));
    }
    if let Err(stop) = &walked
        && let Some(after) = stop.retry_after
        && !exchange.record.was_forwarded
    {
        return Some(Done::Later(after.max(SOON)));
    }
    Some(match conclude(&mut exchange, walked).await {
        Ok(FinalPart::Body { status, body, .. }) => Done::Answered(status, body),
        Ok(FinalPart::StreamEnd(_)) => Done::Answered(200, Bytes::new()),
        Err(stop) => Done::Answered(
            stop.reason.status(),
            stop.body(exchange.record.protocol(), alone.id).into(),
        ),
    })
}

/// Asks for a place. One that could run at once waits for its turn like the others.
fn offer(exchange: &mut Exchange, alone: &DetachedRequest<'_>) -> Result<QueuedRequest, RequestError> {
    let parsed = protocol::parse(alone.call, alone.body)?;
    if parsed.is_streaming {
        let message = "nobody is there to read a stream; leave `stream` out";
        return Err(RequestError::param(ErrorCode::BadRequest, "stream", message));
    }
    let record = &mut exchange.record;
    let caller = identity::owner(&record.snapshot, alone.user_id, alone.key_id, now_ms())?;
    record.requested_model = parsed.model.chars().take(256).collect();
    (record.class, record.priority) = (alone.class, alone.priority);
    exchange.listed.note(caller.project, None);
    record.caller = Some(caller);
    let ask = ask(exchange, alone.body, &parsed)?;
    exchange.translation = None;
    let (offer, standing) = exchange.gateway.gate.offer(&ask);
    exchange.standing = standing;
    let wait = match offer {
        Admission::Rejected(refusal) => return Err(refusal.into()),
        Admission::Queued(wait) => wait,
        Admission::Admitted(entry) => QueuedRequest::over(entry),
    };
    exchange.record.terms = wait.terms();
    exchange.listed.note(ask.project, wait.ticket());
    Ok(wait)
}

/// What `/requests/{id}` says: the answer, or how far the request has come.
pub(crate) async fn status(gateway: &Gateway, id: &str, of: Option<ProjectId>) -> Result<Option<Value>, ledger::Error> {
    let is = |status: &str, message: &str| json!({"request_id": id, "status": status, "message": message});
    match gateway.requests.status(id, of) {
        Some(Status::Processing) => return Ok(Some(is("processing", "Request is being processed"))),
        Some(Status::Queued(ticket)) => {
            let mut body = is("queued", "Request is waiting in the queue");
            if let Some((position, expected)) = gateway.gate.position_of(ticket) {
                body["position"] = position.into();
                body["expected_wait_seconds"] = expected.as_secs_f64().into();
            }
            return Ok(Some(body));
        }
        None => {}
    }
    let snapshot = gateway.current.get();
    let of = of.map(|project| snapshot.config.project(project).id.as_str());
    let job = jobs::find(gateway.ledger.store(), of, id).await?;
    Ok(job.map(|job| match job {
        JobState::Finished(answer) => answer,
        JobState::Unfinished { .. } => is("queued", "Request is waiting in the queue"),
    }))
}

/// A response that is made in the background, done or not.
pub(super) async fn shown(gateway: &Gateway, id: &str, of: Option<ProjectId>) -> Result<Option<Value>, ledger::Error> {
    let snapshot = gateway.current.get();
    let project = of.map(|project| snapshot.config.project(project).id.as_str());
    let job = jobs::find(gateway.ledger.store(), project, id).await?;
    Ok(job.map(|job| match job {
        JobState::Finished(answer) => answer,
        JobState::Unfinished { body, created_at_ms } => {
            let runs = gateway.requests.status(id, of) == Some(Status::Processing);
            let status = if runs { "in_progress" } else { "queued" };
            responses::pending(&body, id, created_at_ms / 1000, status)
        }
    }))
}

/// The original's fields, before there is an answer or where there will be none.
fn status_body(exchange: &Exchange, status: &str, message: &str) -> Value {
    let record = &exchange.record;
    let estimate = record.terms.estimate;
    json!({
        "request_id": record.request_id,
        "status": status,
        "message": message,
        "estimated_input_tokens": estimate.input_tokens,
        "estimated_output_tokens": estimate.output_tokens,
        "estimated_cost_eur": estimate.cost.euros(),
    })
}

/// The original's word for how a request ended without its answer.
fn word(stop: &RequestError) -> &'static str {
    match stop.reason {
        ErrorCode::Cancelled | ErrorCode::ClientGone => "cancelled",
        ErrorCode::QueueTimeout | ErrorCode::UpstreamTimeout => "timed_out",
        ErrorCode::QueueFull => "rejected",
        _ => "failed",
    }
}
