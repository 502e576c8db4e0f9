//! The table `files`: what clients have uploaded, and what batches have written; [`contents`] has what is in them. A file
//! is found by its project and its id.

use crate::contents;
use crate::error::Error;
use crate::id::FileId;
use crate::page::Page;
use crate::state::FilePurpose;
use crate::store::{Store, Timed};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

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

/// A number of files and their bytes: the most that a project may have, or what it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileBounds {
    /// Files.
    pub count: i64,
    /// Bytes of all of them together.
    pub bytes: i64,
}

const SELECT: &str = "SELECT id, project_id, filename, purpose, bytes, created_at, expires_at FROM files";

/// At time $2; the first parameter is the project.
const NOT_EXPIRED: &str = "(expires_at IS NULL OR expires_at > $2)";

/// Adds a file whose contents are there.
pub(crate) async fn insert(connection: &mut AnyConnection, file: &File) -> Result<(), sqlx::Error> {
    let insert = sqlx::query(
        "INSERT INTO files (id, project_id, filename, purpose, bytes, created_at, expires_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    );
    insert
        .bind(file.id.as_str())
        .bind(&file.project_id)
        .bind(&file.filename)
        .bind(file.purpose.name())
        .bind(file.bytes)
        .bind(file.created_at)
        .bind(file.expires_at)
        .execute(connection)
        .await?;
    Ok(())
}

/// Adds a file with its contents, both or neither, unless its project's would then be more than the bounds; whether it was
/// added. What has expired does not count.
///
/// # Errors
/// When the database fails, or has a file of this id already.
pub async fn upload(store: &Store, file: &File, bounds: &FileBounds, contents: &[u8]) -> Result<bool, Error> {
    let all = "FROM files WHERE project_id = $2 AND (expires_at IS NULL OR expires_at > $6)";
    let mut transaction = store.pool().begin().timed(store).await?;
    store.lock_project(&mut transaction, &file.project_id).await?;
    let added = sqlx::query(&format!(
        "INSERT INTO files (id, project_id, filename, purpose, bytes, created_at, expires_at) \
         SELECT $1, $2, $3, $4, $5, $6, CAST($7 AS BIGINT) WHERE (SELECT COUNT(*) {all}) < $8 \
         AND (SELECT COALESCE(CAST(SUM(bytes) AS BIGINT), 0) {all}) <= $9 - $5"
    ))
    .bind(file.id.as_str())
    .bind(&file.project_id)
    .bind(&file.filename)
    .bind(file.purpose.name())
    .bind(file.bytes)
    .bind(file.created_at)
    .bind(file.expires_at)
    .bind(bounds.count)
    .bind(bounds.bytes)
    .execute(&mut *transaction)
    .timed(store)
    .await?;
    if added.rows_affected() == 0 {
        return Ok(false);
    }
    contents::insert_all(store, &mut transaction, &file.id, contents).await?;
    transaction.commit().timed(store).await?;
    Ok(true)
}

/// The number of a project's files that have not expired, and their bytes.
///
/// # Errors
/// When the database fails.
pub async fn usage(store: &Store, project: &str, now: i64) -> Result<FileBounds, Error> {
    let row = sqlx::query(&format!(
        "SELECT COUNT(*) AS files, COALESCE(CAST(SUM(bytes) AS BIGINT), 0) AS bytes FROM files \
         WHERE project_id = $1 AND {NOT_EXPIRED}"
    ))
    .bind(project)
    .bind(now)
    .fetch_one(&store.pool())
    .timed(store)
    .await?;
    Ok(FileBounds {
        count: row.try_get("files")?,
        bytes: row.try_get("bytes")?,
    })
}

/// A page of a project's files that have not expired, of one purpose or of all.
///
/// # Errors
/// When the database fails.
pub async fn page(
    store: &Store,
    project: &str,
    purpose: Option<FilePurpose>,
    now: i64,
    page: &Page<'_>,
) -> Result<Vec<File>, Error> {
    let statement = format!(
        "{SELECT} WHERE project_id = $1 AND {NOT_EXPIRED} AND ($3 = '' OR purpose = $3) AND {}",
        page.clause(4)
    );
    let query = sqlx::query(&statement)
        .bind(project)
        .bind(now)
        .bind(purpose.map_or("", FilePurpose::name));
    let rows = page.bind(query).fetch_all(&store.pool()).timed(store).await?;
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

/// Deletes a project's file, its contents first, so that none are left without a file.
///
/// # Errors
/// When the database fails.
pub async fn delete(store: &Store, project: &str, id: &str) -> Result<(), Error> {
    let file = "FROM files WHERE project_id = $1 AND id = $2";
    let select = format!("SELECT id {file}");
    let found = sqlx::query(&select).bind(project).bind(id);
    if found.fetch_optional(&store.pool()).timed(store).await?.is_none() {
        return Ok(());
    }
    contents::delete(store, id).await?;
    let delete = format!("DELETE {file}");
    let delete = sqlx::query(&delete).bind(project).bind(id);
    delete.execute(&store.pool()).timed(store).await?;
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

/// Returns whether there is a file of this id, whosever it is.
///
/// # Errors
/// When the database fails.
pub async fn exists(store: &Store, id: &str) -> Result<bool, Error> {
    let found = sqlx::query("SELECT id FROM files WHERE id = $1").bind(id);
    Ok(found.fetch_optional(&store.pool()).timed(store).await?.is_some())
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
