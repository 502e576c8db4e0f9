//! The quality evaluator with the real gateway: right answers pass, no wrong one does, and the reports are what the
//! upstream was told to answer. What needs no gateway is tested in `tests/quality-eval/tests`.

use end_to_end::humaneval::problems;
use end_to_end::{Gateway, Simulated, config_dir, roomy, root, run_aside, with_model};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use tempfile::TempDir;

fn written(dir: &Path, name: &str, lines: &[Value]) -> String {
    let text: Vec<String> = lines.iter().map(Value::to_string).collect();
    std::fs::write(dir.join(name), text.join("\n")).expect("writable");
    name.to_owned()
}

async fn eval(dir: &Path, args: &[&str]) -> Output {
    run_aside("sluice-eval", dir, args).await
}

fn summary(dir: &Path) -> Value {
    let text = std::fs::read(dir.join("quality_summary.json")).expect("a summary");
    serde_json::from_slice(&text).expect("JSON")
}

fn rows(dir: &Path) -> Vec<BTreeMap<String, String>> {
    let mut rows = csv::Reader::from_path(dir.join("quality_results.csv")).expect("a table");
    rows.deserialize().map(|row| row.expect("a row")).collect()
}

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[tokio::test]
async fn every_right_answer_passes_from_both_formats_of_the_data_set() {
    let dir = TempDir::new().expect("a directory");
    let lines: Vec<Value> = problems()
        .iter()
        .map(|problem| json!({"task_id": problem["task_id"], "completion": problem["canonical_solution"]}))
        .collect();
    written(dir.path(), "right.jsonl", &lines);
    let data = root().join("data/humaneval");
    let mut tables = Vec::new();
    for (name, set) in [("lines", data.join("HumanEval.jsonl.gz")), ("hub", data.clone())] {
        let set = set.to_string_lossy().into_owned();
        let args = [
            "check",
            "right.jsonl",
            "--num-problems",
            "all",
            "--local-dataset",
            &set,
            "--out",
            name,
        ];
        let output = eval(dir.path(), &args).await;
        assert!(output.status.success(), "{}", said(&output));
        let summary = summary(&dir.path().join(name));
        assert_eq!(
            (&summary["passed"], &summary["failed"]),
            (&json!(164), &json!(0)),
            "{summary}"
        );
        tables.push(rows(&dir.path().join(name)));
    }
    assert_eq!(tables[0], tables[1]);
}

/// Makes a wrong answer of a right one.
type Wrong = Box<dyn Fn(&str) -> String>;

#[tokio::test]
async fn no_wrong_answer_passes() {
    let last_return_broken = |solution: &str| {
        let lines: Vec<&str> = solution.trim_end().lines().collect();
        let last = lines.last().expect("a line");
        let inset = &last[..last.len() - last.trim_start().len()];
        format!("{}\n{inset}return None\n", lines[..lines.len() - 1].join("\n"))
    };
    let kinds: [(&str, Wrong); 7] = [
        ("pass", Box::new(|_| "    pass\n".to_owned())),
        ("return None", Box::new(|_| "    return None\n".to_owned())),
        ("last return broken", Box::new(last_return_broken)),
        ("sys.exit", Box::new(|_| "    import sys\n    sys.exit(0)\n".to_owned())),
        ("os._exit", Box::new(|_| "    import os\n    os._exit(0)\n".to_owned())),
        ("empty", Box::new(|_| String::new())),
        (
            "bad indentation",
            Box::new(|solution| format!("{}\n  return 1\n      return 2\n", solution.trim_end())),
        ),
    ];
    let dir = TempDir::new().expect("a directory");
    let problems = problems();
    let mut lines = Vec::new();
    for (_, wrong) in &kinds {
        lines.extend(problems.iter().map(|problem| {
            let solution = problem["canonical_solution"].as_str().expect("text");
            json!({"task_id": problem["task_id"], "completion": wrong(solution)})
        }));
    }
    written(dir.path(), "wrong.jsonl", &lines);
    let output = eval(
        dir.path(),
        &["check", "wrong.jsonl", "--num-problems", "all", "--out", "out"],
    )
    .await;
    assert!(output.status.success(), "{}", said(&output));
    let mut told: BTreeMap<usize, BTreeMap<String, usize>> = BTreeMap::new();
    for row in rows(&dir.path().join("out")) {
        let kind: usize = row["sample"].parse().expect("a number");
        assert_eq!(
            row["passed"], "false",
            "{} passes with {}",
            row["task_id"], kinds[kind].0
        );
        *told
            .entry(kind)
            .or_default()
            .entry(row["error_type"].clone())
            .or_default() += 1;
    }
    let only = |kind: usize, name: &str| assert_eq!(told[&kind], BTreeMap::from([(name.to_owned(), 164)]));
    only(3, "SystemExit");
    only(4, "execution_error");
    only(5, "extraction_failed");
    only(6, "IndentationError");
    assert!(
        told[&0]["AssertionError"] > 150 && told[&2]["AssertionError"] > 150,
        "{told:?}"
    );
}

/// A gateway before a simulated upstream that knows the answers, a share of them right.
async fn answering(correct: &str, dir: &Path, edit: impl Fn(&str, String) -> String) -> (Gateway, Simulated) {
    let lines: Vec<Value> = problems()
        .iter()
        .map(|problem| json!({"prompt": problem["prompt"], "canonical_solution": problem["canonical_solution"]}))
        .collect();
    let answers = written(dir, "answers.jsonl", &lines);
    let answers = dir.join(answers).to_string_lossy().into_owned();
    let upstream = Simulated::start_with(&[
        "--listen",
        "127.0.0.1:0",
        "--model",
        "knowing=0.01",
        "--answers",
        &answers,
        "--answers-correct",
        correct,
    ]);
    let config = config_dir(|name, text| match name {
        "models.yaml" => edit(name, with_model(&text, "knowing", "openai", &upstream.url, "")),
        _ => edit(name, roomy(name, text)),
    });
    (Gateway::start_in(config, &[]).await, upstream)
}

#[tokio::test]
async fn pass_at_1_is_the_share_that_the_upstream_answers_right() {
    let dir = TempDir::new().expect("a directory");
    let (gateway, _upstream) = answering("0.4", dir.path(), |_, text| text).await;
    let args = |out: &'static str, more: &[&'static str]| {
        let mut args = vec!["--base-url", gateway.proxy.as_str(), "--model", "knowing", "--out", out];
        args.extend(more);
        args
    };
    let output = eval(dir.path(), &args("twenty", &[])).await;
    assert!(output.status.success(), "{}", said(&output));
    let twenty = summary(&dir.path().join("twenty"));
    assert_eq!(
        (&twenty["pass_at_1"], &twenty["passed"]),
        (&json!(0.4), &json!(8)),
        "{twenty}"
    );
    let told = said(&output);
    assert!(told.contains("[ 1/20] HumanEval/"), "{told}");
    assert!(
        told.contains("— FAIL | latency=0.") && told.contains(" | error=AssertionError"),
        "{told}"
    );
    assert!(told.contains("pass@1: 40.0 % (8 of 20 problems"), "{told}");
    for api in ["chat", "completions"] {
        let out = if api == "chat" { "chat" } else { "completions" };
        let output = eval(
            dir.path(),
            &args(out, &["--num-problems", "all", "--concurrency", "4", "--api", api]),
        )
        .await;
        assert!(output.status.success(), "{}", said(&output));
        let all = summary(&dir.path().join(out));
        assert_eq!(
            (&all["passed"], &all["total_problems"]),
            (&json!(65), &json!(164)),
            "{api}: {all}"
        );
    }
    // The reports' counts are those of the ledger.
    let ledger = gateway.admin_json("/metrics/summary").await;
    assert_eq!(ledger["completed_requests"], json!(20 + 2 * 164));
    let reports = ["twenty", "chat", "completions"].map(|name| summary(&dir.path().join(name)));
    let tokens: u64 = reports
        .iter()
        .map(|report| report["output_tokens"].as_u64().expect("a count"))
        .sum();
    assert_eq!(ledger["total_output_tokens"], json!(tokens));
    let cost: f64 = reports
        .iter()
        .map(|report| report["total_cost_eur"].as_f64().expect("euros"))
        .sum();
    let billed = ledger["total_estimated_cost_eur"].as_f64().expect("euros");
    assert!((cost - billed).abs() < 1e-6, "{cost} and {billed}");
}

#[tokio::test]
async fn queued_requests_are_polled_and_refusals_are_retried_after_their_retry_after() {
    let dir = TempDir::new().expect("a directory");
    // One at a time, and so few a minute that some are refused at first, on a slow machine too: the last ten of thirty
    // need half a minute.
    let (gateway, _upstream) = answering("1.0", dir.path(), |name, text| match name {
        "limits.yaml" => text
            .replace("max_active_requests: 2000", "max_active_requests: 1")
            .replace("requests_per_minute: 300", "requests_per_minute: 20"),
        _ => text,
    })
    .await;
    let args = [
        "--base-url",
        &gateway.proxy,
        "--model",
        "knowing",
        "--num-problems",
        "30",
        "--concurrency",
        "8",
        "--out",
        "out",
    ];
    let output = eval(dir.path(), &args).await;
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(summary(&dir.path().join("out"))["passed"], 30);
    let tries: u32 = rows(&dir.path().join("out"))
        .iter()
        .map(|row| row["tries"].parse::<u32>().expect("a count"))
        .sum();
    assert!(tries > 30, "some were refused at first: {tries}");
    // Whom the gateway does not want at all is told so, apart from what a model did.
    let stranger = [
        "--base-url",
        &gateway.proxy,
        "--model",
        "knowing",
        "--user-id",
        "nobody",
        "--num-problems",
        "3",
        "--out",
        "refused",
    ];
    let output = eval(dir.path(), &stranger).await;
    let refused = summary(&dir.path().join("refused"));
    assert_eq!(refused["simulator_rejected"], 3, "{refused}");
    assert_eq!(refused["error_breakdown"], json!({"simulator_rejected": 3}));
    assert!(said(&output).contains("refused by the gateway: 3"));
    let report = std::fs::read_to_string(dir.path().join("refused/quality_report.md")).expect("a report");
    assert!(report.contains("unknown_user"), "{report}");
}

#[tokio::test]
async fn a_run_that_was_stopped_goes_on_and_several_models_are_compared() {
    let dir = TempDir::new().expect("a directory");
    let (gateway, _upstream) = answering("0.5", dir.path(), |name, text| match name {
        "models.yaml" => text.replace("average_latency_seconds: 0.5", "average_latency_seconds: 0.2"),
        _ => text,
    })
    .await;
    let args = [
        "--base-url",
        &gateway.proxy,
        "--model",
        "knowing",
        "--model",
        "simulated-small",
        "--num-problems",
        "10",
        "--samples",
        "3",
        "--out",
        "out",
    ];
    let mut first = Command::new(end_to_end::program("sluice-eval"))
        .args(args)
        .current_dir(dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let journal = dir.path().join("out/quality_samples.jsonl");
    let lines = || std::fs::read_to_string(&journal).map_or(0, |text| text.lines().count());
    while lines() < 8 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let stopped = Command::new("kill").args(["-INT", &first.id().to_string()]).status();
    assert!(stopped.expect("kill").success());
    let status = first.wait().expect("ended");
    let mut told = String::new();
    first
        .stderr
        .take()
        .expect("piped")
        .read_to_string(&mut told)
        .expect("text");
    assert_eq!(status.code(), Some(130), "{told}");
    assert!(told.contains("--resume"), "{told}");
    let before = lines() - 1;
    assert!((7..60).contains(&before), "{before}");
    let output = eval(dir.path(), &[&args[..], &["--resume"]].concat()).await;
    assert!(output.status.success(), "{}", said(&output));
    assert!(
        said(&output).contains("of 60 samples are there already"),
        "{}",
        said(&output)
    );
    assert_eq!(lines(), 61);
    let summary = summary(&dir.path().join("out"));
    let models = summary["models"].as_array().expect("two models");
    assert_eq!(models[0]["pass_at_k"], json!({"1": 0.5, "2": 0.5}));
    assert_eq!(models[1]["pass_at_1"], json!(0.0));
    let asked = gateway.admin_json("/metrics/summary").await["completed_requests"]
        .as_u64()
        .expect("a count");
    assert!(
        (60..=62).contains(&asked),
        "nothing is asked twice but what was under way: {asked}"
    );
    let report = std::fs::read_to_string(dir.path().join("out/quality_report.md")).expect("a report");
    assert!(report.contains("| knowing | 10 | 50.0 % |"), "{report}");
    // Every reply is there as it came.
    let raw = std::fs::read_to_string(&journal).expect("there");
    let replies = raw
        .lines()
        .skip(1)
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    assert!(replies.into_iter().all(|sample| sample["reply"].is_string()));
    let other = eval(dir.path(), &[&args[..], &["--resume", "--max-tokens", "7"]].concat()).await;
    assert_eq!(other.status.code(), Some(2));
    assert!(said(&other).contains("--max-tokens"), "{}", said(&other));
}

#[tokio::test]
async fn impossible_flags_are_refused_with_a_remedy() {
    let dir = TempDir::new().expect("a directory");
    std::fs::write(dir.path().join("replies.jsonl"), "{\"task_id\": \"HumanEval/1\"}").expect("writable");
    for (args, told) in [
        (
            &["--base-url", "http://127.0.0.1:9"][..],
            "start the gateway with `sluice serve`",
        ),
        (&["--num-problems", "165"], "164 problems"),
        (&["--num-problems", "0"], "1 or more"),
        (&["--local-dataset", "nowhere.jsonl"], "nowhere.jsonl"),
        (&["--local-dataset", "."], "replies.jsonl"),
        (&["--code-timeout", "0", "sandbox"], "--code-timeout"),
        (&["check", "replies.jsonl"], "line 1: missing field `completion`"),
        (&["--python", "no-such-python", "sandbox"], "--python"),
    ] {
        let output = eval(dir.path(), args).await;
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", said(&output));
        assert!(said(&output).contains(told), "{args:?}: {}", said(&output));
    }
}
