//! API keys as the gateway holds them: an id, an owner and the SHA-256 of the secret, never the secret itself.

use ledger::keys::{PreviousSecret, StoredKey};
use policy::KeyId;
use sha2::{Digest, Sha256};
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

/// The prefix of every key.
pub(crate) const KEY_PREFIX: &str = "sk-sluice-";

/// A key as it is kept: never the secret, only its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) id: String,
    /// Policy's number for it; that of no key until a snapshot gives it one.
    pub(crate) number: KeyId,
    pub(crate) hash: [u8; 32],
    /// The secret that the last rotation replaced.
    pub(crate) previous: Option<PreviousSecret>,
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

    pub(crate) fn touch(&self, now_ms: i64) {
        self.touched.store(now_ms, Relaxed);
    }

    /// Takes over what has not been written down yet.
    pub(crate) fn carry(&self, before: &Self) {
        self.touched.store(before.touched.load(Relaxed), Relaxed);
    }

    /// Takes the time of last use that is not stored yet.
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
            previous: stored.previous,
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
    /// The hashes of its secrets: the present one, and the one that the last rotation replaced.
    pub(crate) fn hashes(&self) -> impl Iterator<Item = [u8; 32]> + use<> {
        std::iter::once(self.hash).chain(self.previous.as_ref().map(|previous| previous.hash))
    }

    /// The end of the validity of one of its secrets, if a rotation has set one.
    pub(crate) fn secret_ends(&self, hash: &[u8; 32]) -> Option<i64> {
        let previous = self.previous.as_ref()?;
        (previous.hash == *hash).then_some(previous.until)
    }

    /// Returns whether a model may be asked for with it.
    pub(crate) fn allows(&self, model: &str) -> bool {
        self.models
            .as_ref()
            .is_none_or(|models| models.iter().any(|allowed| allowed == model))
    }
}

/// The hash under which a secret is kept.
pub(crate) fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

/// 256 random bits as text that needs no quoting anywhere.
pub(crate) fn random_text() -> std::io::Result<String> {
    let mut bytes = [0u8; 32];
    getrandom::fill(&mut bytes).map_err(|error| std::io::Error::other(error.to_string()))?;
    Ok(hex::encode(bytes))
}
