//! `latest_report.html`: one page with everything in it, drawn as SVG, without a script or anything from elsewhere.

use crate::sample::{Figure, Sample};
use crate::summary::Whole;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write;

const WIDTH: f64 = 880.0;
const HEIGHT: f64 = 220.0;
const COLOURS: [&str; 6] = ["#2563eb", "#dc2626", "#059669", "#d97706", "#7c3aed", "#0891b2"];

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:960px;margin:2rem auto;padding:0 1rem;color:#111;background:#fff}\
    table{border-collapse:collapse;margin:1rem 0}td,th{border-bottom:1px solid #ccc;padding:.25rem .75rem;text-align:right}\
    td:first-child,th:first-child{text-align:left}svg{max-width:100%;height:auto}.key span{margin-right:1rem}\
    @media(prefers-color-scheme:dark){body{color:#eee;background:#111}td,th{border-color:#444}svg text{fill:#eee}svg .axis{stroke:#eee}}";

/// The page.
pub(super) fn page(whole: &Whole, summary: &Value) -> String {
    let mut html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{0} · sluice-stress</title><link rel=\"icon\" href=\"data:,\"><style>{STYLE}</style></head><body><h1>{0}</h1>",
        escaped(&whole.name)
    );
    tiles(&mut html, summary);
    let seconds = whole.lasted.as_secs_f64().max(0.001);
    html.push_str(
        "<h2>Latency over time</h2><p>Each request, from when it was to be sent to its last byte, by outcome.</p>",
    );
    over_time(&mut html, whole, seconds);
    html.push_str("<h2>Percentiles</h2><p>How many of 100 requests were faster.</p>");
    curves(&mut html, by_figure(whole), "latency by percentile");
    html.push_str("<h2>By user and class</h2><p>End to end, of what was completed, by percentile.</p>");
    curves(&mut html, by_class(whole), "latency by user and class");
    classes(&mut html, whole);
    if !whole.watched.is_empty() {
        html.push_str("<h2>The gateway meanwhile</h2><p>As its admin listener said, five times a second.</p>");
        watched(&mut html, whole, seconds);
    }
    for (title, name) in [
        ("End to end by model", "end_to_end_latency_by_model"),
        ("End to end by backend", "end_to_end_latency_by_backend"),
    ] {
        table(&mut html, title, &summary[name]);
    }
    html.push_str("</body></html>\n");
    html
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

fn tiles(html: &mut String, summary: &Value) {
    let number = |value: &Value, digits: usize| {
        value
            .as_f64()
            .map_or("–".to_owned(), |number| format!("{number:.digits$}"))
    };
    let millis = |value: &Value| {
        value
            .as_f64()
            .map_or("–".to_owned(), |number| format!("{:.0} ms", number * 1000.0))
    };
    html.push_str("<table><tbody>");
    for (name, value) in [
        ("requests", summary["total_requests"].to_string()),
        ("completed", summary["completed_final"].to_string()),
        ("refused", summary["rejected"].to_string()),
        ("failed", summary["failed_final"].to_string()),
        ("timed out", summary["timed_out_final"].to_string()),
        ("requests a second", number(&summary["requests_per_second"], 1)),
        ("tokens a second", number(&summary["output_tokens_per_second"], 0)),
        ("end to end, p50", millis(&summary["p50_end_to_end_latency_seconds"])),
        ("end to end, p99", millis(&summary["p99_end_to_end_latency_seconds"])),
        (
            "first token, p99",
            millis(&summary["time_to_first_token_seconds"]["p99"]),
        ),
        (
            "between tokens, p99",
            millis(&summary["inter_token_latency_seconds"]["p99"]),
        ),
        (
            "goodput",
            format!(
                "{} requests a second",
                number(&summary["goodput_requests_per_second"], 1)
            ),
        ),
        (
            "Jain index between users",
            number(&summary["jain_index_of_tokens_by_user"], 3),
        ),
    ] {
        let _ = write!(html, "<tr><td>{name}</td><td>{value}</td></tr>");
    }
    html.push_str("</tbody></table>");
}

fn begin(html: &mut String, label: &str) {
    let _ = write!(
        html,
        "<svg viewBox=\"0 0 960 270\" role=\"img\" aria-label=\"{label}\" font-size=\"12\">\
         <path class=\"axis\" d=\"M50 10V{0}H{1}\" fill=\"none\" stroke=\"#111\"/>",
        10.0 + HEIGHT,
        50.0 + WIDTH
    );
}

/// Marks on both axes, and the end of the drawing.
fn end(html: &mut String, most_x: &str, most_y: &str) {
    let _ = write!(
        html,
        "<text x=\"46\" y=\"20\" text-anchor=\"end\">{most_y}</text><text x=\"46\" y=\"230\" text-anchor=\"end\">0</text>\
         <text x=\"50\" y=\"248\">0</text><text x=\"930\" y=\"248\" text-anchor=\"end\">{most_x}</text></svg>"
    );
}

fn key(html: &mut String, names: &[&str]) {
    html.push_str("<p class=\"key\">");
    for (name, colour) in names.iter().zip(COLOURS) {
        let _ = write!(html, "<span><b style=\"color:{colour}\">■</b> {}</span>", escaped(name));
    }
    html.push_str("</p>");
}

fn over_time(html: &mut String, whole: &Whole, seconds: f64) {
    let outcomes: Vec<String> = whole
        .distribution(|sample| sample.final_backend_status.clone())
        .into_keys()
        .collect();
    let most = whole
        .samples
        .iter()
        .map(|sample| sample.end_to_end_latency_seconds)
        .fold(0.001, f64::max);
    begin(html, "latency of each request over time");
    // A picture needs no more than some thousand dots.
    for sample in whole.samples.iter().step_by(whole.samples.len().div_ceil(4000).max(1)) {
        let at = outcomes
            .iter()
            .position(|outcome| *outcome == sample.final_backend_status)
            .unwrap_or(0);
        let x = 50.0 + (sample.at_seconds / seconds).min(1.0) * WIDTH;
        let y = 10.0 + HEIGHT - sample.end_to_end_latency_seconds / most * HEIGHT;
        let _ = write!(
            html,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2\" fill=\"{}\" fill-opacity=\".6\"/>",
            COLOURS[at % 6]
        );
    }
    end(html, &format!("{seconds:.1} s"), &format!("{most:.2} s"));
    key(html, &outcomes.iter().map(String::as_str).collect::<Vec<_>>());
}

/// By what is measured: from the first answer on.
fn by_figure(whole: &Whole) -> Vec<(String, Vec<f64>)> {
    let figures: [(&str, Figure); 3] = [
        ("end to end", |sample| Some(sample.end_to_end_latency_seconds)),
        ("first answer", |sample| Some(sample.latency_seconds)),
        ("first token", |sample| sample.time_to_first_token_seconds),
    ];
    let of = |(name, of): (&str, Figure)| (name.to_owned(), whole.samples.iter().filter_map(of).collect());
    figures.into_iter().map(of).collect()
}

/// End to end, by user and class, of what was completed.
fn by_class(whole: &Whole) -> Vec<(String, Vec<f64>)> {
    let mut groups: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for sample in whole.samples.iter().filter(|sample| sample.is_completed()) {
        let group = format!("{} · {}", sample.user_id, sample.request_type);
        groups.entry(group).or_default().push(sample.end_to_end_latency_seconds);
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
        let _ = write!(
            html,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\""
        );
        for step in 0..=200usize {
            let at = (all.len() - 1) * step / 200;
            let _ = write!(
                html,
                "{:.1},{:.1} ",
                50.0 + WIDTH * step as f64 / 200.0,
                10.0 + HEIGHT - all[at] / most * HEIGHT
            );
        }
        html.push_str("\"/>");
    }
    end(html, "100", &format!("{most:.2} s"));
    key(html, &groups.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>());
}

#[allow(clippy::cast_precision_loss)]
fn watched(html: &mut String, whole: &Whole, seconds: f64) {
    let most = whole
        .watched
        .iter()
        .map(|seen| seen.queue_size.max(seen.active))
        .max()
        .unwrap_or(0)
        .max(1) as f64;
    let top = whole.watched.iter().map(|seen| seen.level).max().unwrap_or(0).max(3) as f64;
    begin(html, "queue, active requests and degradation level over time");
    let lines: [&dyn Fn(&crate::summary::Watched) -> f64; 6] = [
        &|seen| seen.active as f64 / most,
        &|seen| seen.level as f64 / top,
        &|seen| seen.by_class[0] as f64 / most,
        &|seen| seen.by_class[1] as f64 / most,
        &|seen| seen.by_class[2] as f64 / most,
        &|seen| seen.by_class[3] as f64 / most,
    ];
    for (line, colour) in lines.iter().zip(COLOURS) {
        let _ = write!(
            html,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\""
        );
        for seen in &whole.watched {
            let x = 50.0 + (seen.at_seconds / seconds).min(1.0) * WIDTH;
            let _ = write!(html, "{x:.1},{:.1} ", 10.0 + HEIGHT - line(seen) * HEIGHT);
        }
        html.push_str("\"/>");
    }
    end(html, &format!("{seconds:.1} s"), &format!("{most:.0}"));
    let level = format!("degradation level (the top is {top:.0})");
    let waiting = ["waiting: high", "normal", "low", "batch class"];
    key(html, &[&["requests that run", level.as_str()][..], &waiting].concat());
}

fn table(html: &mut String, title: &str, groups: &Value) {
    let _ = write!(
        html,
        "<h2>{title}</h2><table><thead><tr><th></th><th>requests</th><th>average</th><th>p50</th><th>p95</th><th>p99</th></tr></thead><tbody>"
    );
    for (name, figures) in groups.as_object().into_iter().flatten() {
        let _ = write!(
            html,
            "<tr><td>{}</td><td>{}</td>",
            escaped(if name.is_empty() { "–" } else { name }),
            figures["count"]
        );
        for part in ["average", "p50", "p95", "p99"] {
            let _ = write!(
                html,
                "<td>{:.1} ms</td>",
                figures[part].as_f64().unwrap_or(0.0) * 1000.0
            );
        }
        html.push_str("</tr>");
    }
    html.push_str("</tbody></table>");
}

fn classes(html: &mut String, whole: &Whole) {
    let groups = whole.distribution(|sample| format!("{} · {}", sample.user_id, sample.request_type));
    html.push_str("<table><thead><tr><th></th><th>requests</th><th>completed</th><th>refused</th></tr></thead><tbody>");
    for (group, count) in groups {
        let of = |status: &str| {
            let is = |sample: &&Sample| {
                format!("{} · {}", sample.user_id, sample.request_type) == group
                    && sample.final_backend_status == status
            };
            whole.samples.iter().filter(is).count()
        };
        let _ = write!(
            html,
            "<tr><td>{}</td><td>{count}</td><td>{}</td><td>{}</td></tr>",
            escaped(&group),
            of("completed"),
            of("rejected")
        );
    }
    html.push_str("</tbody></table>");
}
