//! Tokens (JWT) of an OpenID Connect provider in the place of API keys.
//!
//! A token is checked as RFC 7519 and OpenID Connect Core 1.0 say: its signature by a key that the provider publishes,
//! its issuer, its audience and its times. Algorithms with a shared secret, and `none`, are refused. A verified token is
//! remembered by its hash until it expires, so that a caller's requests cost one signature together. The provider's keys
//! are fetched beside requests; a request waits for them only when its token names a key that is not known yet.

mod keys;
pub(crate) mod provider;
#[cfg(test)]
mod tests;

use crate::api_key::hash;
use crate::clock::now_ms;
use crate::config::Jwt;
use jsonwebtoken::{Algorithm, Header, Validation, decode, decode_header};
use keys::Keys;
use parking_lot::Mutex;
use protocol::error::{ErrorCode, RequestError};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Differences of clocks that are tolerated, in milliseconds.
const LEEWAY_MS: i64 = 60_000;

/// Verified tokens that are remembered.
const REMEMBERED: usize = 10_000;

/// Longest token that is looked at, in bytes. Providers' tokens with many groups have some thousand.
const LONGEST: usize = 16 << 10;

/// Signatures whose key the provider publishes. With a shared secret (HS256) that key would be the secret.
const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// The interval at which the present provider is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A provider, its keys and the tokens that were verified with them.
#[derive(Debug)]
pub(crate) struct Issuer {
    settings: Jwt,
    keys: Keys,
    verified: Mutex<HashMap<[u8; 32], Arc<Verified>>>,
}

/// What a verified token says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Verified {
    /// The value of `jwt.user_claim`.
    pub(crate) user: Option<String>,
    pub(crate) groups: Vec<String>,
    /// What a login gave the provider to return.
    pub(crate) nonce: Option<String>,
    /// Milliseconds since 1970.
    expires_at: i64,
    begins_at: i64,
    /// The keys that it was verified with.
    generation: u64,
}

#[derive(Deserialize)]
struct Claims {
    exp: Option<f64>,
    nbf: Option<f64>,
    iss: Option<String>,
    #[serde(default)]
    aud: Value,
    #[serde(flatten)]
    others: Map<String, Value>,
}

impl Issuer {
    pub(crate) fn new(settings: Jwt) -> Self {
        Self {
            keys: Keys::new(&settings),
            verified: Mutex::default(),
            settings,
        }
    }

    /// The provider of changed settings: the same one, if nothing of it has changed.
    pub(crate) fn renewed(before: Option<&Arc<Self>>, settings: Option<&Jwt>) -> Option<Arc<Self>> {
        let settings = settings?;
        let same = before.filter(|before| before.settings == *settings);
        Some(same.map_or_else(|| Arc::new(Self::new(settings.clone())), Arc::clone))
    }

    pub(crate) fn settings(&self) -> &Jwt {
        &self.settings
    }

    /// Returns whether a token names a key that is not known.
    pub(crate) fn lacks_key(&self, token: &str) -> bool {
        header(token).is_some_and(|header| !self.keys.has(header.kid.as_deref()))
    }

    /// Waits for the key of a token, if it is not known yet and the provider has not just been asked.
    pub(crate) async fn prepare(&self, token: &str) {
        if let Some(header) = header(token)
            && !self.keys.has(header.kid.as_deref())
        {
            self.keys.fetch_unknown(header.kid.as_deref()).await;
        }
    }

    /// Checks a token at a time, in milliseconds since 1970.
    ///
    /// # Errors
    /// `invalid_key` or `key_expired` with what is wrong; `identity_unavailable` while no key of the provider is known.
    pub(crate) fn verify(&self, token: &str, now_ms: i64) -> Result<Arc<Verified>, RequestError> {
        let hash = hash(token);
        let generation = self.keys.generation();
        let known = self.verified.lock().get(&hash).cloned();
        if let Some(known) = known.filter(|known| known.generation == generation) {
            known.check_times(now_ms)?;
            return Ok(known);
        }
        let verified = Arc::new(self.verify_anew(token, generation)?);
        verified.check_times(now_ms)?;
        self.remember(hash, &verified, now_ms);
        Ok(verified)
    }

    fn remember(&self, hash: [u8; 32], verified: &Arc<Verified>, now_ms: i64) {
        let mut all = self.verified.lock();
        if all.len() >= REMEMBERED {
            all.retain(|_, known| known.expires_at > now_ms && known.generation == verified.generation);
        }
        if all.len() >= REMEMBERED {
            all.clear();
        }
        all.insert(hash, Arc::clone(verified));
    }

    fn verify_anew(&self, token: &str, generation: u64) -> Result<Verified, RequestError> {
        let header = header(token).ok_or_else(|| invalid("it is not a JSON Web Token"))?;
        if !ALGORITHMS.contains(&header.alg) {
            return Err(invalid(&format!("signatures with {:?} are not accepted", header.alg)));
        }
        let key = self.keys.find(&header)?;
        let mut validation = Validation::new(header.alg);
        // Times are checked by the caller's clock, issuer and audience with messages of their own.
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        let claims = decode::<Claims>(token, &key, &validation)
            .map_err(|error| invalid(&format!("its signature or content is wrong ({error})")))?
            .claims;
        self.check_origin(&claims)?;
        let expires = claims.exp.ok_or_else(|| invalid("it has no expiry (`exp`)"))?;
        Ok(Verified {
            user: text(claims.others.get(&self.settings.user_claim)),
            groups: self.groups(&claims),
            nonce: text(claims.others.get("nonce")),
            expires_at: milliseconds(expires),
            begins_at: claims.nbf.map_or(i64::MIN, milliseconds),
            generation,
        })
    }

    fn check_origin(&self, claims: &Claims) -> Result<(), RequestError> {
        let issuer = claims.iss.as_deref().unwrap_or_default();
        if issuer != self.settings.issuer {
            return Err(invalid(&format!("its issuer (`iss`) is `{}`", shown(issuer))));
        }
        let wanted = &self.settings.audience;
        let is_wanted = |one: &Value| {
            one.as_str()
                .is_some_and(|one| wanted.iter().any(|wanted| wanted == one))
        };
        let is_ours = match &claims.aud {
            Value::Array(all) => all.iter().any(is_wanted),
            one => is_wanted(one),
        };
        if !is_ours {
            return Err(invalid("it was made for another audience (`aud`)"));
        }
        Ok(())
    }

    fn groups(&self, claims: &Claims) -> Vec<String> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        match claims.others.get(&self.settings.groups_claim) {
            Some(Value::Array(all)) => all.iter().filter_map(text).collect(),
            Some(one) => text(one).into_iter().collect(),
            None => Vec::new(),
        }
    }
}

impl Verified {
    fn check_times(&self, now_ms: i64) -> Result<(), RequestError> {
        if self.expires_at.saturating_add(LEEWAY_MS) <= now_ms {
            let message = format!(
                "the token expired on {}; get a new one from the identity provider",
                crate::clock::date(self.expires_at)
            );
            return Err(RequestError::new(ErrorCode::KeyExpired, message));
        }
        if self.begins_at.saturating_sub(LEEWAY_MS) > now_ms {
            return Err(invalid("it is not valid yet (`nbf`)"));
        }
        Ok(())
    }
}

/// True for what is a token by its form: three parts, the first of them a header.
pub(crate) fn is_token(secret: &str) -> bool {
    header(secret).is_some()
}

fn header(token: &str) -> Option<Header> {
    let is_possible = token.len() <= LONGEST && token.bytes().filter(|byte| *byte == b'.').count() == 2;
    is_possible.then(|| decode_header(token).ok()).flatten()
}

/// A claim's value as a name.
fn text(claim: Option<&Value>) -> Option<String> {
    match claim? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Seconds since 1970, perhaps with a fraction.
#[allow(clippy::cast_possible_truncation)]
fn milliseconds(seconds: f64) -> i64 {
    (seconds * 1000.0) as i64
}

/// A value of a stranger, short enough for a message.
fn shown(text: &str) -> String {
    text.chars().take(100).collect()
}

fn invalid(why: &str) -> RequestError {
    RequestError::new(ErrorCode::InvalidKey, format!("invalid token: {why}"))
}

/// Fetches the provider's keys at the start and then regularly, for as long as the process runs. `current` is the
/// provider in force.
pub(crate) async fn keep_keys(current: impl Fn() -> Option<Arc<Issuer>>) {
    loop {
        if let Some(issuer) = current()
            && issuer.keys.are_due(now_ms())
        {
            issuer.keys.fetch().await;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
