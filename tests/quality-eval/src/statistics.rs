//! The statistics of shares: intervals, pass@k, and tests of paired answers. Pure: figures in, figures out.

/// The number of resamples of a bootstrap.
const RESAMPLES: usize = 10_000;

/// The chance that at least one of k of n samples is right, of which c are: 1 - C(n-c, k) / C(n, k), which is unbiased
/// (Chen et al. 2021, arXiv:2107.03374, section 2.1).
pub(crate) fn pass_at(k: usize, n: usize, c: usize) -> f64 {
    if n < c + k {
        return 1.0;
    }
    if k == 1 {
        return real(c) / real(n);
    }
    let wrong = (n - c + 1..=n).fold(1.0, |product, i| product * (1.0 - real(k) / real(i)));
    1.0 - wrong
}

/// Wilson's interval for a share of n, 95 %.
pub(crate) fn wilson(share: f64, n: usize) -> (f64, f64) {
    if n == 0 {
        return (0.0, 1.0);
    }
    let (z, n) = (1.959_964, real(n));
    let middle = share + z * z / (2.0 * n);
    let half = z * (share * (1.0 - share) / n + z * z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + z * z / n;
    (((middle - half) / scale).max(0.0), ((middle + half) / scale).min(1.0))
}

/// The percentile bootstrap's interval for a mean, 95 % (Efron and Tibshirani 1993, chapter 13). The same values give
/// the same interval.
pub(crate) fn bootstrap(values: &[f64]) -> (f64, f64) {
    if values.is_empty() {
        return (0.0, 0.0);
    }
    let mut random = SplitMix(0x5eed);
    let mut means: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            (0..values.len())
                .map(|_| values[random.below(values.len())])
                .sum::<f64>()
                / real(values.len())
        })
        .collect();
    means.sort_by(f64::total_cmp);
    (means[RESAMPLES / 40], means[RESAMPLES - 1 - RESAMPLES / 40])
}

/// The two-sided p of `McNemar`'s exact test: the chance that n coins fall at least as unevenly, where n problems were
/// answered right by one of two models only.
pub(crate) fn mcnemar(only_one: usize, only_other: usize) -> f64 {
    let n = only_one + only_other;
    let mut log_term = real(n) * 0.5_f64.ln();
    let mut tail = 0.0;
    for i in 0..=only_one.min(only_other) {
        tail += log_term.exp();
        log_term += (real(n - i) / real(i + 1)).ln();
    }
    (2.0 * tail).min(1.0)
}

/// Holm's adjustment of p values for the number of comparisons (Holm 1979), in the order given.
pub(crate) fn holm(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    let mut adjusted = vec![0.0; values.len()];
    let mut least = 0.0_f64;
    for (rank, index) in order.into_iter().enumerate() {
        least = least.max((values[index] * real(values.len() - rank)).min(1.0));
        adjusted[index] = least;
    }
    adjusted
}

#[allow(clippy::cast_precision_loss)]
pub(crate) fn real(count: usize) -> f64 {
    count as f64
}

/// Steele, Lea and Flood's generator (2014).
struct SplitMix(u64);

impl SplitMix {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        // The high half of the product: as even as 64 bits can be.
        let scaled = (u128::from(mixed) * limit as u128) >> 64;
        usize::try_from(scaled).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pass_at_k_is_that_of_every_choice_of_k_samples() {
        for n in 1..=9_usize {
            for c in 0..=n {
                for k in 1..=n {
                    // All choices of k of n, of which the first c are right.
                    let choices = (0..1_u32 << n).filter(|choice| choice.count_ones() as usize == k);
                    let (all, good) = choices.fold((0, 0), |(all, good), choice| {
                        (all + 1, good + usize::from(choice & ((1 << c) - 1) != 0))
                    });
                    let exact = real(good) / real(all);
                    assert!((pass_at(k, n, c) - exact).abs() < 1e-12, "{k} of {n}, {c} right");
                }
            }
        }
    }

    #[test]
    fn the_interval_of_a_share_is_wilsons() {
        // 81 of 263 (Newcombe 1998, Statistics in Medicine 17, table I, method 3).
        let (low, high) = wilson(81.0 / 263.0, 263);
        assert!(
            (low - 0.2553).abs() < 5e-5 && (high - 0.3662).abs() < 5e-5,
            "{low} {high}"
        );
        let (low, high) = wilson(0.0, 20);
        assert!(low == 0.0 && (high - 0.1611).abs() < 5e-5, "{low} {high}");
    }

    #[test]
    fn mcnemars_test_counts_coins() {
        // 2 · Σ C(n, i) / 2ⁿ in exact integers (Python); and no difference at all.
        for (one, other, p) in [
            (1, 8, 0.039_062_5),
            (9, 25, 0.009_041_185_490_787_03),
            (5, 5, 1.0),
            (0, 0, 1.0),
        ] {
            assert!(
                (mcnemar(one, other) - p).abs() < 1e-9,
                "{one} {other}: {}",
                mcnemar(one, other)
            );
            assert!((mcnemar(other, one) - p).abs() < 1e-9);
        }
        assert!((0.0..1e-9).contains(&mcnemar(500, 900)));
    }

    #[test]
    fn a_bootstrap_of_shares_is_close_to_the_normal_interval() {
        // 100 values with mean 0.5 and standard deviation 0.5: 0.5 ± 1.96 · 0.05.
        let values: Vec<f64> = (0..100).map(|index| f64::from(index % 2)).collect();
        let (low, high) = bootstrap(&values);
        assert!(
            (low - 0.402).abs() < 0.011 && (high - 0.598).abs() < 0.011,
            "{low} {high}"
        );
        assert_eq!(bootstrap(&values), (low, high));
        assert_eq!(bootstrap(&[1.0, 1.0]), (1.0, 1.0));
    }

    #[test]
    fn holms_adjustment_is_that_of_his_example() {
        // R: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm").
        let adjusted = holm(&[0.01, 0.04, 0.03, 0.005]);
        for (got, expected) in adjusted.iter().zip([0.03, 0.06, 0.06, 0.02]) {
            assert!((got - expected).abs() < 1e-12, "{adjusted:?}");
        }
    }
}
