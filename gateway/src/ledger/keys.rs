//! The `keys` table: hashes of secrets, never the secrets.

use super::{Store, Unavailable};
use crate::api_key::{Key, LastUsed};
use policy::KeyId;
use sqlx::Row;
use sqlx::any::AnyRow;

const SELECT: &str = "SELECT id, hash, user_id, project_id, expires_at, revoked_at, models, last_used_at FROM keys";

/// All keys, revoked and expired ones too, oldest first.
pub(crate) async fn all(pool: &Store) -> Result<Vec<Key>, Unavailable> {
    let rows = sqlx::query(&format!("{SELECT} ORDER BY created_at, id"))
        .fetch_all(pool)
        .await?;
    rows.iter().map(|row| key(row).map_err(Unavailable::from)).collect()
}

/// Adds a key; `now_ms` is milliseconds since 1970.
pub(crate) async fn insert(pool: &Store, key: &Key, now_ms: i64) -> Result<(), Unavailable> {
    sqlx::query(
        "INSERT INTO keys (id, hash, user_id, project_id, created_at, expires_at, models) VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(&key.id)
    .bind(key.hash.to_vec())
    .bind(&key.user_id)
    .bind(&key.project_id)
    .bind(now_ms)
    .bind(key.expires_at)
    .bind(key.models.as_ref().map(|models| models.join(",")))
    .execute(pool)
    .await?;
    Ok(())
}

/// Lets a key end at `at`, milliseconds since 1970, if it would not end before.
pub(crate) async fn expire(pool: &Store, id: &str, at: i64) -> Result<(), Unavailable> {
    sqlx::query("UPDATE keys SET expires_at = $1 WHERE id = $2 AND (expires_at IS NULL OR expires_at > $1)")
        .bind(at)
        .bind(id)
        .execute(pool)
        .await?;
    Ok(())
}

/// Notes when keys were last used.
pub(crate) async fn used(pool: &Store, used: &[(String, i64)]) -> Result<(), Unavailable> {
    for (id, at) in used {
        sqlx::query("UPDATE keys SET last_used_at = $1 WHERE id = $2 AND coalesce(last_used_at, 0) < $1")
            .bind(at)
            .bind(id)
            .execute(pool)
            .await?;
    }
    Ok(())
}

/// Revokes a key; false if there is none with this id that could be.
pub(crate) async fn revoke(pool: &Store, id: &str, now_ms: i64) -> Result<bool, Unavailable> {
    let done = sqlx::query("UPDATE keys SET revoked_at = $1 WHERE id = $2 AND revoked_at IS NULL")
        .bind(now_ms)
        .bind(id)
        .execute(pool)
        .await?;
    Ok(done.rows_affected() == 1)
}

fn key(row: &AnyRow) -> Result<Key, sqlx::Error> {
    let hash: Vec<u8> = row.try_get("hash")?;
    Ok(Key {
        id: row.try_get("id")?,
        number: KeyId(u32::MAX),
        hash: hash
            .try_into()
            .map_err(|_| sqlx::Error::Decode("a key's hash is not 32 bytes".into()))?,
        user_id: row.try_get("user_id")?,
        project_id: row.try_get("project_id")?,
        expires_at: row.try_get("expires_at")?,
        revoked_at: row.try_get("revoked_at")?,
        models: row
            .try_get::<Option<String>, _>("models")?
            .map(|models| models.split(',').map(str::to_owned).collect()),
        last_used: LastUsed::stored(row.try_get("last_used_at")?),
    })
}
