//! Limits of the client are not reported as the server's slowness.

use crate::server::{Reply, Server, answer};
use crate::{alone, program, stress};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;

fn summary(dir: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(dir.join("latest_summary.json")).expect("a summary")).expect("JSON")
}

/// A server that answers in 20 ms, but not in the second after `begin`.
fn stalling(begin: Duration) -> Server {
    let began = Instant::now();
    Server::start(move |_, _| {
        let now = began.elapsed();
        let end = begin + Duration::from_secs(1);
        let is_stalled = (begin..end).contains(&now);
        let stall = end.saturating_sub(now).min(Duration::from_secs(u64::from(is_stalled)));
        std::thread::sleep(Duration::from_millis(20) + stall);
        Reply::Json(200, "", answer("a", 1))
    })
}

const NEVER: Duration = Duration::from_secs(3600);

#[test]
fn a_stall_of_the_client_is_distinguished_from_a_stall_of_the_server() {
    let _alone = alone();
    let steady =
        "--admin-url http://127.0.0.1:9 --protocol openai --model m --arrivals constant --rate 50 --duration 3 --out .";
    // The client is stopped for a second.
    let server = stalling(NEVER);
    let dir = TempDir::new().expect("a directory");
    let args = format!("--base-url {} {steady}", server.url);
    let mut child = program(dir.path(), &args.split(' ').collect::<Vec<_>>())
        .spawn()
        .expect("it runs");
    while server.seen("/v1/chat").len() < 20 {
        std::thread::sleep(Duration::from_millis(10));
    }
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
    kill(pid, Signal::SIGSTOP).expect("it runs");
    std::thread::sleep(Duration::from_secs(1));
    kill(pid, Signal::SIGCONT).expect("it runs");
    assert!(child.wait().expect("an end").success());
    let client = summary(dir.path());
    let longest = |summary: &Value| {
        let stalls = summary["client"]["stalls"].as_array().expect("stalls").clone();
        stalls
            .iter()
            .filter_map(|stall| stall["lasted_seconds"].as_f64())
            .fold(0.0, f64::max)
    };
    assert!((0.9..1.5).contains(&longest(&client)), "{}", client["client"]);
    assert_eq!(client["client"]["is_valid"], false, "{}", client["client"]);
    assert!(client["client"]["send_lag_seconds"]["max"].as_f64() > Some(0.5));
    assert!(
        client["p99_end_to_end_latency_seconds"].as_f64() < Some(0.5),
        "{client}"
    );

    // The server is.
    let server = stalling(Duration::from_secs(1));
    let server = stress(
        &server.url,
        "--protocol openai --model m --arrivals constant --rate 50 --duration 3",
    )
    .succeeded()
    .summary();
    assert!(longest(&server) < 0.5, "{}", server["client"]);
    assert!(
        server["p99_end_to_end_latency_seconds"].as_f64() > Some(0.7),
        "{server}"
    );
}

#[test]
fn a_rate_that_the_client_cannot_reach_makes_a_run_invalid() {
    let _alone = alone();
    let server = Server::start(|_, _| Reply::Json(200, "", answer("a", 1)));
    // 2,000 requests within 2 ms.
    let load = "--arrivals constant --rate 1000000 --duration 0.002 --threads 1";
    let run = stress(
        &server.url,
        &format!("--protocol openai --model m {load} --fail-if invalid"),
    );
    assert_eq!(run.output.status.code(), Some(1), "{}", run.said());
    assert!(run.said().contains("WARNING: invalid: the client"), "{}", run.said());
    assert!(
        run.file("latest_report.html").contains("invalid: the client")
            && run.file("latest_comparison.md").contains("invalid: the client")
    );
}

#[test]
fn requests_are_sent_when_they_are_scheduled() {
    let _alone = alone();
    let server = Server::start(|_, _| Reply::Json(200, "", answer("a", 1)));
    let run = stress(
        &server.url,
        "--protocol openai --model m --arrivals constant --rate 100 --duration 2",
    )
    .succeeded();
    let lag = &run.summary()["client"]["send_lag_seconds"];
    assert!(lag["count"] == 200 && lag["min"].as_f64() < Some(0.001), "{lag}");
    let seen = server.seen("/v1/chat");
    let first = seen.iter().map(|seen| seen.received).min().expect("requests");
    let mut off: Vec<f64> = Vec::new();
    for row in run.rows() {
        let received = server
            .numbered(row.text("request_id"))
            .received
            .duration_since(first)
            .as_secs_f64();
        off.push((received - row.number("request_index").expect("a number") * 0.01).abs());
    }
    off.sort_by(f64::total_cmp);
    let quarter = off[off.len() / 4];
    assert!(
        quarter < 0.005,
        "three of four requests came more than {:.1} ms off their time",
        quarter * 1e3
    );
}

#[test]
fn a_wait_for_max_in_flight_counts_as_latency_and_is_reported() {
    let server = Server::start(|_, _| {
        std::thread::sleep(Duration::from_millis(100));
        Reply::Json(200, "", answer("a", 1))
    });
    // One at a time takes 100 ms; 20 that come within 0.2 s wait for each other.
    let run = stress(
        &server.url,
        "--protocol openai --model m --arrivals constant --rate 100 --duration 0.2 --max-in-flight 1",
    )
    .succeeded();
    let summary = run.summary();
    assert!(
        summary["p99_end_to_end_latency_seconds"].as_f64() > Some(1.5),
        "{summary}"
    );
    assert!(run.said().contains("waited because --max-in-flight"), "{}", run.said());
    assert!(
        summary["client"]["send_lag_seconds"]["p50"].as_f64() < Some(0.1),
        "the wait is not the client's lag"
    );
    assert_eq!(summary["completed_final"], json!(20));
}
