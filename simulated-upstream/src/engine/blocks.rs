//! Memory for keys and values, in blocks of 16 tokens. A block of a prompt is known by a hash of all up to its end; two
//! requests that begin alike share it, and it stays in memory after them until its blocks are needed.

use std::collections::{BTreeMap, HashMap};

/// Tokens of a block.
pub const BLOCK_TOKENS: usize = 16;

/// A block that a sequence holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    /// Its own alone.
    Own,
    /// Known by a hash; others may hold it too.
    Shared(u64),
}

/// All blocks of an engine.
#[derive(Debug, Clone)]
pub(super) struct Blocks {
    total: usize,
    /// Neither held nor kept.
    free: usize,
    shares: bool,
    /// The number of holders of each known block; for one without holders, the time of its release.
    known: HashMap<u64, Known>,
    /// Known blocks without holders, by the time of their release.
    kept: BTreeMap<u64, u64>,
    clock: u64,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    holders: usize,
    since: u64,
}

impl Blocks {
    pub(super) fn new(total: usize, shares: bool) -> Self {
        Self {
            total,
            free: total,
            shares,
            known: HashMap::new(),
            kept: BTreeMap::new(),
            clock: 0,
        }
    }

    pub(super) fn total(&self) -> usize {
        self.total
    }

    /// Part of the memory that is held, 0 to 1.
    #[allow(clippy::cast_precision_loss)]
    pub(super) fn usage(&self) -> f64 {
        (self.total - self.free - self.kept.len()) as f64 / self.total.max(1) as f64
    }

    /// Takes the blocks of a prompt that are in memory; tokens in them.
    pub(super) fn reuse(&mut self, held: &mut Vec<Held>, hashes: &[u64]) -> usize {
        if !self.shares {
            return 0;
        }
        for hash in hashes {
            let Some(known) = self.known.get_mut(hash) else { break };
            if known.holders == 0 {
                self.kept.remove(&known.since);
            }
            known.holders += 1;
            held.push(Held::Shared(*hash));
        }
        held.len() * BLOCK_TOKENS
    }

    /// Takes blocks until so many tokens fit; false, and nothing taken, if there are not enough.
    pub(super) fn grow(&mut self, held: &mut Vec<Held>, tokens: usize) -> bool {
        let more = tokens.div_ceil(BLOCK_TOKENS).saturating_sub(held.len());
        if more > self.free + self.kept.len() {
            return false;
        }
        for _ in 0..more {
            if self.free > 0 {
                self.free -= 1;
            } else if let Some((_, hash)) = self.kept.pop_first() {
                self.known.remove(&hash);
            }
            held.push(Held::Own);
        }
        true
    }

    /// Makes the blocks of a prompt that has been read known to others.
    pub(super) fn share(&mut self, held: &mut [Held], hashes: &[u64]) {
        if !self.shares {
            return;
        }
        for (block, hash) in held.iter_mut().zip(hashes) {
            if *block == Held::Own && !self.known.contains_key(hash) {
                *block = Held::Shared(*hash);
                self.known.insert(*hash, Known { holders: 1, since: 0 });
            }
        }
    }

    /// Gives blocks back; known ones stay while there is room. The end of a prompt is forgotten before its beginning.
    pub(super) fn release(&mut self, held: Vec<Held>) {
        for block in held.into_iter().rev() {
            match block {
                Held::Own => self.free += 1,
                Held::Shared(hash) => {
                    let Some(known) = self.known.get_mut(&hash) else {
                        continue;
                    };
                    known.holders -= 1;
                    if known.holders == 0 {
                        self.clock += 1;
                        known.since = self.clock;
                        self.kept.insert(self.clock, hash);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beginning_that_is_in_memory_is_shared_and_stays_until_its_place_is_needed() {
        let mut blocks = Blocks::new(4, true);
        let mut first = Vec::new();
        assert_eq!(blocks.reuse(&mut first, &[1, 2]), 0);
        assert!(blocks.grow(&mut first, 40));
        blocks.share(&mut first, &[1, 2]);
        let mut second = Vec::new();
        assert_eq!(blocks.reuse(&mut second, &[1, 2, 3]), 32);
        assert!((blocks.usage() - 0.75).abs() < 1e-9);
        blocks.release(first);
        blocks.release(second);
        assert!(blocks.usage() < 1e-9);
        let mut third = Vec::new();
        assert!(!blocks.grow(&mut third, 16 * 5));
        assert!(blocks.grow(&mut third, 16 * 3));
        let mut fourth = Vec::new();
        assert_eq!(blocks.reuse(&mut fourth, &[1, 2]), 16, "the end was forgotten first");
    }
}
