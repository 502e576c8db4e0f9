//! Files of a run: the original's three, the whole run as JSON for `merge` and `compare`, and a page.

mod drawings;
mod html;
mod markdown;
mod plot;
mod short;
pub(crate) mod sweep;

use crate::distribution::histogram;
use crate::metadata::Metadata;
use crate::run::client_health::ClientHealth;
use crate::sample::Sample;
use crate::summary::{RunRecord, Watched, Window};
use crate::terminal::print;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use simulated_upstream::report::Slo;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A run as it is stored.
#[derive(Serialize, Deserialize)]
struct Stored {
    name: String,
    lasted_seconds: f64,
    #[serde(default)]
    not_sent: usize,
    slo: Option<Slo>,
    #[serde(default)]
    window: Window,
    #[serde(default)]
    client: ClientHealth,
    #[serde(default)]
    metadata: Metadata,
    samples: Vec<Sample>,
    /// Times between tokens: microseconds, and how many.
    gaps: Vec<(u64, u64)>,
    watched: Vec<Watched>,
}

/// Writes the reports of a run, and prints its summary.
pub(crate) fn publish(record: &RunRecord, dir: &Path, is_json: bool) -> Result<Value, String> {
    let summary = record.summary();
    let written = write(record, &summary, dir)?;
    if is_json {
        print(&json(&summary)?);
    } else {
        print(&(short::in_short(&summary) + &where_written(dir, &written)));
    }
    Ok(summary)
}

/// JSON for people and programs, with a line end.
pub(crate) fn json(value: &Value) -> Result<String, String> {
    serde_json::to_string_pretty(value)
        .map(|text| text + "\n")
        .map_err(|error| error.to_string())
}

pub(crate) fn where_written(dir: &Path, written: &[PathBuf]) -> String {
    let names = written
        .iter()
        .filter_map(|path| path.file_name())
        .map(|name| name.to_string_lossy());
    format!(
        "  reports in {}: {}\n",
        dir.display(),
        names.collect::<Vec<_>>().join(", ")
    )
}

/// Writes all reports of a run into a directory; returns their paths.
pub(crate) fn write(record: &RunRecord, summary: &Value, dir: &Path) -> Result<Vec<PathBuf>, String> {
    let csv = results(record).map_err(|error| error.to_string())?;
    let pretty = serde_json::to_string_pretty(summary).map_err(|error| error.to_string())?;
    let files = [
        ("latest_results.csv", csv),
        ("latest_summary.json", pretty.into_bytes()),
        ("latest_comparison.md", markdown::page(record, summary).into_bytes()),
        ("latest_run.json", stored(record)?),
        ("latest_report.html", html::page(record, summary).into_bytes()),
    ];
    write_files(dir, files)
}

/// The requests as CSV. Some fields are a server's own words; a spreadsheet does not take them for formulas (OWASP, "CSV
/// Injection").
fn results(record: &RunRecord) -> Result<Vec<u8>, csv::Error> {
    let mut csv = csv::Writer::from_writer(Vec::new());
    for sample in &record.samples {
        csv.serialize(sample)?;
    }
    let written = csv.into_inner().map_err(csv::IntoInnerError::into_error)?;
    let mut csv = csv::Writer::from_writer(Vec::with_capacity(written.len()));
    for row in csv::ReaderBuilder::new()
        .has_headers(false)
        .from_reader(&written[..])
        .records()
    {
        csv.write_record(row?.iter().map(no_formula))?;
    }
    Ok(csv.into_inner().map_err(csv::IntoInnerError::into_error)?)
}

fn no_formula(field: &str) -> String {
    if field.starts_with(['=', '+', '-', '@', '\t', '\r']) && field.parse::<f64>().is_err() {
        format!("'{field}")
    } else {
        field.to_owned()
    }
}

fn write_files<const N: usize>(dir: &Path, files: [(&str, Vec<u8>); N]) -> Result<Vec<PathBuf>, String> {
    std::fs::create_dir_all(dir).map_err(|error| format!("cannot create {}: {error}", dir.display()))?;
    let mut written = Vec::new();
    for (name, text) in files {
        let path = dir.join(name);
        std::fs::write(&path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        written.push(path);
    }
    Ok(written)
}

/// A run as `latest_run.json` has it.
pub(crate) fn stored(record: &RunRecord) -> Result<Vec<u8>, String> {
    let gaps = record.gaps.iter_recorded();
    let stored = Stored {
        name: record.name.clone(),
        lasted_seconds: record.lasted.as_secs_f64(),
        not_sent: record.not_sent,
        slo: record.slo,
        window: record.window,
        client: record.client.clone(),
        metadata: record.metadata.clone(),
        samples: record.samples.clone(),
        gaps: gaps
            .map(|step| (step.value_iterated_to(), step.count_at_value()))
            .collect(),
        watched: record.watched.clone(),
    };
    serde_json::to_vec(&stored).map_err(|error| error.to_string())
}

/// Reads a run: a `latest_run.json`, or the directory that has one.
pub(crate) fn read(path: &Path) -> Result<RunRecord, String> {
    let file = if path.is_dir() {
        path.join("latest_run.json")
    } else {
        path.to_owned()
    };
    let text = std::fs::read(&file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    parse(&text).map_err(|error| format!("{}: {error}", file.display()))
}

/// Reads a run from the bytes of a `latest_run.json`.
pub(crate) fn parse(bytes: &[u8]) -> Result<RunRecord, String> {
    let stored: Stored = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let mut gaps = histogram();
    for (value, count) in stored.gaps {
        gaps.saturating_record_n(value, count);
    }
    Ok(RunRecord {
        name: stored.name,
        samples: stored.samples,
        gaps,
        lasted: Duration::try_from_secs_f64(stored.lasted_seconds).unwrap_or_default(),
        not_sent: stored.not_sent,
        slo: stored.slo,
        window: stored.window,
        watched: stored.watched,
        client: stored.client,
        metadata: stored.metadata,
    })
}

/// Joins the runs of several generators of one workload.
///
/// # Errors
/// A request is in two of them.
pub(crate) fn merge(runs: Vec<RunRecord>) -> Result<RunRecord, String> {
    let count = runs.len();
    let mut runs = runs.into_iter();
    let mut record = runs.next().ok_or("there is nothing to merge")?;
    for run in runs {
        record.samples.extend(run.samples);
        record
            .gaps
            .add(&run.gaps)
            .map_err(|error| format!("cannot join times between tokens: {error}"))?;
        record.lasted = record.lasted.max(run.lasted);
        record.not_sent += run.not_sent;
        record.client.join(run.client);
        if record.watched.is_empty() {
            record.watched = run.watched;
        }
    }
    record.metadata.load = format!("{}, by {count} generators", record.metadata.load);
    record.samples.sort_by_key(|sample| sample.request_index);
    let twice = record
        .samples
        .windows(2)
        .find(|pair| pair[0].request_index == pair[1].request_index);
    match twice {
        Some(pair) => Err(format!(
            "request {} is in two of the runs; are they parts of one workload?",
            pair[0].request_index
        )),
        None => Ok(record),
    }
}
