//! The drawings of a run.

use super::plot::{Axis, COLORS, Plot, area_key, line_key, plain, time};
use crate::sample::{Figure, Sample};
use crate::summary::{RunRecord, Watched};
use maud::{Markup, html};
use std::collections::BTreeMap;

/// Dots of a drawing, at most.
const MOST_DOTS: usize = 4000;

/// Parts of the time in which refusals and failures are counted.
const PARTS: u16 = 60;

/// Outcomes other than completion, with their colors: refused, failed, and what the client or the clock ended.
const OTHERS: [(&str, &str, &[&str]); 3] = [
    ("c3", "refused", &["rejected"]),
    ("c4", "failed", &["failed"]),
    (
        "c1",
        "timed out, cancelled or interrupted",
        &["timed_out", "cancelled", "interrupted"],
    ),
];

/// A count of the gateway at a moment.
type Count = fn(&Watched) -> u64;

/// Named values, each group for a line.
pub(super) type Groups = Vec<(String, Vec<f64>)>;

fn run_axis(record: &RunRecord) -> Axis {
    Axis::exactly(record.lasted.as_secs_f64().max(0.001), time)
}

/// Completed requests by the time at which they were sent, and below them the others, which have no latency.
pub(super) fn over_time(record: &RunRecord) -> Markup {
    let completed: Vec<&Sample> = record.samples.iter().filter(|sample| sample.is_completed()).collect();
    let latency = |sample: &Sample| sample.end_to_end_latency_seconds.unwrap_or(0.0);
    let most = completed.iter().map(|sample| latency(sample)).fold(0.0, f64::max);
    let mut plot = Plot::new(
        "latency of completed requests over time",
        run_axis(record),
        Axis::up_to(most, time),
        200,
    );
    for sample in completed.iter().step_by(completed.len().div_ceil(MOST_DOTS).max(1)) {
        plot.dot("c0", 4, (sample.at_seconds, latency(sample)));
    }
    html! {
        (plot.end())
        (area_key([("c0", format!("{} completed", completed.len()))].into_iter()))
        (others(record))
    }
}

/// Counts of the requests that were not completed, over time.
fn others(record: &RunRecord) -> Markup {
    let seconds = record.lasted.as_secs_f64().max(0.001);
    let width = seconds / f64::from(PARTS);
    let mut counts = [[0.0; OTHERS.len()]; PARTS as usize];
    let mut totals = [0; OTHERS.len()];
    for sample in &record.samples {
        let kind = OTHERS
            .iter()
            .position(|(.., names)| names.contains(&&*sample.final_backend_status));
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let part = ((sample.at_seconds / width).max(0.0) as usize).min(counts.len() - 1);
        if let Some(kind) = kind {
            counts[part][kind] += 1.0;
            totals[kind] += 1;
        }
    }
    let most = counts.iter().map(|part| part.iter().sum()).fold(0.0, f64::max);
    if most <= 0.0 {
        return html! {};
    }
    let mut plot = Plot::new(
        "requests that were not completed over time",
        run_axis(record),
        Axis::of_counts(most, plain),
        70,
    );
    for (at, part) in (0u16..).zip(&counts) {
        let mut low = 0.0;
        for ((color, ..), count) in OTHERS.iter().zip(part) {
            if *count > 0.0 {
                plot.bar(
                    color,
                    (f64::from(at) * width, f64::from(at + 1) * width),
                    (low, low + count),
                );
                low += count;
            }
        }
    }
    let names = OTHERS.iter().zip(totals).filter(|(_, total)| *total > 0);
    html! {
        (plot.end())
        (area_key(names.map(|((color, name, _), total)| (*color, format!("{total} {name}")))))
    }
}

/// Figures of completed requests.
pub(super) fn by_figure(record: &RunRecord) -> Groups {
    let figures: [(&str, Figure); 3] = [
        ("end to end", |sample| sample.end_to_end_latency_seconds),
        ("first answer", |sample| sample.latency_seconds),
        ("first token", |sample| sample.time_to_first_token_seconds),
    ];
    let of = |(name, of): (&str, Figure)| (name.to_owned(), record.measured().filter_map(of).collect());
    let mut groups: Groups = figures.into_iter().map(of).collect();
    // Of a stream the first answer is the first token.
    if groups[1].1 == groups[2].1 {
        groups.remove(1);
    }
    groups
}

/// A sample's user and class.
pub(super) fn class_of(sample: &Sample) -> String {
    format!("{} · {}", sample.user_id, sample.request_type)
}

/// End to end latencies of completed requests, by user and class.
pub(super) fn by_class(record: &RunRecord) -> Groups {
    let mut groups: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for sample in record.measured() {
        groups
            .entry(class_of(sample))
            .or_default()
            .extend(sample.end_to_end_latency_seconds);
    }
    groups.into_iter().take(COLORS.len()).collect()
}

/// Values by percentile, a line for each group.
#[allow(clippy::cast_precision_loss)]
pub(super) fn curves(mut groups: Groups, label: &'static str) -> Markup {
    groups.retain(|(_, all)| !all.is_empty());
    for (_, all) in &mut groups {
        all.sort_by(f64::total_cmp);
    }
    let most = groups
        .iter()
        .filter_map(|(_, all)| all.last())
        .copied()
        .fold(0.0, f64::max);
    if groups.is_empty() {
        return html! { p.soft { "No request was completed." } };
    }
    let mut plot = Plot::new(label, Axis::exactly(100.0, percentile), Axis::up_to(most, time), 200);
    for ((_, all), color) in groups.iter().zip(COLORS) {
        let point = |step: usize| (step as f64 / 2.0, all[(all.len() - 1) * step / 200]);
        plot.line(color, (0..=200).map(point));
    }
    html! {
        (plot.end())
        (line_key(COLORS.into_iter().zip(groups.iter().map(|(name, _)| &**name))))
    }
}

fn percentile(of: f64) -> String {
    format!("p{of:.0}")
}

/// The gateway during the run: its queue, and, on an axis of its own, its degradation level.
#[allow(clippy::cast_precision_loss)]
pub(super) fn watched(record: &RunRecord) -> Markup {
    let lines: [(&str, Count); 5] = [
        ("active requests", |seen| seen.active),
        ("queued: high priority", |seen| seen.by_class[0]),
        ("queued: normal", |seen| seen.by_class[1]),
        ("queued: low", |seen| seen.by_class[2]),
        ("queued: batch class", |seen| seen.by_class[3]),
    ];
    let seen = &record.watched;
    let used: Vec<_> = lines
        .iter()
        .filter(|(_, of)| seen.iter().any(|seen| of(seen) > 0))
        .collect();
    let most = seen
        .iter()
        .flat_map(|seen| lines.map(|(_, of)| of(seen)))
        .max()
        .unwrap_or(0) as f64;
    let mut plot = Plot::new(
        "active and queued requests over time",
        run_axis(record),
        Axis::of_counts(most, plain),
        160,
    );
    for ((_, of), color) in used.iter().zip(COLORS) {
        plot.steps(color, seen.iter().map(|seen| (seen.at_seconds, of(seen) as f64)));
    }
    let top = seen.iter().map(|seen| seen.level).max().unwrap_or(0).max(3) as f64;
    let mut levels = Plot::new(
        "degradation level over time",
        run_axis(record),
        Axis::of_counts(top, plain),
        60,
    );
    levels.steps("c3", seen.iter().map(|seen| (seen.at_seconds, seen.level as f64)));
    html! {
        (plot.end())
        (line_key(COLORS.into_iter().zip(used.iter().map(|(name, _)| *name))))
        (levels.end())
        (line_key([("c3", "degradation level")].into_iter()))
    }
}
