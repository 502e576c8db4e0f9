//! Noise that is the same for the same seed, on every machine.

use crate::random::Random;

/// Factors around 1, log-normal with mean 1.
#[derive(Debug, Clone)]
pub(super) struct Noise {
    random: Random,
    sigma: f64,
}

impl Noise {
    pub(super) fn new(seed: u64, sigma: f64) -> Self {
        Self {
            random: Random::new(seed),
            sigma,
        }
    }

    /// The next factor.
    pub(super) fn factor(&mut self) -> f64 {
        if self.sigma == 0.0 {
            return 1.0;
        }
        // The sum of twelve uniform numbers is near enough to normal, and of the same bits everywhere.
        let normal: f64 = (0..12).map(|_| self.random.part()).sum::<f64>() - 6.0;
        (self.sigma * normal - self.sigma * self.sigma / 2.0).exp()
    }
}
