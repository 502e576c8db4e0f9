//! Making, listing, rotating and revoking API keys, for the command line and the admin listener alike. A secret
//! is shown once; only its hash is kept.

use crate::api_key::{self, KEY_PREFIX, Key};
use crate::clock::now_ms;
use crate::config::Config;
use ledger::keys::StoredKey;
use ledger::{KeyState, Store};
use serde_json::{Value, json};

/// The time that the old secret of a rotated key still works.
const GRACE_MS: i64 = 3_600_000;

/// A key to be made.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) user: &'a str,
    /// The user's own if left out.
    pub(crate) project: Option<&'a str>,
    /// `30d`, `12h`, `45m`; never if left out.
    pub(crate) expires: Option<&'a str>,
    pub(crate) models: Option<Vec<String>>,
}

/// Why a key was not made or changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{0}")]
    Wrong(String),
    #[error("{0}")]
    Unknown(String),
    #[error("{0}")]
    Failed(String),
}

impl From<ledger::Error> for Error {
    fn from(error: ledger::Error) -> Self {
        Error::Failed(error.to_string())
    }
}

/// Makes a key: its secret, and what may be shown of it later.
pub(crate) async fn make(config: &Config, store: &Store, wanted: Wanted<'_>) -> Result<(String, Value), Error> {
    let user = wanted.user;
    let user_id = config
        .user_by_id(user)
        .ok_or_else(|| Error::Wrong(format!("unknown user `{user}`: add it to users.yaml")))?;
    let own = &config.project(config.user(user_id).project).id;
    if let Some(project) = wanted.project.filter(|project| project != own) {
        return Err(Error::Wrong(match config.project_by_id(project) {
            Some(_) => format!("user `{user}` belongs to project `{own}`, not to `{project}`"),
            None => format!("unknown project `{project}`: add it to projects.yaml"),
        }));
    }
    for model in wanted.models.iter().flatten() {
        if config.model_by_name(model).is_none() {
            return Err(Error::Wrong(format!("unknown model `{model}`: add it to models.yaml")));
        }
    }
    let lifetime = wanted.expires.map(lifetime_ms).transpose()?;
    let (secret, mut key) = fresh(user, own)?;
    key.expires_at = lifetime.map(|lifetime| now_ms().saturating_add(lifetime));
    key.models = wanted.models;
    ledger::keys::insert(store, &key, now_ms()).await?;
    Ok((secret, render(&key)))
}

/// Makes a new secret with the owner, models and end of a key, and lets the old one end after `grace` (an hour
/// if left out).
pub(crate) async fn rotate(store: &Store, id: &str, grace: Option<&str>) -> Result<(String, Value), Error> {
    let old = active(store, id).await?;
    let grace = grace.map(lifetime_ms).transpose()?.unwrap_or(GRACE_MS);
    let (secret, mut key) = fresh(&old.user_id, &old.project_id)?;
    (key.expires_at, key.models) = (old.expires_at, old.models);
    ledger::keys::insert(store, &key, now_ms()).await?;
    ledger::keys::expire(store, id, now_ms().saturating_add(grace)).await?;
    Ok((secret, render(&key)))
}

/// Ends a key, for good.
pub(crate) async fn revoke(store: &Store, id: &str) -> Result<(), Error> {
    if ledger::keys::revoke(store, id, now_ms()).await? {
        return Ok(());
    }
    Err(no_active(id))
}

/// All keys, as the gateway checks requests against them.
pub(crate) async fn load(store: &Store) -> Result<Vec<Key>, ledger::Error> {
    Ok(ledger::keys::all(store).await?.into_iter().map(Key::from).collect())
}

/// All keys, as they may be shown.
pub(crate) async fn list(store: &Store) -> Result<Vec<Value>, ledger::Error> {
    Ok(ledger::keys::all(store).await?.iter().map(render).collect())
}

async fn active(store: &Store, id: &str) -> Result<StoredKey, Error> {
    let keys = ledger::keys::all(store).await?;
    let found = keys
        .into_iter()
        .find(|key| key.id == id && key.state(now_ms()) == KeyState::Active);
    found.ok_or_else(|| no_active(id))
}

fn no_active(id: &str) -> Error {
    Error::Unknown(format!(
        "no active API key has the id `{id}`; `sluice keys list` prints all keys"
    ))
}

fn fresh(user: &str, project: &str) -> Result<(String, StoredKey), Error> {
    let random = || api_key::random_text().map_err(|error| Error::Failed(error.to_string()));
    let secret = format!("{KEY_PREFIX}{}", random()?);
    let key = StoredKey {
        id: format!("key-{}", &random()?[..12]),
        hash: api_key::hash(&secret),
        user_id: user.to_owned(),
        project_id: project.to_owned(),
        expires_at: None,
        revoked_at: None,
        models: None,
        last_used_at: None,
    };
    Ok((secret, key))
}

fn render(key: &StoredKey) -> Value {
    let time = |at: Option<i64>| {
        let at = at.and_then(|at| jiff::Timestamp::from_millisecond(at).ok());
        at.map(|at| at.to_string())
    };
    json!({
        "id": key.id,
        "user_id": key.user_id,
        "project_id": key.project_id,
        "state": key.state(now_ms()).name(),
        "expires_at": time(key.expires_at),
        "models": key.models,
        "last_used_at": time(key.last_used_at),
    })
}

/// `30d`, `12h`, `45m` in milliseconds.
fn lifetime_ms(text: &str) -> Result<i64, Error> {
    let wrong = || {
        Error::Wrong(format!(
            "invalid lifetime `{text}`: use a number of days, hours or minutes, such as 30d, 12h or 45m"
        ))
    };
    let unit = match text.as_bytes().last() {
        Some(b'd') => 86_400_000,
        Some(b'h') => 3_600_000,
        Some(b'm') => 60_000,
        _ => return Err(wrong()),
    };
    let count: i64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    count
        .checked_mul(unit)
        .filter(|lifetime| *lifetime > 0)
        .ok_or_else(wrong)
}
