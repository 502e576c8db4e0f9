//! Lists of the models that a caller may use.

use crate::clock::now_ms;
use crate::config::Config;
use crate::identity;
use crate::services::Services;
use pingora_core::protocols::http::ServerSession;
use protocol::Route;
use protocol::catalogue::{self, Entry};
use protocol::refuse::{ErrorCode, RequestError};
use serde_json::Value;

pub(super) fn list(services: &Services, session: &ServerSession, route: &Route<'_>) -> Result<Value, RequestError> {
    let snapshot = services.current.get();
    let caller = identity::caller(&snapshot, &session.req_header().headers, now_ms())?;
    let mut entries = entries(&snapshot.config);
    if let Some(key) = &caller.key {
        entries.retain(|entry| key.allows(entry.name));
    }
    match route {
        Route::Models => Ok(catalogue::openai_list(&entries)),
        Route::Model(name) => entries
            .iter()
            .find(|entry| entry.name == *name)
            .map(catalogue::openai_model)
            .ok_or_else(|| {
                RequestError::new(
                    ErrorCode::UnknownModel,
                    format!("unknown model `{name}`; `GET /v1/models` lists the available ones"),
                )
            }),
        _ => Ok(catalogue::ollama_list(&entries)),
    }
}

fn entries(config: &Config) -> Vec<Entry<'_>> {
    let enabled = config.models.iter().filter(|model| model.enabled);
    let entry = enabled.map(|model| Entry {
        name: &model.name,
        owner: model.backend.word(),
        max_input_tokens: model.max_input_tokens,
    });
    entry.collect()
}
