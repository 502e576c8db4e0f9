//! Files of a sweep: `latest_sweep.json`, `latest_sweep.csv`, and the curve in `latest_sweep.html`.

use super::html::document;
use super::plot::{Axis, COLORS, Plot, line_key, plain, time};
use crate::summary::figure;
use crate::summary::sweep::{Point, Sweep};
use maud::{Markup, html};
use report_page::card;
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Columns: their name, and the figure of a summary.
const COLUMNS: [(&str, &str); 8] = [
    ("completed_per_second", "completed_requests_per_second"),
    ("output_tokens_per_second", "output_tokens_per_second"),
    ("e2e_p50_seconds", "p50_e2e"),
    ("e2e_p99_seconds", "p99_e2e"),
    ("ttft_p50_seconds", "p50_ttft"),
    ("ttft_p99_seconds", "p99_ttft"),
    ("tpot_p50_seconds", "p50_tpot"),
    ("goodput_share", "goodput_share"),
];

/// Writes the files; returns their paths.
pub(crate) fn write(sweep: &Sweep, dir: &Path) -> Result<Vec<PathBuf>, String> {
    let files = [
        ("latest_sweep.json", super::json(&json(sweep))?.into_bytes()),
        ("latest_sweep.csv", csv(sweep)?),
        ("latest_sweep.html", page(sweep).into_bytes()),
    ];
    super::write_files(dir, files)
}

/// The sweep as JSON: loads with the summaries of their runs, and the knee.
pub(crate) fn json(sweep: &Sweep) -> Value {
    let run = |point: &Point| json!({sweep.swept: point.load, "summary": point.summary});
    let runs = sweep.points.iter().map(run);
    json!({
        "swept": sweep.swept,
        "knee": sweep.knee().map(|at| sweep.points[at].load),
        "highest_good": sweep.highest_good(),
        "runs": runs.collect::<Vec<_>>(),
    })
}

fn csv(sweep: &Sweep) -> Result<Vec<u8>, String> {
    let mut csv = csv::Writer::from_writer(Vec::new());
    let names = COLUMNS.iter().map(|(name, _)| *name);
    csv.write_record([sweep.swept].into_iter().chain(names).chain(["is_valid"]))
        .map_err(|error| error.to_string())?;
    for point in &sweep.points {
        let figures = COLUMNS
            .iter()
            .map(|(_, name)| figure(&point.summary, name).map_or(String::new(), |figure| figure.to_string()));
        let valid = point.summary["client"]["is_valid"].to_string();
        csv.write_record([point.load.to_string()].into_iter().chain(figures).chain([valid]))
            .map_err(|error| error.to_string())?;
    }
    csv.into_inner().map_err(|error| error.to_string())
}

/// The sweep for a terminal.
pub(crate) fn table(sweep: &Sweep) -> String {
    let (swept, knee) = (sweep.swept, sweep.knee());
    let mut text = format!(
        "{swept:>12} {:>12} {:>10} {:>10} {:>10} {:>10} {:>8}\n",
        "completed/s", "tokens/s", "e2e p50", "e2e p99", "ttft p99", "good"
    );
    for (at, point) in sweep.points.iter().enumerate() {
        let number =
            |name: &str| figure(&point.summary, name).map_or("–".to_owned(), |figure| format!("{figure:.1}"));
        let millis = |name: &str| {
            figure(&point.summary, name).map_or("–".to_owned(), |figure| format!("{:.0} ms", figure * 1e3))
        };
        let good = point.summary["goodput_share"]
            .as_f64()
            .map_or("–".to_owned(), |share| format!("{:.1} %", share * 100.0));
        let mark = if knee == Some(at) { "  knee" } else { "" };
        let invalid = if point.summary["client"]["is_valid"] == false {
            "  invalid: the client was too slow"
        } else {
            ""
        };
        let _ = writeln!(
            text,
            "{:>12} {:>12} {:>10} {:>10} {:>10} {:>10} {good:>8}{mark}{invalid}",
            point.load,
            number("completed_requests_per_second"),
            number("output_tokens_per_second"),
            millis("p50_e2e"),
            millis("p99_e2e"),
            millis("p99_ttft"),
        );
    }
    if let Some(load) = sweep.highest_good() {
        let _ = writeln!(
            text,
            "highest {swept} at which 99 % of requests met the objectives: {load}"
        );
    }
    text
}

/// Latency by throughput.
fn page(sweep: &Sweep) -> String {
    let title = format!("Sweep over {}", sweep.swept);
    let about = "Each run of the sweep: completed requests a second, and their latency. The large dots are the knee.";
    let parts = html! {
        header.top { h1 { (title) } }
        (card("Latency by throughput", about, &curve(sweep)))
        (card("Runs", "", &html! { pre { (table(sweep)) } }))
    };
    document(&title, &parts)
}

fn curve(sweep: &Sweep) -> Markup {
    let (points, knee) = (&sweep.points, sweep.knee());
    let throughput = |point: &Point| figure(&point.summary, "completed_requests_per_second").unwrap_or(0.0);
    let curves = [
        ("end to end p50", "p50_e2e"),
        ("end to end p99", "p99_e2e"),
        ("first token p99", "p99_ttft"),
    ];
    let most_x = points.iter().map(throughput).fold(0.0, f64::max);
    let latencies = points
        .iter()
        .flat_map(|point| curves.iter().filter_map(|(_, name)| figure(&point.summary, name)));
    let most_y = latencies.fold(0.0, f64::max);
    let a_second = |number: f64| format!("{}/s", plain(number));
    let mut plot = Plot::new(
        "latency by throughput",
        Axis::up_to(most_x, a_second),
        Axis::up_to(most_y, time),
        240,
    );
    for ((_, name), color) in curves.iter().zip(COLORS) {
        let at = |point: &Point| Some((throughput(point), figure(&point.summary, name)?));
        plot.line(color, points.iter().filter_map(at));
        for (number, point) in points.iter().enumerate() {
            if let Some(place) = at(point) {
                plot.dot(color, if knee == Some(number) { 14 } else { 6 }, place);
            }
        }
    }
    html! {
        (plot.end())
        (line_key(COLORS.into_iter().zip(curves.map(|(name, _)| name))))
    }
}
