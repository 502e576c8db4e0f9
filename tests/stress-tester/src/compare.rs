//! Two runs against each other: how far the second is from the first, and whether that is more than chance.

use crate::sample::Figure;
use crate::summary::Whole;
use simulated_upstream::random::Random;
use std::fmt::Write;

/// Samples drawn anew for an interval.
const DRAWS: usize = 1000;

/// The table. An interval is that of 95 %, by bootstrap (Efron, "Bootstrap methods: another look at the jackknife",
/// 1979); a difference counts where it is all on one side.
pub(crate) fn table(one: &Whole, other: &Whole) -> String {
    let mut text = format!(
        "| | {} | {} | difference | 95 % interval | |\n|---|---|---|---|---|---|\n",
        one.name, other.name
    );
    let figures: [(&str, f64, Figure); 6] = [
        ("first answer p50", 0.5, |sample| Some(sample.latency_seconds)),
        ("end to end p50", 0.5, |sample| Some(sample.end_to_end_latency_seconds)),
        ("end to end p95", 0.95, |sample| Some(sample.end_to_end_latency_seconds)),
        ("end to end p99", 0.99, |sample| Some(sample.end_to_end_latency_seconds)),
        ("first token p95", 0.95, |sample| sample.time_to_first_token_seconds),
        ("a token after it p95", 0.95, |sample| {
            sample.time_per_output_token_seconds
        }),
    ];
    let mut random = Random::new(1);
    for (name, part, of) in figures {
        let figures = |whole: &Whole| whole.samples.iter().filter_map(of).collect::<Vec<f64>>();
        let (a, b) = (figures(one), figures(other));
        if a.is_empty() || b.is_empty() {
            continue;
        }
        let (from, to) = interval(&a, &b, part, &mut random);
        let difference = quantile(&mut b.clone(), part) - quantile(&mut a.clone(), part);
        let verdict = match (from > 0.0, to < 0.0) {
            (true, _) => "slower",
            (_, true) => "faster",
            _ => "no difference beyond chance",
        };
        let _ = writeln!(
            text,
            "| {name} | {:.1} ms | {:.1} ms | {:+.1} ms | {:+.1} to {:+.1} ms | {verdict} |",
            quantile(&mut a.clone(), part) * 1e3,
            quantile(&mut b.clone(), part) * 1e3,
            difference * 1e3,
            from * 1e3,
            to * 1e3,
        );
    }
    let share = |whole: &Whole| {
        let completed = whole.samples.iter().filter(|sample| sample.is_completed()).count();
        format!("{completed} of {}", whole.samples.len())
    };
    let _ = writeln!(text, "| completed | {} | {} | | | |", share(one), share(other));
    text
}

#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]
fn quantile(figures: &mut [f64], part: f64) -> f64 {
    let at = ((figures.len() - 1) as f64 * part) as usize;
    *figures.select_nth_unstable_by(at, f64::total_cmp).1
}

fn interval(a: &[f64], b: &[f64], part: f64, random: &mut Random) -> (f64, f64) {
    let mut drawn = |of: &[f64]| {
        let mut sample: Vec<f64> = (0..of.len())
            .map(|_| of[usize::try_from(random.next() % of.len() as u64).unwrap_or(0)])
            .collect();
        quantile(&mut sample, part)
    };
    let mut differences: Vec<f64> = (0..DRAWS).map(|_| drawn(b) - drawn(a)).collect();
    differences.sort_by(f64::total_cmp);
    (differences[DRAWS / 40], differences[DRAWS - DRAWS / 40 - 1])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sample;
    use simulated_upstream::report::Slo;
    use std::time::Duration;

    fn run(name: &str, latency: f64, random: &mut Random) -> Whole {
        let samples = (0..300).map(|_| Sample {
            latency_seconds: latency * (0.5 + random.part()),
            end_to_end_latency_seconds: latency * (0.5 + random.part()),
            final_backend_status: "completed".to_owned(),
            ..Sample::default()
        });
        Whole {
            name: name.to_owned(),
            samples: samples.collect(),
            gaps: crate::run::gaps(),
            lasted: Duration::from_secs(1),
            slo: Slo::default(),
            watched: Vec::new(),
        }
    }

    #[test]
    fn a_difference_counts_only_beyond_chance() {
        let mut random = Random::new(5);
        let (a, b, c) = (
            run("a", 0.1, &mut random),
            run("b", 0.1, &mut random),
            run("c", 0.2, &mut random),
        );
        assert!(
            table(&a, &b)
                .lines()
                .skip(2)
                .filter(|line| line.contains("no difference"))
                .count()
                >= 3
        );
        assert!(table(&a, &c).contains("slower") && table(&c, &a).contains("faster"));
    }
}
