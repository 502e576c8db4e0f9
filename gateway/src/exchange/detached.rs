//! Requests that go on without a client connection: queued `POST /generate`, `POST /v1/responses` with
//! `background: true`, and the lines of batches. They pass the same admission, forwarding and recording as all others;
//! their answers are stored, or returned to the batch.

use super::admit::{Admitted, Queued};
use super::client::Client;
use super::conversation::{self, Recalled};
use super::final_part::FinalPart;
use super::forward::Withdrawn;
use super::recorder::{Concluded, Recorder};
use super::resolve::{self, Resolution, Resolved};
use super::storage;
use crate::clock::now_ms;
use crate::fault;
use crate::gate::{self, QueuedRequest};
use crate::identity::{self, Caller};
use crate::record::Evicted;
use crate::services::Services;
use bytes::Bytes;
use futures_util::FutureExt;
use ledger::{Answer, Claim, Written, jobs};
use policy::{Class, Priority};
use protocol::error::{ErrorCode, RequestError};
use protocol::{self, Operation, ParsedRequest};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

/// A batch line that was refused for lack of capacity is tried again after this, at least.
const SHORTEST_RETRY: Duration = Duration::from_millis(200);

/// A request whose record cannot be written is sent again after this.
const LEDGER_PAUSE: Duration = Duration::from_secs(1);

impl Queued {
    /// Waits for the slot and runs to the end, or until it is to be run again later. `None` if the gateway stops first: the
    /// next process runs the request.
    pub(super) async fn run(self, body: &Bytes, purpose: Purpose<'_>) -> Option<Result<Concluded, Postponed>> {
        let services = Arc::clone(&self.recorder.services);
        let config = Arc::clone(&self.recorder.record.snapshot.config);
        let mut recorder = self.recorder;
        let buffered = services.buffer(&config, body.len());
        let parsed = buffered.and_then(|buffered| Ok((buffered, protocol::parse(recorder.record.operation, body)?)));
        let (_buffered, parsed) = match parsed {
            Ok(parsed) => parsed,
            Err(error) => return Some(Ok(end(recorder, error))),
        };
        let listener = recorder.registration.cancel_listener();
        let mut client = Client::detached(listener, Arc::clone(&services.shutdown));
        let granted = tokio::select! {
            biased;
            () = services.shutdown.stopping() => {
                recorder.abandon();
                return None;
            }
            error = client.gone() => return Some(Ok(end(recorder, error))),
            granted = self.queued.granted() => granted,
        };
        let granted = match granted {
            Ok(granted) => granted,
            Err(refusal) => return Some(Ok(end(recorder, refusal.into()))),
        };
        recorder.detached = Some(services.shutdown.detached());
        client.watch_eviction(granted.permit.eviction());
        let id = recorder.record.request_id.clone();
        if let Purpose::Job { project, epoch } = purpose {
            count_attempt(&services, (project, &id, epoch)).await;
        }
        let resolved = Resolved {
            recorder,
            body,
            parsed,
            request: self.request,
            hint: self.hint,
            translation: None,
        };
        let admitted = Box::new(Admitted::new(resolved, granted));
        let ran = match purpose {
            Purpose::Job { .. } => admitted.run_job(&mut client).await,
            Purpose::BatchLine => admitted.run_line(&mut client).await,
        };
        match ran {
            Ok(concluded) => Some(Ok(concluded)),
            Err(Withdrawn::Unavailable(after)) => Some(Err(Postponed::Unavailable(after))),
            Err(Withdrawn::Evicted(held)) => Some(Err(Postponed::Evicted(held))),
            Err(Withdrawn::Stopping) => {
                if let Purpose::Job { project, epoch } = purpose {
                    forget_attempt(&services, (project, &id, epoch)).await;
                }
                None
            }
        }
    }
}

/// Why a request is to be run again later.
pub(super) enum Postponed {
    /// The servers of a batch's line are unavailable; the pause that they ask for.
    Unavailable(Option<Duration>),
    /// It was evicted for a request of a higher priority; the time for which it had its slot.
    Evicted(Duration),
}

/// The purpose of a detached request.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose<'a> {
    /// The stored job of this project, as it was claimed.
    Job { project: &'a str, epoch: i64 },
    /// A line of a batch, which waits while the model's servers are unavailable.
    BatchLine,
}

/// Counts an attempt of a stored job, which bounds how often a request that kills the gateway is begun.
async fn count_attempt(services: &Services, (project, id, epoch): (&str, &str, i64)) {
    if let Err(error) = jobs::count_attempt(services.ledger.store(), project, id, epoch).await {
        tracing::warn!(%error, request_id = id, "cannot count a job's attempt");
    }
}

/// Takes an attempt back that the end of the drain or an eviction interrupted.
pub(super) async fn forget_attempt(services: &Services, (project, id, epoch): (&str, &str, i64)) {
    if let Err(error) = jobs::forget_attempt(services.ledger.store(), project, id, epoch).await {
        tracing::warn!(%error, request_id = id, "cannot take a job's attempt back");
    }
}

/// Ends a request that got no slot.
fn end(mut recorder: Box<Recorder>, error: RequestError) -> Concluded {
    let result = recorder.conclude(Err(error), None);
    (recorder, result)
}

/// A request on behalf of the user that submitted it.
#[derive(Debug)]
pub(crate) struct DetachedRequest<'a> {
    pub(crate) id: &'a str,
    pub(crate) operation: Operation,
    pub(crate) user_id: &'a str,
    pub(crate) key_id: Option<&'a str>,
    pub(crate) class: Class,
    pub(crate) priority: Priority,
    /// The project whose stored conversations it may go on from.
    pub(crate) project_id: &'a str,
    pub(crate) body: &'a [u8],
    /// The right to write its answer.
    pub(crate) claim: &'a Claim,
    /// Set when its batch is cancelled, before the batch's queued requests are.
    pub(crate) is_cancelled: Option<&'a AtomicBool>,
    /// The attempts at it that were evicted before.
    pub(crate) evicted: Evicted,
}

/// The end of a detached request.
pub(crate) enum Outcome {
    /// Ended, and to be [written](Answered::write).
    Answered(Answered),
    /// Not recorded: there was no capacity, and the request may be sent again after this time.
    RetryAfter(Duration),
    /// The model's servers were unreachable, overloaded or limiting: the request may be sent again after a pause, at least
    /// as long as they ask for.
    Unavailable(Option<Duration>),
    /// It was evicted for a request of a higher priority after it had its slot for this time, and may be sent again at once.
    Evicted(Duration),
}

/// A status and a body as a client would have got them, not yet in the database.
pub(crate) struct Answered {
    pub(crate) status: u16,
    pub(crate) body: Bytes,
    /// `None` after a panic, whose record was written while the stack unwound.
    recorder: Option<Box<Recorder>>,
}

impl Answered {
    /// The end of a request whose handling panicked.
    pub(crate) fn panicked(operation: Operation, id: &str) -> Self {
        let (status, body) = refused(operation, id, &super::panicked());
        Self {
            status,
            body,
            recorder: None,
        }
    }

    /// Writes what is made of the answer, and the record of the request with it.
    ///
    /// # Errors
    /// When the database refuses it, or the process ends: the request is to be made again.
    pub(crate) async fn write(
        self,
        services: &Services,
        claim: &Claim,
        answer: Answer,
    ) -> Result<Written, ledger::Error> {
        match self.recorder {
            Some(recorder) => recorder.finish(answer).await,
            None => services.ledger.finish(claim, answer, None).await,
        }
    }
}

/// Runs a request to its end; `None` if the gateway stops first, and nothing was recorded. A panic ends the request
/// with an error, as it does for a client, so that a batch goes on with its other lines.
pub(crate) async fn run(services: &Arc<Services>, request: &DetachedRequest<'_>) -> Option<Outcome> {
    let outcome = AssertUnwindSafe(run_once(services, request)).catch_unwind().await;
    outcome.unwrap_or_else(|_| Some(Outcome::Answered(Answered::panicked(request.operation, request.id))))
}

async fn run_once(services: &Arc<Services>, request: &DetachedRequest<'_>) -> Option<Outcome> {
    if services.ledger.check_writable().is_err() {
        return Some(Outcome::RetryAfter(LEDGER_PAUSE));
    }
    let mut recorder = Recorder::resume(services, request.id, request.operation, request.claim.clone());
    recorder.record.evicted = request.evicted;
    let mut body = Bytes::new();
    let admitted = match recall(&mut recorder, request).await {
        Ok(recalled) => {
            body = recalled;
            admit(
                recorder,
                &DetachedRequest {
                    body: &body,
                    ..*request
                },
            )
            .await
        }
        Err(error) => Err(Box::new((recorder, error))),
    };
    let concluded = match admitted {
        Ok(queued) => match queued.run(&body, Purpose::BatchLine).await? {
            Ok(concluded) => concluded,
            Err(Postponed::Unavailable(after)) => return Some(Outcome::Unavailable(after)),
            Err(Postponed::Evicted(held)) => return Some(Outcome::Evicted(held)),
        },
        Err(rejected) => {
            let (recorder, error) = *rejected;
            if let Some(after) = error.retry_after {
                recorder.abandon();
                return Some(Outcome::RetryAfter(after.max(SHORTEST_RETRY)));
            }
            end(recorder, error)
        }
    };
    Some(Outcome::Answered(answered(concluded, request).await))
}

/// The request's body without its dependence on stored responses.
async fn recall(recorder: &mut Recorder, request: &DetachedRequest<'_>) -> Result<Bytes, RequestError> {
    let parsed = protocol::parse(request.operation, request.body)?;
    if parsed.storage.is_used() {
        identify(recorder, request, &parsed)?;
        let (services, operation) = (&recorder.services, request.operation);
        let recalled = conversation::recall(services, request.project_id, operation, &parsed.storage, request.body);
        if let Some(Recalled { body, conversation }) = recalled.await? {
            recorder.conversation = conversation;
            return Ok(body);
        }
    }
    Ok(Bytes::copy_from_slice(request.body))
}

/// The answer of a request that has ended; its response is stored, if that was asked for.
async fn answered((mut recorder, result): Concluded, request: &DetachedRequest<'_>) -> Answered {
    let (status, body) = match storage::keep(&mut recorder, result).await {
        Ok(FinalPart::Body { status, body, .. } | FinalPart::Refused { status, body, .. }) => (status, body),
        Ok(FinalPart::StreamEnd(_) | FinalPart::Relayed { .. }) => (200, Bytes::new()),
        Err(error) => refused(request.operation, request.id, &error),
    };
    Answered {
        status,
        body,
        recorder: Some(recorder),
    }
}

/// An error as a client would have got it.
fn refused(operation: Operation, id: &str, error: &RequestError) -> (u16, Bytes) {
    let body = error.body(operation.protocol(), id);
    (error.code.status(), body.into())
}

/// Asks policy for a slot. A request that could run at once takes the same way as one that waits.
pub(super) async fn admit(
    mut recorder: Box<Recorder>,
    request: &DetachedRequest<'_>,
) -> Result<Queued, Box<(Box<Recorder>, RequestError)>> {
    let resolved =
        protocol::parse(request.operation, request.body).and_then(|parsed| resolution(&mut recorder, request, &parsed));
    let Resolution {
        request: admission_request,
        hint,
        ..
    } = match resolved {
        Ok(resolution) => resolution,
        Err(error) => return Err(Box::new((recorder, error))),
    };
    fault::at(fault::Step::Resolved);
    let decided = recorder.services.gate.admit(&admission_request).await;
    recorder.record.count_on(decided.at);
    recorder.rate_limits = decided.rate_limits;
    let queued = match decided.admission {
        gate::Admission::Rejected(refusal) => return Err(Box::new((recorder, refusal.into()))),
        gate::Admission::Queued(queued) => queued,
        gate::Admission::Admitted(granted) => QueuedRequest::over(granted),
    };
    recorder.record.terms = queued.terms();
    recorder.registration.update(admission_request.project, queued.ticket());
    // A cancellation of its batch either finds it queued, or has set this flag before.
    if request.is_cancelled.is_some_and(|flag| flag.load(Relaxed)) {
        recorder.registration.cancel();
    }
    Ok(Queued {
        recorder,
        request: admission_request,
        hint,
        queued,
    })
}

fn resolution(
    recorder: &mut Recorder,
    request: &DetachedRequest<'_>,
    parsed: &ParsedRequest<'_>,
) -> Result<Resolution, RequestError> {
    let caller = identify(recorder, request, parsed)?;
    if parsed.is_streaming {
        let message = "`stream` cannot be true for a request without a client connection; leave it out";
        return Err(RequestError::param(ErrorCode::BadRequest, "stream", message));
    }
    resolve::resolution(recorder, &caller, request.body, parsed)
}

/// Identifies the user that submitted a request, and notes whose request it is.
fn identify(
    recorder: &mut Recorder,
    request: &DetachedRequest<'_>,
    parsed: &ParsedRequest<'_>,
) -> Result<Caller, RequestError> {
    let record = &mut recorder.record;
    let caller = identity::owner(&record.snapshot, request.user_id, request.key_id, now_ms())?;
    record.requested_model = parsed.model.chars().take(256).collect();
    (record.class, record.priority) = (request.class, request.priority);
    record.caller = Some(caller.clone());
    recorder.registration.update(caller.project, None);
    Ok(caller)
}

/// The error of a request that cannot be stored.
pub(super) fn unavailable(error: &ledger::Error) -> RequestError {
    tracing::error!(%error, "cannot store a queued request");
    RequestError::new(
        ErrorCode::StoreUnavailable,
        "the gateway's database cannot store the request; try again later",
    )
}
