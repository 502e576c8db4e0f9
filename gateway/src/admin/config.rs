//! `/config/summary`: what is in force, and how the last reload went. `/config/reload`: read the files again.

use super::Admin;
use crate::config::summary::summary;
use crate::reload::Reloaded;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use jiff::Timestamp;
use serde_json::{Value, json};

pub(super) async fn show(State(admin): State<Admin>) -> Json<Value> {
    let snapshot = admin.services.current.get();
    let mut shown = summary(&snapshot.config);
    shown["version"] = snapshot.version.into();
    shown["config_version"] = snapshot.config_version.into();
    shown["last_reload"] = last_reload(&admin);
    Json(shown)
}

/// The result of the last reload; null before the first.
pub(super) fn last_reload(admin: &Admin) -> Value {
    admin.reloader.last.lock().as_ref().map_or(Value::Null, as_json)
}

/// 200 with what has changed, or 422 with what is wrong; then the old configuration stays.
pub(super) async fn reload(State(admin): State<Admin>) -> Response {
    let reloaded = admin.reloader.reload().await;
    let status = if reloaded.result.is_ok() {
        StatusCode::OK
    } else {
        StatusCode::UNPROCESSABLE_ENTITY
    };
    (status, Json(as_json(&reloaded))).into_response()
}

fn as_json(reloaded: &Reloaded) -> Value {
    let at = Timestamp::try_from(reloaded.at)
        .map(|at| at.to_string())
        .unwrap_or_default();
    match &reloaded.result {
        Ok(changes) => json!({"at": at, "result": "ok", "changes": changes}),
        Err(problems) => json!({"at": at, "result": "failed", "problems": problems}),
    }
}
