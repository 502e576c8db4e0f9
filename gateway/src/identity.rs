//! Who asks: from credentials and claims to a caller that exists and may ask.

use crate::config::{Config, Identity};
use crate::snapshot::Snapshot;
use http::HeaderMap;
use ledger::keys::StoredKey;
use policy::{Class, KeyId, Priority, ProjectId, UserId};
use protocol::refuse::{ErrorCode, RequestError};
use protocol::{Lowered, ParsedRequest};
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use subtle::ConstantTimeEq;

/// What every key begins with.
pub(crate) const KEY_PREFIX: &str = "sk-sluice-";

/// A key as it is kept: never the secret, only its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) id: String,
    /// Policy's number for it; that of no key until a snapshot gives it one.
    pub(crate) number: KeyId,
    pub(crate) hash: [u8; 32],
    pub(crate) user_id: String,
    pub(crate) project_id: String,
    /// Milliseconds since 1970.
    pub(crate) expires_at: Option<i64>,
    pub(crate) revoked_at: Option<i64>,
    /// The models that it may ask for; `None`: all.
    pub(crate) models: Option<Vec<String>>,
    pub(crate) last_used: LastUsed,
}

/// When a key was last used, in milliseconds since 1970. It does not make a key another one.
#[derive(Debug, Default)]
pub(crate) struct LastUsed {
    /// As the database has it.
    pub(crate) stored: Option<i64>,
    /// Since it was last written down; 0: not since.
    touched: AtomicI64,
}

impl LastUsed {
    pub(crate) fn stored(at: Option<i64>) -> Self {
        Self {
            stored: at,
            touched: AtomicI64::new(0),
        }
    }

    fn touch(&self, now_ms: i64) {
        self.touched.store(now_ms, Relaxed);
    }

    /// Takes over what has not been written down yet.
    pub(crate) fn carry(&self, before: &Self) {
        self.touched.store(before.touched.load(Relaxed), Relaxed);
    }

    /// What is to be written down.
    pub(crate) fn take(&self) -> Option<i64> {
        Some(self.touched.swap(0, Relaxed)).filter(|at| *at > 0)
    }
}

impl Clone for LastUsed {
    fn clone(&self) -> Self {
        Self::stored(self.stored)
    }
}

impl PartialEq for LastUsed {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for LastUsed {}

impl From<StoredKey> for Key {
    fn from(stored: StoredKey) -> Self {
        Self {
            id: stored.id,
            number: KeyId(u32::MAX),
            hash: stored.hash,
            user_id: stored.user_id,
            project_id: stored.project_id,
            expires_at: stored.expires_at,
            revoked_at: stored.revoked_at,
            models: stored.models,
            last_used: LastUsed::stored(stored.last_used_at),
        }
    }
}

impl Key {
    /// Whether a model may be asked for with it.
    pub(crate) fn allows(&self, model: &str) -> bool {
        self.models
            .as_ref()
            .is_none_or(|models| models.iter().any(|allowed| allowed == model))
    }
}

/// Someone who may ask.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) user: UserId,
    pub(crate) project: ProjectId,
    pub(crate) key: Option<Arc<Key>>,
}

/// The hash under which a secret is kept.
pub(crate) fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

/// Finds out who asks. `now_ms` is milliseconds since 1970.
pub(crate) fn caller(
    snapshot: &Snapshot,
    headers: &HeaderMap,
    parsed: Option<&ParsedRequest<'_>>,
    now_ms: i64,
) -> Result<Caller, RequestError> {
    let config = &snapshot.config;
    let claims = claims(headers, parsed);
    if let Some(key) = credential(headers).and_then(|secret| find(snapshot, secret)) {
        let (user, project) = key_owner(config, &key, now_ms)?;
        agree(config, &claims, user, project)?;
        key.last_used.touch(now_ms);
        return Ok(Caller {
            user,
            project,
            key: Some(key),
        });
    }
    match config.gateway.identity {
        Identity::Keys if credential(headers).is_none() => Err(RequestError::new(
            ErrorCode::NoKey,
            "no API key given; send it as `Authorization: Bearer sk-sluice-…`",
        )),
        Identity::Keys => Err(RequestError::new(
            ErrorCode::InvalidKey,
            "this API key is not known here",
        )),
        Identity::Open { default_user } => {
            let user = match claims.user {
                Some(id) => config.user_by_id(id).ok_or_else(|| unknown_user(id))?,
                None => default_user.ok_or_else(|| {
                    RequestError::new(
                        ErrorCode::UnknownUser,
                        "nobody said who asks; send `x-sluice-user`, or set `default_user` in gateway.yaml",
                    )
                })?,
            };
            let project = enabled(config, user)?;
            agree(config, &claims, user, project)?;
            Ok(Caller {
                user,
                project,
                key: None,
            })
        }
    }
}

/// Whoever had asked before, if they still may: by their user, and by the key that they had shown.
pub(crate) fn owner(
    snapshot: &Snapshot,
    user_id: &str,
    key_id: Option<&str>,
    now_ms: i64,
) -> Result<Caller, RequestError> {
    let config = &snapshot.config;
    let key = match key_id {
        None => None,
        Some(id) => {
            let known = snapshot.keys.values().find(|key| key.id == id);
            let key = known
                .ok_or_else(|| RequestError::new(ErrorCode::InvalidKey, "the key that asked is not known any more"))?;
            key_owner(config, key, now_ms)?;
            Some(Arc::clone(key))
        }
    };
    let user = config.user_by_id(user_id).ok_or_else(|| unknown_user(user_id))?;
    let project = enabled(config, user)?;
    Ok(Caller { user, project, key })
}

/// What a request says of itself.
struct Claims<'a> {
    user: Option<&'a str>,
    project: Option<&'a str>,
}

fn claims<'a>(headers: &'a HeaderMap, parsed: Option<&'a ParsedRequest<'_>>) -> Claims<'a> {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let body_user = parsed.and_then(|parsed| parsed.user_id.as_deref());
    let body_project = parsed.and_then(|parsed| parsed.project_id.as_deref());
    Claims {
        user: body_user.or_else(|| header("x-sluice-user")),
        project: body_project.or_else(|| header("x-sluice-project")),
    }
}

/// Whether the claims fit the user and project that were found.
fn agree(config: &Config, claims: &Claims<'_>, user: UserId, project: ProjectId) -> Result<(), RequestError> {
    let user_id = &config.user(user).id;
    if let Some(claimed) = claims.user.filter(|claimed| claimed != user_id) {
        config.user_by_id(claimed).ok_or_else(|| unknown_user(claimed))?;
        return Err(RequestError::new(
            ErrorCode::ProjectMismatch,
            format!("this key is not `{claimed}`'s"),
        ));
    }
    match claims.project {
        Some(claimed) if claimed != config.project(project).id => Err(RequestError::new(
            ErrorCode::ProjectMismatch,
            format!("user `{user_id}` does not belong to project `{claimed}`"),
        )),
        _ => Ok(()),
    }
}

fn unknown_user(id: &str) -> RequestError {
    RequestError::new(ErrorCode::UnknownUser, format!("there is no user `{id}`"))
}

fn enabled(config: &Config, user: UserId) -> Result<ProjectId, RequestError> {
    let found = config.user(user);
    if !found.enabled {
        return Err(RequestError::new(
            ErrorCode::UserDisabled,
            format!("user `{}` is disabled", found.id),
        ));
    }
    let project = config.project(found.project);
    if !project.enabled {
        return Err(RequestError::new(
            ErrorCode::ProjectDisabled,
            format!("project `{}` is disabled", project.id),
        ));
    }
    Ok(found.project)
}

fn key_owner(config: &Config, key: &Key, now_ms: i64) -> Result<(UserId, ProjectId), RequestError> {
    if key.revoked_at.is_some() {
        return Err(RequestError::new(
            ErrorCode::KeyRevoked,
            "this API key has been revoked",
        ));
    }
    if key.expires_at.is_some_and(|at| at <= now_ms) {
        return Err(RequestError::new(ErrorCode::KeyExpired, "this API key has expired"));
    }
    let user = config
        .user_by_id(&key.user_id)
        .ok_or_else(|| unknown_user(&key.user_id))?;
    let project = enabled(config, user)?;
    if config.project(project).id != key.project_id {
        let message = format!(
            "user `{}` no longer belongs to the key's project `{}`",
            key.user_id, key.project_id
        );
        return Err(RequestError::new(ErrorCode::ProjectMismatch, message));
    }
    Ok((user, project))
}

/// The secret, from whichever header carries it.
pub(crate) fn credential(headers: &HeaderMap) -> Option<&str> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = text("authorization").and_then(|value| {
        let (scheme, secret) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| secret.trim())
    });
    bearer
        .or_else(|| text("x-api-key"))
        .or_else(|| text("api-key"))
        .filter(|secret| !secret.is_empty())
}

fn find(snapshot: &Snapshot, secret: &str) -> Option<Arc<Key>> {
    if !secret.starts_with(KEY_PREFIX) {
        return None;
    }
    let hash = hash(secret);
    let key = snapshot.keys.get(&hash)?;
    bool::from(key.hash.ct_eq(&hash)).then(|| Arc::clone(key))
}

/// The class and band a request runs in: the caller's own, or lower where it asks for that.
pub(crate) fn standing(config: &Config, caller: &Caller, headers: &HeaderMap, body: Lowered) -> (Class, Priority) {
    let is = |name, value: &str| {
        headers
            .get(name)
            .is_some_and(|got| got.as_bytes().eq_ignore_ascii_case(value.as_bytes()))
    };
    let wants_batch = body.class == Some(Class::Batch) || is("x-sluice-class", "batch");
    let own = config.project(caller.project).priority;
    let asked = match body.priority {
        _ if is("x-sluice-priority", "low") => Priority::Low,
        _ if is("x-sluice-priority", "normal") => Priority::Normal,
        Some(asked) => asked,
        None => own,
    };
    let class = if wants_batch {
        Class::Batch
    } else {
        config.user(caller.user).class
    };
    (class, own.min(asked))
}

/// 256 random bits as text that needs no quoting anywhere.
pub(crate) fn random_text() -> std::io::Result<String> {
    let mut bytes = [0u8; 32];
    getrandom::fill(&mut bytes).map_err(|error| std::io::Error::other(error.to_string()))?;
    Ok(hex(&bytes))
}

/// Bytes as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}
