//! The tokens of a prompt before a server has counted them: an estimate from its bytes of text, learned for each model
//! and project from the usage that upstreams report, since no project's texts may make another's look larger or
//! smaller than they are.
//!
//! An estimate only reserves. It is a quantile of the last samples, so that a minority of odd prompts does not move it,
//! within bounds of what tokenizers do, so that a majority cannot move it far; and bytes of ASCII and of other
//! characters are learned apart, since tokenizers differ on them by a factor.

use policy::{ModelId, ProjectId};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Pairs of a model and a project that are remembered; more begin anew.
const MOST_PAIRS: usize = 8192;

/// Samples that are remembered of a class of bytes.
const SAMPLES: usize = 16;

/// Smaller prompts tell more of the template around them than of their text.
const LEAST_TOKENS: u64 = 16;

/// A byte-level tokenizer makes at most one token of a byte: the most that can be learned, in thousandths.
const MOST: u16 = 1000;

/// The least that can be learned, in thousandths of a token a byte: English prose has 4.5 to 5 bytes a token.
const LEAST: u16 = 200;

/// Thousandths of a token a byte until something is learned: 4 bytes a token for English and code, 2.5 for other scripts
/// (two or three bytes a character).
const ASCII: u16 = 250;
const OTHER: u16 = 400;

/// The size of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct TextBytes {
    /// Bytes of ASCII characters.
    pub(crate) ascii: u64,
    /// Bytes of all other characters.
    pub(crate) other: u64,
}

impl TextBytes {
    /// The size of `all` bytes, of which `multibyte` belong to characters beyond ASCII.
    pub(crate) fn new(all: usize, multibyte: usize) -> Self {
        Self {
            ascii: all.saturating_sub(multibyte) as u64,
            other: multibyte as u64,
        }
    }
}

/// The bytes of a text that belong to characters beyond ASCII.
pub(crate) fn multibyte(text: &str) -> usize {
    text.bytes().filter(|byte| !byte.is_ascii()).count()
}

/// The estimates of all models and projects.
#[derive(Debug, Default)]
pub(crate) struct TokenEstimates(Mutex<HashMap<(ModelId, ProjectId), Estimate>>);

impl TokenEstimates {
    /// The tokens to reserve for a text of this size.
    pub(crate) fn tokens(&self, model: ModelId, project: ProjectId, text: TextBytes) -> u64 {
        let estimates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        estimates
            .get(&(model, project))
            .copied()
            .unwrap_or_default()
            .tokens(text)
    }

    /// Learns that a text of this size had so many tokens.
    pub(crate) fn learn(&self, model: ModelId, project: ProjectId, text: TextBytes, tokens: u64) {
        let mut estimates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if estimates.len() >= MOST_PAIRS && !estimates.contains_key(&(model, project)) {
            estimates.clear();
        }
        estimates.entry((model, project)).or_default().learn(text, tokens);
    }
}

/// The estimate of one model and project.
#[derive(Debug, Clone, Copy)]
struct Estimate {
    ascii: Samples,
    other: Samples,
}

impl Default for Estimate {
    fn default() -> Self {
        Self {
            ascii: Samples::new(ASCII),
            other: Samples::new(OTHER),
        }
    }
}

impl Estimate {
    fn tokens(&self, text: TextBytes) -> u64 {
        tokens(text.ascii, self.ascii.ratio).saturating_add(tokens(text.other, self.other.ratio))
    }

    /// A text teaches of the class that most of its bytes belong to, what the other class leaves.
    fn learn(&mut self, text: TextBytes, counted: u64) {
        if counted < LEAST_TOKENS {
            return;
        }
        if text.ascii >= text.other {
            let rest = counted.saturating_sub(tokens(text.other, self.other.ratio));
            self.ascii.add(rest, text.ascii);
        } else {
            let rest = counted.saturating_sub(tokens(text.ascii, self.ascii.ratio));
            self.other.add(rest, text.other);
        }
    }
}

/// The tokens of so many bytes at so many thousandths of a token a byte, rounded up.
fn tokens(bytes: u64, ratio: u16) -> u64 {
    let exact = (u128::from(bytes) * u128::from(ratio)).div_ceil(1000);
    u64::try_from(exact).unwrap_or(u64::MAX)
}

/// The last samples of a class of bytes, in thousandths of a token a byte.
#[derive(Debug, Clone, Copy)]
struct Samples {
    ring: [u16; SAMPLES],
    next: usize,
    /// The third quartile: rather too many tokens are reserved than too few.
    ratio: u16,
}

impl Samples {
    /// As if all samples had been what is assumed at first.
    fn new(assumed: u16) -> Self {
        Self {
            ring: [assumed; SAMPLES],
            next: 0,
            ratio: assumed,
        }
    }

    fn add(&mut self, tokens: u64, bytes: u64) {
        let exact = (u128::from(tokens) * 1000).div_ceil(u128::from(bytes.max(1)));
        self.ring[self.next] = u16::try_from(exact).unwrap_or(MOST).clamp(LEAST, MOST);
        self.next = (self.next + 1) % SAMPLES;
        let mut sorted = self.ring;
        sorted.sort_unstable();
        self.ratio = sorted[SAMPLES * 3 / 4];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MODEL: ModelId = ModelId(0);
    const A: ProjectId = ProjectId(0);
    const B: ProjectId = ProjectId(1);

    fn text(text: &str) -> TextBytes {
        TextBytes::new(text.len(), multibyte(text))
    }

    #[test]
    fn an_estimate_begins_at_four_bytes_a_token_and_comes_near_what_the_upstream_counts() {
        let estimates = TokenEstimates::default();
        assert_eq!(estimates.tokens(MODEL, A, TextBytes::new(4001, 0)), 1001);
        for _ in 0..SAMPLES {
            estimates.learn(MODEL, A, TextBytes::new(2000, 0), 1000);
        }
        assert_eq!(estimates.tokens(MODEL, A, TextBytes::new(20_000, 0)), 10_000);
    }

    #[test]
    fn one_projects_cuneiform_does_not_make_anothers_english_larger() {
        let estimates = TokenEstimates::default();
        let english = text(&"The quick brown fox jumps over the lazy dog. ".repeat(340));
        let before = (estimates.tokens(MODEL, A, english), estimates.tokens(MODEL, B, english));
        // One token a byte, as of scripts that a vocabulary does not know.
        let cuneiform = text(&"\u{12000}".repeat(200));
        for _ in 0..400 {
            estimates.learn(MODEL, A, cuneiform, 800);
        }
        assert_eq!(
            before,
            (estimates.tokens(MODEL, A, english), estimates.tokens(MODEL, B, english))
        );
        assert_eq!(estimates.tokens(MODEL, A, cuneiform), 800, "and its own is learned");
    }

    #[test]
    fn padded_prompts_lower_an_estimate_to_no_less_than_prose_has() {
        let estimates = TokenEstimates::default();
        for _ in 0..150 {
            estimates.learn(MODEL, A, TextBytes::new(30_000, 0), 60);
        }
        // 16,000 words of five bytes, a token each.
        assert_eq!(estimates.tokens(MODEL, A, TextBytes::new(80_000, 0)), 16_000);
        assert_eq!(estimates.tokens(MODEL, B, TextBytes::new(80_000, 0)), 20_000);
    }

    proptest! {
        #[test]
        fn a_quarter_of_odd_samples_does_not_move_an_estimate_below_the_honest_ones(
            ratio in 210..900u64,
            odd in prop::collection::vec((1u64..1_000_000, 0..4usize), 0..100),
        ) {
            // Of each four prompts, three have so many thousandths of a token a byte, and one has any number.
            let mut estimate = Estimate::default();
            for _ in 0..SAMPLES {
                estimate.learn(TextBytes::new(10_000, 0), ratio * 10);
            }
            for (tokens, at) in odd {
                for position in 0..4 {
                    let counted = if position == at { tokens } else { ratio * 10 };
                    estimate.learn(TextBytes::new(10_000, 0), counted.max(LEAST_TOKENS));
                }
                let estimated = estimate.tokens(TextBytes::new(10_000, 0));
                prop_assert!(estimated >= ratio * 10, "{} for {}", estimated, ratio * 10);
            }
        }

        #[test]
        fn whatever_was_learned_an_estimate_is_between_a_fifth_of_a_token_and_one_a_byte(
            samples in prop::collection::vec((any::<u32>(), any::<u32>(), any::<u64>()), 0..100),
            (ascii, other) in (0..1u64 << 40, 0..1u64 << 40),
        ) {
            let mut estimate = Estimate::default();
            for (ascii, other, tokens) in samples {
                estimate.learn(TextBytes { ascii: ascii.into(), other: other.into() }, tokens);
            }
            let estimated = estimate.tokens(TextBytes { ascii, other });
            prop_assert!(estimated <= ascii + other);
            prop_assert!(estimated >= (ascii + other) / 5);
        }
    }

    #[test]
    fn memory_is_bounded_however_many_projects_there_are() {
        let estimates = TokenEstimates::default();
        for project in 0..3 * u32::try_from(MOST_PAIRS).expect("small") {
            estimates.learn(MODEL, ProjectId(project), TextBytes::new(1000, 0), 300);
        }
        assert!(estimates.0.lock().expect("not poisoned").len() <= MOST_PAIRS);
    }
}
