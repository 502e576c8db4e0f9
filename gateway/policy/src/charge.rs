//! The work of a request, and the charge for it to its band, project and user.

use crate::TokenWeights;

/// The most work that one request counts as, in thousandths of an uncached input token: a billion tokens. An absurd
/// usage figure cannot carry a counter to its end, where everyone would have the same.
const MAX_WORK: u64 = 1_000_000_000_000;

/// Counters of bands are scaled, so that dividing by a weight loses nothing that matters.
const SCALE: u64 = 64;

/// The tokens that make up a request's work.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tokens {
    /// Tokens of the prompt that the server computes.
    pub(crate) uncached: u64,
    /// Tokens of the prompt that it has in its cache.
    pub(crate) cached: u64,
    /// Tokens of the answers.
    pub(crate) output: u64,
}

impl Tokens {
    /// The tokens of a prompt, of which so many are cached, and of its answers.
    pub(crate) fn new(input: u64, cached: u64, output: u64) -> Self {
        let cached = cached.min(input);
        Self {
            uncached: input - cached,
            cached,
            output,
        }
    }

    /// The work, in thousandths of an uncached input token, at least 1.
    pub(crate) fn work(self, weights: TokenWeights) -> u64 {
        let weighed = |tokens: u64, weight: u32| tokens.saturating_mul(weight.into());
        weighed(self.uncached, TokenWeights::UNCACHED_INPUT)
            .saturating_add(weighed(self.cached, weights.cached_input))
            .saturating_add(weighed(self.output, weights.output))
            .clamp(1, MAX_WORK)
    }

    /// The tokens that the request occupies at its server while it runs.
    pub(crate) fn in_flight(self) -> u64 {
        self.uncached.saturating_add(self.output).min(u32::MAX.into())
    }
}

/// The amounts by which a request raises the counters of its band, project and user.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Charge {
    pub(crate) band: u64,
    pub(crate) project: u64,
    pub(crate) user: u64,
}

impl Charge {
    /// The charge for some work, in a class of this weight. The throttled are charged double, which halves their share.
    pub(crate) fn new(work: u64, weight: u64, throttled: Throttled) -> Self {
        let doubled = |is_throttled| work.saturating_mul(1 + u64::from(is_throttled));
        Self {
            band: work.saturating_mul(SCALE) / weight.max(1),
            project: doubled(throttled.project),
            user: doubled(throttled.user),
        }
    }
}

/// Which of a request's project and user are throttled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Throttled {
    pub(crate) project: bool,
    pub(crate) user: bool,
}
