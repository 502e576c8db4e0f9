//! What had been used before this process began: the month's and the day's sums, for quotas and budgets.

use super::Unavailable;
use policy::{NanoEuro, Remembered};
use sqlx::Row;
use sqlx::sqlite::SqlitePool;
use std::time::Duration;

/// Sums of one project, user or key.
#[derive(Debug)]
pub(crate) struct Sum {
    /// Its id, as configured.
    pub(crate) id: String,
    pub(crate) usage: Remembered,
}

/// Whose sums.
#[derive(Debug, Clone, Copy)]
pub(crate) enum By {
    Project,
    User,
    Key,
}

/// Ids are given when requests end; two that end together may cross, and a clock may be set back.
const SLACK: Duration = Duration::from_secs(3600);

/// Sums of all requests that ran and began at or after `since` (after 1970).
pub(crate) async fn since(pool: &SqlitePool, by: By, since: Duration) -> Result<Vec<Sum>, Unavailable> {
    let first = first_that_ended_after(pool, since.saturating_sub(SLACK)).await?;
    let column = match by {
        By::Project => "project_id",
        By::User => "user_id",
        By::Key => "key_id",
    };
    let sums = sqlx::query(&format!(
        "SELECT {column} AS id, sum(input_tokens + output_tokens) AS tokens, count(*) AS requests, \
         sum(cost_nano_eur) AS cost FROM requests \
         WHERE id >= ? AND created_at >= ? AND decision <> 'rejected' AND {column} IS NOT NULL GROUP BY 1"
    ))
    .bind(first)
    .bind(super::row::iso(std::time::UNIX_EPOCH + since))
    .fetch_all(pool)
    .await?;
    let whole = |row: &sqlx::sqlite::SqliteRow, name: &str| -> Result<u64, sqlx::Error> {
        Ok(u64::try_from(row.try_get::<i64, _>(name)?).unwrap_or(0))
    };
    let sum = |row| -> Result<Sum, sqlx::Error> {
        Ok(Sum {
            id: Row::try_get(row, "id")?,
            usage: Remembered {
                tokens: whole(row, "tokens")?,
                requests: whole(row, "requests")?,
                cost: NanoEuro(whole(row, "cost")?),
            },
        })
    };
    sums.iter().map(|row| sum(row).map_err(Unavailable::from)).collect()
}

/// The id from which on requests ended after a moment: found by halving, for an index on the time would cost
/// every request, and this is asked at a start.
async fn first_that_ended_after(pool: &SqlitePool, moment: Duration) -> Result<i64, Unavailable> {
    let moment = super::row::iso(std::time::UNIX_EPOCH + moment);
    let bounds = sqlx::query("SELECT coalesce(min(id), 0) AS low, coalesce(max(id), 0) AS high FROM requests");
    let bounds = bounds.fetch_one(pool).await?;
    let (mut low, mut high): (i64, i64) = (bounds.try_get("low")?, bounds.try_get("high")?);
    while low < high {
        let middle = low + (high - low) / 2;
        let next = sqlx::query("SELECT id, updated_at FROM requests WHERE id >= ? ORDER BY id LIMIT 1")
            .bind(middle)
            .fetch_one(pool)
            .await?;
        if next.try_get::<String, _>("updated_at")? < moment {
            low = next.try_get::<i64, _>("id")? + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}
