//! The summary of a run: the original's fields, and more.

mod fail_if;
pub(crate) mod steady;
pub(crate) mod sweep;
mod verdict;

pub(crate) use fail_if::{FailIf, figure};
pub(crate) use verdict::Verdict;

use crate::distribution::{distribution, jain, of_histogram};
use crate::metadata::Metadata;
use crate::run::client_health::ClientHealth;
use crate::sample::{Figure, Sample};
use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};
use simulated_upstream::report::Slo;
use std::collections::BTreeMap;
use std::time::Duration;

/// Everything that reports are made of.
#[derive(Debug)]
pub(crate) struct RunRecord {
    pub(crate) name: String,
    /// Sorted by index.
    pub(crate) samples: Vec<Sample>,
    /// Between tokens of measured, completed requests, in microseconds.
    pub(crate) gaps: Histogram<u64>,
    pub(crate) lasted: Duration,
    pub(crate) not_sent: usize,
    /// Objectives, if any were given.
    pub(crate) slo: Option<Slo>,
    pub(crate) window: Window,
    /// Reports of the admin listener, five times a second.
    pub(crate) watched: Vec<Watched>,
    pub(crate) client: ClientHealth,
    pub(crate) metadata: Metadata,
}

/// The parts of a run, in seconds, that are not measured: requests sent in the first `warm_up` and the last `cool_down`
/// are not measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Window {
    pub(crate) warm_up: f64,
    pub(crate) cool_down: f64,
}

/// The gateway at a moment.
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

/// A stall of this program is of no account below this share of the time that is measured.
const STALL_SHARE: f64 = 0.05;

type Of = fn(&Sample) -> &str;

/// Records times between tokens, but those that end right after a stall of this program.
fn record_gaps(into: &mut Histogram<u64>, gaps: &[u32], first: f64, client: &ClientHealth) {
    let mut at = first;
    for gap in gaps {
        let seconds = f64::from(*gap) / 1e6;
        at += seconds;
        let stall = if client.stalls.is_empty() {
            0.0
        } else {
            client.stall_before(at)
        };
        if *gap == 0 || stall <= seconds * STALL_SHARE {
            into.saturating_record(u64::from(*gap));
        }
    }
}

impl RunRecord {
    /// Decides which requests are measured, and takes over the times between their tokens.
    pub(crate) fn settle(&mut self) {
        let last_sent = self.samples.iter().map(|sample| sample.at_seconds).fold(0.0, f64::max);
        for sample in &mut self.samples {
            let moments = [sample.time_to_first_token_seconds, sample.end_to_end_latency_seconds];
            let stalls =
                moments.map(|after| after.map_or(0.0, |after| self.client.stall_before(sample.at_seconds + after)));
            sample.client_stall_seconds = stalls[0].max(stalls[1]);
            let is_in = |stall: f64, latency: Option<f64>| stall > latency.unwrap_or(0.0) * STALL_SHARE && stall > 0.0;
            let left_out = if sample.at_seconds < self.window.warm_up {
                "warm_up"
            } else if self.window.cool_down > 0.0 && sample.at_seconds > last_sent - self.window.cool_down {
                "cool_down"
            } else if is_in(stalls[0], moments[0]) || is_in(stalls[1], moments[1]) {
                "client_stall"
            } else {
                ""
            };
            left_out.clone_into(&mut sample.left_out);
            let gaps = std::mem::take(&mut sample.gaps);
            if sample.is_measured() && sample.is_completed() {
                let first = sample.at_seconds + sample.time_to_first_token_seconds.unwrap_or(0.0);
                record_gaps(&mut self.gaps, &gaps, first, &self.client);
            }
        }
    }

    /// Puts the run on a clock by which it began later.
    pub(crate) fn delay(&mut self, seconds: f64) {
        for sample in &mut self.samples {
            sample.at_seconds += seconds;
        }
        for stall in &mut self.client.stalls {
            stall.at_seconds += seconds;
        }
    }

    /// Requests that figures of latency are made of: completed, and in the measured part of the run.
    pub(crate) fn measured(&self) -> impl Iterator<Item = &Sample> {
        self.samples
            .iter()
            .filter(|sample| sample.is_measured() && sample.is_completed())
    }

    fn count(&self, is: impl Fn(&Sample) -> bool) -> usize {
        self.samples.iter().filter(|sample| is(sample)).count()
    }

    /// The number of requests by value.
    pub(crate) fn counts(&self, of: impl Fn(&Sample) -> String) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for sample in &self.samples {
            *counts.entry(of(sample)).or_default() += 1;
        }
        counts
    }

    /// The seconds over which rates are taken, and whether a moment is in them.
    fn rate_window(&self) -> (f64, f64) {
        let Window { warm_up, cool_down } = self.window;
        if warm_up <= 0.0 && cool_down <= 0.0 {
            return (0.0, self.lasted.as_secs_f64().max(1e-9));
        }
        let last_sent = self.samples.iter().map(|sample| sample.at_seconds).fold(0.0, f64::max);
        let end = if cool_down > 0.0 {
            last_sent - cool_down
        } else {
            self.lasted.as_secs_f64()
        };
        (warm_up, end.max(warm_up + 1e-9))
    }

    fn by(&self, of: Of, figure: Figure) -> Value {
        let mut groups: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        for sample in self.measured() {
            groups.entry(of(sample)).or_default().extend(figure(sample));
        }
        let groups = groups
            .into_iter()
            .map(|(name, figures)| (name.to_owned(), distribution(figures.into_iter())));
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
    pub(crate) fn summary(&self) -> Value {
        let mut fields = self.outcomes();
        for part in [self.latencies(), self.groups(), self.rates(), self.context()] {
            if let Value::Object(part) = part {
                fields.extend(part);
            }
        }
        Value::Object(fields)
    }

    /// The outcomes of all requests.
    fn outcomes(&self) -> Map<String, Value> {
        let is = |status: &'static str| move |sample: &Sample| sample.final_backend_status == status;
        let ok = |sample: &Sample| (200..300).contains(&sample.http_status);
        let first = |status: &'static str| move |sample: &Sample| sample.backend_status == status;
        let fields = json!({
            "scenario": self.name,
            "total_requests": self.samples.len(),
            "successful_http_requests": self.count(ok),
            "failed_http_requests": self.count(|sample| !ok(sample)),
            "accepted_or_completed": self.count(|sample| matches!(&*sample.backend_status, "completed" | "accepted" | "queued")),
            "queued": self.count(first("queued")),
            "rejected": self.count(is("rejected")),
            "completed_final": self.count(Sample::is_completed),
            "failed_final": self.count(is("failed")),
            "timed_out_final": self.count(is("timed_out")),
            "cancelled_final": self.count(is("cancelled")),
            "interrupted": self.count(is("interrupted")),
            "not_sent": self.not_sent,
            "queued_initial": self.count(first("queued")),
            "completed_immediate": self.count(first("completed")),
            "status_code_distribution": self.counts(|sample| sample.http_status.to_string()),
            "backend_status_distribution": self.counts(|sample| sample.backend_status.clone()),
            "final_backend_status_distribution": self.counts(|sample| sample.final_backend_status.clone()),
            "reasons_by_status": self.reasons(),
            "refusals_by_reason": self.reasons().remove("rejected").unwrap_or_else(|| json!({})),
            "retries": self.samples.iter().map(|sample| u64::from(sample.retries)).sum::<u64>(),
            "polling_failures": self.samples.iter().map(|sample| u64::from(sample.polling_failures)).sum::<u64>(),
        });
        match fields {
            Value::Object(fields) => fields,
            _ => Map::new(),
        }
    }

    /// Latencies: of completed requests in the measured part of the run.
    fn latencies(&self) -> Value {
        let given = |figure: Figure| distribution(self.measured().filter_map(figure));
        let refused = self
            .samples
            .iter()
            .filter(|sample| sample.is_measured() && sample.final_backend_status == "rejected");
        let first = given(|sample| sample.latency_seconds);
        let whole = given(|sample| sample.end_to_end_latency_seconds);
        let mut fields = json!({
            "measured_requests": self.measured().count(),
            "time_to_first_token_seconds": given(|sample| sample.time_to_first_token_seconds),
            "time_per_output_token_seconds": given(|sample| sample.time_per_output_token_seconds),
            "inter_token_latency_seconds": of_histogram(&self.gaps),
            "time_to_last_token_seconds": given(|sample| sample.time_to_last_token_seconds),
            "queue_wait_seconds": given(|sample| sample.queue_wait_seconds),
            "refusal_latency_seconds": distribution(refused.filter_map(|sample| sample.end_to_end_latency_seconds)),
        });
        for (name, figures) in [("latency_seconds", first), ("end_to_end_latency_seconds", whole)] {
            for part in ["average", "p50", "p95", "p99"] {
                fields[format!("{part}_{name}")] = figures[part].clone();
            }
        }
        fields
    }

    fn groups(&self) -> Value {
        let latency: Figure = |sample| sample.latency_seconds;
        let whole: Figure = |sample| sample.end_to_end_latency_seconds;
        let (model, backend): (Of, Of) = (|sample| &sample.model, |sample| &sample.backend_name);
        json!({
            "requests_by_model": self.counts(|sample| sample.model.clone()),
            "requests_by_backend": self.counts(|sample| sample.backend_name.clone()),
            "latency_by_model": self.by(model, latency),
            "latency_by_backend": self.by(backend, latency),
            "end_to_end_latency_by_model": self.by(model, whole),
            "end_to_end_latency_by_backend": self.by(backend, whole),
            "final_status_by_model": self.statuses_by(model),
            "final_status_by_backend": self.statuses_by(backend),
        })
    }

    /// Rates: what ended in the measured part of the run, by its seconds.
    #[allow(clippy::cast_precision_loss)]
    fn rates(&self) -> Value {
        let (from, to) = self.rate_window();
        let seconds = to - from;
        let ended = |sample: &&Sample| sample.ended_at().is_some_and(|at| (from..=to).contains(&at));
        let all = self.samples.iter().filter(ended);
        let completed: Vec<&Sample> = all.clone().filter(|sample| sample.is_completed()).collect();
        // Absent where no answer came with a count.
        let tokens = |of: fn(&Sample) -> Option<u64>| {
            let counts = completed.iter().filter_map(|sample| of(sample));
            counts.reduce(|sum, count| sum + count).map(|sum| sum as f64 / seconds)
        };
        let good = self
            .slo
            .map(|slo| completed.iter().filter(|sample| sample.is_good(&slo)).count() as f64);
        let mut served: BTreeMap<&str, f64> = BTreeMap::new();
        for sample in &self.samples {
            let tokens = sample.input_tokens.unwrap_or(0) + sample.output_tokens.unwrap_or(0);
            *served.entry(&sample.user_id).or_default() += tokens as f64;
        }
        json!({
            "duration_seconds": seconds,
            "requests_per_second": all.clone().count() as f64 / seconds,
            "completed_requests_per_second": completed.len() as f64 / seconds,
            "output_tokens_per_second": tokens(|sample| sample.output_tokens),
            "input_tokens_per_second": tokens(|sample| sample.input_tokens),
            "total_input_tokens": self.samples.iter().filter_map(|sample| sample.input_tokens).sum::<u64>(),
            "total_output_tokens": self.samples.iter().filter_map(|sample| sample.output_tokens).sum::<u64>(),
            "goodput_requests_per_second": good.map(|good| good / seconds),
            "goodput_share": good.map(|good| good / all.count().max(1) as f64),
            "objectives": self.objectives(),
            "jain_index_of_tokens_by_user": jain(&served.into_values().collect::<Vec<_>>()),
        })
    }

    /// Objectives that were given, and the share of measured requests that met each.
    #[allow(clippy::cast_precision_loss)]
    fn objectives(&self) -> Option<Value> {
        let slo = self.slo?;
        let total = self.samples.iter().filter(|sample| sample.is_measured()).count().max(1) as f64;
        let only = |ttft, tpot, e2e| Slo { ttft, tpot, e2e };
        let endless = Slo::default();
        let parts = [
            (
                "ttft",
                slo.ttft,
                endless.ttft,
                only(slo.ttft, endless.tpot, endless.e2e),
            ),
            (
                "tpot",
                slo.tpot,
                endless.tpot,
                only(endless.ttft, slo.tpot, endless.e2e),
            ),
            ("e2e", slo.e2e, endless.e2e, only(endless.ttft, endless.tpot, slo.e2e)),
        ];
        let given = parts.into_iter().filter(|(_, bound, none, _)| bound < none);
        let fields = given.map(|(name, bound, _, alone)| {
            let met = self.measured().filter(|sample| sample.is_good(&alone)).count() as f64 / total;
            (name.to_owned(), json!({"seconds": bound, "met_share": met}))
        });
        Some(Value::Object(fields.collect()))
    }

    fn context(&self) -> Value {
        let verdict = Verdict::of(self);
        json!({
            "window": {"warm_up_seconds": self.window.warm_up, "cool_down_seconds": self.window.cool_down},
            "left_out": self.left_out(),
            "client": {
                "is_valid": verdict.is_valid,
                "warnings": verdict.warnings,
                "send_lag_seconds": distribution(self.samples.iter().map(|sample| sample.send_lag_seconds)),
                "event_loop_lag_seconds": {
                    "p50": self.client.event_loop_lag_p50_seconds,
                    "p99": self.client.event_loop_lag_p99_seconds,
                    "max": self.client.event_loop_lag_max_seconds,
                },
                "stalls": self.client.stalls,
                "cores_used": self.client.cores_used,
                "threads": self.client.threads,
                "machine_busy_share": self.client.machine_busy,
                "machine_stolen_share": self.client.machine_stolen,
            },
            "run": self.metadata,
        })
    }

    /// The number of requests that are not measured, by reason.
    fn left_out(&self) -> BTreeMap<String, usize> {
        let mut counts = self.counts(|sample| sample.left_out.clone());
        counts.remove("");
        counts
    }

    /// By final status other than completed: how often each reason.
    fn reasons(&self) -> Map<String, Value> {
        let mut reasons: BTreeMap<&str, BTreeMap<&str, usize>> = BTreeMap::new();
        for sample in self.samples.iter().filter(|sample| !sample.is_completed()) {
            let reason = if sample.reason.is_empty() {
                "not_given"
            } else {
                &sample.reason
            };
            *reasons
                .entry(&sample.final_backend_status)
                .or_default()
                .entry(reason)
                .or_default() += 1;
        }
        reasons
            .into_iter()
            .map(|(status, counts)| (status.to_owned(), json!(counts)))
            .collect()
    }
}
