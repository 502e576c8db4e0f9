//! Stores the response to a request with `store: true` before the last part of its answer goes out: once its record is
//! written, or, for one without a client, before its answer and its record are.

use super::conversation::{Conversation, response_id};
use super::final_part::FinalPart;
use super::recorder::Recorder;
use crate::clock::now_ms;
use crate::record::Record;
use crate::services::Services;
use ledger::Claim;
use ledger::responses::{self as stored, StoredResponse};
use protocol::error::RequestError;
use protocol::responses::{self, Label};
use protocol::{Operation, Protocol};
use serde_json::Value;

/// The label for the answers of servers that speak the Responses API themselves; `None` if nothing in them changes.
pub(super) fn label(recorder: &Recorder) -> Option<Label> {
    let (record, conversation) = (&recorder.record, &recorder.conversation);
    let is_response = record.operation == Operation::Responses && record.protocol() == Protocol::Responses;
    (is_response && conversation.is_used()).then(|| Label {
        id: response_id(&record.request_id),
        previous_response_id: conversation.previous_response_id.clone(),
        store: conversation.kept_input.is_some(),
    })
}

/// Stores the response of a request that asked for it, before the last part of its answer goes out. If that fails, the
/// answer says that it is not stored.
pub(super) async fn keep(
    recorder: &mut Recorder,
    result: Result<FinalPart, RequestError>,
) -> Result<FinalPart, RequestError> {
    let Some(input) = recorder.conversation.kept_input.take() else {
        return result;
    };
    let part = result?;
    let response = match &part {
        FinalPart::Body { status: 200, body, .. } => serde_json::from_slice(body).ok(),
        FinalPart::StreamEnd(Some(end)) => responses::last_response(end),
        _ => return Ok(part),
    };
    let is_stored = match response {
        Some(response) => {
            let Recorder {
                services,
                record,
                conversation,
                claim,
                ..
            } = &*recorder;
            store(services, record, claim.as_ref(), conversation, input, &response).await
        }
        None => {
            tracing::warn!(
                request_id = recorder.record.request_id,
                "a response to store cannot be read"
            );
            false
        }
    };
    if is_stored {
        return Ok(part);
    }
    Ok(match part {
        FinalPart::Body {
            status,
            content_type,
            body,
        } => FinalPart::Body {
            status,
            content_type,
            body: responses::not_stored(&body).into(),
        },
        FinalPart::StreamEnd(end) => FinalPart::StreamEnd(end.map(|end| responses::not_stored(&end).into())),
        passed_on @ (FinalPart::Refused { .. } | FinalPart::Relayed { .. }) => passed_on,
    })
}

/// Stores a response; whether that worked.
pub(super) async fn store(
    services: &Services,
    record: &Record,
    claim: Option<&Claim>,
    conversation: &Conversation,
    input: String,
    response: &Value,
) -> bool {
    let Some(settings) = services.current.get().config.gateway.stored_responses else {
        return false;
    };
    if !matches!(response["status"].as_str(), Some("completed" | "incomplete")) {
        return false;
    }
    let now = now_ms() / 1000;
    let keep = i64::try_from(settings.keep.as_secs()).unwrap_or(i64::MAX).max(1);
    let body = response.to_string();
    let kept = StoredResponse {
        id: response_id(&record.request_id),
        project_id: record.project_id().to_owned(),
        previous_id: conversation.previous_response_id.clone(),
        input,
        item_ids: responses::output_ids(&body),
        response: body,
        created_at: now,
        expires_at: now.saturating_add(keep),
    };
    let claim = claim.map(|claim| (services.ledger.owner(), claim));
    let added = stored::add(services.ledger.store(), &kept, settings.max_bytes, claim).await;
    let result = match &added {
        Ok(true) => "stored",
        Ok(false) => {
            let (project, request_id) = (&kept.project_id, &record.request_id);
            tracing::warn!(
                project,
                request_id,
                "a response does not fit into stored_responses.max_bytes"
            );
            "full"
        }
        Err(error) => {
            tracing::error!(%error, request_id = record.request_id, "cannot store a response");
            "failed"
        }
    };
    services.metrics.stored_response(result, &kept.project_id);
    matches!(added, Ok(true))
}
