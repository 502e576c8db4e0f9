//! `/keys`: list, make, rotate and revoke API keys. What changes here acts at once.

use super::{Admin, internal, refused};
use crate::keys::{self, Wanted};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use serde::Deserialize;
use serde_json::{Value, json};

/// The body of `POST /keys`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Make {
    user: String,
    project: Option<String>,
    /// `30d`, `12h`, `45m`.
    expires: Option<String>,
    models: Option<Vec<String>>,
}

pub(super) async fn list(State(admin): State<Admin>) -> Response {
    match keys::list(&admin.pool).await {
        Ok(keys) => Json(json!({"keys": keys})).into_response(),
        Err(error) => internal(&error),
    }
}

pub(super) async fn make(
    State(admin): State<Admin>,
    body: Result<Json<Make>, axum::extract::rejection::JsonRejection>,
) -> Response {
    let body = match body {
        Ok(Json(body)) => body,
        Err(error) => return refused(StatusCode::BAD_REQUEST, error.body_text()),
    };
    let snapshot = admin.services.current.get();
    let wanted = Wanted {
        user: &body.user,
        project: body.project.as_deref(),
        expires: body.expires.as_deref(),
        models: body.models,
    };
    made(&admin, keys::make(&snapshot.config, &admin.pool, wanted).await).await
}

/// `POST /keys/{id}/rotate`: a new secret for the same owner; the old one ends in an hour.
pub(super) async fn rotate(State(admin): State<Admin>, Path(id): Path<String>) -> Response {
    made(&admin, keys::rotate(&admin.pool, &id, None).await).await
}

pub(super) async fn revoke(State(admin): State<Admin>, Path(id): Path<String>) -> Response {
    match keys::revoke(&admin.pool, &id).await {
        Ok(()) => {
            admin.reload_keys().await;
            Json(json!({"id": id, "state": "revoked"})).into_response()
        }
        Err(error) => failed(error),
    }
}

async fn made(admin: &Admin, made: Result<(String, Value), keys::Error>) -> Response {
    match made {
        Ok((secret, mut key)) => {
            admin.reload_keys().await;
            key["secret"] = secret.into();
            (StatusCode::CREATED, Json(key)).into_response()
        }
        Err(error) => failed(error),
    }
}

fn failed(error: keys::Error) -> Response {
    match error {
        keys::Error::Wrong(detail) => refused(StatusCode::BAD_REQUEST, detail),
        keys::Error::Unknown(detail) => refused(StatusCode::NOT_FOUND, detail),
        keys::Error::Failed(error) => internal(&error),
    }
}
