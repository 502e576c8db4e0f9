//! `latest_comparison.md`: the groups as tables.

use serde_json::Value;
use std::fmt::Write;

/// The page.
pub(super) fn page(name: &str, summary: &Value) -> String {
    let mut text = format!("# {name}\n\n");
    let millis = |value: &Value| format!("{:.1}", value.as_f64().unwrap_or(0.0) * 1000.0);
    let whole = |value: &Value| value.as_f64().map_or(String::new(), |number| format!("{number:.2}"));
    let _ = writeln!(
        text,
        "{} requests in {} s: {} completed, {} refused, {} failed, {} timed out; {} were queued at first.\n",
        summary["total_requests"],
        whole(&summary["duration_seconds"]),
        summary["completed_final"],
        summary["rejected"],
        summary["failed_final"],
        summary["timed_out_final"],
        summary["queued_initial"],
    );
    let _ = writeln!(text, "| | average ms | p50 | p95 | p99 |\n|---|---|---|---|---|");
    for (label, name) in [
        ("first answer", "latency_seconds"),
        ("end to end", "end_to_end_latency_seconds"),
    ] {
        let _ = write!(text, "| {label} |");
        for part in ["average", "p50", "p95", "p99"] {
            let _ = write!(text, " {} |", millis(&summary[format!("{part}_{name}")]));
        }
        text.push('\n');
    }
    for (label, name) in [
        ("first token", "time_to_first_token_seconds"),
        ("a token after it", "time_per_output_token_seconds"),
        ("wait in the queue", "queue_wait_seconds"),
    ] {
        let figures = &summary[name];
        if figures["count"].as_u64().unwrap_or(0) > 0 {
            let parts = ["average", "p50", "p95", "p99"].map(|part| millis(&figures[part]));
            let _ = writeln!(text, "| {label} | {} |", parts.join(" | "));
        }
    }
    let _ = writeln!(
        text,
        "\n{} requests/s, {} tokens/s, goodput {} requests/s ({} of all), Jain index between users {}.\n",
        whole(&summary["requests_per_second"]),
        whole(&summary["output_tokens_per_second"]),
        whole(&summary["goodput_requests_per_second"]),
        whole(&summary["goodput_share"]),
        whole(&summary["jain_index_of_tokens_by_user"]),
    );
    for (title, name) in [
        ("Latency by model", "latency_by_model"),
        ("End to end by model", "end_to_end_latency_by_model"),
        ("Latency by backend", "latency_by_backend"),
        ("End to end by backend", "end_to_end_latency_by_backend"),
    ] {
        groups(&mut text, title, &summary[name], &millis);
    }
    for (title, name) in [
        ("Outcome by model", "final_status_by_model"),
        ("Outcome by backend", "final_status_by_backend"),
    ] {
        outcomes(&mut text, title, &summary[name]);
    }
    counts(&mut text, "HTTP status", &summary["status_code_distribution"]);
    counts(&mut text, "Refusals by reason", &summary["refusals_by_reason"]);
    text
}

fn groups(text: &mut String, title: &str, groups: &Value, millis: &impl Fn(&Value) -> String) {
    let _ = writeln!(
        text,
        "## {title}, in ms\n\n| | requests | average | p50 | p95 | p99 |\n|---|---|---|---|---|---|"
    );
    for (name, figures) in groups.as_object().into_iter().flatten() {
        let parts = ["average", "p50", "p95", "p99"].map(|part| millis(&figures[part]));
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

fn outcomes(text: &mut String, title: &str, groups: &Value) {
    let _ = writeln!(text, "## {title}\n\n| | status | requests |\n|---|---|---|");
    for (name, statuses) in groups.as_object().into_iter().flatten() {
        for (status, count) in statuses.as_object().into_iter().flatten() {
            let _ = writeln!(text, "| {} | {status} | {count} |", name_of(name));
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
        let _ = writeln!(text, "| {} | {count} |", name_of(name));
    }
    text.push('\n');
}

fn name_of(name: &str) -> &str {
    if name.is_empty() { "–" } else { name }
}
