//! The table `jobs`: requests that go on without a client, so that neither they nor their answers are lost when the
//! gateway stops or is killed. A job is found by its project and its request's id.

use crate::error::Error;
use crate::id::{GatewayId, RequestId};
use crate::members;
use crate::store::{Store, Timed};
use policy::{Class, Priority};
use serde_json::Value;
use sqlx::Row;
use sqlx::any::AnyRow;

/// Answers are kept for so long, in milliseconds; then the ledger's writer deletes them.
pub(crate) const KEEP_MS: i64 = 24 * 3_600_000;

/// A request to be done.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// The request's id.
    pub id: RequestId,
    /// The endpoint that it was sent to.
    pub endpoint: String,
    /// Its user.
    pub user_id: String,
    /// Its project.
    pub project_id: String,
    /// The key that it came with.
    pub key_id: Option<String>,
    /// Interactive or batch.
    pub class: Class,
    /// Its priority.
    pub priority: Priority,
    /// The request's body.
    pub body: Vec<u8>,
    /// The number of times that it was forwarded to a server.
    pub attempts: i64,
    /// The stored response that it goes on from; its body has what that one and those before it say.
    pub previous_response_id: Option<String>,
    /// Its own input as JSON, if its response is to be stored.
    pub kept_input: Option<String>,
    /// Raised whenever a gateway claims it.
    pub epoch: i64,
}

/// The state of a job.
#[derive(Debug, PartialEq)]
pub enum JobState {
    /// Not answered yet.
    Unfinished {
        /// The request's body.
        body: Vec<u8>,
        /// When it came, in milliseconds since 1970.
        created_at_ms: i64,
        /// The stored response that it goes on from.
        previous_response_id: Option<String>,
        /// True if its response is to be stored.
        is_kept: bool,
        /// True if it was forwarded to a server by the gateway that has it.
        is_running: bool,
    },
    /// Answered.
    Finished(Value),
}

/// Adds a job.
///
/// # Errors
/// When the database fails, or has a job of this id already.
pub async fn add(store: &Store, owner: &GatewayId, job: &Job, now_ms: i64) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO jobs (id, owner, user_id, project_id, key_id, request_type, priority, body, attempts, \
         created_at, endpoint, previous_response_id, kept_input) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
    )
    .bind(job.id.as_str())
    .bind(owner.as_str())
    .bind(&job.user_id)
    .bind(&job.project_id)
    .bind(&job.key_id)
    .bind(job.class.name())
    .bind(job.priority.name())
    .bind(&job.body)
    .bind(job.attempts)
    .bind(now_ms)
    .bind(&job.endpoint)
    .bind(&job.previous_response_id)
    .bind(&job.kept_input)
    .execute(&store.pool())
    .timed(store)
    .await?;
    Ok(())
}

/// Counts an attempt of the gateway that has the job in an epoch: it is about to be forwarded to a server.
///
/// # Errors
/// When the database fails.
pub async fn count_attempt(store: &Store, project: &str, id: &str, epoch: i64) -> Result<(), Error> {
    let sql = "UPDATE jobs SET attempts = attempts + 1, forwarded_in = epoch \
        WHERE project_id = $1 AND id = $2 AND epoch = $3";
    sqlx::query(sql)
        .bind(project)
        .bind(id)
        .bind(epoch)
        .execute(&store.pool())
        .timed(store)
        .await?;
    Ok(())
}

/// Takes back a begun attempt, which did not end by a fault of the job.
///
/// # Errors
/// When the database fails.
pub async fn forget_attempt(store: &Store, project: &str, id: &str, epoch: i64) -> Result<(), Error> {
    sqlx::query(
        "UPDATE jobs SET attempts = attempts - 1, forwarded_in = -1 \
         WHERE project_id = $1 AND id = $2 AND epoch = $3 AND attempts > 0",
    )
    .bind(project)
    .bind(id)
    .bind(epoch)
    .execute(&store.pool())
    .timed(store)
    .await?;
    Ok(())
}

/// The state of a job; of any project's if none is given, which is for operators.
///
/// # Errors
/// When the database fails.
pub async fn find(store: &Store, project: Option<&str>, id: &str) -> Result<Option<JobState>, Error> {
    let found = sqlx::query(
        "SELECT answer, body, created_at, previous_response_id, kept_input, epoch, forwarded_in FROM jobs \
         WHERE id = $1 AND project_id = COALESCE($2, project_id)",
    )
    .bind(id)
    .bind(project)
    .fetch_optional(&store.pool())
    .timed(store)
    .await?;
    let Some(row) = found else { return Ok(None) };
    let answer: Option<String> = row.try_get("answer")?;
    Ok(Some(match answer {
        Some(answer) => JobState::Finished(serde_json::from_str(&answer).map_err(Error::invalid)?),
        None => JobState::Unfinished {
            body: row.try_get("body")?,
            created_at_ms: row.try_get("created_at")?,
            previous_response_id: row.try_get("previous_response_id")?,
            is_kept: row.try_get::<Option<String>, _>("kept_input")?.is_some(),
            is_running: row.try_get::<i64, _>("epoch")? == row.try_get::<i64, _>("forwarded_in")?,
        },
    }))
}

/// Deletes a finished job; false if there is none. `project` as in [`find`].
///
/// # Errors
/// When the database fails.
pub async fn delete(store: &Store, project: Option<&str>, id: &str) -> Result<bool, Error> {
    let deleted = sqlx::query(
        "DELETE FROM jobs WHERE id = $1 AND finished_at IS NOT NULL AND project_id = COALESCE($2, project_id)",
    )
    .bind(id)
    .bind(project)
    .execute(&store.pool())
    .timed(store)
    .await?;
    Ok(deleted.rows_affected() > 0)
}

/// Marks an unfinished job as to be cancelled by the gateway that has it; false if there is none. `project` as in [`find`].
///
/// # Errors
/// When the database fails.
pub async fn cancel(store: &Store, project: Option<&str>, id: &str) -> Result<bool, Error> {
    let marked = sqlx::query(
        "UPDATE jobs SET cancelled = 1 WHERE id = $1 AND finished_at IS NULL AND project_id = COALESCE($2, project_id)",
    )
    .bind(id)
    .bind(project)
    .execute(&store.pool())
    .timed(store)
    .await?;
    Ok(marked.rows_affected() > 0)
}

/// The ids of a gateway's jobs that are to be cancelled.
///
/// # Errors
/// When the database fails.
pub async fn to_cancel(store: &Store, owner: &GatewayId) -> Result<Vec<String>, Error> {
    let select = sqlx::query("SELECT id FROM jobs WHERE finished_at IS NULL AND cancelled = 1 AND owner = $1");
    let rows = select
        .bind(owner.as_str())
        .fetch_all(&store.pool())
        .timed(store)
        .await?;
    let ids = rows.iter().map(|row| row.try_get("id").map_err(Error::from));
    ids.collect()
}

const CLAIMED: &str = "id, endpoint, user_id, project_id, key_id, request_type, priority, body, attempts, created_at, \
    previous_response_id, kept_input, epoch";

/// Claims the unfinished jobs of a gateway that has ended, oldest first, in one statement: of two that claim, one gets
/// a job.
///
/// # Errors
/// When the database fails, or a job has a value that this version does not know.
pub async fn claim(store: &Store, from: &GatewayId, to: &GatewayId) -> Result<Vec<Job>, Error> {
    let sql = format!(
        "UPDATE jobs SET owner = $1, epoch = epoch + 1 WHERE owner = $2 AND finished_at IS NULL RETURNING {CLAIMED}"
    );
    let claim = sqlx::query(&sql).bind(to.as_str()).bind(from.as_str());
    oldest_first(&claim.fetch_all(&store.pool()).timed(store).await?)
}

/// Claims some unfinished jobs of gateways that are silent or gone, oldest first.
///
/// # Errors
/// As for [`claim`].
pub async fn take_over(store: &Store, to: &GatewayId, limit: i64) -> Result<Vec<Job>, Error> {
    let sql = format!(
        "UPDATE jobs SET owner = $1, epoch = epoch + 1 WHERE id IN ({}) RETURNING {CLAIMED}",
        members::abandoned("jobs")
    );
    let claim = sqlx::query(&sql).bind(to.as_str()).bind(limit);
    oldest_first(&claim.fetch_all(&store.pool()).timed(store).await?)
}

/// The ids of a gateway's unfinished jobs.
///
/// # Errors
/// When the database fails.
pub async fn owned(store: &Store, owner: &GatewayId) -> Result<Vec<String>, Error> {
    let sql = members::owned("jobs");
    let rows = sqlx::query(&sql).bind(owner.as_str());
    let rows = rows.fetch_all(&store.pool()).timed(store).await?;
    let ids = rows.iter().map(|row| row.try_get("id").map_err(Error::from));
    ids.collect()
}

/// Claims one of a gateway's own unfinished jobs anew; `None` if it has ended, or is another's.
///
/// # Errors
/// As for [`claim`].
pub async fn claim_again(store: &Store, owner: &GatewayId, id: &str) -> Result<Option<Job>, Error> {
    let sql = format!(
        "UPDATE jobs SET epoch = epoch + 1 WHERE id = $2 AND owner = $1 AND finished_at IS NULL RETURNING {CLAIMED}"
    );
    let claim = sqlx::query(&sql).bind(owner.as_str()).bind(id);
    let row = claim.fetch_optional(&store.pool()).timed(store).await?;
    row.as_ref().map(job).transpose()
}

/// Sets one of a gateway's own unfinished jobs free, for any other.
///
/// # Errors
/// When the database fails.
pub async fn release(store: &Store, owner: &GatewayId, id: &str) -> Result<(), Error> {
    let sql = members::release("jobs");
    let release = sqlx::query(&sql).bind(owner.as_str()).bind(id);
    release.execute(&store.pool()).timed(store).await?;
    Ok(())
}

fn oldest_first(rows: &[AnyRow]) -> Result<Vec<Job>, Error> {
    let mut jobs = Vec::with_capacity(rows.len());
    for row in rows {
        jobs.push((row.try_get::<i64, _>("created_at")?, job(row)?));
    }
    jobs.sort_by_key(|(created_at, _)| *created_at);
    Ok(jobs.into_iter().map(|(_, job)| job).collect())
}

fn job(row: &AnyRow) -> Result<Job, Error> {
    Ok(Job {
        id: row.try_get::<String, _>("id")?.into(),
        endpoint: row.try_get("endpoint")?,
        user_id: row.try_get("user_id")?,
        project_id: row.try_get("project_id")?,
        key_id: row.try_get("key_id")?,
        class: row
            .try_get::<String, _>("request_type")?
            .parse()
            .map_err(Error::invalid)?,
        priority: row.try_get::<String, _>("priority")?.parse().map_err(Error::invalid)?,
        body: row.try_get("body")?,
        attempts: row.try_get("attempts")?,
        previous_response_id: row.try_get("previous_response_id")?,
        kept_input: row.try_get("kept_input")?,
        epoch: row.try_get("epoch")?,
    })
}
