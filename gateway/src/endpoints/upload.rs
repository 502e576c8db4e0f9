//! `POST /v1/files`: an upload's form is read, compared with the bounds of its project, and kept.

use super::{cannot_keep, unavailable};
use crate::batch::{self, shapes};
use crate::clock::now_ms;
use crate::exchange::receive;
use crate::services::Services;
use bytes::Bytes;
use futures_util::stream;
use ledger::files::{self, File, FileBounds};
use ledger::{FileId, FilePurpose};
use pingora_core::protocols::http::ServerSession;
use protocol::error::{ErrorCode, RequestError};
use serde::Deserialize;
use serde_json::Value;
use std::convert::Infallible;
use std::sync::Arc;

/// A batch's completion window, in seconds.
pub(super) const DAY: i64 = 86_400;

const HOUR: i64 = 3_600;

/// OpenAI's `expires_after` of a file.
#[derive(Deserialize)]
pub(super) struct ExpiresAfter {
    anchor: String,
    seconds: i64,
}

impl ExpiresAfter {
    /// The seconds, within OpenAI's bounds: an hour to thirty days.
    pub(super) fn checked(&self, param: &'static str) -> Result<i64, RequestError> {
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

pub(super) async fn upload(
    services: &Arc<Services>,
    session: &mut ServerSession,
    project: &str,
) -> Result<Value, RequestError> {
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
    let now_ms = now_ms();
    let now = now_ms / 1000;
    let file = File {
        id: FileId::random(now_ms).map_err(|error| cannot_keep(&error))?,
        project_id: project.to_owned(),
        filename: form.filename,
        purpose: FilePurpose::Batch,
        bytes: i64::try_from(form.contents.len()).unwrap_or(i64::MAX),
        created_at: now,
        expires_at: batch::expires_at(services, now, asked),
    };
    let bounds = config.gateway.files;
    has_room(services, &file, &bounds).await?;
    let added = files::upload(services.ledger.store(), &file, &bounds, &form.contents).await;
    if added.map_err(|error| cannot_keep(&error))? {
        return Ok(shapes::file(&file));
    }
    // Others have taken the room meanwhile.
    has_room(services, &file, &bounds).await?;
    Err(storage_full("the project's files were at their bound a moment ago"))
}

/// Refuses a file that would exceed the bounds of its project.
async fn has_room(services: &Services, file: &File, bounds: &FileBounds) -> Result<(), RequestError> {
    let used = files::usage(services.ledger.store(), &file.project_id, file.created_at).await;
    let used = used.map_err(unavailable)?;
    if used.count >= bounds.count {
        return Err(storage_full(&format!(
            "the project has {} files and may have {} (bounds.max_files)",
            used.count, bounds.count
        )));
    }
    if used.bytes.saturating_add(file.bytes) > bounds.bytes {
        return Err(storage_full(&format!(
            "the project's files have {} bytes, and with this one's {} they would have more than {} \
             (bounds.max_files_bytes)",
            used.bytes, file.bytes, bounds.bytes
        )));
    }
    Ok(())
}

fn storage_full(what: &str) -> RequestError {
    let message = format!("storage limit exceeded: {what}; delete files, or upload them with `expires_after`");
    RequestError::new(ErrorCode::StorageLimitExceeded, message)
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
