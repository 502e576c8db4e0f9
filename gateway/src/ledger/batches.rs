//! The tables `files` and `batches`.

use super::{Store, Unavailable};
use sqlx::Row;
use sqlx::any::AnyRow;
use std::borrow::Cow;

/// A file, but for its contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct File {
    pub(crate) id: String,
    pub(crate) project_id: String,
    pub(crate) filename: String,
    /// `batch` or `batch_output`.
    pub(crate) purpose: String,
    pub(crate) bytes: i64,
    /// Seconds since 1970.
    pub(crate) created_at: i64,
}

/// A batch and how far it has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) id: String,
    pub(crate) user_id: String,
    pub(crate) project_id: String,
    pub(crate) key_id: Option<String>,
    pub(crate) priority: String,
    pub(crate) endpoint: String,
    pub(crate) input_file_id: String,
    pub(crate) output_file_id: Option<String>,
    pub(crate) error_file_id: Option<String>,
    pub(crate) completion_window: String,
    /// `validating`, `in_progress`, `cancelling`, and how it ended: `completed`, `failed`, `expired`, `cancelled`.
    pub(crate) status: Cow<'static, str>,
    /// Why it could not begin, as JSON.
    pub(crate) problems: Option<String>,
    /// The client's own, as JSON.
    pub(crate) metadata: Option<String>,
    pub(crate) total: i64,
    pub(crate) completed: i64,
    pub(crate) failed: i64,
    pub(crate) created_at: i64,
    pub(crate) expires_at: i64,
    pub(crate) finished_at: Option<i64>,
}

const FILE: &str = "SELECT id, project_id, filename, purpose, bytes, created_at FROM files";

pub(crate) async fn add_file(store: &Store, file: &File) -> Result<(), Unavailable> {
    sqlx::query(
        "INSERT INTO files (id, project_id, filename, purpose, bytes, created_at) VALUES ($1, $2, $3, $4, $5, $6) \
         ON CONFLICT (id) DO UPDATE SET bytes = excluded.bytes",
    )
    .bind(&file.id)
    .bind(&file.project_id)
    .bind(&file.filename)
    .bind(&file.purpose)
    .bind(file.bytes)
    .bind(file.created_at)
    .execute(store)
    .await?;
    Ok(())
}

/// A project's files, newest first.
pub(crate) async fn files(store: &Store, project: &str) -> Result<Vec<File>, Unavailable> {
    let rows = sqlx::query(&format!(
        "{FILE} WHERE project_id = $1 ORDER BY created_at DESC, id LIMIT 10000"
    ))
    .bind(project)
    .fetch_all(store)
    .await?;
    rows.iter().map(|row| file_of(row).map_err(Unavailable::from)).collect()
}

pub(crate) async fn file(store: &Store, project: &str, id: &str) -> Result<Option<File>, Unavailable> {
    let row = sqlx::query(&format!("{FILE} WHERE project_id = $1 AND id = $2"))
        .bind(project)
        .bind(id)
        .fetch_optional(store)
        .await?;
    Ok(row.as_ref().map(file_of).transpose()?)
}

pub(crate) async fn delete_file(store: &Store, id: &str) -> Result<(), Unavailable> {
    sqlx::query("DELETE FROM files WHERE id = $1")
        .bind(id)
        .execute(store)
        .await?;
    Ok(())
}

fn file_of(row: &AnyRow) -> Result<File, sqlx::Error> {
    Ok(File {
        id: row.try_get("id")?,
        project_id: row.try_get("project_id")?,
        filename: row.try_get("filename")?,
        purpose: row.try_get("purpose")?,
        bytes: row.try_get("bytes")?,
        created_at: row.try_get("created_at")?,
    })
}

const BATCH: &str = "SELECT id, user_id, project_id, key_id, priority, endpoint, input_file_id, output_file_id, \
    error_file_id, completion_window, status, problems, metadata, total, completed, failed, created_at, expires_at, \
    finished_at FROM batches";

pub(crate) async fn add(store: &Store, owner: &str, batch: &Batch) -> Result<(), Unavailable> {
    sqlx::query(
        "INSERT INTO batches (id, owner, user_id, project_id, key_id, priority, endpoint, input_file_id, \
         completion_window, status, metadata, total, completed, failed, created_at, expires_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 0, 0, 0, $12, $13)",
    )
    .bind(&batch.id)
    .bind(owner)
    .bind(&batch.user_id)
    .bind(&batch.project_id)
    .bind(&batch.key_id)
    .bind(&batch.priority)
    .bind(&batch.endpoint)
    .bind(&batch.input_file_id)
    .bind(&batch.completion_window)
    .bind(batch.status.to_string())
    .bind(&batch.metadata)
    .bind(batch.created_at)
    .bind(batch.expires_at)
    .execute(store)
    .await?;
    Ok(())
}

/// Writes down how many requests of a batch are done; nothing else about it.
pub(crate) async fn count(store: &Store, id: &str, completed: i64, failed: i64) -> Result<(), Unavailable> {
    sqlx::query("UPDATE batches SET completed = $1, failed = $2 WHERE id = $3")
        .bind(completed)
        .bind(failed)
        .bind(id)
        .execute(store)
        .await?;
    Ok(())
}

/// Remembers that a batch is to be cancelled, unless it has ended.
pub(crate) async fn cancel(store: &Store, id: &str) -> Result<(), Unavailable> {
    sqlx::query("UPDATE batches SET status = 'cancelling' WHERE id = $1 AND finished_at IS NULL")
        .bind(id)
        .execute(store)
        .await?;
    Ok(())
}

/// Writes down what has become of a batch.
pub(crate) async fn update(store: &Store, batch: &Batch) -> Result<(), Unavailable> {
    sqlx::query(
        "UPDATE batches SET status = $1, problems = $2, output_file_id = $3, error_file_id = $4, total = $5, \
         completed = $6, failed = $7, finished_at = $8 WHERE id = $9",
    )
    .bind(batch.status.to_string())
    .bind(&batch.problems)
    .bind(&batch.output_file_id)
    .bind(&batch.error_file_id)
    .bind(batch.total)
    .bind(batch.completed)
    .bind(batch.failed)
    .bind(batch.finished_at)
    .bind(&batch.id)
    .execute(store)
    .await?;
    Ok(())
}

/// A project's batch.
pub(crate) async fn batch(store: &Store, project: &str, id: &str) -> Result<Option<Batch>, Unavailable> {
    let row = sqlx::query(&format!("{BATCH} WHERE project_id = $1 AND id = $2"))
        .bind(project)
        .bind(id)
        .fetch_optional(store)
        .await?;
    Ok(row.as_ref().map(batch_of).transpose()?)
}

/// A project's batches, newest first.
pub(crate) async fn batches(store: &Store, project: &str, limit: i64) -> Result<Vec<Batch>, Unavailable> {
    let rows = sqlx::query(&format!(
        "{BATCH} WHERE project_id = $1 ORDER BY created_at DESC, id LIMIT $2"
    ))
    .bind(project)
    .bind(limit)
    .fetch_all(store)
    .await?;
    rows.iter()
        .map(|row| batch_of(row).map_err(Unavailable::from))
        .collect()
}

/// The batches of this gateway that have not ended, oldest first.
pub(crate) async fn unfinished(store: &Store, owner: &str) -> Result<Vec<Batch>, Unavailable> {
    let rows = sqlx::query(&format!(
        "{BATCH} WHERE owner = $1 AND finished_at IS NULL ORDER BY created_at"
    ))
    .bind(owner)
    .fetch_all(store)
    .await?;
    rows.iter()
        .map(|row| batch_of(row).map_err(Unavailable::from))
        .collect()
}

fn batch_of(row: &AnyRow) -> Result<Batch, sqlx::Error> {
    Ok(Batch {
        id: row.try_get("id")?,
        user_id: row.try_get("user_id")?,
        project_id: row.try_get("project_id")?,
        key_id: row.try_get("key_id")?,
        priority: row.try_get("priority")?,
        endpoint: row.try_get("endpoint")?,
        input_file_id: row.try_get("input_file_id")?,
        output_file_id: row.try_get("output_file_id")?,
        error_file_id: row.try_get("error_file_id")?,
        completion_window: row.try_get("completion_window")?,
        status: Cow::Owned(row.try_get("status")?),
        problems: row.try_get("problems")?,
        metadata: row.try_get("metadata")?,
        total: row.try_get("total")?,
        completed: row.try_get("completed")?,
        failed: row.try_get("failed")?,
        created_at: row.try_get("created_at")?,
        expires_at: row.try_get("expires_at")?,
        finished_at: row.try_get("finished_at")?,
    })
}

/// What another gateway has left unfinished is this one's from now on.
pub(crate) async fn adopt(store: &Store, from: &str, to: &str) -> Result<(), Unavailable> {
    sqlx::query("UPDATE batches SET owner = $1 WHERE owner = $2 AND finished_at IS NULL")
        .bind(to)
        .bind(from)
        .execute(store)
        .await?;
    Ok(())
}
