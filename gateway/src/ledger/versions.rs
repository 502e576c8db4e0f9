//! Versions of the price list: a record says with which it was priced, so a price that was typed wrongly can
//! be told apart from the right one afterwards.

use super::{Store, Unavailable};
use crate::api_key;
use sqlx::Row;
use std::time::SystemTime;

/// The version of this price list: the newest, if it is the same, else a new one.
pub(crate) async fn version_of(pool: &Store, prices: &str) -> Result<u64, Unavailable> {
    let digest = hex::encode(api_key::hash(prices));
    let newest = sqlx::query("SELECT version, digest FROM config_versions ORDER BY version DESC LIMIT 1")
        .fetch_optional(pool)
        .await?;
    let (last, is_same) = match newest {
        Some(row) => (
            row.try_get::<i64, _>("version")?,
            row.try_get::<String, _>("digest")? == digest,
        ),
        None => (0, false),
    };
    if is_same {
        return Ok(u64::try_from(last).unwrap_or(0));
    }
    sqlx::query("INSERT INTO config_versions (version, digest, prices, since) VALUES ($1, $2, $3, $4)")
        .bind(last + 1)
        .bind(digest)
        .bind(prices)
        .bind(super::row::iso(SystemTime::now()))
        .execute(pool)
        .await?;
    Ok(u64::try_from(last + 1).unwrap_or(1))
}
