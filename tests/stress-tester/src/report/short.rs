//! A run in a few lines, for the terminal.

use crate::summary::figure;
use serde_json::Value;
use std::fmt::Write;

/// A summary in a few lines.
pub(crate) fn in_short(summary: &Value) -> String {
    let count = |name: &str| summary[name].as_u64().unwrap_or(0);
    let per_second = |name: &str| figure(summary, name).map_or("–".to_owned(), |figure| format!("{figure:.1}"));
    let millis = |name: &str, digits: usize| {
        figure(summary, name).map_or("–".to_owned(), |figure| format!("{:.digits$}", figure * 1e3))
    };
    let mut text = format!(
        "{}: {} requests in {:.1} s, {} a second, {} completed a second\n",
        summary["scenario"].as_str().unwrap_or_default(),
        count("total_requests"),
        figure(summary, "duration_seconds").unwrap_or(0.0),
        per_second("rate"),
        per_second("completed_requests_per_second"),
    );
    let _ = write!(text, "  completed {}", count("completed_final"));
    for (word, name) in [
        ("refused", "rejected"),
        ("failed", "failed_final"),
        ("timed out", "timed_out_final"),
        ("cancelled", "cancelled_final"),
        ("interrupted", "interrupted"),
    ] {
        let _ = write!(text, ", {word} {}", count(name));
    }
    let _ = writeln!(text, "; queued at first {}", count("queued_initial"));
    for (status, reasons) in summary["reasons_by_status"].as_object().into_iter().flatten() {
        for (reason, count) in reasons.as_object().into_iter().flatten() {
            let _ = writeln!(text, "    {status}: {count} × {reason}");
        }
    }
    let _ = writeln!(
        text,
        "  of {} completed, end to end ms: p50 {}, p95 {}, p99 {}; first answer p99 {}",
        count("measured_requests"),
        millis("p50_e2e", 1),
        millis("p95_e2e", 1),
        millis("p99_e2e", 1),
        millis("p99_latency", 1),
    );
    if figure(summary, "p50_ttft").is_some() {
        let _ = writeln!(
            text,
            "  first token ms: p50 {}, p99 {}; per output token p50 {}, p99 {}; between tokens p50 {}, p99 {}",
            millis("p50_ttft", 1),
            millis("p99_ttft", 1),
            millis("p50_tpot", 2),
            millis("p99_tpot", 2),
            millis("p50_itl", 2),
            millis("p99_itl", 2),
        );
    }
    let _ = write!(
        text,
        "  {} output tokens a second",
        per_second("output_tokens_per_second")
    );
    if let Some(share) = summary["goodput_share"].as_f64() {
        let _ = write!(
            text,
            ", goodput {} requests a second ({:.1} %)",
            per_second("goodput"),
            share * 100.0
        );
    }
    let jain = figure(summary, "jain").map_or("–".to_owned(), |jain| format!("{jain:.3}"));
    let _ = writeln!(text, ", Jain index {jain}");
    let _ = writeln!(
        text,
        "  sent late ms: p50 {}, p99 {}",
        millis("p50_lag", 2),
        millis("p99_lag", 2)
    );
    for warning in summary["client"]["warnings"].as_array().into_iter().flatten() {
        let _ = writeln!(text, "  WARNING: {}", warning.as_str().unwrap_or_default());
    }
    text
}
