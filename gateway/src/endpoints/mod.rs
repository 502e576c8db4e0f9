//! Endpoints of the proxy listener that need no model: lists, files and batches, stored requests, usage, health.

mod files;
mod models;
mod requests;
mod usage;

use crate::batch::Batches;
use crate::exchange::head;
use crate::services::Services;
use bytes::Bytes;
use futures_util::StreamExt;
use http::StatusCode;
use pingora_core::protocols::http::{HttpTask, ServerSession};
use pingora_core::{BError, ErrorType, OrErr};
use pingora_http::ResponseHeader;
use protocol::refuse::{ErrorCode, RequestError};
use protocol::{Protocol, Route};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::io::AsyncReadExt;
use tokio_util::io::ReaderStream;

/// Files are sent in pieces of this many bytes.
const PIECE: usize = 256 * 1024;

/// What these endpoints use.
#[derive(Debug, Clone)]
pub(crate) struct Endpoints {
    pub(crate) services: Arc<Services>,
    pub(crate) batches: Arc<Batches>,
}

/// Answers a request that is no model's work.
pub(crate) async fn answer(
    endpoints: &Endpoints,
    session: &mut ServerSession,
    route: &Route<'_>,
    protocol: Protocol,
) -> Result<(), BError> {
    let services = &endpoints.services;
    let answer = match route {
        Route::Health => Ok(json!({"status": "ok"}).into()),
        Route::Version => Ok(json!({"version": services.current.get().config.gateway.ollama_version}).into()),
        Route::NotFound => Err(RequestError::new(
            ErrorCode::UnknownPath,
            "unknown path; see docs/api.md for the endpoints",
        )),
        Route::WrongMethod(wanted) => Err(RequestError::new(
            ErrorCode::WrongMethod,
            format!("method not allowed: use {wanted}"),
        )),
        Route::Management => Err(RequestError::new(
            ErrorCode::ManagementRefused,
            "model management is not available through the gateway; use the model server itself",
        )),
        Route::Usage => usage::own(services, session).await.map(Body::from),
        Route::Response(what) => requests::response(services, session, *what).await.map(Body::from),
        Route::FilesAndBatches(kept) => files::answer(endpoints, session, *kept).await,
        Route::Status(id) | Route::Cancel(id) => requests::request(services, session, route, id).await.map(Body::from),
        _ => models::list(services, session, route).map(Body::from),
    };
    let after = answer.as_ref().err().and_then(RequestError::retry_after_seconds);
    let (status, body) = match answer {
        Ok(body) => (200, body),
        Err(error) if error.code == ErrorCode::UnknownRequest && protocol == Protocol::Generate => {
            (404, requests::not_found(route, &error).into())
        }
        Err(error) => {
            let id = head::client_request_id(&session.req_header().headers).unwrap_or_default();
            (error.code.status(), Body::Json(error.body(protocol, id).into()))
        }
    };
    let mut head = ResponseHeader::build(StatusCode::from_u16(status).unwrap_or(StatusCode::OK), Some(4))?;
    head.insert_header("content-type", body.content_type())?;
    head.insert_header("content-length", body.len())?;
    if let Some(seconds) = after {
        head.insert_header("retry-after", seconds)?;
    }
    if let Some(id) = head::client_request_id(&session.req_header().headers).map(str::to_owned) {
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

/// The body of an answer.
pub(super) enum Body {
    Json(Bytes),
    /// A file and the number of its bytes to send.
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

/// The error of a request whose data the database did not give.
fn unavailable(error: ledger::Error) -> RequestError {
    tracing::error!(%error, "cannot read the database");
    RequestError::new(
        ErrorCode::DatabaseUnreadable,
        "the gateway's database cannot be read; try again later",
    )
}
