//! Journal slots: a directory has two, each locked by its gateway for as long as it lives, so that a newer gateway can
//! take over while the older one finishes (`docs/decisions/008-two-journal-slots-for-an-upgrade.md`).

use crate::error::Error;
use crate::id::GatewayId;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

/// A slot for a journal, and its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Slot {
    /// The base name of its segments.
    pub(crate) journal: PathBuf,
    /// The owner of its intents, jobs and batches.
    pub(crate) owner: GatewayId,
}

/// A slot that is locked while this value lives.
#[derive(Debug)]
pub(crate) struct LockedSlot {
    pub(crate) slot: Slot,
    _lock: Flock<File>,
}

/// The slots of a directory.
#[derive(Debug)]
pub(crate) struct Slots {
    pub(crate) own: LockedSlot,
    /// The other one, if it was free: what is in it is to be recovered.
    pub(crate) abandoned: Option<LockedSlot>,
    /// The other one, if a gateway runs there: what it leaves is to be recovered when it has ended.
    pub(crate) predecessor: Option<Slot>,
}

impl Slot {
    /// Locks it; `None` if another process has it.
    pub(crate) fn lock(&self) -> Result<Option<LockedSlot>, Error> {
        let mut name = self.journal.as_os_str().to_owned();
        name.push(".lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(name)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(LockedSlot {
                slot: self.clone(),
                _lock: lock,
            })),
            Err((_, nix::Error::EWOULDBLOCK)) => Ok(None),
            Err((_, error)) => Err(Error::Journal(format!(
                "the lock beside {}: {error}",
                self.journal.display()
            ))),
        }
    }
}

/// Locks a slot: the first one at an ordinary start, the free one in a hand-over (`is_hand_over`).
pub(crate) fn take(journal: &Path, owner: &GatewayId, is_hand_over: bool) -> Result<Slots, Error> {
    let mut second = journal.as_os_str().to_owned();
    second.push(".next");
    let first = Slot {
        journal: journal.to_owned(),
        owner: owner.clone(),
    };
    let second = Slot {
        journal: PathBuf::from(second),
        owner: format!("{owner}-next").into(),
    };
    match (first.lock()?, second.lock()?) {
        (Some(own), abandoned) => Ok(Slots {
            own,
            predecessor: abandoned.is_none().then_some(second),
            abandoned,
        }),
        (None, Some(own)) if is_hand_over => Ok(Slots {
            own,
            abandoned: None,
            predecessor: Some(first),
        }),
        (None, Some(_)) => Err(Error::Setup(format!(
            "another gateway keeps its journal at {}; stop it, give this one another data_dir and database, or take over \
             from it with --upgrade",
            journal.display()
        ))),
        (None, None) => Err(Error::Setup(
            "two gateways run here already, one of which is finishing its requests; try again when it has ended"
                .to_owned(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_gateways_may_share_a_directory_during_a_hand_over() {
        let dir = tempfile::TempDir::new().expect("a directory");
        let journal = dir.path().join("usage.db");
        let me = GatewayId::from("me");
        let old = take(&journal, &me, false).expect("the first");
        assert_eq!(old.own.slot.owner.as_str(), "me");
        assert!(old.abandoned.is_some() && old.predecessor.is_none());
        drop(old.abandoned);
        let error = take(&journal, &me, false).expect_err("locked").to_string();
        assert!(error.contains("--upgrade"), "{error}");
        let new = take(&journal, &me, true).expect("the second");
        assert_eq!(new.own.slot.owner.as_str(), "me-next");
        let predecessor = new.predecessor.expect("the first");
        assert!(predecessor.lock().expect("asked").is_none());
        assert!(take(&journal, &me, true).is_err(), "both are locked");
        drop(old.own);
        assert!(predecessor.lock().expect("asked").is_some());
        let next = take(&journal, &me, true).expect("the first again");
        assert_eq!(next.own.slot.owner.as_str(), "me");
        assert_eq!(next.predecessor.expect("the second").owner.as_str(), "me-next");
    }
}
