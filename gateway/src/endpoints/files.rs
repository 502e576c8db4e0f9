//! OpenAI's `/v1/files` and `/v1/batches`. Callers see their own project's alone.

use super::page::{self, Page, unknown_after};
use super::upload::{DAY, ExpiresAfter, upload};
use super::{Body, Endpoints, caller, cannot_keep, unavailable};
use crate::batch::{self, shapes};
use crate::clock::now_ms;
use crate::exchange::receive;
use crate::identity::Caller;
use crate::services::Services;
use ledger::batches::{self, Batch};
use ledger::files::{self, File};
use ledger::{BatchId, BatchStatus, FilePurpose};
use pingora_core::protocols::http::ServerSession;
use protocol::FilesAndBatches;
use protocol::error::{ErrorCode, RequestError};
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;

/// Items of a page of files where a client names no limit, and at most; both are OpenAI's.
const FILES_PAGE: usize = 10_000;

/// The same for batches.
const BATCHES_PAGE: usize = 20;
const LARGEST_BATCHES_PAGE: usize = 100;

/// Ended batches that are forgotten at once, at most.
const FORGET_AT_ONCE: i64 = 100;

/// The fields of `POST /v1/batches`; others are ignored.
#[derive(Deserialize)]
struct Wanted {
    input_file_id: String,
    endpoint: String,
    completion_window: String,
    metadata: Option<Value>,
    output_expires_after: Option<ExpiresAfter>,
}

pub(super) async fn answer(
    endpoints: &Endpoints,
    session: &mut ServerSession,
    kept: FilesAndBatches<'_>,
) -> Result<Body, RequestError> {
    let services = &endpoints.services;
    let snapshot = services.current.get();
    let caller = caller(services, &snapshot, session)?;
    let project = &snapshot.config.project(caller.project).id;
    let store = services.ledger.store();
    Ok(match kept {
        FilesAndBatches::Upload => upload(services, session, project).await?.into(),
        FilesAndBatches::Files => list_files(services, project, query(session)).await?.into(),
        FilesAndBatches::File(id) => shapes::file(&file(services, project, id).await?).into(),
        FilesAndBatches::Content(id) => Body::contents(file(services, project, id).await?),
        FilesAndBatches::DeleteFile(id) => delete(services, &file(services, project, id).await?).await?.into(),
        FilesAndBatches::CreateBatch => create(endpoints, session, &caller).await?.into(),
        FilesAndBatches::Batches => list_batches(services, project, query(session)).await?.into(),
        FilesAndBatches::Batch(id) => shapes::batch(&find(services, project, id).await?).into(),
        FilesAndBatches::CancelBatch(id) => {
            find(services, project, id).await?;
            batches::cancel(store, project, id).await.map_err(unavailable)?;
            endpoints.batches.cancel(services, id);
            shapes::batch(&find(services, project, id).await?).into()
        }
    })
}

fn query(session: &ServerSession) -> &str {
    session.req_header().uri.query().unwrap_or_default()
}

/// The files of a project, a page at a time, newest first unless `order=asc`; of one purpose if the client names it.
async fn list_files(services: &Services, project: &str, query: &str) -> Result<Value, RequestError> {
    let page = Page::read(query, FILES_PAGE, FILES_PAGE)?;
    let after = match page.after {
        Some(id) => Some(
            find_file(services, project, id)
                .await?
                .ok_or_else(|| unknown_after(id))?,
        ),
        None => None,
    };
    let purpose = match page::field(query, "purpose").filter(|purpose| !purpose.is_empty()) {
        None => None,
        Some(name) => match name.parse::<FilePurpose>() {
            Ok(purpose) => Some(purpose),
            // No file has another one.
            Err(_) => return Ok(page.answer(Vec::new())),
        },
    };
    let after = after.as_ref().map(|file| (file.created_at, file.id.as_str()));
    let (store, now) = (services.ledger.store(), now_ms() / 1000);
    let found = files::page(store, project, purpose, now, &part(&page, after)).await;
    Ok(page.answer(found.map_err(unavailable)?.iter().map(shapes::file).collect()))
}

/// The batches of a project, a page at a time, newest first unless `order=asc`.
async fn list_batches(services: &Services, project: &str, query: &str) -> Result<Value, RequestError> {
    let page = Page::read(query, BATCHES_PAGE, LARGEST_BATCHES_PAGE)?;
    let store = services.ledger.store();
    let after = match page.after {
        Some(id) => {
            let found = batches::find(store, project, id).await.map_err(unavailable)?;
            Some(found.ok_or_else(|| unknown_after(id))?)
        }
        None => None,
    };
    let after = after.as_ref().map(|batch| (batch.created_at, batch.id.as_str()));
    let found = batches::page(store, project, &part(&page, after)).await;
    Ok(page.answer(found.map_err(unavailable)?.iter().map(shapes::batch).collect()))
}

/// The part of a list that makes a page, and one item more to tell whether there are more.
fn part<'a>(page: &Page<'_>, after: Option<(i64, &'a str)>) -> ledger::Page<'a> {
    ledger::Page {
        after,
        limit: i64::try_from(page.limit).unwrap_or(i64::MAX).saturating_add(1),
        is_ascending: page.is_ascending,
    }
}

async fn find_file(services: &Services, project: &str, id: &str) -> Result<Option<File>, RequestError> {
    let found = files::find(services.ledger.store(), project, id, now_ms() / 1000).await;
    found.map_err(unavailable)
}

async fn file(services: &Services, project: &str, id: &str) -> Result<File, RequestError> {
    find_file(services, project, id)
        .await?
        .ok_or_else(|| RequestError::new(ErrorCode::UnknownRequest, format!("there is no file `{id}`")))
}

async fn delete(services: &Services, file: &File) -> Result<Value, RequestError> {
    files::delete(services.ledger.store(), &file.project_id, &file.id)
        .await
        .map_err(unavailable)?;
    Ok(json!({"id": file.id, "object": "file", "deleted": true}))
}

async fn create(endpoints: &Endpoints, session: &mut ServerSession, caller: &Caller) -> Result<Value, RequestError> {
    let services = &endpoints.services;
    let snapshot = services.current.get();
    let config = &snapshot.config;
    let (body, _buffered) = receive::body(services, session, config).await?;
    let wanted: Wanted = serde_json::from_slice(&body).map_err(|error| {
        RequestError::new(
            ErrorCode::BadRequest,
            format!("the body is not what is expected here: {error}"),
        )
    })?;
    if batch::endpoint(&wanted.endpoint).is_none() {
        let message = "`endpoint` must be /v1/chat/completions, /v1/completions, /v1/embeddings or /v1/responses";
        return Err(RequestError::param(ErrorCode::BadRequest, "endpoint", message));
    }
    if wanted.completion_window != "24h" {
        return Err(RequestError::param(
            ErrorCode::BadRequest,
            "completion_window",
            "`completion_window` must be 24h",
        ));
    }
    let output_expires_seconds = wanted.output_expires_after.as_ref();
    let output_expires_seconds = output_expires_seconds
        .map(|after| after.checked("output_expires_after"))
        .transpose()?;
    let project = config.project(caller.project);
    let input = file(services, &project.id, &wanted.input_file_id).await?;
    let now_ms = now_ms();
    let now = now_ms / 1000;
    let batch = Batch {
        id: BatchId::random(now_ms).map_err(|error| cannot_keep(&error))?,
        user_id: config.user(caller.user).id.clone(),
        project_id: project.id.clone(),
        key_id: caller.key.as_ref().map(|key| key.id.clone()),
        priority: project.priority,
        endpoint: wanted.endpoint,
        input_file_id: input.id,
        output_file_id: None,
        error_file_id: None,
        completion_window: wanted.completion_window,
        status: BatchStatus::Validating,
        problems: None,
        metadata: wanted.metadata.map(|metadata| metadata.to_string()),
        total: 0,
        completed: 0,
        failed: 0,
        created_at: now,
        expires_at: now + DAY,
        finished_at: None,
        output_expires_seconds,
        epoch: 0,
    };
    let most = config.gateway.max_unfinished_batches;
    let added = batches::add(services.ledger.store(), services.ledger.owner(), &batch, most).await;
    if !added.map_err(unavailable)? {
        return Err(too_many(most));
    }
    batch::start(services, &endpoints.batches, batch.clone());
    let keep = config.gateway.max_ended_batches;
    let forgotten = batches::delete_oldest(services.ledger.store(), &project.id, keep, FORGET_AT_ONCE).await;
    if let Err(error) = forgotten {
        tracing::warn!(%error, project = project.id, "old batches not forgotten");
    }
    Ok(shapes::batch(&batch))
}

/// The error of a batch beyond those that a project may have.
fn too_many(most: usize) -> RequestError {
    let message = format!(
        "the project has {most} batches that have not ended (bounds.max_unfinished_batches); wait for one, or cancel one"
    );
    let mut error = RequestError::new(ErrorCode::TooManyConcurrent, message);
    error.retry_after = Some(Duration::from_secs(60));
    error
}

async fn find(services: &Services, project: &str, id: &str) -> Result<Batch, RequestError> {
    let found = batches::find(services.ledger.store(), project, id)
        .await
        .map_err(unavailable)?;
    found.ok_or_else(|| RequestError::new(ErrorCode::UnknownRequest, format!("there is no batch `{id}`")))
}
