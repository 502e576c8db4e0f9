//! Several runs of one scenario: a sweep over rates or numbers of clients with its knee, and the search for a capacity.

use crate::arrivals::Arrivals;
use crate::flags::RunArgs;
use crate::launch::Launcher;
use crate::report;
use crate::scenario::Scenario;
use crate::summary::figure;
use crate::terminal::{note, print};
use serde_json::{Value, json};
use std::fmt::Write;
use std::process::ExitCode;

/// The share of good requests that a capacity stands for.
const GOOD_SHARE: f64 = 0.99;

/// How much of a capacity the search may be wrong by.
const PRECISION: f64 = 0.05;

/// The pattern of arrivals: the flag's, else the scenario's.
pub(crate) fn arrivals(scenario: &Scenario, args: &RunArgs) -> Result<Option<Arrivals>, String> {
    match (&args.arrivals, &scenario.arrivals) {
        (Some(arrivals), _) => Ok(Some(arrivals.clone())),
        (None, Some(text)) => text.parse().map(Some),
        (None, None) => Ok(None),
    }
}

/// One point of a sweep.
#[derive(Debug)]
pub(crate) struct Point {
    /// Rate or number of clients.
    pub(crate) load: f64,
    pub(crate) summary: Value,
}

/// Runs once for each load; reports of each are in a directory of its own, and the curve beside them.
pub(crate) async fn sweep(launcher: &Launcher<'_>, scenario: &Scenario, args: &RunArgs) -> Result<ExitCode, String> {
    let by_rate = !args.sweep_rate.is_empty();
    let pattern = if by_rate {
        Some(arrivals(scenario, args)?.unwrap_or(Arrivals::Poisson))
    } else {
        None
    };
    #[allow(clippy::cast_precision_loss)]
    let clients = || args.sweep_concurrency.iter().map(|clients| *clients as f64);
    let loads: Vec<f64> = if by_rate {
        args.sweep_rate.clone()
    } else {
        clients().collect()
    };
    let what = if by_rate { "rate" } else { "concurrency" };
    let mut points = Vec::new();
    for load in loads {
        let mut scenario = scenario.clone();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        if by_rate {
            scenario.rate = Some(load);
        } else {
            scenario.concurrency = load as usize;
        }
        let record = launcher.run(&scenario, pattern.as_ref()).await?;
        let summary = record.summary();
        report::write(&record, &summary, &args.out.join(format!("{what}-{load}")))?;
        if !args.json {
            note(&line(&record.metadata.load, &summary));
        }
        let is_interrupted = summary["interrupted"].as_u64().unwrap_or(0) > 0;
        points.push(Point { load, summary });
        if is_interrupted {
            break;
        }
    }
    let knee = knee(&points);
    let written = report::sweep::write(what, &points, knee, &args.out)?;
    if args.json {
        print(&crate::json(&report::sweep::json(what, &points, knee))?);
    } else {
        print(&(report::sweep::table(what, &points, knee) + &crate::where_written(&args.out, &written)));
    }
    Ok(ExitCode::SUCCESS)
}

/// The point with the most power, throughput by response time (Kleinrock, "Power and deterministic rules of thumb for
/// probabilistic problems in computer communications", 1979): beyond it latency grows faster than throughput.
pub(crate) fn knee(points: &[Point]) -> Option<usize> {
    let power = |point: &Point| {
        let latency = figure(&point.summary, "average_e2e").filter(|latency| *latency > 0.0)?;
        Some(figure(&point.summary, "completed_requests_per_second")? / latency)
    };
    let powers = points
        .iter()
        .enumerate()
        .filter_map(|(at, point)| Some((at, power(point)?)));
    powers
        .max_by(|(_, one), (_, other)| one.total_cmp(other))
        .map(|(at, _)| at)
}

/// A run in a line.
fn line(load: &str, summary: &Value) -> String {
    let millis =
        |name: &str| figure(summary, name).map_or("–".to_owned(), |seconds| format!("{:.0} ms", seconds * 1e3));
    let mut text = format!(
        "{}: {:.2} completed a second, end to end p50 {}, p99 {}",
        load,
        figure(summary, "completed_requests_per_second").unwrap_or(0.0),
        millis("p50_e2e"),
        millis("p99_e2e"),
    );
    if let Some(share) = summary["goodput_share"].as_f64() {
        let _ = write!(text, ", {:.1} % good", share * 100.0);
    }
    if summary["client"]["is_valid"] == false {
        text.push_str(" (invalid: the client was too slow)");
    }
    text
}

/// Doubles the rate until too few requests are good, then halves the distance.
pub(crate) async fn find_capacity(
    launcher: &Launcher<'_>,
    scenario: &Scenario,
    args: &RunArgs,
) -> Result<ExitCode, String> {
    if args.slo.is_none() {
        return Err("--find-capacity needs an --slo, such as ttft=500ms".to_owned());
    }
    let mut scenario = scenario.clone();
    if scenario.duration_seconds <= 0.0 {
        scenario.duration_seconds = 10.0;
    }
    let (mut good, mut bad) = (0.0, f64::INFINITY);
    let mut rate = scenario.rate.unwrap_or(Scenario::RATE);
    let (mut best, mut last) = (None, None);
    let mut tries = Vec::new();
    for _ in 0..16 {
        scenario.rate = Some(rate);
        let record = launcher.run(&scenario, Some(&Arrivals::Poisson)).await?;
        let summary = record.summary();
        note(&line(&record.metadata.load, &summary));
        let share = summary["goodput_share"].as_f64().unwrap_or(0.0);
        let is_valid = summary["client"]["is_valid"] == true;
        tries.push(json!({"rate": rate, "good_share": share, "is_valid": is_valid}));
        let is_interrupted = summary["interrupted"].as_u64().unwrap_or(0) > 0;
        if share >= GOOD_SHARE {
            good = rate;
            best = Some(record);
        } else {
            bad = rate;
            last = Some((is_valid, record));
        }
        rate = if bad.is_infinite() {
            rate * 2.0
        } else {
            f64::midpoint(good, bad)
        };
        if is_interrupted || bad - good < good * PRECISION {
            break;
        }
    }
    // The rate above the capacity is where the client's limits would have been taken for the server's.
    let is_limited_by_client = last.as_ref().is_some_and(|(is_valid, _)| !is_valid);
    let Some(record) = best.or(last.map(|(_, record)| record)) else {
        return Err("no rate was tried".to_owned());
    };
    if args.json {
        let summary = record.summary();
        report::write(&record, &summary, &args.out)?;
        print(&crate::json(&json!({
            "capacity_requests_per_second": good,
            "is_limited_by_client": is_limited_by_client,
            "tries": tries,
            "summary": summary,
        }))?);
    } else {
        print(&format!("capacity: {good:.2} requests a second with 99 of 100 good\n"));
        crate::write_and_print(&record, args)?;
    }
    if is_limited_by_client {
        note("the client was too slow for the rate above: the server's capacity may be higher");
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An M/M/1 server of one request a second: response time 1/(1 - rate), power rate × (1 - rate), most at one half.
    #[test]
    fn the_knee_of_a_single_queue_is_at_half_its_capacity() {
        let point = |rate: f64| Point {
            load: rate,
            summary: json!({
                "completed_requests_per_second": rate,
                "average_end_to_end_latency_seconds": 1.0 / (1.0 - rate),
            }),
        };
        let points: Vec<Point> = [0.1, 0.3, 0.5, 0.7, 0.9].map(point).into();
        assert_eq!(knee(&points), Some(2));
        assert_eq!(knee(&[]), None);
    }
}
