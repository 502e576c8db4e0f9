//! Endpoints of the proxy listener that need no model: lists, files and batches, stored requests, usage, health.

mod files;
mod models;
mod page;
mod requests;
mod responses;
mod upload;
mod usage;

use crate::batch::Batches;
use crate::clock::now_ms;
use crate::exchange::client_address;
use crate::exchange::head::{self, Headers};
use crate::identity::{self, Caller};
use crate::services::Services;
use crate::snapshot::Snapshot;
use bytes::Bytes;
use http::StatusCode;
use ledger::files::File;
use ledger::{FileId, Store, contents};
use pingora_core::protocols::http::{HttpTask, ServerSession};
use pingora_core::{BError, Error, ErrorType, OrErr};
use pingora_http::ResponseHeader;
use protocol::error::{ErrorCode, RequestError};
use protocol::{Protocol, Route};
use serde_json::{Value, json};
use std::sync::Arc;

/// Services that these endpoints use.
#[derive(Debug, Clone)]
pub(crate) struct Endpoints {
    pub(crate) services: Arc<Services>,
    pub(crate) batches: Arc<Batches>,
}

/// Answers a request that is no model's work; `cors` are the headers that its web page needs.
pub(crate) async fn answer(
    endpoints: &Endpoints,
    session: &mut ServerSession,
    route: &Route<'_>,
    protocol: Protocol,
    cors: Headers,
) -> Result<(), BError> {
    let mut headers = cors;
    if let Route::WrongMethod(allowed) = route {
        headers.push(("allow", (*allowed).to_owned()));
    }
    let (status, body) = match dispatch(endpoints, session, route).await {
        Ok(body) => (200, body),
        Err(error) if error.code == ErrorCode::UnknownRequest && protocol == Protocol::Generate => {
            (404, requests::not_found(route, &error).into())
        }
        Err(error) => return refuse(session, protocol, &error, headers).await,
    };
    match &body {
        Body::Contents(file, bytes) if !is_head(session) => {
            let head = head_of(session, status, &body, headers)?;
            send_contents(session, head, endpoints.services.ledger.store(), (file, *bytes)).await
        }
        _ => respond(session, status, body, headers).await,
    }
}

async fn dispatch(endpoints: &Endpoints, session: &mut ServerSession, route: &Route<'_>) -> Result<Body, RequestError> {
    let services = &endpoints.services;
    identity::prepare(&services.current.get(), &session.req_header().headers).await;
    match route {
        Route::Health => Ok(json!({"status": "ok"}).into()),
        Route::Version => Ok(json!({"version": services.current.get().config.gateway.ollama_version}).into()),
        Route::NotFound => Err(RequestError::new(
            ErrorCode::UnknownPath,
            "unknown path; see docs/api.md for the endpoints",
        )),
        Route::WrongMethod(allowed) => Err(RequestError::new(
            ErrorCode::WrongMethod,
            format!("method not allowed: use {allowed}"),
        )),
        Route::Management => Err(RequestError::new(
            ErrorCode::ManagementRefused,
            "model management is not available through the gateway; use the model server itself",
        )),
        Route::Usage => usage::own(services, session).await.map(Body::from),
        Route::Response(what) => responses::answer(services, session, *what).await,
        Route::FilesAndBatches(kept) => files::answer(endpoints, session, *kept).await,
        Route::Status(id) | Route::Cancel(id) => requests::request(services, session, route, id).await.map(Body::from),
        _ => models::list(services, session, route).map(Body::from),
    }
}

/// Identifies the caller of an endpoint that takes no body; wrong keys are throttled.
fn caller(services: &Services, snapshot: &Snapshot, session: &ServerSession) -> Result<Caller, RequestError> {
    let checked = identity::caller(snapshot, &session.req_header().headers, now_ms());
    let per_minute = snapshot.config.gateway.wrong_credentials_per_minute;
    services
        .strangers
        .throttled(checked, client_address(session), per_minute)
}

/// Answers with an error in the protocol's shape.
pub(crate) async fn refuse(
    session: &mut ServerSession,
    protocol: Protocol,
    error: &RequestError,
    mut headers: Headers,
) -> Result<(), BError> {
    if let Some(seconds) = error.retry_after_seconds() {
        headers.push(("retry-after", seconds.to_string()));
    }
    let id = head::client_request_id(&session.req_header().headers).unwrap_or_default();
    let body = Body::Json(error.body(protocol, id).into());
    respond(session, error.code.status(), body, headers).await
}

/// Answers a browser's preflight.
pub(crate) async fn answer_preflight(session: &mut ServerSession, cors: Headers) -> Result<(), BError> {
    let mut head = ResponseHeader::build(StatusCode::NO_CONTENT, Some(cors.len()))?;
    for (name, value) in cors {
        head.insert_header(name, value)?;
    }
    let head = HttpTask::Header(Box::new(head), true);
    session.response_duplex_vec(vec![head]).await.map(drop)
}

async fn respond(session: &mut ServerSession, status: u16, body: Body, headers: Headers) -> Result<(), BError> {
    let head = head_of(session, status, &body, headers)?;
    let bytes = match body {
        Body::Json(bytes) | Body::Events(bytes) if !is_head(session) => Some(bytes),
        _ => None,
    };
    let tasks = vec![head, HttpTask::Body(bytes, true)];
    session.response_duplex_vec(tasks).await.map(drop)
}

fn is_head(session: &ServerSession) -> bool {
    session.req_header().method == http::Method::HEAD
}

/// The head of an answer.
fn head_of(session: &ServerSession, status: u16, body: &Body, headers: Headers) -> Result<HttpTask, BError> {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    let mut head = ResponseHeader::build(status, Some(5 + headers.len()))?;
    head.insert_header("content-type", body.content_type())?;
    head.insert_header("content-length", body.len())?;
    head.insert_header("x-content-type-options", "nosniff")?;
    if let Some(id) = head::client_request_id(&session.req_header().headers).map(str::to_owned) {
        head.insert_header("x-request-id", id)?;
    }
    for (name, value) in headers {
        head.insert_header(name, value)?;
    }
    Ok(HttpTask::Header(Box::new(head), false))
}

/// Sends a file, of which about 1 MiB is in memory.
async fn send_contents(
    session: &mut ServerSession,
    head: HttpTask,
    store: &Store,
    (file, bytes): (&FileId, u64),
) -> Result<(), BError> {
    session.response_duplex_vec(vec![head]).await?;
    let (mut after, mut left) = (None, bytes);
    while left > 0 {
        let page = contents::page(store, file, after).await;
        let page = page.or_err(ErrorType::ReadError, "a file cannot be read to its end")?;
        if page.last.is_none() || page.contents.len() as u64 > left {
            return Error::e_explain(ErrorType::ReadError, "a file was deleted while it was read");
        }
        left -= page.contents.len() as u64;
        after = page.last;
        let task = HttpTask::Body(Some(page.contents.into()), false);
        session.response_duplex_vec(vec![task]).await?;
    }
    session.response_duplex_vec(vec![HttpTask::Done]).await.map(drop)
}

/// The body of an answer.
pub(super) enum Body {
    Json(Bytes),
    /// Server-sent events, all of them.
    Events(Bytes),
    /// A file and its size.
    Contents(FileId, u64),
}

impl Body {
    /// What a file has in it.
    fn contents(file: File) -> Self {
        Self::Contents(file.id, file.bytes.max(0).unsigned_abs())
    }

    fn content_type(&self) -> &'static str {
        match self {
            Self::Json(_) => "application/json",
            Self::Events(_) => "text/event-stream",
            Self::Contents(..) => "application/octet-stream",
        }
    }

    fn len(&self) -> u64 {
        match self {
            Self::Json(bytes) | Self::Events(bytes) => bytes.len() as u64,
            Self::Contents(_, bytes) => *bytes,
        }
    }
}

impl From<Value> for Body {
    fn from(value: Value) -> Self {
        Self::Json(value.to_string().into())
    }
}

/// The error of a request whose data the database did not give.
#[allow(clippy::needless_pass_by_value, reason = "the signature of `map_err`")]
fn unavailable(error: ledger::Error) -> RequestError {
    tracing::error!(%error, "cannot read the database");
    RequestError::new(
        ErrorCode::DatabaseUnreadable,
        "the gateway's database cannot be read; try again later",
    )
}

/// The error of a file that the database did not take.
fn cannot_keep(error: &dyn std::fmt::Display) -> RequestError {
    tracing::error!(%error, "file not kept");
    RequestError::new(
        ErrorCode::StoreUnavailable,
        "the gateway cannot keep files now; try again",
    )
}
