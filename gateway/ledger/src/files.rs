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
    /// What it is for.
    pub purpose: FilePurpose,
    /// Its size.
    pub bytes: i64,
    /// Seconds since 1970.
    pub created_at: i64,
}

const SELECT: &str = "SELECT id, project_id, filename, purpose, bytes, created_at FROM files";

/// Adds a file; of one that is there, only the size changes, and only for its own project.
///
/// # Errors
/// When the database fails.
pub async fn add(store: &Store, file: &File) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO files (id, project_id, filename, purpose, bytes, created_at) VALUES ($1, $2, $3, $4, $5, $6) \
         ON CONFLICT (id) DO UPDATE SET bytes = excluded.bytes WHERE files.project_id = excluded.project_id",
    )
    .bind(file.id.as_str())
    .bind(&file.project_id)
    .bind(&file.filename)
    .bind(file.purpose.name())
    .bind(file.bytes)
    .bind(file.created_at)
    .execute(&store.pool())
    .timed(store)
    .await?;
    Ok(())
}

/// A project's files, newest first, at most 10,000.
///
/// # Errors
/// When the database fails.
pub async fn list(store: &Store, project: &str) -> Result<Vec<File>, Error> {
    let rows = sqlx::query(&format!(
        "{SELECT} WHERE project_id = $1 ORDER BY created_at DESC, id LIMIT 10000"
    ))
    .bind(project)
    .fetch_all(&store.pool())
    .timed(store)
    .await?;
    rows.iter().map(file).collect()
}

/// A project's file.
///
/// # Errors
/// When the database fails.
pub async fn find(store: &Store, project: &str, id: &str) -> Result<Option<File>, Error> {
    let row = sqlx::query(&format!("{SELECT} WHERE project_id = $1 AND id = $2"))
        .bind(project)
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

fn file(row: &AnyRow) -> Result<File, Error> {
    Ok(File {
        id: row.try_get::<String, _>("id")?.into(),
        project_id: row.try_get("project_id")?,
        filename: row.try_get("filename")?,
        purpose: row.try_get::<String, _>("purpose")?.parse()?,
        bytes: row.try_get("bytes")?,
        created_at: row.try_get("created_at")?,
    })
}
