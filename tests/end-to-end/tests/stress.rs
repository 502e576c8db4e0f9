//! The stress tester: its figures are those of the gateway's ledger, parts of a plan make up the whole, a stall is seen,
//! and the page opens in a browser without network.

use end_to_end::upstream::{Scripted, WHOLE};
use end_to_end::{Gateway, Simulated, config_dir, run_aside};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};
use tempfile::TempDir;

async fn stress(dir: &Path, args: &[&str]) -> Output {
    run_aside("sluice-stress", dir, args).await
}

fn summary(dir: &Path) -> Value {
    let text = std::fs::read(dir.join("latest_summary.json")).expect("a summary");
    serde_json::from_slice(&text).expect("JSON")
}

/// The repository's own limits, all models enabled, and answers that do not take long.
fn quick(name: &str, text: String) -> String {
    match name {
        "models.yaml" => text
            .replace("enabled: false", "enabled: true")
            .replace("average_latency_seconds: 0.5", "average_latency_seconds: 0.05")
            .replace("average_latency_seconds: 2.0", "average_latency_seconds: 0.1"),
        _ => text,
    }
}

#[tokio::test]
async fn every_scenario_agrees_with_the_gateways_ledger_to_the_request() {
    let gateway = Gateway::start_in(config_dir(quick), &["--simulated"]).await;
    let out = TempDir::new().expect("a directory");
    let listed = stress(out.path(), &["scenarios"]).await;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let names: Vec<&str> = listed
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert_eq!(names.len(), 9);
    let (mut total, mut completed, mut rejected, mut tokens) = (0, 0, 0, 0);
    for name in names {
        let args = [
            "--base-url",
            &gateway.proxy,
            "--admin-url",
            &gateway.admin,
            "--admin-token",
            "admin-of-the-test",
        ];
        let output = stress(
            out.path(),
            &[
                &args[..],
                &["--scenario", name, "--poll-interval", "0.05", "--out", name],
            ]
            .concat(),
        )
        .await;
        assert!(
            output.status.success(),
            "{name}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let summary = summary(&out.path().join(name));
        let count = |field: &str| summary[field].as_u64().expect("a count");
        total += count("total_requests");
        completed += count("completed_final");
        rejected += count("rejected");
        assert_eq!(count("timed_out_final") + count("failed_final"), 0, "{name}: {summary}");
        let lines = std::fs::read_to_string(out.path().join(name).join("latest_results.csv")).expect("a file");
        assert_eq!(lines.lines().count() as u64, count("total_requests") + 1);
        let mut rows = csv::Reader::from_reader(lines.as_bytes());
        let headers = rows.headers().expect("a head").clone();
        let at = headers
            .iter()
            .position(|name| name == "output_tokens")
            .expect("a column");
        tokens += rows
            .records()
            .map(|row| row.expect("a row")[at].to_owned())
            // A refused request has no count.
            .filter(|count| !count.is_empty())
            .map(|count| count.parse::<u64>().expect("a count"))
            .sum::<u64>();
        let markdown = std::fs::read_to_string(out.path().join(name).join("latest_comparison.md")).expect("a file");
        assert!(markdown.contains("## End to end by model"), "{markdown}");
    }
    let ledger = gateway.admin_json("/metrics/summary").await;
    assert_eq!(ledger["total_requests"], total);
    assert_eq!(ledger["completed_requests"], completed);
    assert_eq!(ledger["rejected_requests"], rejected);
    assert_eq!(ledger["total_output_tokens"], tokens);
    assert_eq!(total, 1140);
}

#[tokio::test]
async fn eight_parts_of_a_plan_make_up_what_one_generator_sees() {
    let upstream = Simulated::start(&["m=0.5"]);
    let out = TempDir::new().expect("a directory");
    let args = [
        "--base-url",
        &upstream.url,
        "--admin-url",
        "http://127.0.0.1:9",
        "--protocol",
        "openai",
        "--stream",
        "--model",
        "m",
        "--scenario",
        "mixed_load",
        "--arrivals",
        "poisson",
        "--rate",
        "60",
        "--duration",
        "3",
    ];
    let mut parts = Vec::new();
    for part in 1..=8 {
        let (part, name) = (format!("{part}/8"), format!("part{part}"));
        let all: Vec<String> = args
            .iter()
            .map(ToString::to_string)
            .chain(["--shard".into(), part, "--out".into(), name])
            .collect();
        let dir = out.path().to_owned();
        parts.push(tokio::spawn(async move {
            stress(&dir, &all.iter().map(String::as_str).collect::<Vec<_>>()).await
        }));
    }
    for part in parts {
        let output = part.await.expect("no panic");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let names: Vec<String> = (1..=8).map(|part| format!("part{part}")).collect();
    let merge: Vec<&str> = ["merge", "--out", "all"]
        .into_iter()
        .chain(names.iter().map(String::as_str))
        .collect();
    assert!(stress(out.path(), &merge).await.status.success());
    assert!(
        stress(out.path(), &[&args[..], &["--out", "one"]].concat())
            .await
            .status
            .success()
    );
    let (all, one) = (summary(&out.path().join("all")), summary(&out.path().join("one")));
    for same in [
        "total_requests",
        "completed_final",
        "requests_by_model",
        "status_code_distribution",
        "total_output_tokens",
    ] {
        assert_eq!(all[same], one[same], "{same}");
    }
    let compared = stress(out.path(), &["compare", "one", "all"]).await;
    let compared = String::from_utf8_lossy(&compared.stdout).into_owned();
    assert!(
        compared.contains("end to end p99") && compared.contains("completed"),
        "{compared}"
    );
    let twice = stress(out.path(), &["merge", "part1", "part1"]).await;
    assert!(String::from_utf8_lossy(&twice.stderr).contains("is in two of the runs"));
}

/// A server that answers at once, but for one second in which it answers nobody.
async fn stalling(after: Duration) -> Scripted {
    let began = Instant::now();
    Scripted::start(move |mut connection| async move {
        while connection.read_request().await {
            let now = began.elapsed();
            if now > after && now < after + Duration::from_secs(1) {
                tokio::time::sleep((after + Duration::from_secs(1)).saturating_sub(now)).await;
            }
            connection.answer("200 OK", WHOLE).await;
        }
    })
    .await
}

#[tokio::test]
async fn an_open_loop_sees_a_stall_that_a_closed_loop_sleeps_through() {
    let out = TempDir::new().expect("a directory");
    let common = [
        "--admin-url",
        "http://127.0.0.1:9",
        "--protocol",
        "openai",
        "--model",
        "m",
        "--gap",
        "0",
    ];
    let server = stalling(Duration::from_millis(1500)).await;
    let open = [
        "--base-url",
        &server.url,
        "--arrivals",
        "constant",
        "--rate",
        "100",
        "--duration",
        "4",
        "--out",
        "open",
    ];
    let failing = ["--fail-if", "p99_e2e > 0.5", "--fail-if", "p50_e2e > 0.5"];
    let output = stress(out.path(), &[&common[..], &open, &failing].concat()).await;
    assert_eq!(output.status.code(), Some(1), "the condition holds");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("p99_e2e is") && !told.contains("p50_e2e is"), "{told}");
    let server = stalling(Duration::from_millis(700)).await;
    let closed = [
        "--base-url",
        &server.url,
        "--requests",
        "3000",
        "--concurrency",
        "1",
        "--out",
        "closed",
    ];
    assert!(
        stress(out.path(), &[&common[..], &closed].concat())
            .await
            .status
            .success()
    );
    let p99 = |name: &str| {
        summary(&out.path().join(name))["p99_end_to_end_latency_seconds"]
            .as_f64()
            .expect("a figure")
    };
    assert!(
        p99("open") > 0.5 && p99("closed") < 0.1,
        "{} {}",
        p99("open"),
        p99("closed")
    );
}

#[tokio::test]
async fn the_page_opens_in_a_browser_without_network_and_without_a_word_on_its_console() {
    let gateway = Gateway::start_in(config_dir(quick), &[]).await;
    let out = TempDir::new().expect("a directory");
    let args = [
        "--base-url",
        &gateway.proxy,
        "--admin-url",
        &gateway.admin,
        "--admin-token",
        "admin-of-the-test",
        "--scenario",
        "vip_protection",
        "--protocol",
        "openai",
        "--stream",
        "--out",
        ".",
    ];
    assert!(stress(out.path(), &args).await.status.success());
    let page = out.path().join("latest_report.html");
    let html = std::fs::read_to_string(&page).expect("a page");
    // Addresses stand in it as text; nothing is loaded from any.
    for loading in ["<script", "src=", "href=\"http", "url(", "@import"] {
        assert!(!html.contains(loading), "{loading}");
    }
    assert!(html.contains("The gateway during the run") && html.contains("Latency by percentile"));
    let shot = out.path().join("page.png");
    let profile = TempDir::new().expect("a directory");
    let output = Command::new("chromium")
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--no-first-run",
        ])
        .args([
            "--disable-component-update",
            "--disable-sync",
            "--enable-logging=stderr",
            "--window-size=1000,1800",
        ])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("--screenshot={}", shot.display()))
        .arg(format!("file://{}", page.display()))
        .output()
        .expect("chromium runs; `tests/setup test` installs it");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!said.contains("CONSOLE"), "{said}");
    let picture = std::fs::metadata(&shot).expect("a screenshot").len();
    assert!(picture > 20_000, "the page is empty: {picture} bytes");
    if let Some(keep) = std::env::var_os("SLUICE_KEEP_SCREENSHOTS") {
        std::fs::copy(&shot, Path::new(&keep).join("stress-report.png")).expect("writable");
    }
}

#[tokio::test]
async fn an_interrupted_run_writes_its_reports_and_a_capacity_is_found() {
    let upstream = Simulated::start(&["m=0.05"]);
    let out = TempDir::new().expect("a directory");
    let common = [
        "--base-url",
        &upstream.url,
        "--admin-url",
        "http://127.0.0.1:9",
        "--protocol",
        "openai",
        "--model",
        "m",
    ];
    let mut child = Command::new(end_to_end::program("sluice-stress"))
        .args(common)
        .args([
            "--arrivals",
            "constant",
            "--rate",
            "50",
            "--duration",
            "60",
            "--out",
            "cut",
        ])
        .current_dir(out.path())
        .spawn()
        .expect("it runs");
    tokio::time::sleep(Duration::from_secs(2)).await;
    let told = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(told.expect("kill runs").success());
    assert!(child.wait().expect("an end").success());
    let seen = summary(&out.path().join("cut"))["total_requests"]
        .as_u64()
        .expect("a count");
    assert!((20..200).contains(&seen), "{seen}");

    let found = [
        "--find-capacity",
        "--slo",
        "e2e=1s",
        "--rate",
        "2000",
        "--duration",
        "0.5",
        "--json",
        "--out",
        "found",
    ];
    let output = stress(out.path(), &[&common[..], &found].concat()).await;
    let found: Value = serde_json::from_slice(&output.stdout).expect("JSON and nothing else");
    assert!(
        output.status.success() && found["capacity_requests_per_second"].is_number(),
        "{found}"
    );
}
