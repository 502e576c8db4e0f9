//! Runs of one scenario under several loads: a sweep over rates or numbers of clients, and the search for a capacity.

use crate::flags::RunArgs;
use crate::launch::Launcher;
use crate::report;
use crate::scenario::Scenario;
use crate::summary::figure;
use crate::summary::sweep::{GOOD_SHARE, Point, Sweep};
use crate::terminal::{note, print};
use crate::workload::arrivals::Arrivals;
use serde_json::{Value, json};
use std::fmt::Write;
use std::process::ExitCode;

/// The relative precision of the search for a capacity.
const PRECISION: f64 = 0.05;

/// Runs once for each load; reports of each are in a directory of its own, and the curve beside them.
pub(crate) async fn sweep(launcher: &Launcher<'_>, scenario: &Scenario, args: &RunArgs) -> Result<ExitCode, String> {
    let by_rate = !args.sweep_rate.is_empty();
    let pattern = if by_rate {
        Some(args.arrivals_of(scenario)?.unwrap_or(Arrivals::Poisson))
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
    let swept = if by_rate { "rate" } else { "concurrency" };
    let mut sweep = Sweep {
        swept,
        points: Vec::new(),
    };
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
        report::write(&record, &summary, &args.out.join(format!("{swept}-{load}")))?;
        if !args.json {
            note(&line(&record.metadata.load, &summary));
        }
        let is_interrupted = summary["interrupted"].as_u64().unwrap_or(0) > 0;
        sweep.points.push(Point { load, summary });
        if is_interrupted {
            break;
        }
    }
    let written = report::sweep::write(&sweep, &args.out)?;
    if args.json {
        print(&report::json(&report::sweep::json(&sweep))?);
    } else {
        print(&(report::sweep::table(&sweep) + &report::where_written(&args.out, &written)));
    }
    Ok(ExitCode::SUCCESS)
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
        print(&report::json(&json!({
            "capacity_requests_per_second": good,
            "is_limited_by_client": is_limited_by_client,
            "tries": tries,
            "summary": summary,
        }))?);
    } else {
        print(&format!("capacity: {good:.2} requests a second with 99 of 100 good\n"));
        report::publish(&record, &args.out, args.json)?;
    }
    if is_limited_by_client {
        note("the client was too slow for the rate above: the server's capacity may be higher");
    }
    Ok(ExitCode::SUCCESS)
}
