//! Two runs against each other: how far the second is from the first, and whether that is more than chance.

use crate::distribution::quantile;
use crate::sample::Figure;
use crate::summary::{RunRecord, Verdict};
use simulated_upstream::random::Random;
use std::fmt::Write;

/// Draws of an interval.
const DRAWS: usize = 2000;

/// Requests that must be beyond a percentile before a difference is believed: below that a bootstrap of the tail is too
/// narrow, since it cannot draw what was not seen.
const FEWEST_BEYOND: f64 = 5.0;

/// The table. Latencies are those of completed, measured requests; refused and failed ones are counted below. An
/// interval is one of 95 %, by bootstrap (Efron, "Bootstrap methods: another look at the jackknife", 1979); a
/// difference counts if all of it is on one side of 0.
pub(crate) fn table(one: &RunRecord, other: &RunRecord) -> String {
    let mut text = format!(
        "| | {} | {} | difference | 95 % interval | |\n|---|---|---|---|---|---|\n",
        one.name, other.name
    );
    let figures: [(&str, f64, Figure); 8] = [
        ("first answer p50", 0.5, |sample| sample.latency_seconds),
        ("end to end p50", 0.5, |sample| sample.end_to_end_latency_seconds),
        ("end to end p95", 0.95, |sample| sample.end_to_end_latency_seconds),
        ("end to end p99", 0.99, |sample| sample.end_to_end_latency_seconds),
        ("first token p50", 0.5, |sample| sample.time_to_first_token_seconds),
        ("first token p95", 0.95, |sample| sample.time_to_first_token_seconds),
        ("per output token p50", 0.5, |sample| {
            sample.time_per_output_token_seconds
        }),
        ("per output token p95", 0.95, |sample| {
            sample.time_per_output_token_seconds
        }),
    ];
    let mut random = Random::new(1);
    for (name, part, of) in figures {
        let sorted = |run: &RunRecord| {
            let mut figures: Vec<f64> = run.measured().filter_map(of).collect();
            figures.sort_by(f64::total_cmp);
            figures
        };
        let (a, b) = (sorted(one), sorted(other));
        if let (Some(first), Some(second)) = (quantile(&a, part), quantile(&b, part)) {
            let interval = quantile_interval(&a, &b, part, &mut random);
            #[allow(clippy::cast_precision_loss)]
            let beyond = a.len().min(b.len()) as f64 * (1.0 - part);
            row(&mut text, name, (first, second), interval, beyond < FEWEST_BEYOND);
        }
    }
    shares(&mut text, one, other, &mut random);
    notes(&mut text, one, other);
    text
}

fn row(text: &mut String, name: &str, (a, b): (f64, f64), (from, to): (f64, f64), has_few: bool) {
    let verdict = match (from > 0.0, to < 0.0) {
        _ if has_few => "too few requests to say",
        (true, _) => "slower",
        (_, true) => "faster",
        _ => "no difference beyond chance",
    };
    let _ = writeln!(
        text,
        "| {name} | {:.1} ms | {:.1} ms | {:+.1} ms | {:+.1} to {:+.1} ms | {verdict} |",
        a * 1e3,
        b * 1e3,
        (b - a) * 1e3,
        from * 1e3,
        to * 1e3,
    );
}

/// Shares of each final status among all requests, with intervals.
#[allow(clippy::cast_precision_loss)]
fn shares(text: &mut String, one: &RunRecord, other: &RunRecord, random: &mut Random) {
    for status in [
        "completed",
        "rejected",
        "failed",
        "timed_out",
        "cancelled",
        "interrupted",
    ] {
        let count = |run: &RunRecord| {
            run.samples
                .iter()
                .filter(|sample| sample.final_backend_status == status)
                .count()
        };
        let (a, b) = (count(one), count(other));
        if a + b == 0 {
            continue;
        }
        let (of_a, of_b) = (one.samples.len(), other.samples.len());
        // A draw of n requests with replacement, of which each has the status with the probability that was observed.
        let mut drawn = |count: usize, of: usize| {
            let share = count as f64 / of as f64;
            let deviation = (share * (1.0 - share) / of as f64).sqrt();
            share + deviation * normal(random)
        };
        let mut differences: Vec<f64> = (0..DRAWS).map(|_| drawn(b, of_b) - drawn(a, of_a)).collect();
        let (from, to) = middle(&mut differences);
        let verdict = match (from > 0.0, to < 0.0) {
            (true, _) => "more",
            (_, true) => "fewer",
            _ => "no difference beyond chance",
        };
        let difference = b as f64 / of_b as f64 - a as f64 / of_a as f64;
        let _ = writeln!(
            text,
            "| {status} | {a} of {of_a} | {b} of {of_b} | {:+.1} % | {:+.1} to {:+.1} % | {verdict} |",
            difference * 100.0,
            from * 100.0,
            to * 100.0
        );
    }
}

fn notes(text: &mut String, one: &RunRecord, other: &RunRecord) {
    for run in [one, other] {
        for warning in Verdict::of(run).warnings {
            let _ = writeln!(
                text,
                "\nWarning for {} ({}): {warning}",
                run.name, run.metadata.started_at
            );
        }
    }
    if one.metadata.load != other.metadata.load {
        let _ = writeln!(
            text,
            "\nThe runs had different loads: {}; {}.",
            one.metadata.load, other.metadata.load
        );
    }
}

/// The interval of the difference of a quantile of two sorted samples.
fn quantile_interval(a: &[f64], b: &[f64], part: f64, random: &mut Random) -> (f64, f64) {
    let mut differences: Vec<f64> = (0..DRAWS)
        .map(|_| redrawn_quantile(b, part, random) - redrawn_quantile(a, part, random))
        .collect();
    middle(&mut differences)
}

/// The quantile of a sample that is drawn anew with replacement. Of n draws the k-th smallest stands where the k-th
/// smallest of n uniform numbers does, which is distributed as Beta(k, n + 1 - k): no need to draw all n.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]
fn redrawn_quantile(sorted: &[f64], part: f64, random: &mut Random) -> f64 {
    let n = sorted.len() as f64;
    let k = ((n - 1.0) * part).round() + 1.0;
    let (below, above) = (gamma(k, random), gamma(n + 1.0 - k, random));
    let at = (below / (below + above) * n) as usize;
    sorted[at.min(sorted.len() - 1)]
}

/// A number of the gamma distribution with a shape of 1 or more (Marsaglia and Tsang, "A simple method for generating
/// gamma variables", 2000).
fn gamma(shape: f64, random: &mut Random) -> f64 {
    let scale = shape - 1.0 / 3.0;
    let slope = 1.0 / (9.0 * scale).sqrt();
    loop {
        let normal = normal(random);
        let cube = (1.0 + slope * normal).powi(3);
        let uniform = 1.0 - random.part();
        if cube > 0.0 && uniform.ln() < 0.5 * normal * normal + scale * (1.0 - cube + cube.ln()) {
            return scale * cube;
        }
    }
}

/// A number of the standard normal distribution (Box and Muller, 1958).
fn normal(random: &mut Random) -> f64 {
    let (radius, angle) = (
        (-2.0 * (1.0 - random.part()).ln()).sqrt(),
        std::f64::consts::TAU * random.part(),
    );
    radius * angle.cos()
}

/// The middle 95 % of draws.
fn middle(draws: &mut [f64]) -> (f64, f64) {
    draws.sort_by(f64::total_cmp);
    let at = |part| quantile(draws, part).unwrap_or(0.0);
    (at(0.025), at(0.975))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distribution::histogram;
    use crate::metadata::Metadata;
    use crate::run::client_health::ClientHealth;
    use crate::sample::Sample;
    use crate::summary::Window;
    use std::time::Duration;

    fn run(name: &str, latency: f64, refused: usize, random: &mut Random) -> RunRecord {
        let samples = (0..300).map(|number| {
            let is_refused = number < refused;
            let time = if is_refused { 0.001 } else { latency };
            Sample {
                latency_seconds: Some(time * (0.5 + random.part())),
                end_to_end_latency_seconds: Some(time * (0.5 + random.part())),
                final_backend_status: if is_refused { "rejected" } else { "completed" }.to_owned(),
                ..Sample::default()
            }
        });
        RunRecord {
            name: name.to_owned(),
            samples: samples.collect(),
            gaps: histogram(),
            lasted: Duration::from_secs(1),
            not_sent: 0,
            slo: None,
            window: Window::default(),
            watched: Vec::new(),
            client: ClientHealth::default(),
            metadata: Metadata::default(),
        }
    }

    #[test]
    fn a_difference_counts_only_beyond_chance() {
        let mut random = Random::new(5);
        let (a, b, c) = (
            run("a", 0.1, 0, &mut random),
            run("b", 0.1, 0, &mut random),
            run("c", 0.2, 0, &mut random),
        );
        let same = table(&a, &b);
        assert!(
            same.lines()
                .skip(2)
                .filter(|line| line.contains("no difference"))
                .count()
                >= 3,
            "{same}"
        );
        assert!(table(&a, &c).contains("slower") && table(&c, &a).contains("faster"));
    }

    #[test]
    fn refusals_do_not_make_a_run_faster() {
        let mut random = Random::new(6);
        let (a, b) = (run("a", 0.1, 0, &mut random), run("b", 0.1, 270, &mut random));
        let compared = table(&a, &b);
        assert!(!compared.contains("faster"), "{compared}");
        assert!(
            compared.contains("| rejected | 0 of 300 | 270 of 300 | +90.0 %"),
            "{compared}"
        );
    }

    /// Against the same interval by drawing samples one by one.
    #[test]
    fn the_short_way_to_a_bootstrap_interval_agrees_with_the_long_one() {
        let mut random = Random::new(7);
        let mut sorted: Vec<f64> = (0..500).map(|_| random.part()).collect();
        sorted.sort_by(f64::total_cmp);
        let long = |random: &mut Random| {
            let mut drawn: Vec<f64> = (0..500)
                .map(|_| sorted[usize::try_from(random.next() % 500).expect("small")])
                .collect();
            drawn.sort_by(f64::total_cmp);
            drawn[449]
        };
        let mut by_long: Vec<f64> = (0..DRAWS).map(|_| long(&mut random)).collect();
        let mut by_short: Vec<f64> = (0..DRAWS)
            .map(|_| redrawn_quantile(&sorted, 0.9, &mut random))
            .collect();
        let ((a, b), (c, d)) = (middle(&mut by_long), middle(&mut by_short));
        assert!((a - c).abs() < 0.01 && (b - d).abs() < 0.01, "{a} {b} {c} {d}");
    }
}
