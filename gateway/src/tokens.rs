//! The tokens of a prompt before a server has counted them: the estimate of its text, corrected by what the upstreams
//! of each model have counted for a project's texts so far, since no project's texts may make another's look larger or
//! smaller than they are.
//!
//! An estimate only reserves, unless the server never counts. The correction is a quantile of the last samples, so that a
//! minority of odd prompts does not move it, within bounds of how far tokenizers are from the estimate, so that a majority
//! cannot move it far; and texts in ASCII and in other scripts are learned apart, since tokenizers differ on those by a
//! factor.

use policy::{ModelId, ProjectId};
use protocol::TextSize;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Pairs of a model and a project that are remembered; more begin anew.
const MOST_PAIRS: usize = 8192;

/// Samples that are remembered of a class of texts.
const SAMPLES: usize = 16;

/// Smaller prompts tell more of the template around them than of their text.
const LEAST_TOKENS: u64 = 16;

/// The estimate as it is, in thousandths.
const SAME: u16 = 1000;

/// The most that can be learned, in thousandths of the estimate: a byte-level tokenizer makes a token of a byte, which
/// is four to five times the estimate of prose.
const MOST: u16 = 5000;

/// The least that can be learned of texts in ASCII, whose tokens differ little between vocabularies, and of others.
const LEAST_ASCII: u16 = 800;
const LEAST_OTHER: u16 = 250;

/// The estimates of all models and projects.
#[derive(Debug, Default)]
pub(crate) struct TokenEstimates(Mutex<HashMap<(ModelId, ProjectId), Corrections>>);

impl TokenEstimates {
    /// The tokens to reserve for a text of this size that is estimated to have so many.
    pub(crate) fn tokens(&self, model: ModelId, project: ProjectId, text: &TextSize, estimated: u64) -> u64 {
        let corrections = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        corrections
            .get(&(model, project))
            .map_or(estimated, |corrections| corrections.tokens(text, estimated))
    }

    /// Learns that a text of this size that is estimated to have so many tokens has as many as `counted`.
    pub(crate) fn learn(&self, model: ModelId, project: ProjectId, text: &TextSize, estimated: u64, counted: u64) {
        let mut corrections = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if corrections.len() >= MOST_PAIRS && !corrections.contains_key(&(model, project)) {
            corrections.clear();
        }
        let corrections = corrections.entry((model, project)).or_default();
        corrections.learn(text, estimated, counted);
    }
}

/// The corrections of one model and project.
#[derive(Debug, Clone, Copy, Default)]
struct Corrections {
    /// Of texts of which most bytes are ASCII.
    ascii: Samples,
    other: Samples,
}

impl Corrections {
    fn tokens(&self, text: &TextSize, estimated: u64) -> u64 {
        let ratio = if is_ascii(text) {
            self.ascii.ratio
        } else {
            self.other.ratio
        };
        let exact = (u128::from(estimated) * u128::from(ratio)).div_ceil(1000);
        u64::try_from(exact).unwrap_or(u64::MAX).min(text.bytes)
    }

    fn learn(&mut self, text: &TextSize, estimated: u64, counted: u64) {
        if counted < LEAST_TOKENS {
            return;
        }
        if is_ascii(text) {
            self.ascii.add(counted, estimated, LEAST_ASCII);
        } else {
            self.other.add(counted, estimated, LEAST_OTHER);
        }
    }
}

fn is_ascii(text: &TextSize) -> bool {
    text.wide_bytes <= text.bytes / 2
}

/// The last samples of a class of texts, in thousandths of the estimate.
#[derive(Debug, Clone, Copy)]
struct Samples {
    ring: [u16; SAMPLES],
    next: usize,
    /// The third quartile: rather too many tokens are reserved than too few.
    ratio: u16,
}

impl Default for Samples {
    /// As if all samples had been as estimated.
    fn default() -> Self {
        Self {
            ring: [SAME; SAMPLES],
            next: 0,
            ratio: SAME,
        }
    }
}

impl Samples {
    fn add(&mut self, counted: u64, estimated: u64, least: u16) {
        let exact = (u128::from(counted) * 1000).div_ceil(u128::from(estimated.max(1)));
        self.ring[self.next] = u16::try_from(exact).unwrap_or(MOST).clamp(least, MOST);
        self.next = (self.next + 1) % SAMPLES;
        let mut sorted = self.ring;
        sorted.sort_unstable();
        self.ratio = sorted[SAMPLES * 3 / 4];
    }
}

#[cfg(test)]
#[path = "tokens_tests.rs"]
mod tests;
