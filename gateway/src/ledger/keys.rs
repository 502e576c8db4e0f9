//! The `keys` table: hashes of secrets, never the secrets.

use super::Unavailable;
use crate::identity::Key;
use policy::KeyId;
use sqlx::Row;
use sqlx::sqlite::{SqlitePool, SqliteRow};

const SELECT: &str = "SELECT id, hash, user_id, project_id, expires_at, revoked_at FROM keys";

/// All keys, revoked and expired ones too, oldest first.
pub(crate) async fn all(pool: &SqlitePool) -> Result<Vec<Key>, Unavailable> {
    let rows = sqlx::query(&format!("{SELECT} ORDER BY created_at, id"))
        .fetch_all(pool)
        .await?;
    rows.iter().map(|row| key(row).map_err(Unavailable::from)).collect()
}

/// Adds a key; `now_ms` is milliseconds since 1970.
pub(crate) async fn insert(pool: &SqlitePool, key: &Key, now_ms: i64) -> Result<(), Unavailable> {
    sqlx::query("INSERT INTO keys (id, hash, user_id, project_id, created_at, expires_at) VALUES (?, ?, ?, ?, ?, ?)")
        .bind(&key.id)
        .bind(&key.hash[..])
        .bind(&key.user_id)
        .bind(&key.project_id)
        .bind(now_ms)
        .bind(key.expires_at)
        .execute(pool)
        .await?;
    Ok(())
}

/// Revokes a key; false if there is none with this id that could be.
pub(crate) async fn revoke(pool: &SqlitePool, id: &str, now_ms: i64) -> Result<bool, Unavailable> {
    let done = sqlx::query("UPDATE keys SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL")
        .bind(now_ms)
        .bind(id)
        .execute(pool)
        .await?;
    Ok(done.rows_affected() == 1)
}

fn key(row: &SqliteRow) -> Result<Key, sqlx::Error> {
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
    })
}
