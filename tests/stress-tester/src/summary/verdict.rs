//! The verdict on a run: limits of the client that make its figures invalid, and other warnings.

use super::RunRecord;
use crate::distribution::quantile;
use crate::sample::Sample;
use std::collections::BTreeMap;

/// Lag of the client that never matters, in seconds.
const HARMLESS_LAG: f64 = 0.010;

/// Lag of the client that matters, as a share of the median latency.
const LAG_SHARE: f64 = 0.1;

/// Seconds between the starts of generators that a reader has to know of.
const APART: f64 = 0.1;

/// A verdict on a run.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// False: the client's own limits are in the figures.
    pub(crate) is_valid: bool,
    pub(crate) warnings: Vec<String>,
    /// Models none of whose requests succeeded: a wrong name, a missing key, a closed port, streams that break.
    pub(crate) hopeless: Vec<String>,
}

impl Verdict {
    pub(crate) fn of(run: &RunRecord) -> Self {
        let mut verdict = Self {
            is_valid: true,
            ..Self::default()
        };
        verdict.generators(run);
        verdict.lags(run);
        verdict.stalls(run);
        verdict.capacity(run);
        verdict.answers(run);
        verdict.hopeless = hopeless(run);
        verdict.warnings.extend(verdict.hopeless.iter().cloned());
        verdict
    }

    fn invalid(&mut self, why: &str) {
        self.is_valid = false;
        self.warnings.push(format!("invalid: {why}"));
    }

    /// Generators that are missing, or that began apart.
    fn generators(&mut self, run: &RunRecord) {
        for generator in &run.metadata.generators {
            let name = &generator.name;
            if let Some(why) = &generator.lost {
                let requests = generator.requests;
                self.invalid(&format!(
                    "generator {name} was lost ({why}): its {requests} requests are missing"
                ));
            }
            if generator.started_late_seconds.abs() > APART {
                let late = generator.started_late_seconds;
                self.warnings.push(format!("generator {name} began {late:.2} s late"));
            }
        }
    }

    /// Warnings about requests that were sent or read late.
    fn lags(&mut self, run: &RunRecord) {
        let sorted = |figures: Vec<f64>| {
            let mut figures = figures;
            figures.sort_by(f64::total_cmp);
            figures
        };
        let first = |sample: &Sample| sample.time_to_first_token_seconds.or(sample.end_to_end_latency_seconds);
        let median = quantile(&sorted(run.measured().filter_map(first).collect()), 0.5);
        let bound = HARMLESS_LAG.max(median.unwrap_or(0.0) * LAG_SHARE);
        let lags = sorted(run.samples.iter().map(|sample| sample.send_lag_seconds).collect());
        let lag = quantile(&lags, 0.99).unwrap_or(0.0);
        if lag > bound {
            self.invalid(&format!(
                "the client sent requests late: 1 % by more than {:.0} ms; use fewer requests a second or more generators (--shard)",
                lag * 1e3
            ));
        }
        let lag = run.client.event_loop_lag_p99_seconds;
        if lag > bound {
            self.invalid(&format!(
                "the client's event loop was late: 1 % of the time by more than {:.0} ms, which is in every latency",
                lag * 1e3
            ));
        }
    }

    /// When the client did not run.
    #[allow(clippy::cast_precision_loss)]
    fn stalls(&mut self, run: &RunRecord) {
        if run.client.stalls.is_empty() {
            return;
        }
        let seconds: f64 = run.client.stalls.iter().map(|stall| stall.lasted_seconds).sum();
        let affected = run
            .samples
            .iter()
            .filter(|sample| sample.left_out == "client_stall")
            .count();
        let text = format!(
            "the client itself was stopped {} times for {seconds:.2} s in all; {affected} requests are left out of latencies for that",
            run.client.stalls.len()
        );
        if affected as f64 > run.samples.len() as f64 * 0.01 {
            self.invalid(&text);
        } else {
            self.warnings.push(text);
        }
    }

    /// Warnings about resources that the client ran out of.
    fn capacity(&mut self, run: &RunRecord) {
        let used = run.client.saturation();
        if used > 0.9 {
            self.invalid(&format!(
                "the client used {:.0} % of what its {} threads can do: its own speed limits the rate",
                used * 100.0,
                run.client.threads
            ));
        }
        for (reason, what) in [
            ("client_out_of_files", "open files (ulimit -n)"),
            ("client_out_of_ports", "local ports"),
        ] {
            let count = run.samples.iter().filter(|sample| sample.reason == reason).count();
            if count > 0 {
                self.invalid(&format!(
                    "the client ran out of {what}: {count} requests failed for that"
                ));
            }
        }
        if let Some(busy) = run.client.machine_busy.filter(|busy| *busy > 0.95) {
            self.warnings.push(format!(
                "all processors of this machine were busy ({:.0} %): if the server is elsewhere, the client needs more",
                busy * 100.0
            ));
        }
        if let Some(stolen) = run.client.machine_stolen.filter(|stolen| *stolen > 0.05) {
            self.warnings.push(format!(
                "the hypervisor took {:.0} % of this machine's processor time",
                stolen * 100.0
            ));
        }
        let waited = run
            .samples
            .iter()
            .filter(|sample| sample.in_flight_wait_seconds > 0.0)
            .count();
        if waited > 0 {
            self.warnings.push(format!(
                "{waited} requests waited because --max-in-flight were under way; their latencies count from when they were due"
            ));
        }
    }

    /// Warnings about fields that answers lacked.
    fn answers(&mut self, run: &RunRecord) {
        if run.not_sent > 0 {
            self.warnings.push(format!(
                "{} requests were not sent: interrupted, or the turn before them was not completed",
                run.not_sent
            ));
        }
        if !run.samples.is_empty() && run.measured().next().is_none() {
            self.warnings
                .push("no completed request was in the measured part of the run: there are no latencies".to_owned());
        }
        let chunks = run.measured().filter(|sample| sample.token_source == "chunks").count();
        if chunks > 0 {
            self.warnings.push(format!(
                "{chunks} answers came without token counts: each chunk was counted as a token; --tokenizer counts exactly"
            ));
        }
        if run.metadata.has_exact_lengths {
            let (mut wanted, mut made) = (0, 0);
            for sample in run.measured().filter(|sample| sample.output_tokens.is_some()) {
                wanted += sample.max_tokens;
                made += sample.output_tokens.unwrap_or(0);
            }
            if made < wanted {
                let why = if run.metadata.ignores_eos {
                    "the server does not keep to ignore_eos"
                } else {
                    "--ignore-eos makes vLLM and others generate all"
                };
                self.warnings.push(format!(
                    "answers were shorter than the workload specifies: {made} of {wanted} tokens; {why}"
                ));
            }
        }
    }
}

/// Models of whose requests none succeeded, and none was refused for a reason that a later one may not meet.
fn hopeless(run: &RunRecord) -> Vec<String> {
    let mut models: BTreeMap<&str, Vec<&Sample>> = BTreeMap::new();
    for sample in run
        .samples
        .iter()
        .filter(|sample| sample.final_backend_status != "interrupted")
    {
        models.entry(&sample.model).or_default().push(sample);
    }
    let refused = |sample: &&Sample| {
        sample.final_backend_status == "failed" || matches!(sample.http_status, 400 | 401 | 403 | 404 | 405 | 413 | 422)
    };
    let mut warnings = Vec::new();
    for (model, samples) in models {
        if !samples.iter().all(refused) {
            continue;
        }
        let mut reasons: BTreeMap<&str, (usize, &str)> = BTreeMap::new();
        for sample in &samples {
            let (count, _) = reasons.entry(&sample.reason).or_insert((0, &sample.error));
            *count += 1;
        }
        let reasons = reasons
            .iter()
            .map(|(reason, (count, message))| format!("{count} × {reason} ({message})"));
        warnings.push(format!(
            "model `{model}`: none of {} requests succeeded: {}",
            samples.len(),
            reasons.collect::<Vec<_>>().join(", ")
        ));
    }
    warnings
}
