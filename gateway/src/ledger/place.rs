//! Where a gateway keeps its journal, and who else has a journal there. A process locks its place for as long as it
//! lives; there are two places a directory, so that one gateway can take another's place while that one finishes
//! (`docs/decisions/008-two-places-for-a-hand-over.md`).

use super::Unavailable;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

/// A journal's place, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// What its segments are named after.
    pub(super) journal: PathBuf,
    /// The owner of its intents, jobs and batches.
    pub(super) owner: String,
}

/// A place that nobody else has while this is held.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) place: Place,
    _lock: Flock<File>,
}

/// What was found in a directory.
#[derive(Debug)]
pub(super) struct Places {
    pub(super) mine: Held,
    /// The other, if nobody is there: what was left in it is mine.
    pub(super) left: Option<Held>,
    /// The other, if someone is: what is left in it will be mine.
    pub(super) awaited: Option<Place>,
}

impl Place {
    /// `None` if someone is there.
    pub(super) fn lock(&self) -> Result<Option<Held>, Unavailable> {
        let mut name = self.journal.as_os_str().to_owned();
        name.push(".lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(name)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(Held {
                place: self.clone(),
                _lock: lock,
            })),
            Err((_, nix::Error::EWOULDBLOCK)) => Ok(None),
            Err((_, error)) => Err(Unavailable(format!(
                "the lock beside {}: {error}",
                self.journal.display()
            ))),
        }
    }
}

/// Takes a place: that of an ordinary start is the first; who takes another's place (`is_hand_over`) takes the free one.
pub(super) fn take(journal: &Path, owner: &str, is_hand_over: bool) -> Result<Places, Unavailable> {
    let mut second = journal.as_os_str().to_owned();
    second.push(".next");
    let first = Place {
        journal: journal.to_owned(),
        owner: owner.to_owned(),
    };
    let second = Place {
        journal: PathBuf::from(second),
        owner: format!("{owner}-next"),
    };
    match (first.lock()?, second.lock()?) {
        (Some(mine), left) => Ok(Places {
            mine,
            awaited: left.is_none().then_some(second),
            left,
        }),
        (None, Some(mine)) if is_hand_over => Ok(Places {
            mine,
            left: None,
            awaited: Some(first),
        }),
        (None, Some(_)) => Err(Unavailable(format!(
            "another gateway keeps its journal at {}; stop it, give this one another data_dir and database, or let it take \
             the other's place with --upgrade",
            journal.display()
        ))),
        (None, None) => Err(Unavailable(
            "two gateways are here already, one of which finishes what it has begun; try again when it has ended"
                .to_owned(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_may_be_there_while_one_takes_the_others_place() {
        let dir = tempfile::TempDir::new().expect("a directory");
        let journal = dir.path().join("usage.db");
        let old = take(&journal, "me", false).expect("the first");
        assert_eq!(old.mine.place.owner, "me");
        assert!(old.left.is_some() && old.awaited.is_none());
        drop(old.left);
        let told = take(&journal, "me", false).expect_err("taken").to_string();
        assert!(told.contains("--upgrade"), "{told}");
        let new = take(&journal, "me", true).expect("the second");
        assert_eq!(new.mine.place.owner, "me-next");
        let awaited = new.awaited.expect("the first");
        assert!(awaited.lock().expect("asked").is_none());
        assert!(take(&journal, "me", true).is_err(), "two are there");
        drop(old.mine);
        assert!(awaited.lock().expect("asked").is_some());
        let next = take(&journal, "me", true).expect("the first again");
        assert_eq!(next.mine.place.owner, "me");
        assert_eq!(next.awaited.expect("the second").owner, "me-next");
    }
}
