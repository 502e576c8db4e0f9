//! Where a run becomes steady.

use crate::sample::Sample;

/// Observations in one batch.
const BATCH: usize = 5;

/// When the steady part of a run begins, in seconds: requests sent before are better left out. By the marginal standard
/// error rule on batches of five (MSER-5: White, Cobb and Spratt, "A comparison of five steady-state truncation
/// heuristics for simulation", 2000), on the latency of completed requests; never more than half of the run.
pub(crate) fn begins(samples: &[Sample]) -> f64 {
    let mut observed: Vec<(f64, f64)> = samples
        .iter()
        .filter(|sample| sample.is_completed())
        .filter_map(|sample| Some((sample.at_seconds, sample.end_to_end_latency_seconds?)))
        .collect();
    observed.sort_by(|one, other| one.0.total_cmp(&other.0));
    #[allow(clippy::cast_precision_loss)]
    let mean = |batch: &[(f64, f64)]| batch.iter().map(|(_, latency)| latency).sum::<f64>() / BATCH as f64;
    let means: Vec<f64> = observed.chunks_exact(BATCH).map(mean).collect();
    let cut = truncation(&means) * BATCH;
    observed.get(cut).filter(|_| cut > 0).map_or(0.0, |(at, _)| *at)
}

/// The number of first batches whose omission minimizes the standard error of the mean of the others.
#[allow(clippy::cast_precision_loss)]
fn truncation(means: &[f64]) -> usize {
    let (mut sum, mut squares, mut count) = (0.0, 0.0, 0.0);
    let (mut best, mut least) = (0, f64::INFINITY);
    for at in (0..means.len()).rev() {
        sum += means[at];
        squares += means[at] * means[at];
        count += 1.0;
        let error = (squares - sum * sum / count) / (count * count);
        if at <= means.len() / 2 && error < least {
            (best, least) = (at, error);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use simulated_upstream::random::Random;

    fn run(latency: impl Fn(f64) -> f64) -> Vec<Sample> {
        let mut random = Random::new(9);
        let sample = |number: u32| Sample {
            at_seconds: f64::from(number) * 0.01,
            end_to_end_latency_seconds: Some(latency(f64::from(number) * 0.01) * (0.9 + 0.2 * random.part())),
            final_backend_status: "completed".to_owned(),
            ..Sample::default()
        };
        (0..1000).map(sample).collect()
    }

    #[test]
    fn the_slow_beginning_of_a_run_is_found() {
        // Two seconds of ten are five times as slow.
        let begins = begins(&run(|at| if at < 2.0 { 0.5 } else { 0.1 }));
        assert!((2.0..2.5).contains(&begins), "{begins}");
    }

    #[test]
    fn a_run_that_becomes_no_faster_is_cut_at_its_half_at_most() {
        assert!(begins(&run(|at| 0.1 * at)) <= 5.0);
        assert!(begins(&[]).abs() < 1e-9);
    }
}
