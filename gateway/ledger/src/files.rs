//! The table `files`: what clients have uploaded, and what batches have written. Contents lie elsewhere. A file is
//! found by its project and its id.

use crate::error::Error;
use crate::id::FileId;
use crate::state::FilePurpose;
use crate::store::{Store, Timed};
use sqlx::Row;
use sqlx::any::AnyRow;

/// A file, but for its contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its id.
    pub id: FileId,
    /// Its project.
    pub project_id: String,
    /// The name that its owner gave it.
    pub filename: String,
    /// Its purpose.
    pub purpose: FilePurpose,
    /// Its size.
    pub bytes: i64,
    /// Seconds since 1970.
    pub created_at: i64,
    /// When it is deleted, in seconds since 1970; `None`: never.
    pub expires_at: Option<i64>,
}

const SELECT: &str = "SELECT id, project_id, filename, purpose, bytes, created_at, expires_at FROM files";

/// At time $2; the first parameter is the project.
const NOT_EXPIRED: &str = "(expires_at IS NULL OR expires_at > $2)";

/// Adds a file; of one that is there, only the size changes, and only for its own project.
///
/// # Errors
/// When the database fails.
pub async fn add(store: &Store, file: &File) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO files (id, project_id, filename, purpose, bytes, created_at, expires_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) \
         ON CONFLICT (id) DO UPDATE SET bytes = excluded.bytes WHERE files.project_id = excluded.project_id",
    )
    .bind(file.id.as_str())
    .bind(&file.project_id)
    .bind(&file.filename)
    .bind(file.purpose.name())
    .bind(file.bytes)
    .bind(file.created_at)
    .bind(file.expires_at)
    .execute(&store.pool())
    .timed(store)
    .await?;
    Ok(())
}

/// A project's files that have not expired, newest first, at most 10,000.
///
/// # Errors
/// When the database fails.
pub async fn list(store: &Store, project: &str, now: i64) -> Result<Vec<File>, Error> {
    let rows = sqlx::query(&format!(
        "{SELECT} WHERE project_id = $1 AND {NOT_EXPIRED} ORDER BY created_at DESC, id LIMIT 10000"
    ))
    .bind(project)
    .bind(now)
    .fetch_all(&store.pool())
    .timed(store)
    .await?;
    rows.iter().map(file).collect()
}

/// A project's file, unless it has expired.
///
/// # Errors
/// When the database fails.
pub async fn find(store: &Store, project: &str, id: &str, now: i64) -> Result<Option<File>, Error> {
    let row = sqlx::query(&format!("{SELECT} WHERE project_id = $1 AND {NOT_EXPIRED} AND id = $3"))
        .bind(project)
        .bind(now)
        .bind(id)
        .fetch_optional(&store.pool())
        .timed(store)
        .await?;
    row.as_ref().map(file).transpose()
}

/// Deletes a project's file.
///
/// # Errors
/// When the database fails.
pub async fn delete(store: &Store, project: &str, id: &str) -> Result<(), Error> {
    sqlx::query("DELETE FROM files WHERE project_id = $1 AND id = $2")
        .bind(project)
        .bind(id)
        .execute(&store.pool())
        .timed(store)
        .await?;
    Ok(())
}

/// At most `limit` files of all projects that have expired, by their ids, from the one after `after` on; without the
/// inputs of batches that have not ended.
///
/// # Errors
/// When the database fails.
pub async fn expired(store: &Store, now: i64, after: Option<&str>, limit: i64) -> Result<Vec<File>, Error> {
    let rows = sqlx::query(&format!(
        "{SELECT} WHERE expires_at <= $1 AND id > $2 \
         AND id NOT IN (SELECT input_file_id FROM batches WHERE finished_at IS NULL) ORDER BY id LIMIT $3"
    ))
    .bind(now)
    .bind(after.unwrap_or_default())
    .bind(limit)
    .fetch_all(&store.pool())
    .timed(store)
    .await?;
    rows.iter().map(file).collect()
}

/// Gives files that have no expiry one, so many seconds after they were made.
///
/// # Errors
/// When the database fails.
pub async fn expire_by_default(store: &Store, keep_seconds: i64) -> Result<(), Error> {
    sqlx::query("UPDATE files SET expires_at = created_at + $1 WHERE expires_at IS NULL")
        .bind(keep_seconds)
        .execute(&store.pool())
        .timed(store)
        .await?;
    Ok(())
}

fn file(row: &AnyRow) -> Result<File, Error> {
    Ok(File {
        id: row.try_get::<String, _>("id")?.into(),
        project_id: row.try_get("project_id")?,
        filename: row.try_get("filename")?,
        purpose: row.try_get::<String, _>("purpose")?.parse()?,
        bytes: row.try_get("bytes")?,
        created_at: row.try_get("created_at")?,
        expires_at: row.try_get("expires_at")?,
    })
}

#[cfg(test)]
mod tests;
