//! Admission: a slot at once, a place in the queue, or a rejection. A waiting request ends when its client leaves, when it
//! is cancelled, at its deadline, and at the gateway's stop.

use super::Step;
use super::client::Client;
use super::final_part::FinalPart;
use super::recorder::{Concluded, Recorder, Served};
use super::resolve::Resolved;
use crate::fault;
use crate::gate::{self, AdmittedRequest, QueuedRequest, SlotPermit};
use crate::upstream::RoutingHint;
use bytes::Bytes;
use pingora_timeout::fast_timeout::fast_timeout;
use policy::AdmissionRequest;
use protocol::error::{ErrorCode, RequestError};
use protocol::meter::Meter;
use protocol::translate::Translation;
use protocol::{Operation, ParsedRequest};
use std::time::Duration;

/// The outcome of admission for a resolved request.
pub(super) enum Admission<'b> {
    /// It holds a slot.
    Slot(Box<Admitted<'b>>),
    /// It goes on without its client, who polls for the answer.
    Detached(Box<Queued>),
}

/// A request that holds a slot, and a reservation of the worst case.
pub(super) struct Admitted<'b> {
    pub(super) recorder: Box<Recorder>,
    pub(super) slot: SlotPermit,
    pub(super) body: &'b Bytes,
    pub(super) parsed: ParsedRequest<'b>,
    /// As it was first asked for; fallbacks are derived from it.
    pub(super) request: AdmissionRequest,
    pub(super) hint: RoutingHint,
    /// Made when the request was resolved; later attempts make their own.
    pub(super) translation: Option<Translation>,
    /// Reads the answer's usage.
    pub(super) meter: Meter,
    /// Fallback models considered so far.
    pub(super) fallbacks_tried: usize,
    /// True if streams are asked for their usage; false once a server has refused `stream_options`.
    pub(super) asks_usage: bool,
    /// The status of the latest server's answer; `None` until it answers.
    pub(super) upstream_status: Option<u16>,
}

/// A request that waits for a slot without its client.
pub(super) struct Queued {
    pub(super) recorder: Box<Recorder>,
    pub(super) request: AdmissionRequest,
    pub(super) hint: RoutingHint,
    pub(super) queued: QueuedRequest,
}

impl<'b> Resolved<'b> {
    /// Asks policy, and waits for a slot if the request is queued.
    pub(super) async fn admit(mut self, client: &mut Client<'_>) -> Step<Admission<'b>> {
        let recorder = &mut self.recorder;
        recorder.overhead = Some(recorder.record.started.elapsed());
        let decided = recorder.services.gate.admit(&self.request).await;
        recorder.record.count_on(decided.at);
        recorder.rate_limits = decided.rate_limits;
        let in_background = self.parsed.in_background;
        let granted = match decided.admission {
            gate::Admission::Rejected(refusal) => return self.reject(refusal.into()),
            gate::Admission::Admitted(granted) if in_background => {
                return Ok(Admission::Detached(Box::new(self.detach(QueuedRequest::over(granted)))));
            }
            gate::Admission::Admitted(granted) => granted,
            gate::Admission::Queued(queued) if in_background || recorder.record.operation == Operation::Generate => {
                return Ok(Admission::Detached(Box::new(self.detach(queued))));
            }
            gate::Admission::Queued(queued) => {
                recorder.registration.update(self.request.project, queued.ticket());
                // A tree takes more memory than its text; it is made again when the wait is over.
                self.translation = None;
                match Box::pin(wait(recorder, client, queued)).await {
                    Ok(granted) => granted,
                    Err(error) => return self.reject(error),
                }
            }
        };
        Ok(Admission::Slot(Box::new(Admitted::new(self, granted))))
    }

    fn detach(self, queued: QueuedRequest) -> Queued {
        let mut recorder = self.recorder;
        recorder.registration.update(self.request.project, queued.ticket());
        recorder.record.terms = queued.terms();
        Queued {
            recorder,
            request: self.request,
            hint: self.hint,
            queued,
        }
    }
}

/// Waits for a slot, at most as long as the client does.
pub(super) async fn wait(
    recorder: &Recorder,
    client: &mut Client<'_>,
    queued: QueuedRequest,
) -> Result<AdmittedRequest, RequestError> {
    let left = recorder.head.timeout.map_or(Duration::MAX, |timeout| {
        timeout.saturating_sub(recorder.record.started.elapsed())
    });
    tokio::select! {
        // In this order: a slot that the end of the drain has just freed goes to no request that ends with it.
        biased;
        error = client.gone() => Err(error),
        granted = fast_timeout(left, queued.granted()) => match granted {
            Ok(granted) => Ok(granted?),
            Err(_) => Err(RequestError::new(
                ErrorCode::QueueTimeout,
                "the request was still queued when its own x-request-timeout-seconds ended",
            )),
        },
    }
}

impl<'b> Admitted<'b> {
    pub(super) fn new(resolved: Resolved<'b>, granted: AdmittedRequest) -> Self {
        let Resolved {
            mut recorder,
            body,
            parsed,
            request,
            hint,
            translation,
        } = resolved;
        let slot = take(&mut recorder, &request, granted);
        fault::at(fault::Step::Admitted);
        let strips_usage = parsed.is_streaming && !parsed.wants_usage;
        let tokenizer = recorder.record.snapshot.config.model(request.model).tokenizer;
        Self {
            meter: Meter::new(recorder.record.operation, strips_usage).with_tokenizer(tokenizer),
            recorder,
            slot,
            body,
            parsed,
            request,
            hint,
            translation,
            fallbacks_tried: 0,
            asks_usage: true,
            upstream_status: None,
        }
    }

    /// Settles and records.
    pub(super) fn conclude(self: Box<Self>, result: Result<FinalPart, RequestError>, head_is_sent: bool) -> Concluded {
        let admitted = *self;
        let mut recorder = admitted.recorder;
        let served = Served {
            slot: admitted.slot,
            meter: admitted.meter,
            upstream_status: admitted.upstream_status,
            request: admitted.request,
            size: admitted.parsed.size,
            head_is_sent,
        };
        let result = recorder.conclude(result, Some(served));
        (recorder, result)
    }
}

/// Notes what was granted, and returns the slot.
pub(super) fn take(recorder: &mut Recorder, request: &AdmissionRequest, granted: AdmittedRequest) -> SlotPermit {
    let record = &mut recorder.record;
    if let Some(waited) = granted.waited {
        *record.queue_wait.get_or_insert_default() += waited;
        recorder.registration.update(request.project, None);
    }
    record.terms = granted.terms;
    record.units = request.units;
    record.model = Some(granted.terms.model);
    granted.permit
}
