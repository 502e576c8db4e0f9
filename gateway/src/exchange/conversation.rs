//! Stored responses: a request that goes on from one gets the conversation's history before its own input, and then
//! depends on nothing that is stored; the response to a request with `store: true` is stored when its record is written.
//! A request that uses neither never reaches the database here.

use super::Step;
use super::authenticate::{Body, Parsed};
use super::encoding::too_large;
use super::recorder::Recorder;
use super::reply::FinalPart;
use crate::clock::now_ms;
use crate::config::{Config, StoredResponses};
use crate::services::Services;
use bytes::Bytes;
use ledger::responses::{self as stored, Chain, ChainBounds, ChainEnd, StoredResponse};
use protocol::error::{ErrorCode, RequestError};
use protocol::responses::{self, Label, Storage};
use protocol::{Operation, Protocol};
use serde_json::Value;

/// What belongs to a stored conversation of a request.
#[derive(Debug, Clone, Default)]
pub(super) struct Conversation {
    /// The stored response that it goes on from.
    pub(super) previous_response_id: Option<String>,
    /// Its own input as JSON, if its response is to be stored.
    pub(super) kept_input: Option<String>,
}

impl Conversation {
    /// Whether the response says anything of storage.
    fn is_used(&self) -> bool {
        self.previous_response_id.is_some() || self.kept_input.is_some()
    }
}

/// A request that depends on nothing that is stored.
pub(super) struct Recalled {
    pub(super) body: Bytes,
    pub(super) conversation: Conversation,
}

impl<'b> Parsed<'b> {
    /// Puts the history of a stored conversation into the request's body, which is then in `room`.
    pub(super) async fn recall(mut self, model: Option<&str>, room: &'b mut Option<Body>) -> Step<Self> {
        if !self.parsed.storage.is_used() {
            return Ok(self);
        }
        let recalled = {
            let recorder = &self.recorder;
            let operation = recorder.record.operation;
            recall(
                &recorder.services,
                recorder.record.project_id(),
                operation,
                &self.parsed.storage,
                self.body,
            )
            .await
        };
        let read = match recalled {
            Ok(None) => return Ok(self),
            Ok(Some(recalled)) => self.read_recalled(recalled, model, room),
            Err(error) => Err(error),
        };
        match read {
            Ok((body, parsed)) => {
                self.body = body;
                self.parsed = parsed;
                Ok(self)
            }
            Err(error) => self.reject(error),
        }
    }

    fn read_recalled(
        &mut self,
        recalled: Recalled,
        model: Option<&str>,
        room: &'b mut Option<Body>,
    ) -> Result<(&'b Bytes, protocol::ParsedRequest<'b>), RequestError> {
        let recorder = &mut self.recorder;
        let buffered = recorder
            .services
            .buffer(&recorder.record.snapshot.config, recalled.body.len())?;
        recorder.conversation = recalled.conversation;
        let body = &room.insert(Body::new(recalled.body, buffered)).bytes;
        Ok((
            body,
            protocol::parse_with_model(recorder.record.operation, body, model)?,
        ))
    }
}

/// The request without its dependence on stored responses; `None` if it has none, or if none are stored here.
///
/// # Errors
/// `previous_response_not_found`, `bad_request` for a conversation that is too long or of another kind,
/// `body_too_large`, or `ledger_unavailable`.
pub(super) async fn recall(
    services: &Services,
    project: &str,
    operation: Operation,
    storage: &Storage<'_>,
    body: &[u8],
) -> Result<Option<Recalled>, RequestError> {
    let snapshot = services.current.get();
    let config = &snapshot.config;
    let Some(settings) = config.gateway.stored_responses.filter(|_| storage.is_used()) else {
        return Ok(None);
    };
    if storage.has_conversation {
        let message = "`conversation` is not supported; use `previous_response_id`";
        return Err(RequestError::param(ErrorCode::BadRequest, "conversation", message));
    }
    let history = match &storage.previous_response_id {
        None => String::new(),
        Some(id) => history(services, config, &settings, project, id).await?,
    };
    let stateless = responses::stateless(body, &history)?;
    let limit = config.gateway.max_body_bytes;
    if stateless.body.len() > limit {
        return Err(too_large(limit));
    }
    let is_kept = storage.store && operation == Operation::Responses;
    Ok(Some(Recalled {
        body: stateless.body.into(),
        conversation: Conversation {
            previous_response_id: storage.previous_response_id.as_deref().map(str::to_owned),
            kept_input: is_kept.then_some(stateless.input),
        },
    }))
}

/// What was said in a conversation, as JSON items with commas between.
async fn history(
    services: &Services,
    config: &Config,
    settings: &StoredResponses,
    project: &str,
    id: &str,
) -> Result<String, RequestError> {
    let limit = config.gateway.max_body_bytes;
    let bounds = ChainBounds {
        turns: settings.max_turns,
        bytes: i64::try_from(limit).unwrap_or(i64::MAX),
    };
    let found = stored::chain(services.ledger.store(), Some(project), id, bounds, now_ms() / 1000).await;
    let Chain { turns, end } = found.map_err(|error| {
        tracing::error!(%error, "cannot read a stored conversation");
        let message = "the gateway's database cannot be read; try again later";
        RequestError::new(ErrorCode::DatabaseUnreadable, message)
    })?;
    match end {
        ChainEnd::Complete => {}
        ChainEnd::Missing(missing) => return Err(not_found(id, &missing)),
        ChainEnd::TooLarge => return Err(too_large(limit)),
        ChainEnd::TooLong => {
            let most = settings.max_turns;
            let message = format!(
                "the conversation of `{id}` has more than {most} responses (stored_responses.max_turns); begin a new one"
            );
            return Err(RequestError::param(
                ErrorCode::BadRequest,
                "previous_response_id",
                message,
            ));
        }
    }
    let mut history = String::new();
    for turn in &turns {
        let said = responses::history(&turn.input, &turn.response).ok_or_else(|| {
            tracing::error!(response = turn.id, "a stored response cannot be read");
            not_found(id, &turn.id)
        })?;
        if !history.is_empty() && !said.is_empty() {
            history.push(',');
        }
        history += &said;
    }
    Ok(history)
}

/// The error of a request that goes on from a response that is not stored. Clients look for OpenAI's words.
fn not_found(id: &str, missing: &str) -> RequestError {
    let message = if missing == id {
        format!(
            "Previous response with id '{id}' not found: it was created without `store: true`, has expired, was deleted, \
             or did not fit into stored_responses.max_bytes"
        )
    } else {
        format!(
            "Previous response with id '{missing}' not found, which '{id}' goes on from: it was deleted or has expired"
        )
    };
    RequestError::param(ErrorCode::PreviousResponseNotFound, "previous_response_id", message)
}

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

/// The id of the response to a request.
pub(super) fn response_id(request_id: &str) -> String {
    format!("resp_{request_id}")
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
        Some(response) => store(recorder, input, &response).await,
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
        refused @ FinalPart::Refused { .. } => refused,
    })
}

/// Stores a response; whether that worked.
pub(super) async fn store(recorder: &Recorder, input: String, response: &Value) -> bool {
    let record = &recorder.record;
    let services = &recorder.services;
    let Some(settings) = services.current.get().config.gateway.stored_responses else {
        return false;
    };
    if !matches!(response["status"].as_str(), Some("completed" | "incomplete")) {
        return false;
    }
    let now = now_ms() / 1000;
    let keep = i64::try_from(settings.keep.as_secs()).unwrap_or(i64::MAX).max(1);
    let kept = StoredResponse {
        id: response_id(&record.request_id),
        project_id: record.project_id().to_owned(),
        previous_id: recorder.conversation.previous_response_id.clone(),
        input,
        response: response.to_string(),
        created_at: now,
        expires_at: now.saturating_add(keep),
    };
    match stored::add(services.ledger.store(), &kept, settings.max_bytes).await {
        Ok(true) => true,
        Ok(false) => {
            let (project, request_id) = (&kept.project_id, &record.request_id);
            tracing::warn!(
                project,
                request_id,
                "a response does not fit into stored_responses.max_bytes"
            );
            false
        }
        Err(error) => {
            tracing::error!(%error, request_id = record.request_id, "cannot store a response");
            false
        }
    }
}
