//! `sluice simulate`: a configuration of the user's own on a trace, as text, JSON and a page.

use end_to_end::{config_dir, roomy, root, sluice};
use serde_json::Value;
use std::fmt::Write;
use std::path::Path;

/// A request each quarter of a second, of 100 tokens and an answer of 50, in Azure's form.
fn trace(dir: &Path) {
    let mut text = "TIMESTAMP,ContextTokens,GeneratedTokens\n".to_owned();
    for at in 0..400 {
        let _ = writeln!(
            text,
            "2026-11-02 10:{:02}:{:02}.{:02},100,50",
            at / 240,
            at / 4 % 60,
            at % 4 * 25
        );
    }
    std::fs::write(dir.join("trace.csv"), text).expect("writable");
}

fn simulate(dir: &Path, more: &[&str]) -> String {
    let done = sluice(dir, &[&["simulate", "--trace", "trace.csv"], more].concat());
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).expect("text")
}

#[test]
fn it_says_who_waits_what_is_refused_and_how_many_servers_are_enough() {
    // Answers of 2 s in two slots a server: a server serves one request a second, and four come.
    let dir = config_dir(|name, text| match name {
        "limits.yaml" => roomy(name, text).replace("max_active_requests: 2000", "max_active_requests: 2"),
        _ => roomy(name, text),
    });
    trace(dir.path());
    let flags = [
        "--server",
        "2",
        "--servers",
        "1,3,5",
        "--first-token",
        "2",
        "--format",
        "json",
        "--user",
        "user_standard_01",
    ];
    let printed = simulate(dir.path(), &flags);
    assert_eq!(printed, simulate(dir.path(), &flags), "the same seed gives the same");
    let found: Value = serde_json::from_str(&printed).expect("JSON");
    let runs = found["runs"].as_array().expect("runs");
    let met: Vec<f64> = runs
        .iter()
        .map(|run| run["all"]["objectives"]["met"].as_f64().expect("a number") / 400.0)
        .collect();
    // One server can serve a quarter, three serve three quarters, five all.
    assert!(
        (0.2..0.3).contains(&met[0]) && (0.7..0.8).contains(&met[1]) && met[2] > 0.99,
        "{met:?}"
    );
    assert_eq!(found["enough_servers"], 5);
    assert!(
        runs[0]["projects"]["standard_project"]["refused"]["objective_out_of_reach"].as_u64() > Some(200),
        "{found}"
    );
    assert!(runs[2]["all"]["wait_seconds"]["p99"].as_f64() < Some(0.01), "{found}");

    let text = simulate(dir.path(), &flags[..flags.len() - 4]);
    assert!(
        text.contains("At least 95.0 % of the objectives are met with 5 servers"),
        "{text}"
    );
    let page = simulate(dir.path(), &["--server", "2", "--format", "html"]);
    assert!(
        page.starts_with("<!DOCTYPE html>") && page.contains("<svg") && !page.contains("href="),
        "{page}"
    );
}

#[test]
fn a_real_trace_runs_through_an_engine_and_mistakes_are_named() {
    let dir = config_dir(roomy);
    let azure = root().join("../shared/data/traces/azure_llm_2023_conv.csv.gz");
    if azure.exists() {
        let done = sluice(
            dir.path(),
            &[
                "simulate",
                "--trace",
                &azure.to_string_lossy(),
                "--server",
                "vllm-llama3.1-8b-h100",
                "--speed",
                "0.25",
                "--format",
                "json",
            ],
        );
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let found: Value = serde_json::from_slice(&done.stdout).expect("JSON");
        assert_eq!(found["runs"][0]["all"]["requests"], 19_366);
    }
    trace(dir.path());
    let wrong = [
        (vec!["--trace", "none.csv"], "cannot read none.csv"),
        (vec!["--trace", "trace.csv", "--server", "h100"], "--server"),
        (
            vec!["--trace", "trace.csv", "--model", "gpt-9"],
            "there is no model `gpt-9`",
        ),
        (
            vec!["--trace", "trace.csv", "--user", "nobody"],
            "there is no user `nobody`",
        ),
        (vec!["--trace", "trace.csv", "--servers", "0"], "at least one server"),
        (vec!["--trace", "trace.csv", "--good", "2"], "from 0 to 1"),
    ];
    for (flags, message) in wrong {
        let done = sluice(dir.path(), &[&["simulate"], &flags[..]].concat());
        let said = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(2), "{flags:?}: {said}");
        assert!(said.contains(message), "{flags:?}: {said}");
    }
    // Without a trace it is the simulated upstream, as before.
    let profiles = sluice(dir.path(), &["simulate", "profiles"]);
    assert!(String::from_utf8_lossy(&profiles.stdout).contains("vllm-llama3.1-8b-h100"));
}
