//! `latest_comparison.md`: the summary as tables.

use crate::summary::RunRecord;
use serde_json::Value;
use std::fmt::Write;

const PARTS: [&str; 5] = ["average", "p50", "p90", "p95", "p99"];

/// The page.
pub(super) fn page(record: &RunRecord, summary: &Value) -> String {
    let mut text = format!("# {}\n\n", record.name);
    outcome(&mut text, summary);
    latencies(&mut text, summary);
    let number = |name: &str| {
        summary[name]
            .as_f64()
            .map_or("–".to_owned(), |number| format!("{number:.2}"))
    };
    let _ = writeln!(
        text,
        "\n{} requests/s, {} completed/s, {} output tokens/s, goodput {} requests/s ({} of all), Jain index between users {}.\n",
        number("requests_per_second"),
        number("completed_requests_per_second"),
        number("output_tokens_per_second"),
        number("goodput_requests_per_second"),
        number("goodput_share"),
        number("jain_index_of_tokens_by_user"),
    );
    for (title, name) in [
        ("Latency by model", "latency_by_model"),
        ("End to end by model", "end_to_end_latency_by_model"),
        ("Latency by backend", "latency_by_backend"),
        ("End to end by backend", "end_to_end_latency_by_backend"),
    ] {
        groups(&mut text, title, &summary[name]);
    }
    for (title, name) in [
        ("Outcome by model", "final_status_by_model"),
        ("Outcome by backend", "final_status_by_backend"),
        ("Reasons by outcome", "reasons_by_status"),
    ] {
        nested(&mut text, title, &summary[name]);
    }
    counts(&mut text, "HTTP status", &summary["status_code_distribution"]);
    counts(&mut text, "Left out of latencies", &summary["left_out"]);
    text.push_str("## Run\n\n| | |\n|---|---|\n");
    for (name, value) in record.metadata.rows() {
        let _ = writeln!(text, "| {name} | {} |", value.replace('|', "\\|"));
    }
    text
}

fn outcome(text: &mut String, summary: &Value) {
    let _ = writeln!(
        text,
        "{} requests in {:.2} s: {} completed, {} refused, {} failed, {} timed out, {} cancelled, {} interrupted; \
         {} were queued at first, {} were not sent.\n",
        summary["total_requests"],
        summary["duration_seconds"].as_f64().unwrap_or(0.0),
        summary["completed_final"],
        summary["rejected"],
        summary["failed_final"],
        summary["timed_out_final"],
        summary["cancelled_final"],
        summary["interrupted"],
        summary["queued_initial"],
        summary["not_sent"],
    );
    for warning in summary["client"]["warnings"].as_array().into_iter().flatten() {
        let _ = writeln!(text, "> **Warning:** {}\n", warning.as_str().unwrap_or_default());
    }
}

fn millis(value: &Value) -> String {
    value
        .as_f64()
        .map_or("–".to_owned(), |seconds| format!("{:.1}", seconds * 1000.0))
}

fn latencies(text: &mut String, summary: &Value) {
    let _ = writeln!(
        text,
        "Latencies of {} completed requests, in ms:\n\n| | average | p50 | p90 | p95 | p99 |\n|---|---|---|---|---|---|",
        summary["measured_requests"]
    );
    for (label, name) in [
        ("first answer", "latency_seconds"),
        ("end to end", "end_to_end_latency_seconds"),
    ] {
        let parts = PARTS.map(|part| millis(&summary[format!("{part}_{name}")]));
        let _ = writeln!(text, "| {label} | {} |", parts.join(" | "));
    }
    for (label, figures) in [
        ("first token", &summary["time_to_first_token_seconds"]),
        ("per output token", &summary["time_per_output_token_seconds"]),
        ("between tokens", &summary["inter_token_latency_seconds"]),
        ("wait in the queue", &summary["queue_wait_seconds"]),
        ("refusals", &summary["refusal_latency_seconds"]),
        ("sent late by the client", &summary["client"]["send_lag_seconds"]),
    ] {
        if figures["count"].as_u64().unwrap_or(0) > 0 {
            let parts = PARTS.map(|part| millis(&figures[part]));
            let _ = writeln!(text, "| {label} | {} |", parts.join(" | "));
        }
    }
}

fn groups(text: &mut String, title: &str, groups: &Value) {
    let _ = writeln!(
        text,
        "## {title}, in ms\n\n| | completed | average | p50 | p90 | p95 | p99 |\n|---|---|---|---|---|---|---|"
    );
    for (name, figures) in groups.as_object().into_iter().flatten() {
        let parts = PARTS.map(|part| millis(&figures[part]));
        let _ = writeln!(
            text,
            "| {} | {} | {} |",
            name_of(name),
            figures["count"],
            parts.join(" | ")
        );
    }
    text.push('\n');
}

fn nested(text: &mut String, title: &str, groups: &Value) {
    let Some(groups) = groups.as_object().filter(|groups| !groups.is_empty()) else {
        return;
    };
    let _ = writeln!(text, "## {title}\n\n| | | requests |\n|---|---|---|");
    for (name, inner) in groups {
        for (inner, count) in inner.as_object().into_iter().flatten() {
            let _ = writeln!(text, "| {} | {} | {count} |", name_of(name), name_of(inner));
        }
    }
    text.push('\n');
}

fn counts(text: &mut String, title: &str, counts: &Value) {
    let Some(counts) = counts.as_object().filter(|counts| !counts.is_empty()) else {
        return;
    };
    let _ = writeln!(text, "## {title}\n\n| | requests |\n|---|---|");
    for (name, count) in counts {
        let name = if title == "HTTP status" && name == "0" {
            "no answer"
        } else {
            name_of(name)
        };
        let _ = writeln!(text, "| {name} | {count} |");
    }
    text.push('\n');
}

fn name_of(name: &str) -> &str {
    if name.is_empty() { "–" } else { name }
}
