//! Stored and running requests: polled, cancelled, deleted. Callers see their own project's alone.

use super::unavailable;
use crate::clock::now_ms;
use crate::exchange::stored;
use crate::identity;
use crate::services::Services;
use ledger::jobs;
use pingora_core::protocols::http::ServerSession;
use protocol::error::{ErrorCode, RequestError};
use protocol::{Background, Route};
use serde_json::{Value, json};

/// The original system's body for an unknown id.
pub(super) fn not_found(route: &Route<'_>, error: &RequestError) -> Value {
    let id = match route {
        Route::Status(id) | Route::Cancel(id) => *id,
        _ => "",
    };
    json!({"request_id": id, "status": "not_found", "message": error.message})
}

/// `GET` and `DELETE /requests/{id}`.
pub(super) async fn request(
    services: &Services,
    session: &ServerSession,
    route: &Route<'_>,
    id: &str,
) -> Result<Value, RequestError> {
    let snapshot = services.current.get();
    let caller = identity::caller(&snapshot, &session.req_header().headers, now_ms())?;
    let project = caller.visible_project;
    if matches!(route, Route::Cancel(_)) && services.registry.cancel(id, project) {
        return Ok(json!({"request_id": id, "status": "cancelled", "message": "Request is being cancelled"}));
    }
    let known = stored::status(services, id, project).await.map_err(unavailable)?;
    known.ok_or_else(|| {
        RequestError::new(
            ErrorCode::UnknownRequest,
            "unknown request id: nothing with this id is running, queued, or finished within the last day",
        )
    })
}

/// `GET`, `DELETE` and `POST …/cancel` of a background response.
pub(super) async fn response(
    services: &Services,
    session: &ServerSession,
    what: Background<'_>,
) -> Result<Value, RequestError> {
    let snapshot = services.current.get();
    let caller = identity::caller(&snapshot, &session.req_header().headers, now_ms())?;
    let project = caller.visible_project;
    let (Background::Show(name) | Background::Cancel(name) | Background::Delete(name)) = what;
    let id = name.strip_prefix("resp_").unwrap_or(name);
    let unknown = || {
        let message =
            format!("unknown response `{name}`: it never existed, was deleted, or finished more than a day ago");
        RequestError::new(ErrorCode::UnknownRequest, message)
    };
    match what {
        Background::Delete(_) => {
            let project = project.map(|project| snapshot.config.project(project).id.as_str());
            let deleted = jobs::delete(services.ledger.store(), project, id)
                .await
                .map_err(unavailable)?;
            let answer = json!({"id": name, "object": "response", "deleted": true});
            deleted.then_some(answer).ok_or_else(unknown)
        }
        Background::Cancel(_) => {
            let is_cancelled = services.registry.cancel(id, project);
            let mut shown = stored::find_response(services, id, project)
                .await
                .map_err(unavailable)?
                .ok_or_else(unknown)?;
            if is_cancelled {
                shown["status"] = "cancelled".into();
            }
            Ok(shown)
        }
        Background::Show(_) => stored::find_response(services, id, project)
            .await
            .map_err(unavailable)?
            .ok_or_else(unknown),
    }
}
