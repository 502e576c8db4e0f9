//! Configuration and keys as one value. An exchange takes one at its start and
//! keeps it to its end, so it never sees two configurations.

use crate::api_key::Key;
use crate::config::{Config, Jwt};
use crate::jwt::Issuer;
use crate::tokens::TokenEstimates;
use crate::upstream::Upstreams;
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use policy::{KeyId, Rules};
use std::collections::HashMap;
use std::sync::Arc;

/// One consistent view.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) config: Arc<Config>,
    /// By the SHA-256 of each of its secrets.
    pub(crate) keys: HashMap<[u8; 32], Arc<Key>>,
    /// Counts changes since the start, from 1.
    pub(crate) version: u64,
    /// The version of the price list, over restarts.
    pub(crate) config_version: u64,
    /// The provider whose tokens are accepted in the place of API keys.
    pub(crate) issuer: Option<Arc<Issuer>>,
    /// The provider at which people log in to the console.
    pub(crate) console_issuer: Option<Arc<Issuer>>,
    /// Where each model is.
    pub(crate) upstreams: Arc<Upstreams>,
    /// Learned token estimates, by model and project.
    pub(crate) tokens: Arc<TokenEstimates>,
}

/// Where the current snapshot is.
#[derive(Debug)]
pub(crate) struct Current {
    snapshot: ArcSwap<Snapshot>,
    /// The number of every key that was ever seen; a number is given once. Whoever replaces the snapshot holds this
    /// lock from reading the old one on, so that of two who do neither is lost.
    numbers: Mutex<HashMap<String, KeyId>>,
}

impl Current {
    pub(crate) fn new(config: Config, config_version: u64, keys: Vec<Key>, upstreams: Upstreams) -> Self {
        let mut numbers = HashMap::new();
        let keys = by_hash(numbered(&mut numbers, keys));
        Self {
            snapshot: ArcSwap::from_pointee(Snapshot {
                tokens: Arc::default(),
                issuer: Issuer::renewed(None, config.gateway.jwt.as_ref()),
                console_issuer: Issuer::renewed(None, console_tokens(&config)),
                config: Arc::new(config),
                keys,
                version: 1,
                config_version,
                upstreams: Arc::new(upstreams),
            }),
            numbers: Mutex::new(numbers),
        }
    }

    /// Takes over a changed configuration; requests that run keep the snapshot that they began with.
    pub(crate) fn replace_config(&self, config: Config, config_version: u64, upstreams: Upstreams) {
        let _replacing = self.numbers.lock();
        let before = self.get();
        self.snapshot.store(Arc::new(Snapshot {
            tokens: Arc::clone(&before.tokens),
            issuer: Issuer::renewed(before.issuer.as_ref(), config.gateway.jwt.as_ref()),
            console_issuer: Issuer::renewed(before.console_issuer.as_ref(), console_tokens(&config)),
            config: Arc::new(config),
            keys: before.keys.clone(),
            version: before.version + 1,
            config_version,
            upstreams: Arc::new(upstreams),
        }));
    }

    pub(crate) fn get(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Takes over changed keys; requests that run keep the snapshot that they began with.
    pub(crate) fn replace_keys(&self, keys: Vec<Key>) {
        let mut numbers = self.numbers.lock();
        let before = self.get();
        for key in &keys {
            if let Some(known) = before.keys.get(&key.hash) {
                key.last_used.carry(&known.last_used);
            }
        }
        self.snapshot.store(Arc::new(Snapshot {
            config: Arc::clone(&before.config),
            keys: by_hash(numbered(&mut numbers, keys)),
            version: before.version + 1,
            config_version: before.config_version,
            issuer: before.issuer.clone(),
            console_issuer: before.console_issuer.clone(),
            upstreams: Arc::clone(&before.upstreams),
            tokens: Arc::clone(&before.tokens),
        }));
    }

    /// The rules of policy, from the configuration and the keys in force.
    pub(crate) fn rules(&self) -> Rules {
        let numbers = self.numbers.lock();
        self.get().config.rules(&numbers)
    }

    /// When keys were used since this was last asked, by their id.
    pub(crate) fn keys_used(&self) -> Vec<(String, i64)> {
        let snapshot = self.get();
        let keys = snapshot.keys.values();
        keys.filter_map(|key| Some((key.id.clone(), key.last_used.take()?)))
            .collect()
    }

    /// The key with a number.
    pub(crate) fn key_numbered(&self, number: KeyId) -> Option<String> {
        let numbers = self.numbers.lock();
        let mut all = numbers.iter();
        all.find(|(_, known)| **known == number).map(|(key, _)| key.clone())
    }

    /// The number of a key.
    pub(crate) fn number_of(&self, key: &str) -> Option<KeyId> {
        let numbers = self.numbers.lock();
        numbers.get(key).copied()
    }
}

/// How ID tokens of the console's logins are checked.
fn console_tokens(config: &Config) -> Option<&Jwt> {
    config.gateway.oidc.as_ref().map(|oidc| &oidc.tokens)
}

fn numbered(numbers: &mut HashMap<String, KeyId>, mut keys: Vec<Key>) -> Vec<Key> {
    for key in &mut keys {
        let next = KeyId(u32::try_from(numbers.len()).unwrap_or(u32::MAX));
        key.number = *numbers.entry(key.id.clone()).or_insert(next);
    }
    keys
}

fn by_hash(keys: Vec<Key>) -> HashMap<[u8; 32], Arc<Key>> {
    let keys = keys.into_iter().map(Arc::new);
    keys.flat_map(|key| {
        key.hashes()
            .map(move |hash| (hash, Arc::clone(&key)))
            .collect::<Vec<_>>()
    })
    .collect()
}
