//! Answers of detached requests, put aside in files before their records are written. A record says that a request was
//! done and is never to be repeated; so a kill between it and the place where the answer is kept loses nothing
//! ([decision 24](../../../docs/decisions/024-answers-are-put-aside-before-their-records.md)).

use super::final_part::FinalPart;
use crate::record::Record;
use crate::services::Services;
use bytes::Bytes;
use ledger::Durability;
use ledger::jobs::{self, JobState};
use protocol::error::{ErrorCode, RequestError};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// An answer as its file holds it.
#[derive(Debug, Serialize, Deserialize)]
enum Kept<'a> {
    /// A server's answer, or its refusal.
    Body { status: u16, body: Cow<'a, str> },
    /// The gateway's own error.
    Error { code: Cow<'a, str>, message: Cow<'a, str> },
}

/// Puts the answer of a detached request aside; its record must not be written before. If the disk does not take it, the
/// request goes on: its answer is lost only if the gateway is killed, too.
pub(super) fn put(services: &Services, record: &Record, result: &Result<FinalPart, RequestError>) {
    let id = &record.request_id;
    let Some(path) = path_of(services, id) else {
        return;
    };
    let durability = record.snapshot.config.gateway.startup.ledger_durability;
    let kept = match result {
        Ok(FinalPart::Body { status, body, .. } | FinalPart::Refused { status, body, .. }) => {
            let Ok(body) = std::str::from_utf8(body) else { return };
            Kept::Body {
                status: *status,
                body: body.into(),
            }
        }
        Ok(FinalPart::StreamEnd(_) | FinalPart::Relayed { .. }) => return,
        Err(error) => Kept::Error {
            code: error.code.name().into(),
            message: (&*error.message).into(),
        },
    };
    let written = serde_json::to_vec(&kept)
        .map_err(io::Error::from)
        .and_then(|text| write(&path, &text, durability == Durability::Synced));
    if let Err(error) = written {
        tracing::warn!(%error, request_id = id, "an answer not put aside before its record");
    }
}

/// Writes a file whole or not at all.
fn write(path: &Path, text: &[u8], is_synced: bool) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = match File::create(&new) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(path.parent().unwrap_or(path))?;
            File::create(&new)?
        }
        created => created?,
    };
    file.write_all(text)?;
    if is_synced {
        file.sync_data()?;
    }
    fs::rename(&new, path)?;
    if is_synced && let Some(dir) = path.parent() {
        File::open(dir)?.sync_all()?;
    }
    Ok(())
}

/// The answer that was put aside for a request, if there is one.
pub(super) async fn find(services: &Services, id: &str) -> Option<Result<FinalPart, RequestError>> {
    let text = tokio::fs::read(path_of(services, id)?).await.ok()?;
    let kept: Kept<'_> = serde_json::from_slice(&text).ok()?;
    Some(match kept {
        Kept::Body { status, body } => Ok(FinalPart::Body {
            status,
            content_type: Bytes::from_static(b"application/json"),
            body: body.into_owned().into(),
        }),
        Kept::Error { code, message } => {
            let code = ErrorCode::from_name(&code).unwrap_or(ErrorCode::UpstreamError);
            Err(RequestError::new(code, message.into_owned()))
        }
    })
}

/// Removes the answer that was put aside for a request: it is kept elsewhere now.
pub(crate) async fn remove(services: &Services, id: &str) {
    let Some(path) = path_of(services, id) else { return };
    match tokio::fs::remove_file(path).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, request_id = id, "an answer that was put aside not removed");
        }
        _ => {}
    }
}

/// Removes what a kill has left of stored requests whose answers were kept already.
pub(super) async fn remove_finished(services: &Services) -> Result<(), ledger::Error> {
    let Ok(mut files) = tokio::fs::read_dir(dir(services)).await else {
        return Ok(());
    };
    while let Ok(Some(file)) = files.next_entry().await {
        let name = file.file_name();
        // Lines of batches are removed by their batch.
        let Some(id) = name.to_str().filter(|name| !name.starts_with("batch_")) else {
            continue;
        };
        let state = jobs::find(services.ledger.store(), None, id).await?;
        if !matches!(state, Some(JobState::Unfinished { .. })) {
            remove(services, id).await;
        }
    }
    Ok(())
}

fn dir(services: &Services) -> PathBuf {
    services.current.get().config.gateway.startup.data_dir.join("answers")
}

/// The file of a request's answer; `None` for an id that is no plain file name.
fn path_of(services: &Services, id: &str) -> Option<PathBuf> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (!id.is_empty() && id.bytes().all(is_plain)).then(|| dir(services).join(id))
}
