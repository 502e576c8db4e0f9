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
    loop {
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
        if is_same || insert(store, last + 1, &digest, prices).await? {
            let version = if is_same { last } else { last + 1 };
            return u64::try_from(version).map_err(Error::invalid);
        }
    }
}

/// Adds a version; false if another gateway that starts has just added it.
async fn insert(store: &Store, version: i64, digest: &str, prices: &str) -> Result<bool, Error> {
    let insert = sqlx::query(
        "INSERT INTO config_versions (version, digest, prices, since) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (version) DO NOTHING",
    )
    .bind(version)
    .bind(digest)
    .bind(prices)
    .bind(iso(SystemTime::now()));
    let inserted = insert.execute(&store.pool()).timed(store).await?;
    Ok(inserted.rows_affected() > 0)
}
