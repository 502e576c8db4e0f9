//! The answer to the client of a stored request: its state, its result or its error; a response in OpenAI's
//! shape, or the original system's fields.

use super::conversation::{Conversation, response_id};
use super::final_part::FinalPart;
use super::recorder::Recorder;
use crate::clock::now_ms;
use crate::record::Record;
use crate::services::Services;
use bytes::Bytes;
use protocol::error::{ErrorCode, RequestError};
use protocol::responses;
use serde_json::{Value, json};

/// A stored request, as far as its answer needs it.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) services: &'a Services,
    pub(super) record: &'a Record,
    pub(super) conversation: &'a Conversation,
    pub(super) body: &'a [u8],
}

impl<'a> Asked<'a> {
    pub(super) fn of(recorder: &'a Recorder, body: &'a [u8]) -> Self {
        Self {
            services: &recorder.services,
            record: &recorder.record,
            conversation: &recorder.conversation,
            body,
        }
    }

    /// Its response without output (yet).
    pub(super) fn pending(&self, status: &str) -> Value {
        let shown = responses::pending(self.body, &self.record.request_id, now_ms() / 1000, status);
        let conversation = self.conversation;
        labelled(
            shown,
            conversation.previous_response_id.clone(),
            // One that ended without an output is not stored.
            conversation.kept_input.is_some() && matches!(status, "queued" | "in_progress"),
        )
    }
}

/// A response that says what it goes on from, and whether it is stored.
pub(super) fn labelled(mut response: Value, previous_response_id: Option<String>, is_stored: bool) -> Value {
    response["previous_response_id"] = previous_response_id.into();
    response["store"] = is_stored.into();
    response
}

/// A response as it is fetched later, also one that the model's server refused.
pub(super) fn response(asked: &Asked<'_>, part: FinalPart) -> Value {
    let (status, body) = match part {
        FinalPart::Body { status, body, .. } | FinalPart::Refused { status, body, .. } => (status, body),
        FinalPart::StreamEnd(_) | FinalPart::Relayed { .. } => (502, Bytes::new()),
    };
    let mut answer: Value = serde_json::from_slice(&body).unwrap_or_default();
    if status != 200 || !answer.is_object() {
        let mut failed = asked.pending("failed");
        let message = answer.pointer("/error/message").cloned();
        let message = message.unwrap_or_else(|| "the model's server did not answer".into());
        failed["error"] = json!({"code": "server_error", "message": message});
        return failed;
    }
    answer["id"] = response_id(&asked.record.request_id).into();
    answer["background"] = true.into();
    answer
}

/// A response that ended with an error.
pub(super) fn failed_response(asked: &Asked<'_>, error: &RequestError) -> Value {
    let is_cancelled = matches!(error.code, ErrorCode::Cancelled | ErrorCode::ClientGone);
    let status = if is_cancelled { "cancelled" } else { "failed" };
    let mut answer = asked.pending(status);
    if !is_cancelled {
        answer["error"] = json!({"code": error.code.name(), "message": error.message});
    }
    answer
}

/// The original system's fields, before there is an answer or where there will be none.
pub(super) fn status_body(record: &Record, status: &str, message: &str) -> Value {
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

/// The original system's name for how a request ended without its answer.
pub(super) fn status_name(error: &RequestError) -> &'static str {
    match error.code {
        ErrorCode::Cancelled | ErrorCode::ClientGone => "cancelled",
        ErrorCode::QueueTimeout | ErrorCode::UpstreamTimeout => "timed_out",
        ErrorCode::QueueFull => "rejected",
        _ => "failed",
    }
}
