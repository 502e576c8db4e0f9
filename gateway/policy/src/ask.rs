//! What is asked for, by whom: the vocabulary of policy. Ids are interned numbers; policy hashes no
//! strings. An id means the same for as long as the [`Policy`](crate::Policy) lives: a reload adds ids,
//! and never gives one to somebody else.

use crate::Rules;

/// A project's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProjectId(pub u32);

/// A user's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserId(pub u32);

/// An API key's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(pub u32);

/// A model's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct ModelId(pub u32);

/// A plan's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PlanId(pub u32);

/// Whether a person waits for the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Class {
    /// Someone waits.
    #[default]
    Interactive,
    /// Nobody waits; first to be refused under pressure.
    Batch,
}

/// A project's priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Priority {
    /// Background work.
    Low,
    /// The usual one.
    Normal,
    /// The one that is kept to the last.
    High,
}

impl Priority {
    /// All of them, the highest first.
    pub const ALL: [Priority; 3] = [Priority::High, Priority::Normal, Priority::Low];
}

/// Money in whole billionths of a euro: a token can cost a ten-millionth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct NanoEuro(pub u64);

impl NanoEuro {
    /// The price of `tokens` at `self` for a thousand, rounded to the nearest nano-euro.
    pub fn per_1k(self, tokens: u64) -> NanoEuro {
        let exact = u128::from(self.0) * u128::from(tokens) + 500;
        NanoEuro(u64::try_from(exact / 1000).unwrap_or(u64::MAX))
    }

    /// Euros, for people and JSON only; sums are made of nano-euros.
    #[allow(clippy::cast_precision_loss)]
    pub fn euros(self) -> f64 {
        self.0 as f64 / 1e9
    }
}

impl std::ops::Add for NanoEuro {
    type Output = NanoEuro;
    fn add(self, other: NanoEuro) -> NanoEuro {
        NanoEuro(self.0.saturating_add(other.0))
    }
}

/// What a request is expected to use, at worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Estimate {
    /// Tokens of the prompt.
    pub input_tokens: u64,
    /// Tokens that all answers together may have.
    pub output_tokens: u64,
    /// Price of both.
    pub cost: NanoEuro,
}

impl Estimate {
    /// Tokens of prompt and answers.
    pub fn tokens(&self) -> u64 {
        self.input_tokens.saturating_add(self.output_tokens)
    }
}

/// What a request has used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Tokens of the prompt.
    pub input_tokens: u64,
    /// Tokens of all answers.
    pub output_tokens: u64,
    /// What it cost.
    pub cost: NanoEuro,
}

impl Usage {
    /// Tokens of prompt and answers.
    pub fn tokens(&self) -> u64 {
        self.input_tokens.saturating_add(self.output_tokens)
    }
}

/// One request, as policy sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdmissionRequest {
    /// Who pays.
    pub project: ProjectId,
    /// Who asks.
    pub user: UserId,
    /// The key that was shown.
    pub key: Option<KeyId>,
    /// The plan of the project.
    pub plan: PlanId,
    /// The model wanted.
    pub model: ModelId,
    /// Where the request may be routed instead when something has to give way.
    pub smaller: Option<ModelId>,
    /// Whether someone waits.
    pub class: Class,
    /// The priority, already lowered where the request asked for it.
    pub priority: Priority,
    /// Tokens of the prompt, estimated.
    pub input_tokens: u64,
    /// The most tokens that each answer may have.
    pub max_tokens: u64,
    /// How many answers; 0 where the answer is not made of tokens.
    pub answers: u64,
}

impl AdmissionRequest {
    /// The worst case, at the prices in force.
    pub fn estimate(&self, rules: &Rules) -> Estimate {
        let prices = rules.model(self.model).prices;
        let output_tokens = self.max_tokens.saturating_mul(self.answers);
        Estimate {
            input_tokens: self.input_tokens,
            output_tokens,
            cost: prices.input.per_1k(self.input_tokens) + prices.output.per_1k(output_tokens),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_is_rounded_to_the_nearest_nano_euro_and_never_overflows() {
        assert_eq!(NanoEuro(100_000).per_1k(1), NanoEuro(100));
        assert_eq!(NanoEuro(1).per_1k(499), NanoEuro(0));
        assert_eq!(NanoEuro(1).per_1k(500), NanoEuro(1));
        assert_eq!(NanoEuro(u64::MAX).per_1k(u64::MAX), NanoEuro(u64::MAX));
    }
}
