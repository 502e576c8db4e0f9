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

/// Sums of all requests that ran and began at or after `since` (after 1970).
pub(crate) async fn since(pool: &SqlitePool, by: By, since: Duration) -> Result<Vec<Sum>, Unavailable> {
    let column = match by {
        By::Project => "project_id",
        By::User => "user_id",
        By::Key => "key_id",
    };
    let sums = sqlx::query(&format!(
        "SELECT {column} AS id, sum(input_tokens + output_tokens) AS tokens, count(*) AS requests, \
         sum(cost_nano_eur) AS cost FROM requests \
         WHERE created_at >= ? AND decision <> 'rejected' AND {column} IS NOT NULL GROUP BY 1"
    ))
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
