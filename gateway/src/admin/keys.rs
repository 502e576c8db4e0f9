//! `/keys`: list, make, rotate and revoke API keys. What changes here acts at once.

use super::{Admin, internal, refused};
use crate::keys::{self, Wanted};
use axum::body::Bytes;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use serde::Deserialize;
use serde_json::{Value, json};

/// A JSON body, or why it is none.
type Body<T> = Result<Json<T>, JsonRejection>;

/// What `POST /keys/import` takes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Import {
    keys: Vec<Wanted>,
}

/// What `POST /keys/{id}/rotate` takes, if anything.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rotate {
    grace: Option<String>,
}

pub(super) async fn list(State(admin): State<Admin>) -> Response {
    match keys::list(&admin.pool).await {
        Ok(keys) => Json(json!({"keys": keys})).into_response(),
        Err(error) => internal(&error),
    }
}

pub(super) async fn make(State(admin): State<Admin>, body: Body<Wanted>) -> Response {
    let wanted = match body {
        Ok(Json(wanted)) => wanted,
        Err(error) => return refused(StatusCode::BAD_REQUEST, error.body_text()),
    };
    let snapshot = admin.services.current.get();
    made(&admin, keys::make(&snapshot.config, &admin.pool, &wanted).await).await
}

/// `POST /keys/import`: many keys, all or none.
pub(super) async fn import(State(admin): State<Admin>, body: Body<Import>) -> Response {
    let wanted = match body {
        Ok(Json(body)) => body.keys,
        Err(error) => return refused(StatusCode::BAD_REQUEST, error.body_text()),
    };
    let snapshot = admin.services.current.get();
    made(&admin, keys::import(&snapshot.config, &admin.pool, &wanted).await).await
}

/// `POST /keys/{id}/rotate`: a new secret for the same key; the old one ends after `grace`.
pub(super) async fn rotate(State(admin): State<Admin>, Path(id): Path<String>, body: Bytes) -> Response {
    let wanted = if body.is_empty() {
        Ok(Rotate::default())
    } else {
        serde_json::from_slice(&body)
    };
    match wanted {
        Ok(Rotate { grace }) => made(&admin, keys::rotate(&admin.pool, &id, grace.as_deref()).await).await,
        Err(error) => refused(StatusCode::BAD_REQUEST, format!("invalid body: {error}")),
    }
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

async fn made(admin: &Admin, made: Result<Value, keys::Error>) -> Response {
    match made {
        Ok(key) => {
            admin.reload_keys().await;
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
