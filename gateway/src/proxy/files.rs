//! OpenAI's `/v1/files` and `/v1/batches`. Everyone sees their own project's alone.

use super::lists::Body;
use super::{Gateway, inbound};
use crate::batch::{self, shapes};
use crate::clock::now_ms;
use crate::identity::{self, Caller};
use crate::ledger::batches::{self, Batch, File};
use crate::ledger::record::priority_name;
use bytes::Bytes;
use futures_util::stream;
use pingora_core::protocols::http::ServerSession;
use protocol::FilesAndBatches;
use protocol::refuse::{ErrorCode, RequestError};
use serde::Deserialize;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

/// Batches of one project that wait for their turn or are done, at most.
const UNFINISHED: usize = 100;

/// How long a batch may take, in seconds.
const DAY: i64 = 86_400;

/// What `POST /v1/batches` takes; what else a client sends changes nothing.
#[derive(Deserialize)]
struct Wanted {
    input_file_id: String,
    endpoint: String,
    completion_window: String,
    metadata: Option<Value>,
}

pub(super) async fn answer(
    gateway: &Arc<Gateway>,
    session: &mut ServerSession,
    kept: FilesAndBatches<'_>,
) -> Result<Body, RequestError> {
    let snapshot = gateway.current.get();
    let caller = identity::caller(&snapshot, &session.req_header().headers, None, now_ms())?;
    let project = &snapshot.config.project(caller.project).id;
    let store = gateway.ledger.store();
    Ok(match kept {
        FilesAndBatches::Upload => upload(gateway, session, project).await?.into(),
        FilesAndBatches::Files => {
            let files = batches::files(store, project).await?;
            shapes::list(&files.iter().map(shapes::file).collect::<Vec<_>>()).into()
        }
        FilesAndBatches::File(id) => shapes::file(&file(gateway, project, id).await?).into(),
        FilesAndBatches::Content(id) => content(gateway, &file(gateway, project, id).await?).await?,
        FilesAndBatches::DeleteFile(id) => delete(gateway, &file(gateway, project, id).await?).await?.into(),
        FilesAndBatches::CreateBatch => create(gateway, session, &caller).await?.into(),
        FilesAndBatches::Batches => {
            let all = batches::batches(store, project, 1000).await?;
            shapes::list(&all.iter().map(shapes::batch).collect::<Vec<_>>()).into()
        }
        FilesAndBatches::Batch(id) => shapes::batch(&find(gateway, project, id).await?).into(),
        FilesAndBatches::CancelBatch(id) => {
            find(gateway, project, id).await?;
            batches::cancel(store, id).await?;
            gateway.batches.cancel(id);
            shapes::batch(&find(gateway, project, id).await?).into()
        }
    })
}

async fn upload(gateway: &Gateway, session: &mut ServerSession, project: &str) -> Result<Value, RequestError> {
    let config = Arc::clone(&gateway.current.get().config);
    let content_type = session.req_header().headers.get("content-type").cloned();
    let body = inbound::body(session, &config).await?;
    let (filename, purpose, contents) =
        parts(content_type.as_ref().and_then(|value| value.to_str().ok()), body).await?;
    if purpose != "batch" {
        let message = format!("`purpose` must be batch, not `{purpose}`");
        return Err(RequestError::param(ErrorCode::BadRequest, "purpose", message));
    }
    let store = gateway.ledger.store();
    let kept = batches::files(store, project).await?;
    let bytes = i64::try_from(contents.len()).unwrap_or(i64::MAX);
    let sum: i64 = kept.iter().map(|file| file.bytes).sum();
    if sum.saturating_add(bytes) > config.gateway.max_files_bytes {
        let most = config.gateway.max_files_bytes;
        let message = format!("the project's files would be larger than {most} bytes together; delete some");
        return Err(RequestError::new(ErrorCode::BodyTooLarge, message));
    }
    let file = File {
        id: fresh("file-")?,
        project_id: project.to_owned(),
        filename,
        purpose,
        bytes,
        created_at: now_ms() / 1000,
    };
    let path = batch::path(gateway, &file);
    let written = path
        .parent()
        .map_or(Ok(()), std::fs::create_dir_all)
        .and_then(|()| std::fs::write(&path, &contents));
    written.map_err(|error| broken(&error))?;
    batches::add_file(store, &file).await?;
    Ok(shapes::file(&file))
}

/// The file's name, the purpose and the contents of a form.
async fn parts(content_type: Option<&str>, body: Bytes) -> Result<(String, String, Bytes), RequestError> {
    let wrong =
        |error: multer::Error| RequestError::new(ErrorCode::BadRequest, format!("the form cannot be read: {error}"));
    let boundary = multer::parse_boundary(content_type.unwrap_or_default()).map_err(wrong)?;
    let mut form = multer::Multipart::new(stream::iter([Ok::<_, Infallible>(body)]), boundary);
    let (mut purpose, mut file) = (None, None);
    while let Some(field) = form.next_field().await.map_err(wrong)? {
        match field.name() {
            Some("purpose") => purpose = Some(field.text().await.map_err(wrong)?),
            Some("file") => {
                let name = field.file_name().unwrap_or("file.jsonl").chars().take(256).collect();
                file = Some((name, field.bytes().await.map_err(wrong)?));
            }
            _ => {}
        }
    }
    let missing =
        |name: &'static str| RequestError::param(ErrorCode::BadRequest, name, format!("the form has no `{name}`"));
    let (name, contents) = file.ok_or_else(|| missing("file"))?;
    Ok((name, purpose.ok_or_else(|| missing("purpose"))?, contents))
}

async fn file(gateway: &Gateway, project: &str, id: &str) -> Result<File, RequestError> {
    let found = batches::file(gateway.ledger.store(), project, id).await?;
    found.ok_or_else(|| RequestError::new(ErrorCode::UnknownRequest, format!("there is no file `{id}`")))
}

async fn content(gateway: &Gateway, file: &File) -> Result<Body, RequestError> {
    let opened = tokio::fs::File::open(batch::path(gateway, file)).await;
    let opened = opened.map_err(|error| broken(&error))?;
    let length = opened.metadata().await.map_err(|error| broken(&error))?.len();
    Ok(Body::File(opened, length))
}

async fn delete(gateway: &Gateway, file: &File) -> Result<Value, RequestError> {
    batches::delete_file(gateway.ledger.store(), &file.id).await?;
    if let Err(error) = std::fs::remove_file(batch::path(gateway, file)) {
        tracing::warn!(%error, file = file.id, "a deleted file's contents stay");
    }
    Ok(json!({"id": file.id, "object": "file", "deleted": true}))
}

async fn create(gateway: &Arc<Gateway>, session: &mut ServerSession, caller: &Caller) -> Result<Value, RequestError> {
    let snapshot = gateway.current.get();
    let config = &snapshot.config;
    let body = inbound::body(session, config).await?;
    let wanted: Wanted = serde_json::from_slice(&body).map_err(|error| {
        RequestError::new(
            ErrorCode::BadRequest,
            format!("the body is not what is expected here: {error}"),
        )
    })?;
    if batch::endpoint(&wanted.endpoint).is_none() {
        let message = "`endpoint` must be /v1/chat/completions, /v1/completions or /v1/embeddings";
        return Err(RequestError::param(ErrorCode::BadRequest, "endpoint", message));
    }
    if wanted.completion_window != "24h" {
        return Err(RequestError::param(
            ErrorCode::BadRequest,
            "completion_window",
            "`completion_window` must be 24h",
        ));
    }
    let project = config.project(caller.project);
    let input = file(gateway, &project.id, &wanted.input_file_id).await?;
    if gateway.batches.of(&project.id) >= UNFINISHED {
        let message = format!("the project has {UNFINISHED} batches that have not ended; wait for one, or cancel one");
        let mut stop = RequestError::new(ErrorCode::TooManyConcurrent, message);
        stop.retry_after = Some(Duration::from_secs(60));
        return Err(stop);
    }
    let now = now_ms() / 1000;
    let batch = Batch {
        id: fresh("batch_")?,
        user_id: config.user(caller.user).id.clone(),
        project_id: project.id.clone(),
        key_id: caller.key.as_ref().map(|key| key.id.clone()),
        priority: priority_name(project.priority).to_owned(),
        endpoint: wanted.endpoint,
        input_file_id: input.id,
        output_file_id: None,
        error_file_id: None,
        completion_window: wanted.completion_window,
        status: "validating".into(),
        problems: None,
        metadata: wanted.metadata.map(|metadata| metadata.to_string()),
        total: 0,
        completed: 0,
        failed: 0,
        created_at: now,
        expires_at: now + DAY,
        finished_at: None,
    };
    batches::add(gateway.ledger.store(), gateway.ledger.owner(), &batch).await?;
    batch::start(gateway, batch.clone());
    Ok(shapes::batch(&batch))
}

async fn find(gateway: &Gateway, project: &str, id: &str) -> Result<Batch, RequestError> {
    let found = batches::batch(gateway.ledger.store(), project, id).await?;
    found.ok_or_else(|| RequestError::new(ErrorCode::UnknownRequest, format!("there is no batch `{id}`")))
}

fn fresh(prefix: &str) -> Result<String, RequestError> {
    let random = identity::random_text().map_err(|error| broken(&error))?;
    Ok(format!("{prefix}{}", &random[..24]))
}

fn broken(error: &std::io::Error) -> RequestError {
    tracing::error!(%error, "a file was not kept or read");
    RequestError::new(
        ErrorCode::StoreUnavailable,
        "the gateway cannot keep or read files now; try again",
    )
}
