//! What is configured, as one value: configuration and keys. An exchange takes one at its start and
//! keeps it to its end, so it never sees two configurations.

use crate::config::Config;
use crate::identity::Key;
use arc_swap::ArcSwap;
use std::collections::HashMap;
use std::sync::Arc;

/// One consistent view.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) config: Arc<Config>,
    /// By the SHA-256 of the secret.
    pub(crate) keys: HashMap<[u8; 32], Arc<Key>>,
    /// Counts changes since the start, from 1.
    pub(crate) version: u64,
}

/// Where the current snapshot is.
#[derive(Debug)]
pub(crate) struct Current(ArcSwap<Snapshot>);

impl Current {
    pub(crate) fn new(config: Config, keys: Vec<Key>) -> Self {
        Self(ArcSwap::from_pointee(Snapshot {
            config: Arc::new(config),
            keys: by_hash(keys),
            version: 1,
        }))
    }

    pub(crate) fn get(&self) -> Arc<Snapshot> {
        self.0.load_full()
    }

    /// Takes over changed keys; requests that run keep the snapshot that they began with.
    pub(crate) fn replace_keys(&self, keys: Vec<Key>) {
        let before = self.get();
        self.0.store(Arc::new(Snapshot {
            config: Arc::clone(&before.config),
            keys: by_hash(keys),
            version: before.version + 1,
        }));
    }
}

fn by_hash(keys: Vec<Key>) -> HashMap<[u8; 32], Arc<Key>> {
    keys.into_iter().map(|key| (key.hash, Arc::new(key))).collect()
}
