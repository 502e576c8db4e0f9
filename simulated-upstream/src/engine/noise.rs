//! Noise that is the same for the same seed, on every machine.

/// Factors around 1, log-normal with mean 1.
#[derive(Debug, Clone)]
pub(super) struct Noise {
    state: u64,
    sigma: f64,
}

impl Noise {
    pub(super) fn new(seed: u64, sigma: f64) -> Self {
        Self { state: seed, sigma }
    }

    /// The next factor.
    pub(super) fn factor(&mut self) -> f64 {
        if self.sigma == 0.0 {
            return 1.0;
        }
        // The sum of twelve uniform numbers is near enough to normal, and of the same bits everywhere.
        let normal: f64 = (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0;
        (self.sigma * normal - self.sigma * self.sigma / 2.0).exp()
    }

    #[allow(clippy::cast_precision_loss)]
    fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
