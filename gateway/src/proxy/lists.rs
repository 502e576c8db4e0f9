//! What needs no model: lists of models, versions, health, and what has become of a request.

use super::{Gateway, background, files, inbound};
use crate::config::{Config, Model};
use crate::identity;
use crate::ledger::{Unavailable, jobs};
use crate::standing;
use bytes::Bytes;
use futures_util::StreamExt;
use http::StatusCode;
use pingora_core::protocols::http::{HttpTask, ServerSession};
use pingora_core::{BError, ErrorType, OrErr};
use pingora_http::ResponseHeader;
use policy::Scope;
use protocol::catalogue::{self, Entry};
use protocol::refuse::{ErrorCode, RequestError};
use protocol::{Background, Protocol, Route};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::io::AsyncReadExt;
use tokio_util::io::ReaderStream;

/// A file is sent in pieces of so many bytes.
const PIECE: usize = 256 * 1024;

/// Answers what is not a model's work. Lists are for callers who may ask.
pub(super) async fn answer(
    gateway: &Arc<Gateway>,
    session: &mut ServerSession,
    route: &Route<'_>,
    protocol: Protocol,
) -> Result<(), BError> {
    let answer = match route {
        Route::Health => Ok(json!({"status": "ok"}).into()),
        Route::Version => Ok(json!({"version": catalogue::OLLAMA_VERSION}).into()),
        Route::NotFound => Err(RequestError::new(
            ErrorCode::UnknownPath,
            "there is nothing at this path",
        )),
        Route::WrongMethod(wanted) => Err(RequestError::new(ErrorCode::WrongMethod, format!("use {wanted} here"))),
        Route::Management => Err(RequestError::new(
            ErrorCode::ManagementRefused,
            "models are managed by whoever runs the server, not through the gateway",
        )),
        Route::Usage => own_usage(gateway, session).await.map(Body::from),
        Route::Response(what) => response(gateway, session, *what).await.map(Body::from),
        Route::FilesAndBatches(kept) => files::answer(gateway, session, *kept).await,
        Route::Status(id) | Route::Cancel(id) => request(gateway, session, route, id).await.map(Body::from),
        _ => list(gateway, session, route, protocol).map(Body::from),
    };
    let after = answer.as_ref().err().and_then(RequestError::retry_after_seconds);
    let (status, body) = match answer {
        Ok(body) => (200, body),
        Err(stop) if stop.code == ErrorCode::UnknownRequest && protocol == Protocol::Generate => {
            (404, not_found(route, &stop).into())
        }
        Err(stop) => {
            let id = inbound::sane_request_id(&session.req_header().headers).unwrap_or_default();
            (stop.code.status(), Body::Json(stop.body(protocol, id).into()))
        }
    };
    let mut head = ResponseHeader::build(StatusCode::from_u16(status).unwrap_or(StatusCode::OK), Some(4))?;
    head.insert_header("content-type", body.content_type())?;
    head.insert_header("content-length", body.len())?;
    if let Some(seconds) = after {
        head.insert_header("retry-after", seconds)?;
    }
    if let Some(id) = inbound::sane_request_id(&session.req_header().headers).map(str::to_owned) {
        head.insert_header("x-request-id", id)?;
    }
    if let Route::WrongMethod(wanted) = route {
        head.insert_header("allow", *wanted)?;
    }
    let is_head = session.req_header().method == http::Method::HEAD;
    let head = HttpTask::Header(Box::new(head), false);
    match body {
        Body::File(file, bytes) if !is_head => {
            session.response_duplex_vec(vec![head]).await?;
            let mut pieces = ReaderStream::with_capacity(file.take(bytes), PIECE);
            while let Some(piece) = pieces.next().await {
                let piece = piece.or_err(ErrorType::ReadError, "a file cannot be read to its end")?;
                session
                    .response_duplex_vec(vec![HttpTask::Body(Some(piece), false)])
                    .await?;
            }
            session.response_duplex_vec(vec![HttpTask::Done]).await?;
        }
        Body::Json(bytes) if !is_head => {
            session
                .response_duplex_vec(vec![head, HttpTask::Body(Some(bytes), true)])
                .await?;
        }
        _ => {
            session
                .response_duplex_vec(vec![head, HttpTask::Body(None, true)])
                .await?;
        }
    }
    Ok(())
}

/// What is answered.
pub(super) enum Body {
    Json(Bytes),
    /// A file, of which so many bytes are sent.
    File(tokio::fs::File, u64),
}

impl Body {
    fn content_type(&self) -> &'static str {
        match self {
            Self::Json(_) => "application/json",
            Self::File(..) => "application/octet-stream",
        }
    }

    fn len(&self) -> u64 {
        match self {
            Self::Json(bytes) => bytes.len() as u64,
            Self::File(_, bytes) => *bytes,
        }
    }
}

impl From<Value> for Body {
    fn from(value: Value) -> Self {
        Self::Json(value.to_string().into())
    }
}

/// What the caller has used and has left: with a key, the key's; else the user's.
async fn own_usage(gateway: &Gateway, session: &ServerSession) -> Result<Value, RequestError> {
    let snapshot = gateway.current.get();
    let caller = identity::caller(&snapshot, &session.req_header().headers, None, crate::clock::now_ms())?;
    let (config, gate) = (&snapshot.config, &gateway.gate);
    let (project, user) = (config.project(caller.project), config.user(caller.user));
    let only = match &caller.key {
        Some(key) => ("key_id", key.id.clone()),
        None => ("user_id", user.id.clone()),
    };
    let usage = gateway.ledger.usage_of(only).await?;
    let key = caller.key.as_ref();
    Ok(json!({
        "user_id": user.id,
        "project_id": project.id,
        "key_id": key.map(|key| &key.id),
        "usage": usage,
        "limits": {
            "key": key.map(|key| standing::of(gate, Scope::Key, key.number.0, None)),
            "user": standing::of(gate, Scope::User, caller.user.0, None),
            "project": standing::of(gate, Scope::Project, caller.project.0, Some(project.plan)),
        },
    }))
}

/// The original's answer to an id that it does not know.
fn not_found(route: &Route<'_>, stop: &RequestError) -> Value {
    let id = match route {
        Route::Status(id) | Route::Cancel(id) => *id,
        _ => "",
    };
    json!({"request_id": id, "status": "not_found", "message": stop.message})
}

/// A request of the caller's own. Whoever may speak in anyone's name may ask for anyone's.
async fn request(
    gateway: &Gateway,
    session: &ServerSession,
    route: &Route<'_>,
    id: &str,
) -> Result<Value, RequestError> {
    let snapshot = gateway.current.get();
    let caller = identity::caller(&snapshot, &session.req_header().headers, None, crate::clock::now_ms())?;
    let of = caller.key.is_some().then_some(caller.project);
    if matches!(route, Route::Cancel(_)) && gateway.requests.cancel(id, of) {
        return Ok(json!({"request_id": id, "status": "cancelled", "message": "Request is being cancelled"}));
    }
    let known = background::status(gateway, id, of).await?;
    known.ok_or_else(|| {
        RequestError::new(
            ErrorCode::UnknownRequest,
            "no request with this id runs, waits or has ended lately",
        )
    })
}

/// A response that is made in the background: shown, cancelled or forgotten.
async fn response(gateway: &Gateway, session: &ServerSession, what: Background<'_>) -> Result<Value, RequestError> {
    let snapshot = gateway.current.get();
    let caller = identity::caller(&snapshot, &session.req_header().headers, None, crate::clock::now_ms())?;
    let of = caller.key.is_some().then_some(caller.project);
    let (Background::Show(name) | Background::Cancel(name) | Background::Delete(name)) = what;
    let id = name.strip_prefix("resp_").unwrap_or(name);
    let unknown = || {
        let message = format!("no response `{name}` is made in the background, or was made within a day");
        RequestError::new(ErrorCode::UnknownRequest, message)
    };
    match what {
        Background::Delete(_) => {
            let project = of.map(|project| snapshot.config.project(project).id.as_str());
            let forgotten = jobs::forget(gateway.ledger.store(), id, project).await?;
            let deleted = json!({"id": name, "object": "response", "deleted": true});
            forgotten.then_some(deleted).ok_or_else(unknown)
        }
        Background::Cancel(_) => {
            let is_told = gateway.requests.cancel(id, of);
            let mut shown = background::shown(gateway, id, of).await?.ok_or_else(unknown)?;
            if is_told {
                shown["status"] = "cancelled".into();
            }
            Ok(shown)
        }
        Background::Show(_) => background::shown(gateway, id, of).await?.ok_or_else(unknown),
    }
}

impl From<Unavailable> for RequestError {
    fn from(error: Unavailable) -> Self {
        tracing::error!(%error, "the database was not read");
        RequestError::new(
            ErrorCode::DatabaseUnreadable,
            "the gateway's database cannot be read now; try again",
        )
    }
}

fn list(
    gateway: &Gateway,
    session: &ServerSession,
    route: &Route<'_>,
    protocol: Protocol,
) -> Result<Value, RequestError> {
    let snapshot = gateway.current.get();
    let caller = identity::caller(&snapshot, &session.req_header().headers, None, crate::clock::now_ms())?;
    let mut entries = entries(&snapshot.config);
    if let Some(key) = &caller.key {
        entries.retain(|entry| key.allows(entry.name));
    }
    let is_anthropics = protocol == Protocol::Anthropic;
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
            .ok_or_else(|| RequestError::new(ErrorCode::UnknownModel, format!("there is no model `{name}`"))),
        _ => Ok(catalogue::ollama_list(&entries)),
    }
}

fn entries(config: &Config) -> Vec<Entry<'_>> {
    let enabled = config.models.iter().filter(|model| model.enabled);
    enabled.map(entry).collect()
}

/// A model as clients see it.
pub(super) fn entry(model: &Model) -> Entry<'_> {
    Entry {
        name: &model.name,
        owner: model.backend.word(),
        max_input_tokens: model.max_input_tokens,
    }
}
