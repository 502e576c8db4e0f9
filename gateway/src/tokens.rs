//! Bytes a token, learned per model from the upstreams' own usage figures: what a prompt's size says of its
//! tokens before anybody has counted them.

use policy::ModelId;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Thousandths of a byte a token, until something is learned: English and code have about four bytes.
const BEGINNING: u64 = 4000;

/// The least and the most that is believed.
const BOUNDS: (u64, u64) = (1000, 12_000);

/// An answer counts for one part in so many.
const MEMORY: u64 = 64;

/// Prompts smaller than this say more of the template around them than of the text.
const LEAST_TOKENS: u64 = 16;

/// What was learned of each model.
#[derive(Debug)]
pub(crate) struct BytesPerToken(Vec<AtomicU64>);

impl BytesPerToken {
    pub(crate) fn new(models: usize) -> Self {
        Self((0..models).map(|_| AtomicU64::new(BEGINNING)).collect())
    }

    /// The same, with room for more models.
    pub(crate) fn grown(&self, models: usize) -> Self {
        let known = self.0.iter().map(|known| AtomicU64::new(known.load(Relaxed)));
        let new = (self.0.len()..models).map(|_| AtomicU64::new(BEGINNING));
        Self(known.chain(new).collect())
    }

    /// Tokens that so many bytes of prompt probably are.
    pub(crate) fn tokens(&self, model: ModelId, bytes: usize) -> u64 {
        (bytes as u64).saturating_mul(1000).div_ceil(self.of(model))
    }

    /// So many bytes were so many tokens.
    pub(crate) fn learn(&self, model: ModelId, bytes: usize, tokens: u64) {
        let Some(known) = self.0.get(model.0 as usize) else {
            return;
        };
        if tokens < LEAST_TOKENS {
            return;
        }
        let seen = ((bytes as u64).saturating_mul(1000) / tokens).clamp(BOUNDS.0, BOUNDS.1);
        let before = known.load(Relaxed);
        // Of two that learn at the same moment one is lost, which does not matter.
        known.store((before * (MEMORY - 1) + seen).div_ceil(MEMORY), Relaxed);
    }

    fn of(&self, model: ModelId) -> u64 {
        self.0
            .get(model.0 as usize)
            .map_or(BEGINNING, |known| known.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_estimate_begins_at_four_bytes_and_comes_near_what_the_upstream_counts() {
        let learned = BytesPerToken::new(1);
        let model = ModelId(0);
        assert_eq!(learned.tokens(model, 4001), 1001);
        for _ in 0..1000 {
            learned.learn(model, 2000, 1000);
        }
        let estimate = learned.tokens(model, 20_000);
        assert!((9_500..=10_500).contains(&estimate), "{estimate}");
    }

    #[test]
    fn absurd_figures_are_not_believed() {
        let learned = BytesPerToken::new(1);
        for _ in 0..10_000 {
            learned.learn(ModelId(0), 1_000_000, 20);
        }
        assert!(learned.tokens(ModelId(0), 12_000) >= 1000);
        learned.learn(ModelId(7), 1, 100);
    }
}
