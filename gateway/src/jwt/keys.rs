//! The signing keys that a provider publishes (JWKS, RFC 7517), found by OpenID Connect Discovery 1.0.

use super::provider::{self, Provider};
use super::{invalid, shown};
use crate::clock::now_ms;
use crate::config::Jwt;
use arc_swap::ArcSwap;
use jsonwebtoken::jwk::{Jwk, PublicKeyUse};
use jsonwebtoken::{DecodingKey, Header};
use protocol::error::{ErrorCode, RequestError};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

/// The interval at which keys are fetched again, in milliseconds.
const RENEW_MS: i64 = 600_000;

/// The shortest interval between two fetches, in milliseconds: bounds what tokens with invented key ids cause.
const PAUSE_MS: i64 = 10_000;

/// Where keys come from, and those that were last fetched.
#[derive(Debug)]
pub(super) struct Keys {
    source: Source,
    known: ArcSwap<Known>,
    /// When the last fetch ended, in milliseconds since 1970; 0 before the first.
    asked_at: AtomicI64,
    /// One fetch at a time.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Clone)]
struct Source {
    provider: Provider,
    jwks_url: Option<String>,
}

#[derive(Debug, Default)]
struct Known {
    keys: Vec<Jwk>,
    /// Counts changes of the keys.
    generation: u64,
    /// True if the last fetch succeeded.
    is_fresh: bool,
}

impl Keys {
    pub(super) fn new(settings: &Jwt) -> Self {
        Self {
            source: Source {
                provider: Provider::new(settings),
                jwks_url: settings.jwks_url.clone(),
            },
            known: ArcSwap::default(),
            asked_at: AtomicI64::new(0),
            turn: tokio::sync::Mutex::default(),
        }
    }

    pub(super) fn generation(&self) -> u64 {
        self.known.load().generation
    }

    /// True if a key with this id is known; a token without an id may have any key.
    pub(super) fn has(&self, id: Option<&str>) -> bool {
        let known = self.known.load();
        match id {
            Some(_) => known.keys.iter().any(|key| key.common.key_id.as_deref() == id),
            None => !known.keys.is_empty(),
        }
    }

    /// The key of a token.
    pub(super) fn find(&self, header: &Header) -> Result<DecodingKey, RequestError> {
        let known = self.known.load();
        if known.keys.is_empty() {
            let message = "the identity provider's keys could not be fetched; try again later";
            return Err(RequestError::new(ErrorCode::IdentityUnavailable, message));
        }
        let fits = |key: &&Jwk| {
            let may_sign = key.common.public_key_use != Some(PublicKeyUse::Encryption);
            let named = key.common.key_algorithm;
            let has_algorithm = named.is_none_or(|named| named.to_string() == format!("{:?}", header.alg));
            let has_id = header.kid.is_none() || header.kid == key.common.key_id;
            may_sign && has_algorithm && has_id
        };
        let key = known.keys.iter().find(fits).ok_or_else(|| {
            let id = header.kid.as_deref().unwrap_or_default();
            invalid(&format!(
                "the identity provider has no key `{}` for {:?}",
                shown(id),
                header.alg
            ))
        })?;
        DecodingKey::from_jwk(key).map_err(|error| invalid(&format!("its key cannot be used ({error})")))
    }

    /// True if it is time to fetch the keys again.
    pub(super) fn are_due(&self, now_ms: i64) -> bool {
        let interval = if self.known.load().is_fresh { RENEW_MS } else { PAUSE_MS };
        now_ms - self.asked_at.load(Relaxed) >= interval
    }

    /// Fetches the keys because a token names one that is not known, unless they have just been fetched.
    pub(super) async fn fetch_unknown(&self, id: Option<&str>) {
        let _turn = self.turn.lock().await;
        if !self.has(id) && now_ms() - self.asked_at.load(Relaxed) >= PAUSE_MS {
            self.fetch_now().await;
        }
    }

    /// Fetches the keys.
    pub(super) async fn fetch(&self) {
        let _turn = self.turn.lock().await;
        self.fetch_now().await;
    }

    async fn fetch_now(&self) {
        let source = self.source.clone();
        let fetched = tokio::task::spawn_blocking(move || source.fetch()).await;
        let fetched = fetched.unwrap_or_else(|_| Err("the task that fetches them failed".to_owned()));
        self.asked_at.store(now_ms(), Relaxed);
        match fetched {
            Ok(keys) => self.take(keys),
            Err(why) => {
                tracing::warn!(
                    issuer = self.source.provider.issuer,
                    why,
                    "cannot fetch the identity provider's keys"
                );
                let before = self.known.load();
                self.known.store(Arc::new(Known {
                    keys: before.keys.clone(),
                    generation: before.generation,
                    is_fresh: false,
                }));
            }
        }
    }

    /// Replaces the keys by those of the provider now.
    pub(super) fn take(&self, keys: Vec<Jwk>) {
        let before = self.known.load();
        let has_changed = before.keys != keys;
        if has_changed {
            tracing::info!(
                issuer = self.source.provider.issuer,
                keys = keys.len(),
                "keys of the identity provider fetched"
            );
        }
        self.known.store(Arc::new(Known {
            keys,
            generation: before.generation + u64::from(has_changed),
            is_fresh: true,
        }));
    }
}

impl Source {
    /// Blocks.
    fn fetch(&self) -> Result<Vec<Jwk>, String> {
        let client = self.provider.client()?;
        let url = match &self.jwks_url {
            Some(url) => url.clone(),
            None => self.provider.endpoint(&client, "jwks_uri")?,
        };
        let set = provider::get(&client, &url)?;
        // A key of a kind that is not known here must not hide the others.
        let listed = set["keys"].as_array().cloned().unwrap_or_default();
        let keys: Vec<Jwk> = listed
            .into_iter()
            .filter_map(|key| serde_json::from_value(key).ok())
            .collect();
        if keys.is_empty() {
            return Err(format!("{url} lists no key that can be used"));
        }
        Ok(keys)
    }
}
