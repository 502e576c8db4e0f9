//! OpenAI's `/v1/files` and `/v1/batches`. Callers see their own project's alone.

use super::{Body, Endpoints, caller, unavailable};
use crate::batch::{self, shapes};
use crate::clock::now_ms;
use crate::exchange::receive;
use crate::identity::Caller;
use crate::services::Services;
use bytes::Bytes;
use futures_util::stream;
use ledger::batches::{self, Batch};
use ledger::files::{self, File};
use ledger::{BatchId, BatchStatus, FileId, FilePurpose};
use pingora_core::protocols::http::ServerSession;
use protocol::FilesAndBatches;
use protocol::error::{ErrorCode, RequestError};
use serde::Deserialize;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Unfinished batches of one project, at most.
const UNFINISHED: usize = 100;

/// A batch's completion window, in seconds.
const DAY: i64 = 86_400;

const HOUR: i64 = 3_600;

/// The fields of `POST /v1/batches`; others are ignored.
#[derive(Deserialize)]
struct Wanted {
    input_file_id: String,
    endpoint: String,
    completion_window: String,
    metadata: Option<Value>,
    output_expires_after: Option<ExpiresAfter>,
}

/// OpenAI's `expires_after` of a file.
#[derive(Deserialize)]
struct ExpiresAfter {
    anchor: String,
    seconds: i64,
}

impl ExpiresAfter {
    /// The seconds, within OpenAI's bounds: an hour to thirty days.
    fn checked(&self, param: &'static str) -> Result<i64, RequestError> {
        let wrong = |message: String| Err(RequestError::param(ErrorCode::BadRequest, param, message));
        if self.anchor != "created_at" {
            return wrong(format!("`{param}.anchor` must be created_at, not `{}`", self.anchor));
        }
        if !(HOUR..=30 * DAY).contains(&self.seconds) {
            return wrong(format!(
                "`{param}.seconds` must be 3600 to 2592000, not {}",
                self.seconds
            ));
        }
        Ok(self.seconds)
    }
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
        FilesAndBatches::Files => {
            let files = files::list(store, project, now_ms() / 1000)
                .await
                .map_err(unavailable)?;
            shapes::list(&files.iter().map(shapes::file).collect::<Vec<_>>()).into()
        }
        FilesAndBatches::File(id) => shapes::file(&file(services, project, id).await?).into(),
        FilesAndBatches::Content(id) => content(services, &file(services, project, id).await?).await?,
        FilesAndBatches::DeleteFile(id) => delete(services, &file(services, project, id).await?).await?.into(),
        FilesAndBatches::CreateBatch => create(endpoints, session, &caller).await?.into(),
        FilesAndBatches::Batches => {
            let all = batches::list(store, project, 1000).await.map_err(unavailable)?;
            shapes::list(&all.iter().map(shapes::batch).collect::<Vec<_>>()).into()
        }
        FilesAndBatches::Batch(id) => shapes::batch(&find(services, project, id).await?).into(),
        FilesAndBatches::CancelBatch(id) => {
            find(services, project, id).await?;
            batches::cancel(store, project, id).await.map_err(unavailable)?;
            endpoints.batches.cancel(id);
            services.registry.cancel_queued(&format!("{id}-"));
            shapes::batch(&find(services, project, id).await?).into()
        }
    })
}

async fn upload(services: &Arc<Services>, session: &mut ServerSession, project: &str) -> Result<Value, RequestError> {
    let config = Arc::clone(&services.current.get().config);
    let content_type = session.req_header().headers.get("content-type").cloned();
    let (body, _buffered) = receive::body(services, session, &config).await?;
    let form = Form::read(content_type.as_ref().and_then(|value| value.to_str().ok()), body).await?;
    if form.purpose != FilePurpose::Batch.name() {
        let message = format!("`purpose` must be batch, not `{}`", form.purpose);
        return Err(RequestError::param(ErrorCode::BadRequest, "purpose", message));
    }
    let asked = form
        .expires_after
        .map(|after| after.checked("expires_after"))
        .transpose()?;
    let now = now_ms() / 1000;
    let store = services.ledger.store();
    let kept = files::list(store, project, now).await.map_err(unavailable)?;
    let bytes = i64::try_from(form.contents.len()).unwrap_or(i64::MAX);
    let sum: i64 = kept.iter().map(|file| file.bytes).sum();
    if sum.saturating_add(bytes) > config.gateway.max_files_bytes {
        let most = config.gateway.max_files_bytes;
        let message = format!("the project's files would be larger than {most} bytes together; delete some");
        return Err(RequestError::new(ErrorCode::BodyTooLarge, message));
    }
    let file = File {
        id: FileId::random().map_err(|error| cannot_keep(&error))?,
        project_id: project.to_owned(),
        filename: form.filename,
        purpose: FilePurpose::Batch,
        bytes,
        created_at: now,
        expires_at: batch::expires_at(services, now, asked),
    };
    write(&batch::path(services, &file), &form.contents)
        .await
        .map_err(|error| cannot_keep(&error))?;
    files::add(store, &file).await.map_err(unavailable)?;
    Ok(shapes::file(&file))
}

/// The fields of an upload's form.
struct Form {
    filename: String,
    purpose: String,
    contents: Bytes,
    expires_after: Option<ExpiresAfter>,
}

impl Form {
    async fn read(content_type: Option<&str>, body: Bytes) -> Result<Self, RequestError> {
        let wrong = |error: multer::Error| {
            RequestError::new(ErrorCode::BadRequest, format!("the form cannot be read: {error}"))
        };
        let boundary = multer::parse_boundary(content_type.unwrap_or_default()).map_err(wrong)?;
        let mut form = multer::Multipart::new(stream::iter([Ok::<_, Infallible>(body)]), boundary);
        let (mut purpose, mut file, mut anchor, mut seconds) = (None, None, None, None);
        while let Some(field) = form.next_field().await.map_err(wrong)? {
            match field.name() {
                Some("purpose") => purpose = Some(field.text().await.map_err(wrong)?),
                Some("expires_after[anchor]") => anchor = Some(field.text().await.map_err(wrong)?),
                Some("expires_after[seconds]") => seconds = Some(field.text().await.map_err(wrong)?),
                Some("file") => {
                    let name = field.file_name().unwrap_or("file.jsonl").chars().take(256).collect();
                    file = Some((name, field.bytes().await.map_err(wrong)?));
                }
                _ => {}
            }
        }
        let missing =
            |name: &'static str| RequestError::param(ErrorCode::BadRequest, name, format!("the form has no `{name}`"));
        let (filename, contents) = file.ok_or_else(|| missing("file"))?;
        let expires_after = match (anchor, seconds) {
            (None, None) => None,
            (anchor, seconds) => Some(ExpiresAfter {
                anchor: anchor.ok_or_else(|| missing("expires_after[anchor]"))?,
                seconds: seconds
                    .and_then(|seconds| seconds.trim().parse().ok())
                    .ok_or_else(|| missing("expires_after[seconds]"))?,
            }),
        };
        Ok(Self {
            filename,
            purpose: purpose.ok_or_else(|| missing("purpose"))?,
            contents,
            expires_after,
        })
    }
}

async fn file(services: &Services, project: &str, id: &str) -> Result<File, RequestError> {
    let found = files::find(services.ledger.store(), project, id, now_ms() / 1000)
        .await
        .map_err(unavailable)?;
    found.ok_or_else(|| RequestError::new(ErrorCode::UnknownRequest, format!("there is no file `{id}`")))
}

async fn content(services: &Services, file: &File) -> Result<Body, RequestError> {
    let opened = tokio::fs::File::open(batch::path(services, file)).await;
    let opened = opened.map_err(|error| cannot_keep(&error))?;
    let length = opened.metadata().await.map_err(|error| cannot_keep(&error))?.len();
    Ok(Body::File(opened, length))
}

async fn delete(services: &Services, file: &File) -> Result<Value, RequestError> {
    files::delete(services.ledger.store(), &file.project_id, &file.id)
        .await
        .map_err(unavailable)?;
    if let Err(error) = tokio::fs::remove_file(batch::path(services, file)).await {
        tracing::warn!(%error, file = %file.id, "contents of a deleted file not removed");
    }
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
    if endpoints.batches.count(&project.id) >= UNFINISHED {
        let message = format!("the project has {UNFINISHED} batches that have not ended; wait for one, or cancel one");
        let mut error = RequestError::new(ErrorCode::TooManyConcurrent, message);
        error.retry_after = Some(Duration::from_secs(60));
        return Err(error);
    }
    let now = now_ms() / 1000;
    let batch = Batch {
        id: BatchId::random().map_err(|error| cannot_keep(&error))?,
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
    };
    batches::add(services.ledger.store(), services.ledger.owner(), &batch)
        .await
        .map_err(unavailable)?;
    batch::start(services, &endpoints.batches, batch.clone());
    Ok(shapes::batch(&batch))
}

async fn find(services: &Services, project: &str, id: &str) -> Result<Batch, RequestError> {
    let found = batches::find(services.ledger.store(), project, id)
        .await
        .map_err(unavailable)?;
    found.ok_or_else(|| RequestError::new(ErrorCode::UnknownRequest, format!("there is no batch `{id}`")))
}

async fn write(path: &Path, contents: &[u8]) -> std::io::Result<()> {
    if let Some(parent) = path.parent() {
        tokio::fs::create_dir_all(parent).await?;
    }
    tokio::fs::write(path, contents).await
}

fn cannot_keep(error: &dyn std::fmt::Display) -> RequestError {
    tracing::error!(%error, "file not kept or not read");
    RequestError::new(
        ErrorCode::StoreUnavailable,
        "the gateway cannot keep or read files now; try again",
    )
}
