//! Versions of the price list: a record says with which it was priced, so a price that was typed wrongly can
//! be told apart from the right one afterwards.

use crate::error::Error;
use crate::store::{Store, Timed};
use crate::time::iso;
use sha2::{Digest, Sha256};
use sqlx::Row;
use std::time::SystemTime;

/// The version of this price list: the newest, if it is the same, else a new one.
///
/// # Errors
/// When the database fails.
pub async fn version_of(store: &Store, prices: &str) -> Result<u64, Error> {
    let digest = hex::encode(Sha256::digest(prices.as_bytes()));
    let newest = sqlx::query("SELECT version, digest FROM config_versions ORDER BY version DESC LIMIT 1")
        .fetch_optional(&store.pool())
        .timed(store)
        .await?;
    let (last, is_same) = match newest {
        Some(row) => (
            row.try_get::<i64, _>("version")?,
            row.try_get::<String, _>("digest")? == digest,
        ),
        None => (0, false),
    };
    let version = |number: i64| u64::try_from(number).map_err(Error::invalid);
    if is_same {
        return version(last);
    }
    sqlx::query("INSERT INTO config_versions (version, digest, prices, since) VALUES ($1, $2, $3, $4)")
        .bind(last + 1)
        .bind(digest)
        .bind(prices)
        .bind(iso(SystemTime::now()))
        .execute(&store.pool())
        .timed(store)
        .await?;
    version(last + 1)
}
