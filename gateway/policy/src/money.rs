//! Money, in whole nano-euros.

use std::fmt;

/// Money in whole billionths of a euro: a token can cost a ten-millionth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct NanoEuro(pub u64);

impl NanoEuro {
    /// The price of `tokens` at `self` for a thousand, rounded to the nearest nano-euro.
    pub fn per_1k(self, tokens: u64) -> NanoEuro {
        self.share(tokens, 1000)
    }

    /// The price of `amount` at `self` for each `unit`, rounded to the nearest nano-euro.
    pub fn share(self, amount: u64, unit: u64) -> NanoEuro {
        let exact = u128::from(self.0) * u128::from(amount) + u128::from(unit / 2);
        NanoEuro(u64::try_from(exact / u128::from(unit.max(1))).unwrap_or(u64::MAX))
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

impl fmt::Display for NanoEuro {
    /// As in messages: `€12.50`, with as many digits as the amount needs, at least two.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fraction = format!("{:09}", self.0 % 1_000_000_000);
        let digits = fraction.trim_end_matches('0').len().max(2);
        write!(f, "€{}.{}", self.0 / 1_000_000_000, &fraction[..digits])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_is_written_with_its_currency_and_no_more_digits_than_it_has() {
        assert_eq!(NanoEuro(12_500_000_000).to_string(), "€12.50");
        assert_eq!(NanoEuro(50_000_000).to_string(), "€0.05");
        assert_eq!(NanoEuro(1_234_000).to_string(), "€0.001234");
        assert_eq!(NanoEuro(0).to_string(), "€0.00");
    }

    #[test]
    fn a_price_is_rounded_to_the_nearest_nano_euro_and_never_overflows() {
        assert_eq!(NanoEuro(100_000).per_1k(1), NanoEuro(100));
        assert_eq!(NanoEuro(1).per_1k(499), NanoEuro(0));
        assert_eq!(NanoEuro(1).per_1k(500), NanoEuro(1));
        assert_eq!(NanoEuro(u64::MAX).per_1k(u64::MAX), NanoEuro(u64::MAX));
        // €0.006 a minute: 1 s costs €0.0001.
        assert_eq!(NanoEuro(6_000_000).share(1_000, 60_000), NanoEuro(100_000));
        assert_eq!(NanoEuro(1).share(29_999, 60_000), NanoEuro(0));
        assert_eq!(NanoEuro(1).share(30_000, 60_000), NanoEuro(1));
    }
}
