//! The table `jobs`: requests that go on without a client, so that neither they nor their answers are lost when the
//! gateway stops or is killed.

use super::record::{class_name, class_named, priority_name, priority_named};
use super::{Store, Unavailable};
use policy::{Class, Priority};
use serde_json::Value;
use sqlx::Row;
use sqlx::any::AnyRow;
use std::collections::HashSet;

/// Answers are kept for so long, in milliseconds.
const KEEP_MS: i64 = 24 * 3_600_000;

/// A request to be done.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Job {
    /// The request's id.
    pub(crate) id: String,
    /// Where it was asked for.
    pub(crate) endpoint: String,
    pub(crate) user_id: String,
    pub(crate) project_id: String,
    pub(crate) key_id: Option<String>,
    pub(crate) class: Class,
    pub(crate) priority: Priority,
    pub(crate) body: Vec<u8>,
    /// How often it was begun.
    pub(crate) attempts: i64,
}

/// What is known of a job.
#[derive(Debug, PartialEq)]
pub(crate) enum Known {
    /// With the request, and when it came, in milliseconds.
    Waiting(Vec<u8>, i64),
    Done(Value),
}

/// Keeps a job. One with the same id is replaced: the newer request is the one that is asked for.
pub(crate) async fn add(store: &Store, owner: &str, job: &Job, now_ms: i64) -> Result<(), Unavailable> {
    sqlx::query(
        "INSERT INTO jobs (id, owner, user_id, project_id, key_id, request_type, priority, body, attempts, created_at, endpoint) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) \
         ON CONFLICT (id) DO UPDATE SET owner = excluded.owner, user_id = excluded.user_id, \
         project_id = excluded.project_id, key_id = excluded.key_id, request_type = excluded.request_type, \
         priority = excluded.priority, body = excluded.body, attempts = excluded.attempts, \
         created_at = excluded.created_at, endpoint = excluded.endpoint, finished_at = NULL, answer = NULL",
    )
    .bind(&job.id)
    .bind(owner)
    .bind(&job.user_id)
    .bind(&job.project_id)
    .bind(&job.key_id)
    .bind(class_name(job.class))
    .bind(priority_name(job.priority))
    .bind(&job.body)
    .bind(job.attempts)
    .bind(now_ms)
    .bind(&job.endpoint)
    .execute(store)
    .await?;
    Ok(())
}

/// Keeps a job's answer.
pub(crate) async fn finish(store: &Store, id: &str, answer: &Value, now_ms: i64) -> Result<(), Unavailable> {
    sqlx::query("UPDATE jobs SET finished_at = $1, answer = $2, body = $3 WHERE id = $4")
        .bind(now_ms)
        .bind(answer.to_string())
        .bind(Vec::new())
        .bind(id)
        .execute(store)
        .await?;
    Ok(())
}

/// What is known of a job; `of` limits it to a project's own.
pub(crate) async fn known(store: &Store, id: &str, of: Option<&str>) -> Result<Option<Known>, Unavailable> {
    let found = sqlx::query("SELECT project_id, answer, body, created_at FROM jobs WHERE id = $1")
        .bind(id)
        .fetch_optional(store)
        .await?;
    let Some(row) = found else { return Ok(None) };
    if of.is_some_and(|of| {
        row.try_get::<String, _>("project_id")
            .is_ok_and(|project| project != of)
    }) {
        return Ok(None);
    }
    let answer: Option<String> = row.try_get("answer")?;
    Ok(Some(match answer {
        Some(answer) => Known::Done(serde_json::from_str(&answer).unwrap_or_default()),
        None => Known::Waiting(row.try_get("body")?, row.try_get("created_at")?),
    }))
}

/// Forgets a job that is done, if it is the project's.
pub(crate) async fn forget(store: &Store, id: &str, of: Option<&str>) -> Result<bool, Unavailable> {
    let forgotten = sqlx::query(
        "DELETE FROM jobs WHERE id = $1 AND finished_at IS NOT NULL AND project_id = COALESCE($2, project_id)",
    )
    .bind(id)
    .bind(of)
    .execute(store)
    .await?;
    Ok(forgotten.rows_affected() > 0)
}

/// The jobs that the process before has left, oldest first; each counts as begun once more. Old answers go.
pub(crate) async fn take_over(store: &Store, owner: &str, now_ms: i64) -> Result<Vec<Job>, Unavailable> {
    sqlx::query("DELETE FROM jobs WHERE finished_at < $1")
        .bind(now_ms - KEEP_MS)
        .execute(store)
        .await?;
    sqlx::query("UPDATE jobs SET attempts = attempts + 1 WHERE finished_at IS NULL AND owner = $1")
        .bind(owner)
        .execute(store)
        .await?;
    let rows = sqlx::query(
        "SELECT id, endpoint, user_id, project_id, key_id, request_type, priority, body, attempts FROM jobs \
         WHERE finished_at IS NULL AND owner = $1 ORDER BY created_at",
    )
    .bind(owner)
    .fetch_all(store)
    .await?;
    rows.iter().map(|row| job(row).map_err(Unavailable::from)).collect()
}

/// The requests that were done, of those whose ids begin so: their records are there.
pub(crate) async fn recorded(store: &Store, beginning: &str) -> Result<HashSet<String>, Unavailable> {
    let rows =
        sqlx::query("SELECT request_id FROM requests WHERE substr(request_id, 1, $1) = $2 AND status <> 'interrupted'")
            .bind(i64::try_from(beginning.len()).unwrap_or(0))
            .bind(beginning)
            .fetch_all(store)
            .await?;
    let ids = rows
        .iter()
        .map(|row| row.try_get("request_id").map_err(Unavailable::from));
    ids.collect()
}

fn job(row: &AnyRow) -> Result<Job, sqlx::Error> {
    Ok(Job {
        id: row.try_get("id")?,
        endpoint: row.try_get("endpoint")?,
        user_id: row.try_get("user_id")?,
        project_id: row.try_get("project_id")?,
        key_id: row.try_get("key_id")?,
        class: class_named(&row.try_get::<String, _>("request_type")?),
        priority: priority_named(&row.try_get::<String, _>("priority")?),
        body: row.try_get("body")?,
        attempts: row.try_get("attempts")?,
    })
}

/// What another gateway has left unfinished is this one's from now on.
pub(crate) async fn adopt(store: &Store, from: &str, to: &str) -> Result<(), Unavailable> {
    sqlx::query("UPDATE jobs SET owner = $1 WHERE owner = $2 AND finished_at IS NULL")
        .bind(to)
        .bind(from)
        .execute(store)
        .await?;
    Ok(())
}
