//! Weights of input, cached input and output tokens.

use crate::Usage;

/// The weights of tokens in thousandths of an uncached input token's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenWeights {
    /// An input token that the server had in its cache; in rate limits and in fairness.
    pub cached_input: u32,
    /// An output token; in fairness.
    pub output: u32,
}

impl Default for TokenWeights {
    /// A cached input token counts a tenth, about as providers price it; an output token twice.
    fn default() -> Self {
        Self {
            cached_input: 100,
            output: 2000,
        }
    }
}

impl TokenWeights {
    /// The weight of an uncached input token.
    pub(crate) const UNCACHED_INPUT: u32 = 1000;

    /// The tokens that a prompt counts as, of which so many were in the server's cache.
    pub(crate) fn input_tokens(self, input_tokens: u64, cached: u64) -> u64 {
        let cached = cached.min(input_tokens);
        let weighed = u128::from(cached) * u128::from(self.cached_input) / 1000;
        let weighed = u64::try_from(weighed).unwrap_or(u64::MAX);
        (input_tokens - cached).saturating_add(weighed)
    }

    /// The tokens that a request's usage counts as in rate limits.
    pub(crate) fn rate_tokens(self, usage: &Usage) -> u64 {
        self.input_tokens(usage.input_tokens, usage.cached_input_tokens)
            .saturating_add(usage.output_tokens)
    }
}
