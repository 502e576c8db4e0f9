//! A model's figures from its samples. Pure: figures in, figures out.

use crate::ask::Answer;
use crate::statistics::{bootstrap, pass_at, real, wilson};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// One reply and its verdict.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sample {
    pub(crate) task_id: String,
    pub(crate) model: String,
    /// From 0, of the samples of one problem.
    pub(crate) sample: usize,
    pub(crate) passed: bool,
    /// Empty where it passed.
    pub(crate) error_type: String,
    pub(crate) error_message: String,
    /// True if the base tests passed, where a problem has others, too (`EvalPlus`).
    #[serde(default)]
    pub(crate) base_passed: Option<bool>,
    #[serde(flatten)]
    pub(crate) answer: Answer,
}

/// A model's figures over all its problems.
#[derive(Debug, Clone)]
pub(crate) struct Scored {
    pub(crate) model: String,
    pub(crate) problems: usize,
    pub(crate) passed: usize,
    pub(crate) samples: usize,
    /// A share, 0 to 1, and its 95 % interval: Wilson's for one sample a problem, else a bootstrap over problems.
    pub(crate) pass_at_1: f64,
    pub(crate) interval: (f64, f64),
    /// Of the base tests alone, where there are others, too.
    pub(crate) base_pass_at_1: Option<f64>,
    /// By k.
    pub(crate) pass_at_k: BTreeMap<usize, f64>,
    /// Of the samples that the gateway let through.
    pub(crate) pass_at_1_of_answered: f64,
    pub(crate) average_latency: f64,
    pub(crate) p95_latency: f64,
    pub(crate) average_end_to_end: f64,
    pub(crate) p95_end_to_end: f64,
    pub(crate) tokens: (u64, u64),
    pub(crate) cost: f64,
    /// `None` where nothing passed.
    pub(crate) cost_per_passed: Option<f64>,
    pub(crate) errors: BTreeMap<String, usize>,
    pub(crate) rejected: usize,
}

/// A model's samples.
pub(crate) fn score(model: &str, samples: &[&Sample]) -> Scored {
    let mut by_problem: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for sample in samples {
        let (all, right) = by_problem.entry(&sample.task_id).or_default();
        *all += 1;
        *right += usize::from(sample.passed);
    }
    let problems = by_problem.len();
    let mean_at = |k: usize| {
        let each = by_problem
            .values()
            .map(|(all, right)| pass_at(k.min(*all), *all, *right));
        each.sum::<f64>() / real(problems.max(1))
    };
    let fewest = by_problem.values().map(|(all, _)| *all).min().unwrap_or(0);
    let ks = [1, 2, 5, 10, 20, 50, 100].into_iter().filter(|k| *k <= fewest);
    let answered: Vec<&&Sample> = samples.iter().filter(|sample| !sample.answer.is_refused()).collect();
    let replied: Vec<&&Sample> = answered
        .iter()
        .filter(|sample| sample.answer.reply.is_some())
        .copied()
        .collect();
    let passed_samples = samples.iter().filter(|sample| sample.passed).count();
    let figures = |of: &dyn Fn(&Sample) -> f64| {
        let mut all: Vec<f64> = replied.iter().map(|sample| of(sample)).collect();
        all.sort_by(f64::total_cmp);
        let mean = all.iter().sum::<f64>() / real(all.len().max(1));
        // The nearest rank.
        let rank = (all.len() * 95).div_ceil(100).saturating_sub(1);
        (mean, all.get(rank).copied().unwrap_or_default())
    };
    let (average_latency, p95_latency) = figures(&|sample| sample.answer.latency_seconds);
    let (average_end_to_end, p95_end_to_end) = figures(&|sample| sample.answer.end_to_end_latency_seconds);
    let cost: f64 = samples.iter().map(|sample| cost(&sample.answer)).sum();
    let mut errors = BTreeMap::new();
    for sample in samples.iter().filter(|sample| !sample.passed) {
        *errors.entry(sample.error_type.clone()).or_default() += 1;
    }
    let shares: Vec<f64> = by_problem
        .values()
        .map(|(all, right)| real(*right) / real(*all))
        .collect();
    let pass_at_1 = mean_at(1);
    Scored {
        model: model.to_owned(),
        problems,
        passed: by_problem.values().filter(|(_, right)| *right > 0).count(),
        samples: samples.len(),
        pass_at_1,
        interval: if samples.len() == problems {
            wilson(pass_at_1, problems)
        } else {
            bootstrap(&shares)
        },
        base_pass_at_1: base_pass_at_1(samples),
        pass_at_k: ks.map(|k| (k, mean_at(k))).collect(),
        pass_at_1_of_answered: real(passed_samples) / real(answered.len().max(1)),
        average_latency,
        p95_latency,
        average_end_to_end,
        p95_end_to_end,
        tokens: samples.iter().fold((0, 0), |(input, output), sample| {
            (input + sample.answer.input_tokens, output + sample.answer.output_tokens)
        }),
        cost,
        cost_per_passed: (passed_samples > 0).then(|| cost / real(passed_samples)),
        rejected: samples.len() - answered.len(),
        errors,
    }
}

/// The share of the samples whose base tests passed, if that is known of any.
fn base_pass_at_1(samples: &[&Sample]) -> Option<f64> {
    samples.iter().any(|sample| sample.base_passed.is_some()).then(|| {
        let passed = samples
            .iter()
            .filter(|sample| sample.base_passed.unwrap_or(sample.passed));
        real(passed.count()) / real(samples.len())
    })
}

/// The cost of a sample: the billed one, or else the estimate.
fn cost(answer: &Answer) -> f64 {
    if answer.cost_eur > 0.0 {
        answer.cost_eur
    } else if answer.reply.is_some() {
        answer.estimated_cost_eur
    } else {
        0.0
    }
}

impl Scored {
    /// The fields of `quality_summary.json`.
    pub(crate) fn summary(&self, at: &str) -> Map<String, Value> {
        let at_k: Map<String, Value> = self
            .pass_at_k
            .iter()
            .map(|(k, share)| (k.to_string(), json!(share)))
            .collect();
        let fields = json!({
            "model": self.model,
            "run_timestamp": at,
            "total_problems": self.problems,
            "samples": self.samples,
            "passed": self.passed,
            "failed": self.problems - self.passed,
            "pass_at_1": self.pass_at_1,
            "pass_at_1_low": self.interval.0,
            "pass_at_1_high": self.interval.1,
            "base_pass_at_1": self.base_pass_at_1,
            "pass_at_k": at_k,
            "pass_at_1_of_answered": self.pass_at_1_of_answered,
            "average_latency_seconds": self.average_latency,
            "p95_latency_seconds": self.p95_latency,
            "average_end_to_end_latency_seconds": self.average_end_to_end,
            "p95_end_to_end_latency_seconds": self.p95_end_to_end,
            "input_tokens": self.tokens.0,
            "output_tokens": self.tokens.1,
            "total_cost_eur": self.cost,
            "cost_per_passed_eur": self.cost_per_passed,
            "error_breakdown": self.errors,
            "simulator_rejected": self.rejected,
        });
        match fields {
            Value::Object(fields) => fields,
            _ => Map::new(),
        }
    }
}

#[cfg(test)]
impl Sample {
    /// A sample that passed or not, with nothing else to say.
    pub(crate) fn of(model: &str, task: &str, number: usize, passed: bool) -> Self {
        Self {
            task_id: task.to_owned(),
            model: model.to_owned(),
            sample: number,
            passed,
            error_type: String::new(),
            error_message: String::new(),
            base_passed: None,
            answer: Answer::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_and_failures_are_counted_apart() {
        let sample = |task: &str, passed: bool, status: &str, error: &str| Sample {
            error_type: error.to_owned(),
            answer: Answer {
                simulator_status: status.to_owned(),
                latency_seconds: 2.0,
                cost_eur: 0.5,
                reply: (status == "completed").then(String::new),
                ..Answer::default()
            },
            ..Sample::of("m", task, 0, passed)
        };
        let samples = [
            sample("a", true, "completed", ""),
            sample("b", false, "completed", "AssertionError"),
            sample("c", false, "rejected", "simulator_rejected"),
            sample("d", true, "completed", ""),
        ];
        let scored = score("m", &samples.iter().collect::<Vec<_>>());
        assert_eq!((scored.passed, scored.rejected, scored.problems), (2, 1, 4));
        assert!((scored.pass_at_1 - 0.5).abs() < 1e-12 && (scored.pass_at_1_of_answered - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!(scored.cost_per_passed, Some(1.0));
        assert_eq!(scored.errors["AssertionError"], 1);
    }
}
