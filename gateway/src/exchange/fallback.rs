//! Fallback models: when a model's servers fail before an answer has begun, the next of its `fallbacks` is decided on anew
//! in its place.

use super::admit::{self, Admitted};
use super::client::Client;
use super::recorder::{Concluded, Recorder};
use super::resolve::{Resolved, about, input_tokens};
use crate::gate::{Admission, AdmittedRequest, SlotPermit};
use policy::{AdmissionRequest, Attempt, Hints, ModelId, Settlement};
use protocol::ParsedRequest;
use protocol::error::RequestError;
use protocol::translate;
use std::sync::Arc;

impl<'b> Admitted<'b> {
    /// The request on its next fallback model; or its end with `error`, when none is left or admitted.
    pub(super) async fn fall_back(
        self: Box<Self>,
        client: &mut Client<'_>,
        error: RequestError,
    ) -> Result<Box<Admitted<'b>>, Concluded> {
        let Admitted {
            mut recorder,
            slot,
            body,
            parsed,
            request,
            hint,
            mut fallbacks_tried,
            upstream_status,
            ..
        } = *self;
        let snapshot = Arc::clone(&recorder.record.snapshot);
        let fallbacks = &snapshot.config.model(request.model).fallbacks;
        let failed = Settlement {
            was_answered: upstream_status.is_some(),
            was_forwarded: recorder.record.was_forwarded,
            ..Settlement::default()
        };
        let mut held = Held::Slot(slot, failed);
        client.watch_eviction(None);
        while let Some(model) = fallbacks.get(fallbacks_tried).copied() {
            fallbacks_tried += 1;
            let Some(next) = request_for(&recorder, body, &parsed, &request, model) else {
                continue;
            };
            let Some(granted) = take_place(&mut recorder, client, &mut held, &next).await else {
                continue;
            };
            let resolved = Resolved {
                recorder,
                body,
                parsed,
                request,
                hint,
                translation: None,
            };
            let mut admitted = Box::new(Admitted::new(resolved, granted));
            admitted.fallbacks_tried = fallbacks_tried;
            return Ok(admitted);
        }
        held.settle();
        let result = recorder.conclude(Err(error), None);
        Err((recorder, result))
    }
}

/// Resources that a failed attempt leaves to the next: its slot, then its entry in the counters (a request counts once).
enum Held {
    Slot(SlotPermit, Settlement),
    Attempt(Attempt),
    Nothing,
}

impl Held {
    /// Ends the request, where no fallback was admitted.
    fn settle(self) {
        if let Held::Slot(mut slot, failed) = self {
            slot.note(failed);
            slot.settle();
        }
    }
}

/// Decides on the fallback in the place of what was admitted before, and waits if it is queued.
async fn take_place(
    recorder: &mut Recorder,
    client: &mut Client<'_>,
    held: &mut Held,
    request: &AdmissionRequest,
) -> Option<AdmittedRequest> {
    let decided = match std::mem::replace(held, Held::Nothing) {
        Held::Slot(slot, failed) => {
            let (decided, attempt) = slot.replace(&failed, request).await?;
            *held = Held::Attempt(attempt);
            decided
        }
        Held::Attempt(attempt) => {
            *held = Held::Attempt(attempt);
            recorder.services.gate.admit_again(request, attempt).await
        }
        Held::Nothing => recorder.services.gate.admit(request).await,
    };
    recorder.rate_limits = decided.rate_limits;
    match decided.admission {
        Admission::Admitted(granted) => Some(granted),
        Admission::Rejected(_) => None,
        Admission::Queued(queued) => {
            recorder.registration.update(request.project, queued.ticket());
            admit::wait(recorder, client, queued).await.ok()
        }
    }
}

/// The admission request for a fallback model, if the caller may use it and its servers can be asked.
fn request_for(
    recorder: &Recorder,
    body: &[u8],
    parsed: &ParsedRequest<'_>,
    first: &AdmissionRequest,
    id: ModelId,
) -> Option<AdmissionRequest> {
    let record = &recorder.record;
    let snapshot = &record.snapshot;
    let model = snapshot.config.model(id);
    let key = record.caller.as_ref().and_then(|caller| caller.key.as_ref());
    let input_tokens = input_tokens(snapshot, (id, first.project), record.operation, parsed);
    let is_allowed = model.enabled && key.is_none_or(|key| key.allows(&model.name));
    let is_open = recorder
        .head
        .passthrough
        .as_ref()
        .is_none_or(|passed| model.opening(&passed.decoded).is_some());
    if !is_allowed || !is_open || parsed.size.least_tokens() > model.max_input_tokens {
        return None;
    }
    let about = about(recorder, model, input_tokens);
    translate::request(
        snapshot.upstreams.native_apis(id),
        record.operation,
        body,
        parsed,
        &about,
    )
    .ok()?;
    Some(AdmissionRequest {
        model: id,
        smaller: None,
        input_tokens,
        least_input_tokens: parsed.size.least_tokens(),
        max_tokens: parsed.max_tokens.unwrap_or(u64::MAX).min(model.max_output_tokens),
        hints: Hints {
            objectives: first.hints.objectives.after(record.started.elapsed()),
            // It counts as a request already.
            is_durable: false,
            ..first.hints
        },
        ..*first
    })
}
