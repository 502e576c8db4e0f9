//! Stored conversations: a request that goes on from a stored response gets the conversation's history before its own
//! input, and then depends on nothing that is stored. A request that uses no storage never reaches the database here.

use super::encoding::too_large;
use crate::clock::now_ms;
use crate::config::{Config, StoredResponses};
use crate::services::Services;
use bytes::Bytes;
use ledger::responses::{self as stored, Chain, ChainBounds, ChainEnd};
use protocol::Operation;
use protocol::Storage;
use protocol::error::{ErrorCode, RequestError};
use protocol::responses::{self, StoredItems};

/// The part of a request that concerns a stored conversation.
#[derive(Debug, Clone, Default)]
pub(super) struct Conversation {
    /// The stored response that it goes on from.
    pub(super) previous_response_id: Option<String>,
    /// Its own input as JSON, if its response is to be stored.
    pub(super) kept_input: Option<String>,
}

impl Conversation {
    /// Returns whether the response says anything of storage.
    pub(super) fn is_used(&self) -> bool {
        self.previous_response_id.is_some() || self.kept_input.is_some()
    }
}

/// A request that depends on nothing that is stored.
pub(super) struct Recalled {
    pub(super) body: Bytes,
    pub(super) conversation: Conversation,
}

/// The request without its dependence on stored responses; `None` if it has none, or if none are stored here.
///
/// # Errors
/// `previous_response_not_found`, `item_not_found`, `bad_request` for a conversation that is too long or of another kind,
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
    let items = items(services, config, project, storage.referring_input).await?;
    let stateless = responses::stateless(body, &history, &items)?;
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

/// The items of a conversation, as JSON with commas between.
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
    let Chain { turns, end } = found.map_err(|error| unreadable(&error))?;
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

/// The stored items to which an input refers. They may come from responses that are, with the instructions and tools that
/// each repeats, several times as large as a body.
async fn items(
    services: &Services,
    config: &Config,
    project: &str,
    input: Option<&str>,
) -> Result<StoredItems, RequestError> {
    let mut items = StoredItems::default();
    let ids = input.map(responses::references).unwrap_or_default();
    if ids.is_empty() {
        return Ok(items);
    }
    let limit = config.gateway.max_body_bytes;
    let most = i64::try_from(limit.saturating_mul(4)).unwrap_or(i64::MAX);
    let found = stored::with_items(services.ledger.store(), project, &ids, most, now_ms() / 1000).await;
    let found = found.map_err(|error| unreadable(&error))?;
    for response in found.ok_or_else(|| too_large(limit))? {
        items.add(&response);
    }
    Ok(items)
}

fn unreadable(error: &ledger::Error) -> RequestError {
    tracing::error!(%error, "cannot read a stored conversation");
    let message = "the gateway's database cannot be read; try again later";
    RequestError::new(ErrorCode::DatabaseUnreadable, message)
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

/// The id of the response to a request.
pub(super) fn response_id(request_id: &str) -> String {
    format!("resp_{request_id}")
}
