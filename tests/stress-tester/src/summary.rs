//! What a run was like as a whole: the original's fields, and more.

use crate::sample::Sample;
use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};
use simulated_upstream::report::Slo;
use std::collections::BTreeMap;
use std::time::Duration;

/// Everything that reports are made of; what several generators have seen is joined.
#[derive(Debug)]
pub(crate) struct Whole {
    pub(crate) name: String,
    /// Sorted by index.
    pub(crate) samples: Vec<Sample>,
    pub(crate) gaps: Histogram<u64>,
    pub(crate) lasted: Duration,
    pub(crate) slo: Slo,
    /// What the admin listener said, second by second.
    pub(crate) watched: Vec<Watched>,
}

/// What the gateway was like at a moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Watched {
    pub(crate) at_seconds: f64,
    pub(crate) queue_size: u64,
    pub(crate) active: u64,
    pub(crate) level: u64,
    /// Of those that wait: high, normal, low, batch class.
    #[serde(default)]
    pub(crate) by_class: [u64; 4],
}

/// Average and percentiles of some figures; percentiles from a histogram of three digits.
pub(crate) fn percentiles(figures: impl Iterator<Item = f64>) -> Value {
    let mut histogram = crate::run::gaps();
    let (mut sum, mut count) = (0.0, 0u32);
    for seconds in figures {
        histogram.saturating_record(micros(seconds));
        sum += seconds;
        count += 1;
    }
    json!({
        "count": count,
        "average": sum / f64::from(count.max(1)),
        "p50": quantile(&histogram, 0.50),
        "p90": quantile(&histogram, 0.90),
        "p95": quantile(&histogram, 0.95),
        "p99": quantile(&histogram, 0.99),
        "max": quantile(&histogram, 1.0),
    })
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn micros(seconds: f64) -> u64 {
    (seconds.max(0.0) * 1e6) as u64
}

/// A quantile in seconds.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn quantile(histogram: &Histogram<u64>, part: f64) -> f64 {
    if histogram.is_empty() {
        return 0.0;
    }
    histogram.value_at_quantile(part) as f64 / 1e6
}

/// How evenly something is shared out: 1 if all have the same, 1/n if one has it all (Jain, Chiu and Hawe, "A
/// quantitative measure of fairness", 1984).
fn jain(figures: &[f64]) -> f64 {
    let sum: f64 = figures.iter().sum();
    let squares: f64 = figures.iter().map(|figure| figure * figure).sum();
    if squares == 0.0 {
        return 1.0;
    }
    #[allow(clippy::cast_precision_loss)]
    let count = figures.len() as f64;
    sum * sum / (count * squares)
}

type Of = fn(&Sample) -> &str;

impl Whole {
    fn count(&self, is: impl Fn(&Sample) -> bool) -> usize {
        self.samples.iter().filter(|sample| is(sample)).count()
    }

    /// How many have each value.
    pub(crate) fn distribution(&self, of: impl Fn(&Sample) -> String) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for sample in &self.samples {
            *counts.entry(of(sample)).or_default() += 1;
        }
        counts
    }

    fn by(&self, of: Of, figure: fn(&Sample) -> f64) -> Value {
        let mut groups: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        for sample in &self.samples {
            groups.entry(of(sample)).or_default().push(figure(sample));
        }
        let groups = groups
            .into_iter()
            .map(|(name, figures)| (name.to_owned(), percentiles(figures.into_iter())));
        Value::Object(groups.collect())
    }

    fn statuses_by(&self, of: Of) -> Value {
        let mut groups: BTreeMap<&str, BTreeMap<&str, usize>> = BTreeMap::new();
        for sample in &self.samples {
            *groups
                .entry(of(sample))
                .or_default()
                .entry(&sample.final_backend_status)
                .or_default() += 1;
        }
        json!(groups)
    }

    /// The summary, with all of the original's fields.
    #[allow(clippy::cast_precision_loss)]
    pub(crate) fn summary(&self) -> Value {
        let latency: fn(&Sample) -> f64 = |sample| sample.latency_seconds;
        let whole: fn(&Sample) -> f64 = |sample| sample.end_to_end_latency_seconds;
        let (model, backend): (Of, Of) = (|sample| &sample.model, |sample| &sample.backend_name);
        let seconds = self.lasted.as_secs_f64().max(1e-9);
        let is = |status: &'static str| move |sample: &Sample| sample.final_backend_status == status;
        let (first, end) = (
            percentiles(self.samples.iter().map(latency)),
            percentiles(self.samples.iter().map(whole)),
        );
        let good = self.count(|sample| sample.is_good(&self.slo));
        let completed = self.count(Sample::is_completed);
        let tokens: u64 = self.samples.iter().map(|sample| sample.output_tokens).sum();
        let mut served: BTreeMap<&str, f64> = BTreeMap::new();
        for sample in &self.samples {
            let tokens = (sample.input_tokens + sample.output_tokens) as f64;
            *served.entry(&sample.user_id).or_default() += tokens;
        }
        let served: Vec<f64> = served.into_values().collect();
        let given = |figure: fn(&Sample) -> Option<f64>| percentiles(self.samples.iter().filter_map(figure));
        let ok = |sample: &Sample| (200..300).contains(&sample.http_status);
        let mut summary = json!({
            "scenario": self.name,
            "total_requests": self.samples.len(),
            "successful_http_requests": self.count(ok),
            "failed_http_requests": self.count(|sample| !ok(sample)),
            "accepted_or_completed": self.count(|sample| matches!(&*sample.backend_status, "completed" | "accepted" | "queued")),
            "queued": self.count(|sample| sample.backend_status == "queued"),
            "rejected": self.count(is("rejected")),
            "completed_final": completed,
            "failed_final": self.count(is("failed")),
            "timed_out_final": self.count(is("timed_out")),
            "queued_initial": self.count(|sample| sample.backend_status == "queued"),
            "completed_immediate": self.count(|sample| sample.backend_status == "completed"),
            "status_code_distribution": self.distribution(|sample| sample.http_status.to_string()),
            "backend_status_distribution": self.distribution(|sample| sample.backend_status.clone()),
            "final_backend_status_distribution": self.distribution(|sample| sample.final_backend_status.clone()),
            "requests_by_model": self.distribution(|sample| sample.model.clone()),
            "requests_by_backend": self.distribution(|sample| sample.backend_name.clone()),
            "latency_by_model": self.by(model, latency),
            "latency_by_backend": self.by(backend, latency),
            "end_to_end_latency_by_model": self.by(model, whole),
            "end_to_end_latency_by_backend": self.by(backend, whole),
            "final_status_by_model": self.statuses_by(model),
            "final_status_by_backend": self.statuses_by(backend),
            "duration_seconds": seconds,
            "requests_per_second": self.samples.len() as f64 / seconds,
            "output_tokens_per_second": tokens as f64 / seconds,
            "time_to_first_token_seconds": given(|sample| sample.time_to_first_token_seconds),
            "time_per_output_token_seconds": given(|sample| sample.time_per_output_token_seconds),
            "queue_wait_seconds": given(|sample| sample.queue_wait_seconds),
            "inter_token_latency_seconds": {
                "count": self.gaps.len(), "p50": quantile(&self.gaps, 0.5), "p90": quantile(&self.gaps, 0.9),
                "p99": quantile(&self.gaps, 0.99), "max": quantile(&self.gaps, 1.0),
            },
            "slo": self.slo,
            "goodput_requests_per_second": good as f64 / seconds,
            "goodput_share": good as f64 / self.samples.len().max(1) as f64,
            "refusals_by_reason": self.refusals(),
            "retries": self.samples.iter().map(|sample| u64::from(sample.retries)).sum::<u64>(),
            "jain_index_of_tokens_by_user": jain(&served),
        });
        if let Value::Object(fields) = &mut summary {
            for (name, figures) in [("latency_seconds", first), ("end_to_end_latency_seconds", end)] {
                for part in ["average", "p50", "p95", "p99"] {
                    fields.insert(format!("{part}_{name}"), figures[part].clone());
                }
            }
        }
        summary
    }

    fn refusals(&self) -> Map<String, Value> {
        let mut counts = self.distribution(|sample| sample.reason.clone());
        counts.remove("");
        counts
            .into_iter()
            .map(|(reason, count)| (reason, count.into()))
            .collect()
    }
}

/// A figure of a summary by a short name, such as `p99_ttft` or `goodput`.
pub(crate) fn figure(summary: &Value, name: &str) -> Option<f64> {
    let (part, what) = name.split_once('_').unwrap_or(("", name));
    let group = match what {
        "ttft" => "time_to_first_token_seconds",
        "tpot" => "time_per_output_token_seconds",
        "itl" => "inter_token_latency_seconds",
        "queue" => "queue_wait_seconds",
        "latency" => return summary[format!("{part}_latency_seconds")].as_f64(),
        "e2e" => return summary[format!("{part}_end_to_end_latency_seconds")].as_f64(),
        _ => {
            let name = match name {
                "goodput" => "goodput_requests_per_second",
                "rate" => "requests_per_second",
                "jain" => "jain_index_of_tokens_by_user",
                other => other,
            };
            return summary[name].as_f64();
        }
    };
    summary[group][part].as_f64()
}

/// A condition such as `p99_ttft > 0.8`, under which a run has failed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FailIf {
    name: String,
    is_above: bool,
    bound: f64,
}

impl std::str::FromStr for FailIf {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not such as `p99_ttft > 0.8` (seconds) or `completed_final < 100`");
        let (at, is_above) = text
            .find('>')
            .map(|at| (at, true))
            .or_else(|| text.find('<').map(|at| (at, false)))
            .ok_or_else(wrong)?;
        let bound = text[at + 1..].trim().parse().map_err(|_| wrong())?;
        Ok(Self {
            name: text[..at].trim().to_owned(),
            is_above,
            bound,
        })
    }
}

impl FailIf {
    /// Why the run has failed, if it has; or that there is no such figure.
    pub(crate) fn failed(&self, summary: &Value) -> Option<String> {
        let Some(figure) = figure(summary, &self.name) else {
            return Some(format!("there is no figure `{}` in this run", self.name));
        };
        let has_failed = if self.is_above {
            figure > self.bound
        } else {
            figure < self.bound
        };
        let sign = if self.is_above { ">" } else { "<" };
        has_failed.then(|| format!("{} is {figure:.4}, {sign} {}", self.name, self.bound))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_fails_a_run_by_its_figures() {
        let summary =
            json!({"p99_latency_seconds": 0.5, "completed_final": 99, "time_to_first_token_seconds": {"p99": 0.9}});
        let failed = |text: &str| text.parse::<FailIf>().expect("a condition").failed(&summary);
        assert!(failed("p99_ttft > 0.8").is_some_and(|why| why.contains("0.9")));
        assert!(failed("p99_ttft > 1.8").is_none() && failed("p99_latency > 0.4").is_some());
        assert!(failed("completed_final < 100").is_some());
        assert!(failed("p99_nothing > 1").is_some_and(|why| why.contains("no figure")));
        assert!("p99_ttft = 3".parse::<FailIf>().is_err());
    }

    #[test]
    fn jains_index_is_1_for_equals_and_one_nth_for_one_of_n() {
        assert!((jain(&[5.0, 5.0, 5.0]) - 1.0).abs() < 1e-9);
        assert!((jain(&[1.0, 0.0, 0.0, 0.0]) - 0.25).abs() < 1e-9);
    }
}
