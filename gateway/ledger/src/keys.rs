//! The table `keys`: hashes of secrets, never the secrets.

use crate::error::Error;
use crate::state::KeyState;
use crate::store::{Store, Timed};
use sqlx::Row;
use sqlx::any::AnyRow;

/// An API key as it is stored. Times are milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredKey {
    /// Its id, which may be shown.
    pub id: String,
    /// The SHA-256 of the secret.
    pub hash: [u8; 32],
    /// The secret that the last rotation replaced.
    pub previous: Option<PreviousSecret>,
    /// What the operator calls it.
    pub label: Option<String>,
    /// Its user.
    pub user_id: String,
    /// Its user's project.
    pub project_id: String,
    /// The end of its lifetime; `None`: never.
    pub expires_at: Option<i64>,
    /// When it was revoked.
    pub revoked_at: Option<i64>,
    /// The models that it may be used for; `None`: all.
    pub models: Option<Vec<String>>,
    /// When it was last used, within some seconds.
    pub last_used_at: Option<i64>,
}

/// A secret that was replaced by a rotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreviousSecret {
    /// Its SHA-256.
    pub hash: [u8; 32],
    /// The end of its validity.
    pub until: i64,
}

impl StoredKey {
    /// The state of the key at a time.
    pub fn state(&self, now_ms: i64) -> KeyState {
        state(self.revoked_at, self.expires_at, now_ms)
    }
}

/// The state of a key that is revoked and expires at these times.
pub fn state(revoked_at: Option<i64>, expires_at: Option<i64>, now_ms: i64) -> KeyState {
    match (revoked_at, expires_at) {
        (Some(_), _) => KeyState::Revoked,
        (None, Some(at)) if at <= now_ms => KeyState::Expired,
        _ => KeyState::Active,
    }
}

const SELECT: &str = "SELECT id, hash, previous_hash, previous_until, label, user_id, project_id, expires_at, \
                      revoked_at, models, last_used_at FROM keys";

/// All keys, revoked and expired ones too, oldest first.
///
/// # Errors
/// When the database fails.
pub async fn all(store: &Store) -> Result<Vec<StoredKey>, Error> {
    let rows = sqlx::query(&format!("{SELECT} ORDER BY created_at, id"))
        .fetch_all(&store.pool())
        .timed(store)
        .await?;
    rows.iter().map(|row| key(row).map_err(Error::from)).collect()
}

/// Adds keys, all or none.
///
/// # Errors
/// When the database fails, or has one of the ids or hashes already.
pub async fn insert(store: &Store, keys: &[StoredKey], now_ms: i64) -> Result<(), Error> {
    let pool = store.pool();
    let mut transaction = pool.begin().timed(store).await?;
    for key in keys {
        sqlx::query(
            "INSERT INTO keys (id, hash, user_id, project_id, created_at, expires_at, models, label) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(&key.id)
        .bind(key.hash.to_vec())
        .bind(&key.user_id)
        .bind(&key.project_id)
        .bind(now_ms)
        .bind(key.expires_at)
        .bind(key.models.as_ref().map(|models| models.join(",")))
        .bind(&key.label)
        .execute(&mut *transaction)
        .timed(store)
        .await?;
    }
    transaction.commit().timed(store).await
}

/// Gives an active key another secret; the present one stays valid until a time. False if no such key is active.
///
/// # Errors
/// When the database fails.
pub async fn replace_secret(
    store: &Store,
    id: &str,
    hash: &[u8; 32],
    previous_until_ms: i64,
    now_ms: i64,
) -> Result<bool, Error> {
    let done = sqlx::query(
        "UPDATE keys SET previous_hash = hash, previous_until = $1, hash = $2 \
         WHERE id = $3 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $4)",
    )
    .bind(previous_until_ms)
    .bind(hash.to_vec())
    .bind(id)
    .bind(now_ms)
    .execute(&store.pool())
    .timed(store)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Notes when keys were last used: ids and milliseconds since 1970.
///
/// # Errors
/// When the database fails.
pub async fn note_use(store: &Store, used: &[(String, i64)]) -> Result<(), Error> {
    for (id, at) in used {
        sqlx::query("UPDATE keys SET last_used_at = $1 WHERE id = $2 AND coalesce(last_used_at, 0) < $1")
            .bind(at)
            .bind(id)
            .execute(&store.pool())
            .timed(store)
            .await?;
    }
    Ok(())
}

/// Revokes a key; false if there is none with this id that could be.
///
/// # Errors
/// When the database fails.
pub async fn revoke(store: &Store, id: &str, now_ms: i64) -> Result<bool, Error> {
    let done = sqlx::query("UPDATE keys SET revoked_at = $1 WHERE id = $2 AND revoked_at IS NULL")
        .bind(now_ms)
        .bind(id)
        .execute(&store.pool())
        .timed(store)
        .await?;
    Ok(done.rows_affected() == 1)
}

fn key(row: &AnyRow) -> Result<StoredKey, sqlx::Error> {
    let previous = row.try_get::<Option<Vec<u8>>, _>("previous_hash")?;
    let until = row.try_get::<Option<i64>, _>("previous_until")?;
    Ok(StoredKey {
        id: row.try_get("id")?,
        hash: digest(row.try_get("hash")?)?,
        previous: match (previous, until) {
            (Some(hash), Some(until)) => Some(PreviousSecret {
                hash: digest(hash)?,
                until,
            }),
            _ => None,
        },
        label: row.try_get("label")?,
        user_id: row.try_get("user_id")?,
        project_id: row.try_get("project_id")?,
        expires_at: row.try_get("expires_at")?,
        revoked_at: row.try_get("revoked_at")?,
        models: row
            .try_get::<Option<String>, _>("models")?
            .map(|models| models.split(',').map(str::to_owned).collect()),
        last_used_at: row.try_get("last_used_at")?,
    })
}

fn digest(bytes: Vec<u8>) -> Result<[u8; 32], sqlx::Error> {
    let digest = bytes.try_into();
    digest.map_err(|_| sqlx::Error::Decode("a key's hash is not 32 bytes".into()))
}
