//! Runs: warm-up, sweeps, comparisons and reports.

use crate::server::{Reply, Server, answer};
use crate::{program, stress};
use serde_json::{Value, json};
use std::process::Stdio;
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

#[test]
fn what_is_sent_while_warming_up_or_cooling_down_is_not_measured() {
    let began = Instant::now();
    let server = Server::start(move |_, _| {
        // Slow in the first second.
        let slow = Duration::from_secs(1).saturating_sub(began.elapsed());
        std::thread::sleep(if slow.is_zero() {
            Duration::from_millis(10)
        } else {
            Duration::from_millis(400)
        });
        Reply::Json(200, "", answer("a", 1))
    });
    let open = "--protocol openai --model m --arrivals constant --rate 40 --duration 4";
    let run = stress(&server.url, &format!("{open} --warm-up 1.5 --cool-down 0.5")).succeeded();
    let summary = run.summary();
    assert!(
        summary["p99_end_to_end_latency_seconds"].as_f64() < Some(0.3),
        "{summary}"
    );
    assert_eq!(
        (&summary["total_requests"], &summary["left_out"]["warm_up"]),
        (&json!(160), &json!(60))
    );
    assert!((19..=21).contains(&summary["left_out"]["cool_down"].as_u64().expect("a count")));
    let rate = summary["completed_requests_per_second"].as_f64().expect("a rate");
    assert!((38.0..42.0).contains(&rate), "{rate}");
    let all = stress(&server.url, "--protocol openai --model m --requests 5")
        .succeeded()
        .summary();
    assert!(all["left_out"].as_object().is_some_and(serde_json::Map::is_empty));
}

/// A server that works on so many requests at once, each for so long.
fn limited(slots: usize, each: Duration) -> Server {
    let (free, changed) = (Mutex::new(slots), Condvar::new());
    Server::start(move |seen, _| {
        if seen.method == "POST" {
            let waiting = changed.wait_while(free.lock().expect("no panic"), |free| *free == 0);
            *waiting.expect("no panic") -= 1;
            std::thread::sleep(each);
            *free.lock().expect("no panic") += 1;
            changed.notify_one();
        }
        Reply::Json(200, "", answer("a", 1))
    })
}

#[test]
fn a_sweep_over_clients_finds_the_knee_where_the_server_is_full() {
    let server = limited(4, Duration::from_millis(50));
    let run = stress(
        &server.url,
        "--protocol openai --model m --requests 60 --sweep-concurrency 1,2,4,8,16 --slo e2e=150ms --json",
    )
    .succeeded();
    let sweep: Value = serde_json::from_slice(&run.output.stdout).expect("JSON and nothing else");
    assert_eq!(sweep["knee"], 4.0, "{}", run.file("latest_sweep.csv"));
    assert!(
        sweep["highest_good"].as_f64() >= Some(4.0) && sweep["highest_good"].as_f64() < Some(16.0),
        "{}",
        sweep["highest_good"]
    );
    assert_eq!(run.file("latest_sweep.csv").lines().count(), 6);
    assert!(
        run.file("latest_sweep.html").contains("<svg")
            && run.file("concurrency-8/latest_summary.json").contains("scenario")
    );
}

#[test]
fn a_sweep_over_rates_sends_each_rate() {
    let server = limited(100, Duration::from_millis(5));
    let run = stress(
        &server.url,
        "--protocol openai --model m --duration 1 --sweep-rate 20,80 --arrivals constant",
    )
    .succeeded();
    let sweep: Value = serde_json::from_str(&run.file("latest_sweep.json")).expect("JSON");
    let counts: Vec<&Value> = sweep["runs"]
        .as_array()
        .expect("runs")
        .iter()
        .map(|run| &run["summary"]["total_requests"])
        .collect();
    assert_eq!(counts, [20, 80]);
    assert!(run.said().contains("completed/s"), "{}", run.said());
}

#[test]
fn objectives_count_one_by_one_and_together() {
    let server = Server::start(|seen, number| {
        if seen.method == "POST" && number % 4 == 0 {
            std::thread::sleep(Duration::from_millis(300));
        }
        Reply::Json(200, "", answer("a", 1))
    });
    let run = stress(
        &server.url,
        "--protocol openai --model m --requests 40 --concurrency 1 --slo e2e=150ms,ttft=9s",
    )
    .succeeded();
    let summary = run.summary();
    let share = |value: &Value| value.as_f64().expect("a share");
    assert!(
        (share(&summary["goodput_share"]) - 0.75).abs() < 0.06,
        "{}",
        summary["goodput_share"]
    );
    assert!(
        (share(&summary["objectives"]["ttft"]["met_share"]) - 1.0).abs() < 1e-9,
        "{}",
        summary["objectives"]
    );
    assert!(summary["objectives"].get("tpot").is_none());
    let goodput = share(&summary["goodput_requests_per_second"]) / share(&summary["completed_requests_per_second"]);
    assert!((goodput - share(&summary["goodput_share"])).abs() < 1e-9);
}

#[test]
fn json_is_all_that_is_printed_and_a_closed_pipe_loses_no_report() {
    let server = limited(100, Duration::ZERO);
    let run = stress(&server.url, "--protocol openai --model m --requests 5 --json").succeeded();
    let printed: Value = serde_json::from_slice(&run.output.stdout).expect("JSON and nothing else");
    assert_eq!(printed, run.summary());
    let dir = TempDir::new().expect("a directory");
    let args = format!(
        "--base-url {} --admin-url http://127.0.0.1:9 --protocol openai --model m --requests 20 --out .",
        server.url
    );
    let mut child = program(dir.path(), &args.split(' ').collect::<Vec<_>>())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    drop((child.stdout.take(), child.stderr.take()));
    assert!(child.wait().expect("an end").success());
    for name in [
        "latest_results.csv",
        "latest_summary.json",
        "latest_comparison.md",
        "latest_run.json",
        "latest_report.html",
    ] {
        assert!(dir.path().join(name).exists(), "{name}");
    }
    let listed = program(dir.path(), &["scenarios"])
        .stdout(Stdio::piped())
        .spawn()
        .map(|mut child| {
            drop(child.stdout.take());
            child.wait().expect("an end")
        });
    assert!(listed.expect("it runs").success());
}

#[test]
fn a_report_has_what_it_takes_to_repeat_the_run() {
    let server = limited(100, Duration::ZERO);
    let run = stress(&server.url, "--protocol openai --model m --requests 5 --seed 42").succeeded();
    let about = &run.summary()["run"];
    assert!(
        about["command"]
            .as_str()
            .is_some_and(|command| command.contains("--seed 42")),
        "{about}"
    );
    assert_eq!(
        (&about["seed"], &about["version"]),
        (&json!(42), &json!(env!("CARGO_PKG_VERSION")))
    );
    for name in ["started_at", "host", "processor", "system", "load", "base_url"] {
        assert!(
            about[name].as_str().is_some_and(|text| !text.is_empty()),
            "{name}: {about}"
        );
    }
    for file in ["latest_comparison.md", "latest_report.html", "latest_run.json"] {
        assert!(run.file(file).contains("--seed 42"), "{file}");
    }
}

#[test]
fn a_comparison_is_of_completed_requests_and_names_what_is_different() {
    let delays = |millis: u64, refused: usize| {
        Server::start(move |seen, number| {
            if seen.method == "POST" && number % 10 < refused {
                return Reply::Json(
                    429,
                    "",
                    json!({"error": {"message": "no", "code": "rate_limit_exceeded"}}),
                );
            }
            std::thread::sleep(Duration::from_millis(millis));
            Reply::Json(200, "", answer("a", 1))
        })
    };
    let load = "--protocol openai --model m --requests 200 --concurrency 8";
    let quick = stress(&delays(30, 0).url, load).succeeded();
    let slow = stress(&delays(60, 0).url, load).succeeded();
    let refusing = stress(&delays(60, 5).url, load).succeeded();
    let compare = |one: &crate::Run, other: &crate::Run| {
        let paths = [one, other].map(|run| run.dir.path().display().to_string());
        let output = program(one.dir.path(), &["compare", &paths[0], &paths[1]])
            .output()
            .expect("it runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let line = |text: &str, name: &str| {
        text.lines()
            .find(|line| line.starts_with(name))
            .unwrap_or_default()
            .to_owned()
    };
    assert!(
        line(&compare(&quick, &slow), "| end to end p50").contains("slower"),
        "{}",
        compare(&quick, &slow)
    );
    let refused = compare(&slow, &refusing);
    let median: f64 = line(&refused, "| end to end p50")
        .split(['|', 'm'])
        .nth(4)
        .and_then(|text| text.trim().parse().ok())
        .expect("a figure");
    assert!(median >= 60.0, "refusals are in it: {refused}");
    assert!(
        line(&refused, "| rejected").contains("more") && line(&refused, "| completed").contains("fewer"),
        "{refused}"
    );
}
