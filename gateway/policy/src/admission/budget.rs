//! What is counted of a model's evictions, and the slot time that they may lose.

use crate::tickets::List;
use std::time::Duration;

/// The part of the time of completed durable requests that may be lost to eviction.
const ONE_PART_IN: u32 = 10;

/// The slot time that may be lost at once, saved up from what completed before.
const SAVED: Duration = Duration::from_secs(60);

/// The slot time that a model's durable requests may still lose, in microseconds; below zero after an eviction that cost
/// more than was left.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget(i64);

impl Budget {
    /// Adds the part that may be lost of the time of a durable request that completed.
    pub(super) fn earn(&mut self, held: Duration) {
        self.add(held / ONE_PART_IN);
    }

    /// Returns whether more was lost than was left.
    pub(super) fn is_overdrawn(self) -> bool {
        self.0 < 0
    }

    pub(super) fn add(&mut self, time: Duration) {
        self.0 = self.0.saturating_add(micros(time)).min(micros(SAVED));
    }

    pub(super) fn subtract(&mut self, time: Duration) {
        self.0 = self.0.saturating_sub(micros(time));
    }
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

/// A model's part in evictions.
#[derive(Debug)]
pub(super) struct Evictions {
    /// Running requests that may be evicted, the oldest first.
    pub(super) possible: List,
    /// Requests of any model that are named for one that waits for this model, and have not ended.
    pub(super) pending: usize,
    /// Slots of evicted requests that none of those for which they were evicted has taken yet.
    pub(super) vacated: usize,
    pub(super) budget: Budget,
}

impl Default for Evictions {
    fn default() -> Self {
        Self {
            possible: List::default(),
            pending: 0,
            vacated: 0,
            budget: Budget(micros(SAVED)),
        }
    }
}
