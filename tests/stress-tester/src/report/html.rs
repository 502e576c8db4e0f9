//! `latest_report.html`: one page with everything in it, without a script or anything from elsewhere.

use super::plot::{COLOURS, begin, dot, end, escaped, head, key, line};
use crate::sample::{Figure, Sample};
use crate::summary::{RunRecord, Watched, figure};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Dots of a drawing, at most.
const MOST_DOTS: usize = 4000;

/// The page.
pub(super) fn page(record: &RunRecord, summary: &Value) -> String {
    let mut html = head(&record.name);
    for warning in summary["client"]["warnings"].as_array().into_iter().flatten() {
        let _ = write!(
            html,
            "<p class=\"warning\">{}</p>",
            escaped(warning.as_str().unwrap_or_default())
        );
    }
    tiles(&mut html, summary);
    reasons(&mut html, &summary["reasons_by_status"]);
    let seconds = record.lasted.as_secs_f64().max(0.001);
    html.push_str("<h2>Latency over time</h2><p>Each request, from sending to its last byte, by outcome.</p>");
    over_time(&mut html, record, seconds);
    html.push_str("<h2>Percentiles</h2><p>Of completed requests: how many of 100 were faster.</p>");
    curves(&mut html, by_figure(record), "latency by percentile");
    html.push_str("<h2>By user and class</h2><p>Completed requests, end to end, by percentile.</p>");
    curves(&mut html, by_class(record), "latency by user and class");
    classes(&mut html, record);
    if !record.watched.is_empty() {
        html.push_str("<h2>The gateway meanwhile</h2><p>From its admin listener, five times a second.</p>");
        watched(&mut html, record, seconds);
    }
    for (title, name) in [
        ("End to end by model", "end_to_end_latency_by_model"),
        ("End to end by backend", "end_to_end_latency_by_backend"),
    ] {
        table(&mut html, title, &summary[name]);
    }
    html.push_str("<h2>Run</h2><table class=\"run\"><tbody>");
    for (name, value) in record.metadata.rows() {
        let _ = write!(html, "<tr><td>{name}</td><td>{}</td></tr>", escaped(&value));
    }
    html.push_str("</tbody></table></body></html>\n");
    html
}

fn millis(seconds: Option<f64>) -> String {
    seconds.map_or("–".to_owned(), |seconds| format!("{:.1} ms", seconds * 1000.0))
}

fn tiles(html: &mut String, summary: &Value) {
    let number = |name: &str, digits: usize| {
        summary[name]
            .as_f64()
            .map_or("–".to_owned(), |number| format!("{number:.digits$}"))
    };
    let rows = [
        ("requests", number("total_requests", 0)),
        ("completed", number("completed_final", 0)),
        ("refused", number("rejected", 0)),
        ("failed", number("failed_final", 0)),
        ("timed out", number("timed_out_final", 0)),
        ("interrupted", number("interrupted", 0)),
        ("requests a second", number("requests_per_second", 1)),
        ("completed a second", number("completed_requests_per_second", 1)),
        ("output tokens a second", number("output_tokens_per_second", 0)),
        ("end to end, p50", millis(figure(summary, "p50_e2e"))),
        ("end to end, p99", millis(figure(summary, "p99_e2e"))),
        ("first token, p50", millis(figure(summary, "p50_ttft"))),
        ("first token, p99", millis(figure(summary, "p99_ttft"))),
        ("per output token, p50", millis(figure(summary, "p50_tpot"))),
        ("between tokens, p99", millis(figure(summary, "p99_itl"))),
        ("goodput, requests a second", number("goodput_requests_per_second", 1)),
        ("Jain index between users", number("jain_index_of_tokens_by_user", 3)),
        ("sent late by the client, p99", millis(figure(summary, "p99_lag"))),
    ];
    html.push_str("<table><tbody>");
    for (name, value) in rows {
        let _ = write!(html, "<tr><td>{name}</td><td>{value}</td></tr>");
    }
    html.push_str("</tbody></table>");
}

/// The reasons of requests that were not completed.
fn reasons(html: &mut String, reasons: &Value) {
    let Some(reasons) = reasons.as_object().filter(|reasons| !reasons.is_empty()) else {
        return;
    };
    html.push_str(
        "<h2>Not completed</h2><table><thead><tr><th>outcome</th><th>reason</th><th>requests</th></tr></thead><tbody>",
    );
    for (status, counts) in reasons {
        for (reason, count) in counts.as_object().into_iter().flatten() {
            let _ = write!(
                html,
                "<tr><td>{}</td><td>{}</td><td>{count}</td></tr>",
                escaped(status),
                escaped(reason)
            );
        }
    }
    html.push_str("</tbody></table>");
}

fn over_time(html: &mut String, record: &RunRecord, seconds: f64) {
    let outcomes: Vec<String> = record
        .counts(|sample| sample.final_backend_status.clone())
        .into_keys()
        .collect();
    let latency = |sample: &Sample| sample.end_to_end_latency_seconds.unwrap_or(0.0);
    let most = record.samples.iter().map(latency).fold(0.001, f64::max);
    begin(html, "latency of each request over time");
    for sample in record
        .samples
        .iter()
        .step_by(record.samples.len().div_ceil(MOST_DOTS).max(1))
    {
        let at = outcomes
            .iter()
            .position(|outcome| *outcome == sample.final_backend_status)
            .unwrap_or(0);
        dot(
            html,
            COLOURS[at % COLOURS.len()],
            2,
            (sample.at_seconds / seconds, latency(sample) / most),
        );
    }
    end(html, &format!("{seconds:.1} s"), &format!("{most:.2} s"));
    key(html, &outcomes.iter().map(String::as_str).collect::<Vec<_>>());
}

fn by_figure(record: &RunRecord) -> Vec<(String, Vec<f64>)> {
    let figures: [(&str, Figure); 3] = [
        ("end to end", |sample| sample.end_to_end_latency_seconds),
        ("first answer", |sample| sample.latency_seconds),
        ("first token", |sample| sample.time_to_first_token_seconds),
    ];
    let of = |(name, of): (&str, Figure)| (name.to_owned(), record.measured().filter_map(of).collect());
    figures.into_iter().map(of).collect()
}

fn class_of(sample: &Sample) -> String {
    format!("{} · {}", sample.user_id, sample.request_type)
}

fn by_class(record: &RunRecord) -> Vec<(String, Vec<f64>)> {
    let mut groups: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for sample in record.measured() {
        groups
            .entry(class_of(sample))
            .or_default()
            .extend(sample.end_to_end_latency_seconds);
    }
    groups.into_iter().take(COLOURS.len()).collect()
}

#[allow(clippy::cast_precision_loss)]
fn curves(html: &mut String, mut groups: Vec<(String, Vec<f64>)>, label: &str) {
    groups.retain(|(_, all)| !all.is_empty());
    for (_, all) in &mut groups {
        all.sort_by(f64::total_cmp);
    }
    let most = groups
        .iter()
        .filter_map(|(_, all)| all.last())
        .copied()
        .fold(0.001, f64::max);
    begin(html, label);
    for ((_, all), colour) in groups.iter().zip(COLOURS) {
        let point = |step: usize| (step as f64 / 200.0, all[(all.len() - 1) * step / 200] / most);
        line(html, colour, (0..=200).map(point));
    }
    end(html, "100", &format!("{most:.2} s"));
    key(html, &groups.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>());
}

#[allow(clippy::cast_precision_loss)]
fn watched(html: &mut String, record: &RunRecord, seconds: f64) {
    let most = record
        .watched
        .iter()
        .map(|seen| seen.queue_size.max(seen.active))
        .max()
        .unwrap_or(0)
        .max(1) as f64;
    let top = record.watched.iter().map(|seen| seen.level).max().unwrap_or(0).max(3) as f64;
    begin(html, "queue, active requests and degradation level over time");
    let lines: [&dyn Fn(&Watched) -> f64; 6] = [
        &|seen| seen.active as f64 / most,
        &|seen| seen.level as f64 / top,
        &|seen| seen.by_class[0] as f64 / most,
        &|seen| seen.by_class[1] as f64 / most,
        &|seen| seen.by_class[2] as f64 / most,
        &|seen| seen.by_class[3] as f64 / most,
    ];
    for (height, colour) in lines.iter().zip(COLOURS) {
        line(
            html,
            colour,
            record
                .watched
                .iter()
                .map(|seen| (seen.at_seconds / seconds, height(seen))),
        );
    }
    end(html, &format!("{seconds:.1} s"), &format!("{most:.0}"));
    let level = format!("degradation level (the top is {top:.0})");
    let waiting = ["waiting: high", "normal", "low", "batch class"];
    key(html, &[&["active requests", level.as_str()][..], &waiting].concat());
}

fn table(html: &mut String, title: &str, groups: &Value) {
    let _ = write!(
        html,
        "<h2>{title}</h2><table><thead><tr><th></th><th>completed</th><th>average</th><th>p50</th><th>p95</th><th>p99</th></tr></thead><tbody>"
    );
    for (name, figures) in groups.as_object().into_iter().flatten() {
        let name = if name.is_empty() { "–" } else { name };
        let _ = write!(html, "<tr><td>{}</td><td>{}</td>", escaped(name), figures["count"]);
        for part in ["average", "p50", "p95", "p99"] {
            let _ = write!(html, "<td>{}</td>", millis(figures[part].as_f64()));
        }
        html.push_str("</tr>");
    }
    html.push_str("</tbody></table>");
}

fn classes(html: &mut String, record: &RunRecord) {
    let mut groups: BTreeMap<String, [usize; 4]> = BTreeMap::new();
    for sample in &record.samples {
        let counts = groups.entry(class_of(sample)).or_default();
        let outcome = match &*sample.final_backend_status {
            "completed" => 1,
            "rejected" => 2,
            _ => 3,
        };
        counts[0] += 1;
        counts[outcome] += 1;
    }
    html.push_str("<table><thead><tr><th></th><th>requests</th><th>completed</th><th>refused</th><th>others</th></tr></thead><tbody>");
    for (group, counts) in groups {
        let _ = write!(html, "<tr><td>{}</td>", escaped(&group));
        for count in counts {
            let _ = write!(html, "<td>{count}</td>");
        }
        html.push_str("</tr>");
    }
    html.push_str("</tbody></table>");
}
