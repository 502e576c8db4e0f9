//! Stored and running requests: polled and cancelled. Callers see their own project's alone.

use super::{caller, unavailable};
use crate::exchange::stored;
use crate::services::Services;
use pingora_core::protocols::http::ServerSession;
use protocol::Route;
use protocol::error::{ErrorCode, RequestError};
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
    let caller = caller(services, &snapshot, session)?;
    let project = caller.visible_project;
    if matches!(route, Route::Cancel(_)) && stored::cancel(services, id, project).await.map_err(unavailable)? {
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
