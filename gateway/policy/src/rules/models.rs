//! Limits and prices of models.

use super::subjects::Rates;
use crate::{NanoEuro, Units};

/// A model's limits and prices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ModelRules {
    /// Rate limits of all its requests together.
    pub rates: Rates,
    /// The requests that it may run at once.
    pub concurrency: Concurrency,
    /// The most tokens in flight at once: uncached prompts, and the usual length of their answers.
    pub max_concurrent_tokens: TokenLimit,
    /// Prices.
    pub prices: Prices,
    /// The longest prompt, in tokens; 0: any.
    pub max_input_tokens: u64,
    /// The longest answer, in tokens; 0: any.
    pub max_output_tokens: u64,
    /// True if degradation routes requests for other models to it.
    pub is_fallback: bool,
}

/// The requests that a model may run at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Concurrency {
    /// Any number.
    #[default]
    Unlimited,
    /// This number.
    Fixed(usize),
    /// Found from the servers' load and the timing of their answers; never more than this number.
    Auto(usize),
}

/// The tokens that a model may have in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TokenLimit {
    /// Found where its concurrency is found, else any number.
    #[default]
    Default,
    /// This number.
    Fixed(u64),
    /// Found from the KV cache in use that its servers report.
    Auto,
}

/// Prices of a thousand tokens, and of what is not tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Prices {
    /// Of a prompt.
    pub input: NanoEuro,
    /// Of the part of a prompt that the upstream had in its cache.
    pub cached_input: NanoEuro,
    /// Of an answer.
    pub output: NanoEuro,
    /// Of a minute of audio that is read.
    pub audio_minute: NanoEuro,
    /// Of an image that is made.
    pub image: NanoEuro,
    /// Of a request of a pass-through path.
    pub passthrough_request: NanoEuro,
}

impl Prices {
    /// The price of this usage.
    pub fn of(&self, input_tokens: u64, cached_input_tokens: u64, output_tokens: u64) -> NanoEuro {
        let cached = cached_input_tokens.min(input_tokens);
        self.input.per_1k(input_tokens - cached) + self.cached_input.per_1k(cached) + self.output.per_1k(output_tokens)
    }

    /// The price of what is not tokens.
    pub fn of_units(&self, units: &Units) -> NanoEuro {
        self.audio_minute.share(units.audio_millis, 60_000)
            + self.image.share(units.images, 1)
            + self.passthrough_request.share(units.passthrough_requests, 1)
    }
}
