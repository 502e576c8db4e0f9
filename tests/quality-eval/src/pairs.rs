//! Models in pairs, on the problems that both were asked. Pure: samples in, figures out.

use crate::score::Sample;
use crate::statistics::{bootstrap, holm, mcnemar, real};
use serde::Serialize;
use std::collections::BTreeMap;

/// Two models on the problems that both were asked.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Pair {
    pub(crate) model: String,
    pub(crate) other: String,
    pub(crate) problems: usize,
    /// Problems that the one solved more often than the other, and the other way around.
    pub(crate) only_model: usize,
    pub(crate) only_other: usize,
    /// The difference in pass@1 (first minus second), and its 95 % interval by a bootstrap over problems.
    pub(crate) difference: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
    /// `McNemar`'s exact p, two-sided, adjusted for the number of pairs by Holm's method.
    pub(crate) p: f64,
}

/// Every pair of models.
pub(crate) fn pairs(models: &[String], samples: &[Sample]) -> Vec<Pair> {
    let shares: Vec<BTreeMap<&str, f64>> = models.iter().map(|model| shares(model, samples)).collect();
    let mut pairs = Vec::new();
    for (at, model) in models.iter().enumerate() {
        for (other_at, other) in models.iter().enumerate().skip(at + 1) {
            pairs.push(pair(model, other, &shares[at], &shares[other_at]));
        }
    }
    let adjusted = holm(&pairs.iter().map(|pair| pair.p).collect::<Vec<_>>());
    for (pair, p) in pairs.iter_mut().zip(adjusted) {
        pair.p = p;
    }
    pairs
}

/// The share of a model's samples that passed, by problem.
fn shares<'a>(model: &str, samples: &'a [Sample]) -> BTreeMap<&'a str, f64> {
    let mut counts: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for sample in samples.iter().filter(|sample| sample.model == model) {
        let (all, passed) = counts.entry(&sample.task_id).or_default();
        *all += 1;
        *passed += usize::from(sample.passed);
    }
    let shares = counts.into_iter();
    shares
        .map(|(task, (all, passed))| (task, real(passed) / real(all)))
        .collect()
}

fn pair(model: &str, other: &str, one: &BTreeMap<&str, f64>, two: &BTreeMap<&str, f64>) -> Pair {
    let both = one.iter().filter_map(|(task, share)| Some(share - two.get(task)?));
    let differences: Vec<f64> = both.collect();
    let better = |sign: f64| {
        differences
            .iter()
            .filter(|difference| **difference * sign > 1e-12)
            .count()
    };
    let (only_model, only_other) = (better(1.0), better(-1.0));
    let (low, high) = bootstrap(&differences);
    Pair {
        model: model.to_owned(),
        other: other.to_owned(),
        problems: differences.len(),
        only_model,
        only_other,
        difference: differences.iter().sum::<f64>() / real(differences.len().max(1)),
        low,
        high,
        p: mcnemar(only_model, only_other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(model: &str, task: usize, number: usize, passed: bool) -> Sample {
        Sample::of(model, &task.to_string(), number, passed)
    }

    #[test]
    fn models_are_compared_on_the_problems_that_both_were_asked() {
        let mut samples: Vec<Sample> = (0..20).map(|task| sample("a", task, 0, task < 12)).collect();
        samples.extend((0..10).map(|task| sample("b", task, 0, task < 2)));
        let pairs = pairs(&["a".to_owned(), "b".to_owned()], &samples);
        let pair = &pairs[0];
        assert_eq!((pair.problems, pair.only_model, pair.only_other), (10, 8, 0));
        assert!((pair.difference - 0.8).abs() < 1e-12 && pair.low > 0.4 && pair.high <= 1.0);
        // Eight coins on one side: 2 / 2⁸.
        assert!((pair.p - 2.0 / 256.0).abs() < 1e-12, "{}", pair.p);
    }
}
