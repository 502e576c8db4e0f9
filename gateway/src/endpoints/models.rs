//! Lists of the models that a caller may use.

use super::caller;
use crate::config::Model;
use crate::services::Services;
use pingora_core::protocols::http::ServerSession;
use protocol::Route;
use protocol::catalogue::{self, Entry};
use protocol::error::{ErrorCode, RequestError};
use serde_json::Value;

pub(super) fn list(services: &Services, session: &ServerSession, route: &Route<'_>) -> Result<Value, RequestError> {
    let snapshot = services.current.get();
    let caller = caller(services, &snapshot, session)?;
    let models = snapshot.config.models.iter().filter(|model| {
        let is_allowed = caller.key.as_ref().is_none_or(|key| key.allows(&model.name));
        model.enabled && is_allowed
    });
    // Under every name that clients may use: some look for theirs in the list before they ask.
    let entries: Vec<Entry<'_>> = models.flat_map(Model::entries).collect();
    let is_anthropics = session.req_header().headers.contains_key("anthropic-version");
    let model = if is_anthropics {
        catalogue::anthropic_model
    } else {
        catalogue::openai_model
    };
    match route {
        Route::Models if is_anthropics => Ok(catalogue::anthropic_list(&entries)),
        Route::Models => Ok(catalogue::openai_list(&entries)),
        Route::Model(name) => entries
            .iter()
            .find(|entry| entry.name == *name)
            .map(model)
            .ok_or_else(|| {
                let message = format!("unknown model `{name}`; `GET /v1/models` lists the available ones");
                RequestError::new(ErrorCode::UnknownModel, message)
            }),
        _ => Ok(catalogue::ollama_list(&entries)),
    }
}
