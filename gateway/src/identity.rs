//! The sender of a request: from credentials and claims to a caller that exists and is allowed to send.
//!
//! Two steps, so that a stranger costs a request's head and no more: [`authenticate`] looks at the headers alone;
//! [`Credentials::identify`] adds what a body may claim (`/generate` names its user there).

use crate::api_key::{KEY_PREFIX, Key, hash};
use crate::config::{Config, Identity, Jwt};
use crate::jwt::{self, Verified};
use crate::snapshot::Snapshot;
use http::HeaderMap;
use policy::{Class, Priority, ProjectId, UserId};
use protocol::error::{ErrorCode, RequestError};
use protocol::{Lowered, ParsedRequest};
use std::sync::Arc;
use subtle::ConstantTimeEq;

/// The user and project that a request is charged to, and the API key that it carried.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) user: UserId,
    pub(crate) project: ProjectId,
    pub(crate) key: Option<Arc<Key>>,
    /// The project whose requests, files and answers the caller may look up; `None` (any) only under open identity,
    /// for a caller that names no user.
    pub(crate) visible_project: Option<ProjectId>,
}

/// The credentials of a request.
#[derive(Debug, Clone)]
pub(crate) enum Credentials {
    /// A valid API key.
    Key {
        key: Arc<Key>,
        user: UserId,
        project: ProjectId,
    },
    /// A valid token of the identity provider.
    Token { user: UserId, project: ProjectId },
    /// No key, and none is needed (`identity: open`).
    Open { default_user: Option<UserId> },
}

/// Returns whether a token in the headers needs a key of the identity provider that is not known yet.
pub(crate) fn needs_keys(snapshot: &Snapshot, headers: &HeaderMap) -> bool {
    let token = snapshot.issuer.as_ref().zip(credential(headers));
    token.is_some_and(|(issuer, token)| issuer.lacks_key(token))
}

/// Waits for the identity provider's key that a token in the headers needs, if it is not known yet.
pub(crate) async fn prepare(snapshot: &Snapshot, headers: &HeaderMap) {
    if let (Some(issuer), Some(token)) = (&snapshot.issuer, credential(headers)) {
        issuer.prepare(token).await;
    }
}

/// Checks the credentials in a request's headers. `now_ms` is milliseconds since 1970.
///
/// # Errors
/// `invalid_key`, `key_expired`, `key_revoked`, `identity_unavailable`, or what is wrong with the key's owner.
pub(crate) fn authenticate(snapshot: &Snapshot, headers: &HeaderMap, now_ms: i64) -> Result<Credentials, RequestError> {
    let config = &snapshot.config;
    let secret = credential(headers);
    if let Some(key) = secret.map_or(Ok(None), |secret| find(snapshot, secret, now_ms))? {
        let (user, project) = key_owner(config, &key, now_ms)?;
        key.last_used.touch(now_ms);
        return Ok(Credentials::Key { key, user, project });
    }
    if let (Some(issuer), Some(token)) = (&snapshot.issuer, secret.filter(|secret| jwt::is_token(secret))) {
        let user = token_user(config, issuer.settings(), &*issuer.verify(token, now_ms)?)?;
        let project = enabled(config, user)?;
        return Ok(Credentials::Token { user, project });
    }
    match config.gateway.identity {
        Identity::Open { default_user } => Ok(Credentials::Open { default_user }),
        Identity::Keys if secret.is_none() => Err(RequestError::new(
            ErrorCode::NoKey,
            "no API key: send one as `Authorization: Bearer sk-sluice-...`",
        )),
        Identity::Keys => Err(RequestError::new(
            ErrorCode::InvalidKey,
            "invalid API key: it is unknown to this gateway; check it, or create one with `sluice keys create`",
        )),
    }
}

/// Identifies the caller of an endpoint that takes no body.
pub(crate) fn caller(snapshot: &Snapshot, headers: &HeaderMap, now_ms: i64) -> Result<Caller, RequestError> {
    authenticate(snapshot, headers, now_ms)?.identify(&snapshot.config, headers, None)
}

impl Credentials {
    /// Names the caller; a body's or header's claim must agree with the key.
    pub(crate) fn identify(
        self,
        config: &Config,
        headers: &HeaderMap,
        parsed: Option<&ParsedRequest<'_>>,
    ) -> Result<Caller, RequestError> {
        let claims = claims(headers, parsed);
        let is_proven = !matches!(self, Credentials::Open { .. });
        let (user, project, key) = match self {
            Credentials::Key { key, user, project } => (user, project, Some(key)),
            Credentials::Token { user, project } => (user, project, None),
            Credentials::Open { default_user } => {
                let user = match claims.user {
                    Some(id) => config.user_by_id(id).ok_or_else(|| unknown_user(id))?,
                    None => default_user.ok_or_else(no_user)?,
                };
                (user, enabled(config, user)?, None)
            }
        };
        agree(config, &claims, user, project)?;
        let is_anonymous = !is_proven && claims.user.is_none() && claims.project.is_none();
        Ok(Caller {
            user,
            project,
            key,
            visible_project: (!is_anonymous).then_some(project),
        })
    }
}

/// Identifies the owner of stored work (a queued job, a batch) by the user and key that submitted it, if both may still
/// send requests.
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
            let key = known.ok_or_else(|| {
                RequestError::new(
                    ErrorCode::InvalidKey,
                    "the API key that submitted this request no longer exists",
                )
            })?;
            key_owner(config, key, now_ms)?;
            Some(Arc::clone(key))
        }
    };
    let user = config.user_by_id(user_id).ok_or_else(|| unknown_user(user_id))?;
    let project = enabled(config, user)?;
    Ok(Caller {
        user,
        project,
        key,
        visible_project: Some(project),
    })
}

/// The user and project that a request names.
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

/// Checks that the claimed user and project are those of the caller.
fn agree(config: &Config, claims: &Claims<'_>, user: UserId, project: ProjectId) -> Result<(), RequestError> {
    let user_id = &config.user(user).id;
    if let Some(claimed) = claims.user.filter(|claimed| claimed != user_id) {
        config.user_by_id(claimed).ok_or_else(|| unknown_user(claimed))?;
        return Err(RequestError::new(
            ErrorCode::ProjectMismatch,
            format!("user mismatch: these credentials do not belong to user `{claimed}`"),
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

fn no_user() -> RequestError {
    RequestError::new(
        ErrorCode::UnknownUser,
        "no user given: send the header `x-sluice-user`, or set `default_user` in gateway.yaml",
    )
}

fn unknown_user(id: &str) -> RequestError {
    RequestError::new(
        ErrorCode::UnknownUser,
        format!("unknown user `{id}`: add it to users.yaml or send another `x-sluice-user`"),
    )
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
            format!("API key `{}` was revoked; ask the operator for a new one", key.id),
        ));
    }
    if key.expires_at.is_some_and(|at| at <= now_ms) {
        return Err(RequestError::new(
            ErrorCode::KeyExpired,
            format!(
                "API key `{}` expired on {}; ask the operator for a new one",
                key.id,
                crate::clock::date(key.expires_at.unwrap_or_default())
            ),
        ));
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

/// The user that a token stands for: the one that it names, else that of its first configured group.
fn token_user(config: &Config, settings: &Jwt, token: &Verified) -> Result<UserId, RequestError> {
    let named = token.user.as_deref().and_then(|id| config.user_by_id(id));
    let of_group = || settings.groups.iter().find(|group| token.groups.contains(&group.group));
    named.or_else(|| of_group().map(|group| group.user)).ok_or_else(|| {
        let message = match &token.user {
            Some(id) => format!(
                "unknown user: the token's `{}` is `{}`, which is not in users.yaml, and none of its groups is in jwt.groups",
                settings.user_claim,
                id.chars().take(100).collect::<String>()
            ),
            None => format!("unknown user: the token has no claim `{}`, and none of its groups is in jwt.groups", settings.user_claim),
        };
        RequestError::new(ErrorCode::UnknownUser, message)
    })
}

/// The secret in `Authorization: Bearer`, `x-api-key` or `api-key`.
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

/// The key of a secret, if there is one; an error if a rotation has replaced the secret, and its time is over.
fn find(snapshot: &Snapshot, secret: &str, now_ms: i64) -> Result<Option<Arc<Key>>, RequestError> {
    if !secret.starts_with(KEY_PREFIX) {
        return Ok(None);
    }
    let hash = hash(secret);
    let Some(key) = snapshot.keys.get(&hash) else {
        return Ok(None);
    };
    if let Some(until) = key.secret_ends(&hash).filter(|until| *until <= now_ms) {
        return Err(RequestError::new(
            ErrorCode::KeyExpired,
            format!(
                "this secret of API key `{}` was replaced by a rotation and expired on {}; use the new one",
                key.id,
                crate::clock::date(until)
            ),
        ));
    }
    let is_equal = key.hashes().any(|known| bool::from(known.ct_eq(&hash)));
    Ok(is_equal.then(|| Arc::clone(key)))
}

/// The class and priority of a request: the caller's own, or lower ones that the request asks for.
pub(crate) fn class_and_priority(
    config: &Config,
    caller: &Caller,
    headers: &HeaderMap,
    body: Lowered,
) -> (Class, Priority) {
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
