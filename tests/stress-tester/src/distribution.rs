//! Averages and percentiles, of figures and of histograms of microseconds.

use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// A percentile of sorted figures, interpolated between the nearest two (type 7 of Hyndman and Fan, "Sample quantiles
/// in statistical packages", 1996; numpy's and vLLM's).
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]
pub(crate) fn quantile(sorted: &[f64], part: f64) -> Option<f64> {
    let at = sorted.len().checked_sub(1)? as f64 * part;
    let below = sorted[at.floor() as usize];
    let above = sorted[at.ceil() as usize];
    Some(below + (above - below) * at.fract())
}

/// Count, average, deviation and percentiles; all but the count are null if there are no figures.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn distribution(figures: impl Iterator<Item = f64>) -> Value {
    let mut sorted: Vec<f64> = figures.collect();
    sorted.sort_by(f64::total_cmp);
    let count = sorted.len() as f64;
    let average = (count > 0.0).then(|| sorted.iter().sum::<f64>() / count);
    let deviation = average.filter(|_| count > 1.0).map(|average| {
        let squares: f64 = sorted.iter().map(|figure| (figure - average).powi(2)).sum();
        (squares / (count - 1.0)).sqrt()
    });
    json!({
        "count": sorted.len(),
        "average": average,
        "standard_deviation": deviation,
        "min": sorted.first(),
        "p50": quantile(&sorted, 0.50),
        "p90": quantile(&sorted, 0.90),
        "p95": quantile(&sorted, 0.95),
        "p99": quantile(&sorted, 0.99),
        "p999": quantile(&sorted, 0.999),
        "max": sorted.last(),
    })
}

/// A histogram of microseconds up to ten minutes, to three digits.
pub(crate) fn histogram() -> Histogram<u64> {
    let made = Histogram::new_with_bounds(1, 600_000_000, 3);
    made.unwrap_or_else(|_| unreachable!("the bounds are valid"))
}

/// The same of a histogram of microseconds, to three digits.
pub(crate) fn of_histogram(histogram: &Histogram<u64>) -> Value {
    let average = (!histogram.is_empty()).then(|| histogram.mean() / 1e6);
    let deviation = (histogram.len() > 1).then(|| histogram.stdev() / 1e6);
    json!({
        "count": histogram.len(),
        "average": average,
        "standard_deviation": deviation,
        "min": seconds_at(histogram, 0.0),
        "p50": seconds_at(histogram, 0.50),
        "p90": seconds_at(histogram, 0.90),
        "p95": seconds_at(histogram, 0.95),
        "p99": seconds_at(histogram, 0.99),
        "p999": seconds_at(histogram, 0.999),
        "max": seconds_at(histogram, 1.0),
    })
}

/// A quantile of a histogram of microseconds, in seconds.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn seconds_at(histogram: &Histogram<u64>, part: f64) -> Option<f64> {
    (!histogram.is_empty()).then(|| histogram.value_at_quantile(part) as f64 / 1e6)
}

/// Jain's fairness index: 1 if all have the same, 1/n if one has it all (Jain, Chiu and Hawe, "A quantitative
/// measure of fairness", 1984). Absent if all shares are 0.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn jain(figures: &[f64]) -> Option<f64> {
    let sum: f64 = figures.iter().sum();
    let squares: f64 = figures.iter().map(|figure| figure * figure).sum();
    (squares > 0.0).then(|| sum * sum / (figures.len() as f64 * squares))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// numpy.percentile of the same figures.
    #[test]
    fn percentiles_are_those_of_numpy() {
        let figures = [15.0, 20.0, 35.0, 40.0, 50.0];
        for (part, expected) in [
            (0.0, 15.0),
            (0.4, 29.0),
            (0.5, 35.0),
            (0.9, 46.0),
            (0.99, 49.6),
            (1.0, 50.0),
        ] {
            assert!(
                (quantile(&figures, part).expect("a figure") - expected).abs() < 1e-9,
                "{part}"
            );
        }
        assert_eq!(quantile(&[], 0.5), None);
        let none = distribution(std::iter::empty());
        assert!(none["count"] == 0 && none["p50"].is_null() && none["average"].is_null());
    }

    #[test]
    fn jains_index_is_1_for_equals_and_one_nth_for_one_of_n() {
        assert_eq!(jain(&[5.0, 5.0, 5.0]), Some(1.0));
        assert_eq!(jain(&[1.0, 0.0, 0.0, 0.0]), Some(0.25));
        assert_eq!(jain(&[0.0]), None);
    }
}
