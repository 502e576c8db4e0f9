//! Files that a run leaves: the original's three, the whole run as JSON for `merge` and `compare`, and a page.

mod html;
mod markdown;

use crate::sample::Sample;
use crate::summary::{Watched, Whole};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use simulated_upstream::report::Slo;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A run as it is kept.
#[derive(Serialize, Deserialize)]
struct Kept {
    name: String,
    lasted_seconds: f64,
    slo: Slo,
    samples: Vec<Sample>,
    /// Gaps between tokens: microseconds, and how many.
    gaps: Vec<(u64, u64)>,
    watched: Vec<Watched>,
}

/// Writes all reports into a directory; what was written.
pub(crate) fn write(whole: &Whole, dir: &Path) -> Result<Vec<PathBuf>, String> {
    std::fs::create_dir_all(dir).map_err(|error| format!("cannot make {}: {error}", dir.display()))?;
    let mut csv = csv::Writer::from_writer(Vec::new());
    for sample in &whole.samples {
        csv.serialize(sample).map_err(|error| error.to_string())?;
    }
    let csv = csv.into_inner().map_err(|error| error.to_string())?;
    let summary = whole.summary();
    let pretty = serde_json::to_string_pretty(&summary).map_err(|error| error.to_string())?;
    let mut written = Vec::new();
    for (name, text) in [
        ("latest_results.csv", csv),
        ("latest_summary.json", pretty.into_bytes()),
        (
            "latest_comparison.md",
            markdown::page(&whole.name, &summary).into_bytes(),
        ),
        ("latest_run.json", kept(whole)?),
        ("latest_report.html", html::page(whole, &summary).into_bytes()),
    ] {
        let path = dir.join(name);
        std::fs::write(&path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        written.push(path);
    }
    Ok(written)
}

fn kept(whole: &Whole) -> Result<Vec<u8>, String> {
    let gaps = whole.gaps.iter_recorded();
    let kept = Kept {
        name: whole.name.clone(),
        lasted_seconds: whole.lasted.as_secs_f64(),
        slo: whole.slo,
        samples: whole.samples.clone(),
        gaps: gaps
            .map(|step| (step.value_iterated_to(), step.count_at_value()))
            .collect(),
        watched: whole.watched.clone(),
    };
    serde_json::to_vec(&kept).map_err(|error| error.to_string())
}

/// Reads a run: a `latest_run.json`, or the directory that has one.
pub(crate) fn read(path: &Path) -> Result<Whole, String> {
    let file = if path.is_dir() {
        path.join("latest_run.json")
    } else {
        path.to_owned()
    };
    let text = std::fs::read(&file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    let kept: Kept = serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", file.display()))?;
    let mut gaps = crate::run::gaps();
    for (value, count) in kept.gaps {
        gaps.saturating_record_n(value, count);
    }
    Ok(Whole {
        name: kept.name,
        samples: kept.samples,
        gaps,
        lasted: Duration::try_from_secs_f64(kept.lasted_seconds).unwrap_or_default(),
        slo: kept.slo,
        watched: kept.watched,
    })
}

/// Joins what several generators have seen of one plan.
pub(crate) fn merge(runs: Vec<Whole>) -> Result<Whole, String> {
    let mut runs = runs.into_iter();
    let mut whole = runs.next().ok_or("nothing to merge")?;
    for run in runs {
        whole.samples.extend(run.samples);
        add(&mut whole.gaps, &run.gaps)?;
        whole.lasted = whole.lasted.max(run.lasted);
        if whole.watched.is_empty() {
            whole.watched = run.watched;
        }
    }
    whole.samples.sort_by_key(|sample| sample.request_index);
    let twice = whole
        .samples
        .windows(2)
        .find(|pair| pair[0].request_index == pair[1].request_index);
    match twice {
        Some(pair) => Err(format!(
            "request {} is in two of the runs; are they parts of one plan?",
            pair[0].request_index
        )),
        None => Ok(whole),
    }
}

fn add(to: &mut Histogram<u64>, more: &Histogram<u64>) -> Result<(), String> {
    to.add(more)
        .map_err(|error| format!("histograms do not fit together: {error}"))
}
