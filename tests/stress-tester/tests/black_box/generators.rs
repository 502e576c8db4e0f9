//! One workload by several generators: real processes that a lead starts together, and what becomes of one that is
//! lost.

use crate::server::{Reply, Server, answer};
use crate::{alone, program, stress};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Output, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// A lead that waits for followers, and where.
struct Lead {
    process: Child,
    address: String,
    errors: BufReader<std::process::ChildStderr>,
}

impl Lead {
    fn start(dir: &Path, followers: usize, flags: &str) -> Self {
        let own = format!("lead --followers {followers} --listen 127.0.0.1:0 --token secret -- {flags}");
        let mut process = program(dir, &own.split_whitespace().collect::<Vec<_>>())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut errors = BufReader::new(process.stderr.take().expect("piped"));
        let mut line = String::new();
        errors.read_line(&mut line).expect("a line");
        let address = line.split_once("follow ").expect("an address").1;
        let address = address.split(' ').next().expect("an address").to_owned();
        Self {
            process,
            address,
            errors,
        }
    }

    fn follower(&self, dir: &Path, name: &str, token: &str) -> Child {
        program(dir, &["follow", &self.address, "--token", token, "--name", name])
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts")
    }

    /// Its standard error, and whether it succeeded.
    fn end(mut self) -> (String, Output) {
        let mut text = String::new();
        self.errors.read_to_string(&mut text).expect("text");
        (text, self.process.wait_with_output().expect("it ends"))
    }
}

fn summary(dir: &Path) -> Value {
    let text = std::fs::read_to_string(dir.join("latest_summary.json")).expect("a summary");
    serde_json::from_str(&text).expect("JSON")
}

/// Answers each request after a time that its number decides, so that the distribution of latencies is known.
fn stepped() -> Server {
    Server::start(|seen, number| {
        if seen.method == "POST" {
            std::thread::sleep(Duration::from_millis(50 + 100 * (number as u64 % 3)));
        }
        Reply::Json(200, "", answer("a", 7))
    })
}

#[test]
fn three_generators_are_seen_as_one_is_and_start_together() {
    let _alone = alone();
    let load = "--protocol openai --model m --arrivals poisson --rate 30 --duration 4";
    let server = stepped();
    let one = stress(&server.url, load).succeeded().summary();
    let server = stepped();
    let dir = TempDir::new().expect("a directory");
    let common = format!(
        "--base-url {} --admin-url http://127.0.0.1:9 --out all {load}",
        server.url
    );
    let lead = Lead::start(dir.path(), 3, &common);
    let followers = ["a", "b", "c"].map(|name| lead.follower(dir.path(), name, "secret"));
    let (said, output) = lead.end();
    assert!(output.status.success(), "{said}");
    for mut follower in followers {
        assert!(follower.wait().expect("it ends").success());
    }
    let all = summary(&dir.path().join("all"));
    for same in [
        "total_requests",
        "completed_final",
        "total_output_tokens",
        "status_code_distribution",
    ] {
        assert_eq!(all[same], one[same], "{same}");
    }
    // The same requests at the same times, from wherever they come.
    let times = |dir: &Path| {
        let text = std::fs::read_to_string(dir.join("latest_run.json")).expect("a run");
        let run: Value = serde_json::from_str(&text).expect("JSON");
        let samples = run["samples"].as_array().expect("samples").clone();
        samples
            .iter()
            .map(|sample| sample["at_seconds"].as_f64().expect("a time"))
            .collect::<Vec<_>>()
    };
    let merged = times(&dir.path().join("all"));
    let alone = stress(&stepped().url, load).succeeded();
    let apart: Vec<f64> = merged
        .iter()
        .zip(times(alone.dir.path()))
        .map(|(one, other)| (one - other).abs())
        .collect();
    let within = apart.iter().filter(|apart| **apart < 0.05).count();
    assert!(within * 10 >= apart.len() * 9, "{apart:?}");
    // Every latency is in the joined figures: a third is of each of the server's steps.
    let latencies: Vec<f64> = ["p50_end_to_end_latency_seconds", "p99_end_to_end_latency_seconds"]
        .iter()
        .map(|name| all[name].as_f64().expect("measured"))
        .collect();
    assert!(
        (0.15..0.2).contains(&latencies[0]) && latencies[1] >= 0.25,
        "{latencies:?}"
    );
    let generators = all["run"]["generators"].as_array().expect("generators");
    assert_eq!(generators.len(), 3);
    let parts: u64 = generators
        .iter()
        .map(|one| one["requests"].as_u64().expect("a count"))
        .sum();
    assert_eq!(json!(parts), all["total_requests"]);
    for generator in generators {
        let ahead = generator["clock_ahead_seconds"].as_f64().expect("measured");
        let trip = generator["round_trip_seconds"].as_f64().expect("measured");
        assert!(ahead.abs() <= trip, "they have one clock: {generator}");
        assert!(generator["lost"].is_null());
    }
    let command = all["run"]["command"].as_str().expect("a command");
    assert!(command.contains("lead") && !command.contains("secret"), "{command}");
}

#[test]
fn a_generator_that_is_lost_makes_the_run_invalid_and_its_requests_missing() {
    let _alone = alone();
    let server = stepped();
    let dir = TempDir::new().expect("a directory");
    let load = "--protocol openai --model m --arrivals constant --rate 20 --duration 6";
    let common = format!(
        "--base-url {} --admin-url http://127.0.0.1:9 --out all {load}",
        server.url
    );
    let lead = Lead::start(dir.path(), 2, &common);
    let mut stays = lead.follower(dir.path(), "stays", "secret");
    let mut dies = lead.follower(dir.path(), "dies", "secret");
    let mut line = String::new();
    BufReader::new(dies.stderr.take().expect("piped"))
        .read_line(&mut line)
        .expect("it has started");
    std::thread::sleep(Duration::from_secs(1));
    dies.kill().expect("killed");
    dies.wait().expect("it ends");
    let (said, output) = lead.end();
    assert!(
        output.status.success() && said.contains("generator dies: lost"),
        "{said}"
    );
    assert!(stays.wait().expect("it ends").success());
    let all = summary(&dir.path().join("all"));
    assert_eq!((&all["total_requests"], &all["not_sent"]), (&json!(60), &json!(60)));
    assert_eq!(all["client"]["is_valid"], false);
    let warnings = all["client"]["warnings"].to_string();
    assert!(warnings.contains("generator dies was lost"), "{warnings}");
}

#[test]
fn a_generator_with_a_wrong_token_is_refused_and_one_that_cannot_prepare_ends_the_run() {
    let dir = TempDir::new().expect("a directory");
    let lead = Lead::start(dir.path(), 1, "--protocol openai --dataset nowhere.jsonl");
    let wrong = lead
        .follower(dir.path(), "wrong", "guess")
        .wait_with_output()
        .expect("it ends");
    assert_eq!(wrong.status.code(), Some(2));
    let said = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(said.contains("invalid token"), "{said}");
    let mut right = lead.follower(dir.path(), "right", "secret");
    let (said, output) = lead.end();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        said.contains("generator right") && said.contains("nowhere.jsonl"),
        "{said}"
    );
    assert!(!right.wait().expect("it ends").success());
    let sweep = program(dir.path(), &["lead", "--followers", "1", "--", "--sweep-rate", "1,2"])
        .output()
        .expect("it runs");
    assert_eq!(sweep.status.code(), Some(2));
}
