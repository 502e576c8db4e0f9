//! Making, listing, rotating and revoking API keys, for the command line and the admin listener alike. A secret
//! is shown once; only its hash is kept. A key's id stays when its secret is replaced.

mod expiry;

use crate::api_key::{self, KEY_PREFIX, Key};
use crate::clock::now_ms;
use crate::config::{self, Config};
use ledger::keys::StoredKey;
use ledger::{KeyState, Store};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// How long the old secret of a rotated key still works, unless said otherwise.
const GRACE: &str = "1h";

/// No label is longer.
const LONGEST_LABEL: usize = 200;

/// A key to be made; also the body of `POST /keys`.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wanted {
    pub(crate) user: String,
    /// The user's own if left out.
    pub(crate) project: Option<String>,
    /// `30d`, `1y`, `2026-12-31`; never if left out.
    pub(crate) expires: Option<String>,
    pub(crate) models: Option<Vec<String>>,
    pub(crate) label: Option<String>,
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

/// Makes a key. Returns what may be shown of it, with its secret.
pub(crate) async fn make(config: &Config, store: &Store, wanted: &Wanted) -> Result<Value, Error> {
    let (secret, key) = new_key(config, wanted)?;
    ledger::keys::insert(store, std::slice::from_ref(&key), now_ms()).await?;
    Ok(with_secret(&key, secret))
}

/// Makes a key for each entry, all or none. An entry whose user has an active key with the same label is left out and
/// returned in `existing`, so that a list that has grown can be imported again.
pub(crate) async fn import(config: &Config, store: &Store, all: &[Wanted]) -> Result<Value, Error> {
    let known = ledger::keys::all(store).await?;
    let now = now_ms();
    let (mut new, mut existing, mut problems) = (Vec::new(), Vec::new(), Vec::new());
    for (number, wanted) in (1..).zip(all) {
        let same = |key: &&StoredKey| {
            key.user_id == wanted.user && key.label == wanted.label && key.state(now) == KeyState::Active
        };
        if let Some(key) = known.iter().find(same) {
            existing.push(render(key));
            continue;
        }
        let is_twin = |(_, key): &(String, StoredKey)| key.user_id == wanted.user && key.label == wanted.label;
        match new_key(config, wanted) {
            Ok(_) if new.iter().any(is_twin) => problems.push(format!(
                "entry {number}: user `{}` is listed twice with the same label",
                wanted.user
            )),
            Ok(key) => new.push(key),
            Err(error) => problems.push(format!("entry {number}: {error}")),
        }
    }
    if !problems.is_empty() {
        return Err(Error::Wrong(format!("no key was created\n  {}", problems.join("\n  "))));
    }
    let keys: Vec<StoredKey> = new.iter().map(|(_, key)| key.clone()).collect();
    ledger::keys::insert(store, &keys, now).await?;
    let created: Vec<Value> = new.into_iter().map(|(secret, key)| with_secret(&key, secret)).collect();
    Ok(json!({"created": created, "existing": existing}))
}

/// Gives a key another secret; the old one works until `grace` is over (an hour if left out). Owner, models, expiry,
/// label, limits and budget stay, since they belong to the id. Returns the key with its new secret.
pub(crate) async fn rotate(store: &Store, id: &str, grace: Option<&str>) -> Result<Value, Error> {
    let until = expiry::grace_end(grace.unwrap_or(GRACE), now_ms())?;
    let (secret, hash) = new_secret()?;
    if !ledger::keys::replace_secret(store, id, &hash, until, now_ms()).await? {
        return Err(no_active(id));
    }
    let keys = ledger::keys::all(store).await?;
    let key = keys.iter().find(|key| key.id == id).ok_or_else(|| no_active(id))?;
    Ok(with_secret(key, secret))
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

fn no_active(id: &str) -> Error {
    let hint = if id.starts_with(KEY_PREFIX) {
        "this is a secret; give the id of its key instead, such as key-0123456789ab".to_owned()
    } else {
        format!("no active API key has the id `{id}`")
    };
    Error::Unknown(format!("{hint}; `sluice keys list` prints all keys"))
}

/// Checks what is wanted, and makes secret and key.
fn new_key(config: &Config, wanted: &Wanted) -> Result<(String, StoredKey), Error> {
    let user = &wanted.user;
    let project = project_of(config, user, wanted.project.as_deref())?;
    for model in wanted.models.iter().flatten() {
        if config.model_by_name(model).is_none() {
            return Err(Error::Wrong(format!("unknown model `{model}`: add it to models.yaml")));
        }
    }
    let is_long = |label: &String| label.chars().count() > LONGEST_LABEL || label.chars().any(char::is_control);
    if wanted.label.as_ref().is_some_and(is_long) {
        let message = format!("invalid label: use at most {LONGEST_LABEL} characters, without line breaks");
        return Err(Error::Wrong(message));
    }
    let expires = wanted.expires.as_ref();
    let expires_at = expires.map(|text| expiry::end_of(text, now_ms())).transpose()?;
    let (secret, hash) = new_secret()?;
    let key = StoredKey {
        id: format!("key-{}", &random()?[..12]),
        hash,
        previous: None,
        label: wanted.label.clone(),
        user_id: user.clone(),
        project_id: project,
        expires_at,
        revoked_at: None,
        models: wanted.models.clone(),
        last_used_at: None,
    };
    Ok((secret, key))
}

/// The project of a user, which another one must not be given for.
fn project_of(config: &Config, user: &str, given: Option<&str>) -> Result<String, Error> {
    let user_id = config.user_by_id(user).ok_or_else(|| {
        let known = config.users.iter().filter(|user| !user.is_removed);
        let hint = config::nearest(user, known.map(|user| user.id.as_str()))
            .map_or_else(String::new, |near| format!(" (did you mean `{near}`?)"));
        Error::Wrong(format!("unknown user `{user}`{hint}: add it to users.yaml"))
    })?;
    let own = &config.project(config.user(user_id).project).id;
    match given.filter(|given| given != own) {
        None => Ok(own.clone()),
        Some(project) => Err(Error::Wrong(match config.project_by_id(project) {
            Some(_) => format!("user `{user}` belongs to project `{own}`, not to `{project}`"),
            None => format!("unknown project `{project}`: add it to projects.yaml"),
        })),
    }
}

fn random() -> Result<String, Error> {
    api_key::random_text().map_err(|error| Error::Failed(error.to_string()))
}

fn new_secret() -> Result<(String, [u8; 32]), Error> {
    let secret = format!("{KEY_PREFIX}{}", random()?);
    let hash = api_key::hash(&secret);
    Ok((secret, hash))
}

fn with_secret(key: &StoredKey, secret: String) -> Value {
    let mut shown = render(key);
    shown["secret"] = secret.into();
    shown
}

fn render(key: &StoredKey) -> Value {
    let time = |at: Option<i64>| {
        let at = at.and_then(|at| jiff::Timestamp::from_millisecond(at).ok());
        at.map(|at| at.to_string())
    };
    let now = now_ms();
    let previous = key.previous.as_ref().map(|previous| previous.until);
    json!({
        "id": key.id,
        "label": key.label,
        "user_id": key.user_id,
        "project_id": key.project_id,
        "state": key.state(now).name(),
        "expires_at": time(key.expires_at),
        "old_secret_until": time(previous.filter(|until| *until > now)),
        "models": key.models,
        "last_used_at": time(key.last_used_at),
    })
}
