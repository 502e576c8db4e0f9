//! The table `batches`. A batch is found by its project and its id.

use crate::error::Error;
use crate::files::{self, File};
use crate::id::{BatchId, FileId, GatewayId};
use crate::members;
use crate::page::Page;
use crate::state::BatchStatus;
use crate::store::{Store, Timed};
use policy::Priority;
use sqlx::Row;
use sqlx::any::AnyRow;

/// A batch and how far it has come. Times are seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Its id.
    pub id: BatchId,
    /// Its user.
    pub user_id: String,
    /// Its project.
    pub project_id: String,
    /// The key that it came with.
    pub key_id: Option<String>,
    /// The priority of its requests.
    pub priority: Priority,
    /// The endpoint of its requests.
    pub endpoint: String,
    /// The requests.
    pub input_file_id: FileId,
    /// The answers.
    pub output_file_id: Option<FileId>,
    /// The requests that failed.
    pub error_file_id: Option<FileId>,
    /// Its time limit, as it was requested.
    pub completion_window: String,
    /// Its state.
    pub status: BatchStatus,
    /// Why it could not begin, as JSON.
    pub problems: Option<String>,
    /// The client's own, as JSON.
    pub metadata: Option<String>,
    /// Its requests.
    pub total: i64,
    /// Its requests that were answered.
    pub completed: i64,
    /// Its requests that failed.
    pub failed: i64,
    /// When it came.
    pub created_at: i64,
    /// The end of its completion window.
    pub expires_at: i64,
    /// When it ended.
    pub finished_at: Option<i64>,
    /// Retention of its output and error files, in seconds; `None`: as other files.
    pub output_expires_seconds: Option<i64>,
    /// Raised whenever a gateway claims it.
    pub epoch: i64,
}

const COLUMNS: &str = "id, user_id, project_id, key_id, priority, endpoint, input_file_id, output_file_id, \
    error_file_id, completion_window, status, problems, metadata, total, completed, failed, created_at, expires_at, \
    finished_at, output_expires_seconds, epoch";

/// Adds a batch, unless its project has `most` that have not ended; whether it was added.
///
/// # Errors
/// When the database fails, or has a batch of this id already.
pub async fn add(store: &Store, owner: &GatewayId, batch: &Batch, most: usize) -> Result<bool, Error> {
    let mut transaction = store.pool().begin().timed(store).await?;
    store.lock_project(&mut transaction, &batch.project_id).await?;
    let added = sqlx::query(
        "INSERT INTO batches (id, owner, user_id, project_id, key_id, priority, endpoint, input_file_id, \
         completion_window, status, metadata, total, completed, failed, created_at, expires_at, \
         output_expires_seconds) SELECT $1, $2, $3, $4, CAST($5 AS TEXT), $6, $7, $8, $9, $10, CAST($11 AS TEXT), 0, 0, 0, \
         $12, $13, CAST($14 AS BIGINT) \
         WHERE (SELECT COUNT(*) FROM batches WHERE project_id = $4 AND finished_at IS NULL) < $15",
    )
    .bind(batch.id.as_str())
    .bind(owner.as_str())
    .bind(&batch.user_id)
    .bind(&batch.project_id)
    .bind(&batch.key_id)
    .bind(batch.priority.name())
    .bind(&batch.endpoint)
    .bind(batch.input_file_id.as_str())
    .bind(&batch.completion_window)
    .bind(batch.status.name())
    .bind(&batch.metadata)
    .bind(batch.created_at)
    .bind(batch.expires_at)
    .bind(batch.output_expires_seconds)
    .bind(i64::try_from(most).unwrap_or(i64::MAX))
    .execute(&mut *transaction)
    .timed(store)
    .await?;
    transaction.commit().timed(store).await?;
    Ok(added.rows_affected() > 0)
}

/// Notes that a batch runs, and its counts; false if it has ended, or the gateway does not have it any more. One that is
/// to be cancelled stays so.
///
/// # Errors
/// When the database fails.
pub async fn begin(store: &Store, owner: &GatewayId, batch: &Batch) -> Result<bool, Error> {
    let begun = sqlx::query(
        "UPDATE batches SET status = CASE status WHEN $1 THEN status ELSE $2 END, total = $3, completed = $4, failed = $5 \
         WHERE project_id = $6 AND id = $7 AND owner = $8 AND epoch = $9 AND finished_at IS NULL",
    )
    .bind(BatchStatus::Cancelling.name())
    .bind(BatchStatus::InProgress.name())
    .bind(batch.total)
    .bind(batch.completed)
    .bind(batch.failed)
    .bind(&batch.project_id)
    .bind(batch.id.as_str())
    .bind(owner.as_str())
    .bind(batch.epoch)
    .execute(&store.pool())
    .timed(store)
    .await?;
    Ok(begun.rows_affected() > 0)
}

/// Marks a batch as to be cancelled, unless it has ended.
///
/// # Errors
/// When the database fails.
pub async fn cancel(store: &Store, project: &str, id: &str) -> Result<(), Error> {
    sqlx::query("UPDATE batches SET status = $1 WHERE project_id = $2 AND id = $3 AND finished_at IS NULL")
        .bind(BatchStatus::Cancelling.name())
        .bind(project)
        .bind(id)
        .execute(&store.pool())
        .timed(store)
        .await?;
    Ok(())
}

/// The ids of a gateway's batches that are to be cancelled.
///
/// # Errors
/// When the database fails.
pub async fn to_cancel(store: &Store, owner: &GatewayId) -> Result<Vec<String>, Error> {
    let select = sqlx::query("SELECT id FROM batches WHERE finished_at IS NULL AND status = $1 AND owner = $2");
    let select = select.bind(BatchStatus::Cancelling.name()).bind(owner.as_str());
    let rows = select.fetch_all(&store.pool()).timed(store).await?;
    let ids = rows.iter().map(|row| row.try_get("id").map_err(Error::from));
    ids.collect()
}

/// Ends a batch with its files; false, and nothing is changed, if it has ended, or the gateway does not have it any more.
///
/// # Errors
/// When the database fails.
pub async fn end(store: &Store, owner: &GatewayId, batch: &Batch, files: &[File]) -> Result<bool, Error> {
    let mut transaction = store.pool().begin().timed(store).await?;
    let ended = sqlx::query(
        "UPDATE batches SET status = $1, problems = $2, output_file_id = $3, error_file_id = $4, finished_at = $5 \
         WHERE project_id = $6 AND id = $7 AND owner = $8 AND epoch = $9 AND finished_at IS NULL",
    )
    .bind(batch.status.name())
    .bind(&batch.problems)
    .bind(batch.output_file_id.as_deref())
    .bind(batch.error_file_id.as_deref())
    .bind(batch.finished_at)
    .bind(&batch.project_id)
    .bind(batch.id.as_str())
    .bind(owner.as_str())
    .bind(batch.epoch)
    .execute(&mut *transaction)
    .timed(store)
    .await?;
    if ended.rows_affected() == 0 {
        return Ok(false);
    }
    for file in files {
        files::insert(&mut transaction, file).timed(store).await?;
    }
    transaction.commit().timed(store).await?;
    Ok(true)
}

/// A project's batch.
///
/// # Errors
/// When the database fails.
pub async fn find(store: &Store, project: &str, id: &str) -> Result<Option<Batch>, Error> {
    let row = sqlx::query(&format!(
        "SELECT {COLUMNS} FROM batches WHERE project_id = $1 AND id = $2"
    ))
    .bind(project)
    .bind(id)
    .fetch_optional(&store.pool())
    .timed(store)
    .await?;
    row.as_ref().map(batch).transpose()
}

/// A page of a project's batches.
///
/// # Errors
/// When the database fails.
pub async fn page(store: &Store, project: &str, page: &Page<'_>) -> Result<Vec<Batch>, Error> {
    let statement = format!(
        "SELECT {COLUMNS} FROM batches WHERE project_id = $1 AND {}",
        page.clause(2)
    );
    let query = page.bind(sqlx::query(&statement).bind(project));
    let rows = query.fetch_all(&store.pool()).timed(store).await?;
    rows.iter().map(batch).collect()
}

/// Deletes the oldest of a project's batches that have ended, but for the newest `keep`; at most `limit` at once. Their
/// files, records and sums stay.
///
/// # Errors
/// When the database fails.
pub async fn delete_oldest(store: &Store, project: &str, keep: i64, limit: i64) -> Result<u64, Error> {
    let deleted = sqlx::query(
        "DELETE FROM batches WHERE id IN (SELECT id FROM batches WHERE project_id = $1 AND finished_at IS NOT NULL \
         ORDER BY created_at DESC, id DESC LIMIT $2 OFFSET $3)",
    )
    .bind(project)
    .bind(limit)
    .bind(keep)
    .execute(&store.pool())
    .timed(store)
    .await?;
    Ok(deleted.rows_affected())
}

/// The batches of all projects, newest first.
///
/// # Errors
/// When the database fails.
pub async fn newest(store: &Store, limit: i64) -> Result<Vec<Batch>, Error> {
    let rows = sqlx::query(&format!(
        "SELECT {COLUMNS} FROM batches ORDER BY created_at DESC, id LIMIT $1"
    ))
    .bind(limit)
    .fetch_all(&store.pool())
    .timed(store)
    .await?;
    rows.iter().map(batch).collect()
}

/// Claims the unfinished batches of a gateway that has ended, oldest first, in one statement: of two that claim, one
/// gets a batch.
///
/// # Errors
/// When the database fails, or a batch has a value that this version does not know.
pub async fn claim(store: &Store, from: &GatewayId, to: &GatewayId) -> Result<Vec<Batch>, Error> {
    let sql = format!(
        "UPDATE batches SET owner = $1, epoch = epoch + 1 WHERE owner = $2 AND finished_at IS NULL RETURNING {COLUMNS}"
    );
    let claim = sqlx::query(&sql).bind(to.as_str()).bind(from.as_str());
    oldest_first(&claim.fetch_all(&store.pool()).timed(store).await?)
}

/// Claims some unfinished batches of gateways that are silent or gone, oldest first.
///
/// # Errors
/// As for [`claim`].
pub async fn take_over(store: &Store, to: &GatewayId, limit: i64) -> Result<Vec<Batch>, Error> {
    let sql = format!(
        "UPDATE batches SET owner = $1, epoch = epoch + 1 WHERE id IN ({}) RETURNING {COLUMNS}",
        members::abandoned("batches")
    );
    let claim = sqlx::query(&sql).bind(to.as_str()).bind(limit);
    oldest_first(&claim.fetch_all(&store.pool()).timed(store).await?)
}

/// The ids of a gateway's unfinished batches.
///
/// # Errors
/// When the database fails.
pub async fn owned(store: &Store, owner: &GatewayId) -> Result<Vec<String>, Error> {
    let sql = members::owned("batches");
    let rows = sqlx::query(&sql).bind(owner.as_str());
    let rows = rows.fetch_all(&store.pool()).timed(store).await?;
    let ids = rows.iter().map(|row| row.try_get("id").map_err(Error::from));
    ids.collect()
}

/// Claims one of a gateway's own unfinished batches anew; `None` if it has ended, or is another's.
///
/// # Errors
/// As for [`claim`].
pub async fn claim_again(store: &Store, owner: &GatewayId, id: &str) -> Result<Option<Batch>, Error> {
    let sql = format!(
        "UPDATE batches SET epoch = epoch + 1 WHERE id = $2 AND owner = $1 AND finished_at IS NULL RETURNING {COLUMNS}"
    );
    let claim = sqlx::query(&sql).bind(owner.as_str()).bind(id);
    let row = claim.fetch_optional(&store.pool()).timed(store).await?;
    row.as_ref().map(batch).transpose()
}

/// Sets one of a gateway's own unfinished batches free, for any other.
///
/// # Errors
/// When the database fails.
pub async fn release(store: &Store, owner: &GatewayId, id: &str) -> Result<(), Error> {
    let sql = members::release("batches");
    let release = sqlx::query(&sql).bind(owner.as_str()).bind(id);
    release.execute(&store.pool()).timed(store).await?;
    Ok(())
}

fn oldest_first(rows: &[AnyRow]) -> Result<Vec<Batch>, Error> {
    let mut batches = rows.iter().map(batch).collect::<Result<Vec<_>, _>>()?;
    batches.sort_by_key(|batch| batch.created_at);
    Ok(batches)
}

/// Deletes at most `limit` batches that had ended at a time; how many. Their records and sums stay.
///
/// # Errors
/// When the database fails.
pub async fn delete_finished(store: &Store, at: i64, limit: i64) -> Result<u64, Error> {
    let deleted = sqlx::query(
        "DELETE FROM batches WHERE id IN (SELECT id FROM batches WHERE finished_at <= $1 ORDER BY finished_at LIMIT $2)",
    )
    .bind(at)
    .bind(limit)
    .execute(&store.pool())
    .timed(store)
    .await?;
    Ok(deleted.rows_affected())
}

fn batch(row: &AnyRow) -> Result<Batch, Error> {
    let file = |name: &str| Ok::<_, Error>(row.try_get::<Option<String>, _>(name)?.map(FileId::from));
    Ok(Batch {
        id: row.try_get::<String, _>("id")?.into(),
        user_id: row.try_get("user_id")?,
        project_id: row.try_get("project_id")?,
        key_id: row.try_get("key_id")?,
        priority: row.try_get::<String, _>("priority")?.parse().map_err(Error::invalid)?,
        endpoint: row.try_get("endpoint")?,
        input_file_id: row.try_get::<String, _>("input_file_id")?.into(),
        output_file_id: file("output_file_id")?,
        error_file_id: file("error_file_id")?,
        completion_window: row.try_get("completion_window")?,
        status: row.try_get::<String, _>("status")?.parse()?,
        problems: row.try_get("problems")?,
        metadata: row.try_get("metadata")?,
        total: row.try_get("total")?,
        completed: row.try_get("completed")?,
        failed: row.try_get("failed")?,
        created_at: row.try_get("created_at")?,
        expires_at: row.try_get("expires_at")?,
        finished_at: row.try_get("finished_at")?,
        output_expires_seconds: row.try_get("output_expires_seconds")?,
        epoch: row.try_get("epoch")?,
    })
}
