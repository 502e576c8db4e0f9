//! `GET /usage/me`: a caller's own usage and limits.

use super::{caller, unavailable};
use crate::limit_status;
use crate::services::Services;
use ledger::report::{self, Dimension, Filter};
use pingora_core::protocols::http::ServerSession;
use policy::Subject;
use protocol::error::RequestError;
use serde_json::{Value, json};

/// Usage and limits of the caller's key, or of the user if there is no key.
pub(super) async fn own(services: &Services, session: &ServerSession) -> Result<Value, RequestError> {
    let snapshot = services.current.get();
    let caller = caller(services, &snapshot, session)?;
    let (config, gate) = (&snapshot.config, &services.gate);
    let (project, user) = (config.project(caller.project), config.user(caller.user));
    let only = match &caller.key {
        Some(key) => (Dimension::Key, key.id.clone()),
        None => (Dimension::User, user.id.clone()),
    };
    services.ledger.flush().await;
    let filter = Filter {
        only: Some(only),
        ..Filter::default()
    };
    let usage = report::summary(services.ledger.store(), &filter)
        .await
        .map_err(unavailable)?;
    let key = caller.key.as_ref();
    Ok(json!({
        "user_id": user.id,
        "project_id": project.id,
        "key_id": key.map(|key| &key.id),
        "usage": usage,
        "limits": {
            "key": key.map(|key| limit_status::render(gate, Subject::Key(key.number), None)),
            "user": limit_status::render(gate, Subject::User(caller.user), None),
            "project": limit_status::render(gate, Subject::Project(caller.project), Some(project.plan)),
        },
    }))
}
