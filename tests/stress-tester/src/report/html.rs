//! `latest_report.html`: one page with everything in it, without a script or anything from elsewhere.

use super::drawings::{by_class, by_figure, class_of, curves, over_time, watched};
use super::plot::time;
use crate::summary::{RunRecord, figure};
use maud::{Markup, html};
use report_page::card;
use serde_json::Value;
use std::collections::BTreeMap;

/// A page with a title; `parts` are in its main column.
pub(super) fn document(title: &str, parts: &Markup) -> String {
    report_page::document(title, "sluice-stress", parts)
}

/// The page.
pub(super) fn page(record: &RunRecord, summary: &Value) -> String {
    let parts = html! {
        (top(record, summary))
        @for warning in summary["client"]["warnings"].as_array().into_iter().flatten() {
            @let text = warning.as_str().unwrap_or_default();
            p.notice.wrong[text.starts_with("invalid")] { (text) }
        }
        (tiles(summary))
        (objectives(&summary["objectives"]))
        (card("Requests over time", "Completed ones by their time from sending to the last byte; the others, which have no latency, are counted below.", &over_time(record)))
        (reasons(&summary["reasons_by_status"]))
        div.two {
            (card("Latency by percentile", "Of completed requests.", &curves(by_figure(record), "latency by percentile")))
            (card("By user and class", "End to end, of completed requests.", &curves(by_class(record), "latency by user and class")))
        }
        (card("Outcomes by user and class", "", &classes(record)))
        @if !record.watched.is_empty() {
            (card("The gateway during the run", "From its admin listener, five times a second.", &watched(record)))
        }
        (latencies("End to end by model", &summary["end_to_end_latency_by_model"]))
        (latencies("End to end by backend", &summary["end_to_end_latency_by_backend"]))
        (card("Run", "", &html! {
            table.run { tbody { @for (name, value) in record.metadata.rows() { tr { th { (name) } td { (value) } } } } }
        }))
    };
    document(&record.name, &parts)
}

/// The name, the verdict, and what the run was.
fn top(record: &RunRecord, summary: &Value) -> Markup {
    let run = &record.metadata;
    let is_valid = summary["client"]["is_valid"] == true;
    let good = summary["goodput_share"].as_f64();
    html! {
        header.top {
            h1 { (record.name) }
            @if is_valid { span.state.good { "valid" } } @else { span.state.bad { "invalid" } }
            @if let Some(share) = good {
                @let class = if share >= 0.99 { "good" } else if share >= 0.9 { "warn" } else { "bad" };
                span class={ "state " (class) } { (percent(share)) " within the objectives" }
            }
            div.about {
                span { (run.base_url) " (" (run.protocol) @if run.is_streaming { ", streamed" } ")" }
                span { (run.load) }
                span { (run.started_at.get(..16).unwrap_or_default().replace('T', " ")) " UTC, " (time(record.lasted.as_secs_f64())) }
                span { "seed " (run.seed) }
            }
        }
    }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn tiles(summary: &Value) -> Markup {
    let number = |name: &str, digits: usize| {
        let number = summary[name].as_f64();
        number.map_or("–".to_owned(), |number| format!("{number:.digits$}"))
    };
    let millis = |name: &str| millis(figure(summary, name));
    let total = summary["total_requests"].as_f64().unwrap_or(0.0).max(1.0);
    let share = |name: &str| percent(summary[name].as_f64().unwrap_or(0.0) / total);
    let ended = format!(
        "{} timed out, {} cancelled, {} interrupted",
        number("timed_out_final", 0),
        number("cancelled_final", 0),
        number("interrupted", 0)
    );
    let tiles = [
        (
            "Requests",
            number("total_requests", 0),
            format!("{} a second", number("requests_per_second", 1)),
        ),
        (
            "Completed",
            number("completed_final", 0),
            format!(
                "{}, {} a second",
                share("completed_final"),
                number("completed_requests_per_second", 1)
            ),
        ),
        ("Refused", number("rejected", 0), share("rejected")),
        ("Failed", number("failed_final", 0), ended),
        (
            "Output tokens a second",
            number("output_tokens_per_second", 0),
            format!("Jain index of users {}", number("jain_index_of_tokens_by_user", 3)),
        ),
        (
            "First token, p50",
            millis("p50_ttft"),
            format!("p99 {}", millis("p99_ttft")),
        ),
        (
            "End to end, p50",
            millis("p50_e2e"),
            format!("p99 {}", millis("p99_e2e")),
        ),
        (
            "Per output token, p50",
            millis("p50_tpot"),
            format!("between tokens p99 {}", millis("p99_itl")),
        ),
        (
            "Goodput",
            number("goodput_requests_per_second", 1),
            "requests a second within the objectives".to_owned(),
        ),
        ("Sent late, p99", millis("p99_lag"), "by the client itself".to_owned()),
    ];
    html! {
        div.tiles { @for (name, value, more) in tiles {
            div.tile { div.name { (name) } div.value { (value) } div.more { (more) } }
        } }
    }
}

fn millis(seconds: Option<f64>) -> String {
    seconds.map_or("–".to_owned(), |seconds| format!("{:.1} ms", seconds * 1000.0))
}

/// The objectives that were given, and the share of requests that met each.
fn objectives(objectives: &Value) -> Markup {
    let Some(objectives) = objectives.as_object().filter(|given| !given.is_empty()) else {
        return html! {};
    };
    let name = |short: &str| match short {
        "ttft" => "first token",
        "tpot" => "per output token",
        _ => "end to end",
    };
    card(
        "Objectives",
        "A request that was not completed meets none.",
        &html! {
            table {
                thead { tr { th { "figure" } th { "at most" } th { "met by" } } }
                tbody { @for (short, given) in objectives { tr {
                    td { (name(short)) }
                    td { (given["seconds"].as_f64().map(time).unwrap_or_default()) }
                    td { (given["met_share"].as_f64().map(percent).unwrap_or_default()) }
                } } }
            }
        },
    )
}

/// The reasons of requests that were not completed.
fn reasons(reasons: &Value) -> Markup {
    let Some(reasons) = reasons.as_object().filter(|reasons| !reasons.is_empty()) else {
        return html! {};
    };
    let rows = reasons.iter().flat_map(|(status, counts)| {
        let counts = counts.as_object().into_iter().flatten();
        counts.map(move |(reason, count)| (status, reason, count))
    });
    card(
        "Not completed",
        "",
        &html! {
            div.scroll { table {
                thead { tr { th { "reason" } th { "outcome" } th { "requests" } } }
                tbody { @for (status, reason, count) in rows { tr {
                    td { (reason) }
                    td { span class={ "state " (state(status)) } { (status.replace('_', " ")) } }
                    td { (count) }
                } } }
            } }
        },
    )
}

fn state(status: &str) -> &'static str {
    match status {
        "rejected" => "warn",
        "failed" | "timed_out" => "bad",
        _ => "plain",
    }
}

fn latencies(title: &str, groups: &Value) -> Markup {
    let groups = groups.as_object().into_iter().flatten();
    card(
        title,
        "",
        &html! {
            div.scroll { table {
                thead { tr { th { "name" } th { "completed" } th { "average" } th { "p50" } th { "p95" } th { "p99" } } }
                tbody { @for (name, figures) in groups { tr {
                    td { @if name.is_empty() { "–" } @else { (name) } }
                    td { (figures["count"]) }
                    @for part in ["average", "p50", "p95", "p99"] { td { (millis(figures[part].as_f64())) } }
                } } }
            } }
        },
    )
}

fn classes(record: &RunRecord) -> Markup {
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
    html! {
        div.scroll { table {
            thead { tr { th { "user and class" } th { "requests" } th { "completed" } th { "refused" } th { "others" } } }
            tbody { @for (group, counts) in groups { tr { td { (group) } @for count in counts { td { (count) } } } } }
        } }
    }
}
