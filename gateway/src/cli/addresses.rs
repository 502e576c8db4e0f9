//! The address file: where a running gateway's listeners are, and which process it is.

use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::Path;

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Addresses {
    pub(super) proxy: SocketAddr,
    pub(super) admin: SocketAddr,
    pub(super) pid: u32,
}

impl Addresses {
    /// `None` where none is written, or not whole.
    pub(super) fn read(file: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(file).ok()?).ok()
    }

    /// Replaces the file atomically: a reader gets the old addresses or the new ones.
    pub(super) fn write(&self, file: &Path) -> std::io::Result<()> {
        let written = file.with_extension("new");
        std::fs::write(&written, serde_json::to_vec(self)?)?;
        std::fs::rename(&written, file)
    }
}
