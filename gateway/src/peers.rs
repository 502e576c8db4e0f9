//! The other gateways of the cluster, as the database knew them at the last heartbeat.

use ledger::members::{Heartbeat, Member};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Heartbeats in a row that say so, before this gateway takes itself for cut off.
const CERTAIN: u32 = 3;

/// The gateways that are live, and which of them share rate limits and slots.
#[derive(Debug)]
pub(crate) struct Peers {
    live: Mutex<Vec<String>>,
    /// All members at the last heartbeat, and when that was; none where no database is shared.
    members: Mutex<Option<(Arc<Vec<Member>>, Instant)>>,
    is_coordinated: AtomicBool,
    /// The heartbeats since the last one at which this gateway shared, or no other did.
    cut_off: AtomicU32,
}

impl Default for Peers {
    fn default() -> Self {
        Self {
            live: Mutex::default(),
            members: Mutex::default(),
            is_coordinated: AtomicBool::new(true),
            cut_off: AtomicU32::new(0),
        }
    }
}

impl Peers {
    /// The gateways that are live, in order.
    pub(crate) fn live(&self) -> Vec<String> {
        self.live.lock().clone()
    }

    /// All members as the last heartbeat found them, and the time since; `None` where no database is shared.
    pub(crate) fn members(&self) -> Option<(Arc<Vec<Member>>, Duration)> {
        let members = self.members.lock();
        let (members, at) = members.as_ref()?;
        Some((Arc::clone(members), at.elapsed()))
    }

    /// The number of live gateways, `own` included, and its position among them.
    pub(crate) fn position(&self, own: &str) -> (u64, u64) {
        let live = self.live.lock();
        let others = live.iter().filter(|id| *id != own);
        let before = others.clone().filter(|id| id.as_str() < own).count() as u64;
        (1 + others.count() as u64, before)
    }

    /// Notes whether this gateway shares rate limits and slots with the others.
    pub(crate) fn set_coordinated(&self, is_coordinated: bool) {
        self.is_coordinated.store(is_coordinated, Relaxed);
    }

    /// Returns whether this gateway shares rate limits and slots with the others.
    pub(crate) fn is_coordinated(&self) -> bool {
        self.is_coordinated.load(Relaxed)
    }

    /// Takes over what a heartbeat found.
    pub(crate) fn note(&self, heartbeat: &Heartbeat) {
        self.live.lock().clone_from(&heartbeat.live_ids);
        *self.members.lock() = Some((Arc::new(heartbeat.members.clone()), Instant::now()));
        if !self.is_coordinated() && heartbeat.is_other_coordinated {
            self.cut_off.fetch_add(1, Relaxed);
        } else {
            self.cut_off.store(0, Relaxed);
        }
    }

    /// Returns whether others share rate limits and slots, and this gateway does not.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.cut_off.load(Relaxed) >= CERTAIN && !self.is_coordinated()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beat(peers: &Peers, is_other_coordinated: bool) -> bool {
        peers.note(&Heartbeat {
            members: Vec::new(),
            live_ids: vec!["a".to_owned(), "b".to_owned(), "c".to_owned()],
            silent: 0,
            server_ms: 0,
            is_other_coordinated,
        });
        peers.is_cut_off()
    }

    #[test]
    fn a_gateway_is_cut_off_only_where_others_are_not_and_for_some_time() {
        let peers = Peers::default();
        assert!((0..9).all(|_| !beat(&peers, true)), "it shares");
        peers.set_coordinated(false);
        assert!((0..9).all(|_| !beat(&peers, false)), "the store is away for all");
        assert_eq!(
            [beat(&peers, true), beat(&peers, true), beat(&peers, true)],
            [false, false, true]
        );
        peers.set_coordinated(true);
        assert!(!peers.is_cut_off());
    }

    #[test]
    fn a_gateway_knows_its_position_though_the_database_may_not_list_it() {
        let peers = Peers::default();
        assert_eq!(peers.position("b"), (1, 0));
        beat(&peers, true);
        assert_eq!((peers.position("b"), peers.position("bb")), ((3, 1), (4, 2)));
    }
}
