//! The quality evaluator: the right answers pass, no wrong one does, nothing gets out of the sandbox or stops a run, and
//! what the reports say is what the upstream was told to answer.

use end_to_end::{Gateway, Simulated, config_dir, roomy, root, run_aside, with_model};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// HumanEval's problems.
fn problems() -> Vec<Value> {
    let bytes = std::fs::read(root().join("data/humaneval/HumanEval.jsonl.gz")).expect("the data set");
    let mut text = String::new();
    flate2::read::GzDecoder::new(&bytes[..])
        .read_to_string(&mut text)
        .expect("gzip");
    text.lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

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

#[tokio::test]
async fn a_right_answer_passes_however_a_model_wraps_it() {
    let dir = TempDir::new().expect("a directory");
    let mut lines = Vec::new();
    for problem in problems().iter().take(40) {
        let text = |field: &str| problem[field].as_str().expect("text");
        let (prompt, solution) = (text("prompt"), text("canonical_solution"));
        let replies = [
            solution.trim().to_owned(),
            format!("Sure!\n```python\n{prompt}{solution}```\nDone."),
            format!("{prompt}{solution}\n\nThis is how it works, as was asked."),
            format!("```\n{solution}```"),
            solution.replace("    ", "\t"),
        ];
        lines.extend(replies.map(|reply| json!({"task_id": problem["task_id"], "completion": reply})));
    }
    written(dir.path(), "wrapped.jsonl", &lines);
    let output = eval(
        dir.path(),
        &["check", "wrapped.jsonl", "--num-problems", "40", "--out", "out"],
    )
    .await;
    assert!(output.status.success(), "{}", said(&output));
    let failed: Vec<_> = rows(&dir.path().join("out"))
        .into_iter()
        .filter(|row| row["passed"] != "true")
        .collect();
    assert!(failed.is_empty(), "{failed:?}");
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

/// The programs that try to get out, by name, with how each may be told.
fn attacks() -> Vec<(String, Vec<String>, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root().join("tests/quality-eval/attacks")).expect("attacks") {
        let path = entry.expect("readable").path();
        let program = std::fs::read_to_string(&path).expect("text");
        let told = program
            .lines()
            .next()
            .and_then(|line| line.strip_prefix("# told as: "))
            .expect("how it is told");
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        found.push((name, told.split(' ').map(str::to_owned).collect(), program.clone()));
    }
    found.sort();
    assert!(found.len() >= 25);
    found
}

/// Runs all attacks, by a command that begins with `sluice-eval` or with what limits it.
fn attacked(dir: &Path, before: &[&str]) {
    let attacks = attacks();
    let lines: Vec<Value> = attacks
        .iter()
        .map(|(_, _, program)| json!({"task_id": "HumanEval/0", "completion": program}))
        .collect();
    written(dir, "attacks.jsonl", &lines);
    let program = end_to_end::program("sluice-eval");
    let output = Command::new(before.first().map_or(program.as_os_str(), |first| first.as_ref()))
        .args(before.iter().skip(1))
        .args(before.first().map(|_| &program))
        .args([
            "check",
            "attacks.jsonl",
            "--num-problems",
            "1",
            "--code-timeout",
            "3",
            "--code-memory-mb",
            "256",
            "--out",
            "out",
        ])
        .env("SLUICE_SECRET_OF_THE_EVALUATOR", "to be kept")
        .current_dir(dir)
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{}", said(&output));
    let rows = rows(&dir.join("out"));
    assert_eq!(rows.len(), attacks.len(), "every attack is told");
    for (row, (name, told, _)) in rows.iter().zip(&attacks) {
        assert_eq!(row["passed"], "false", "{name}");
        assert!(
            told.contains(&row["error_type"]),
            "{name} is told as {} ({})",
            row["error_type"],
            row["error_message"]
        );
    }
    assert!(!Path::new("/tmp/sluice-eval-escaped").exists());
    let left = std::fs::read_dir(std::env::temp_dir()).expect("readable");
    let mine = format!("sluice-eval-{}", std::process::id());
    assert!(
        left.filter_map(Result::ok)
            .all(|entry| !entry.file_name().to_string_lossy().starts_with(&mine))
    );
}

#[test]
fn no_attack_gets_out_stops_the_run_or_passes() {
    let dir = TempDir::new().expect("a directory");
    attacked(dir.path(), &[]);
}

#[test]
fn no_attack_gets_out_where_there_are_no_namespaces() {
    let dir = TempDir::new().expect("a directory");
    // Nobody makes a namespace in this one; landlock and seccomp are left.
    let none = "for kind in user pid net ipc mnt; do echo 0 > /proc/sys/user/max_${kind}_namespaces; done; exec \"$@\"";
    attacked(
        dir.path(),
        &["unshare", "--user", "--map-root-user", "sh", "-c", none, "sh"],
    );
    let program = end_to_end::program("sluice-eval");
    let told = Command::new("unshare")
        .args(["--user", "--map-root-user", "sh", "-c", none, "sh"])
        .arg(program)
        .arg("sandbox")
        .output()
        .expect("it runs");
    let told = said(&told);
    assert!(told.contains("DOES NOT HOLD  mount namespace"), "{told}");
    assert!(
        told.contains("holds          landlock") && told.contains("none of them is one"),
        "{told}"
    );
}

#[test]
fn the_sandbox_holds_for_someone_who_is_not_root() {
    let dir = TempDir::with_prefix("sluice-eval-as-another-").expect("a directory");
    let program = dir.path().join("sluice-eval");
    std::fs::copy(end_to_end::program("sluice-eval"), &program).expect("copied");
    Command::new("chmod")
        .args(["-R", "a+rwX"])
        .arg(dir.path())
        .status()
        .expect("chmod");
    let is_root = Command::new("id").arg("-u").output().expect("id").stdout == b"0\n";
    let mut command = if is_root {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=12345", "--regid=12345", "--clear-groups"])
            .arg(&program);
        command
    } else {
        Command::new(&program)
    };
    let output = command
        .args(["sandbox", "--python", "/usr/bin/python3"])
        .current_dir(dir.path())
        .output()
        .expect("it runs");
    let told = said(&output);
    assert!(
        output.status.success() && told.contains("none of them is one"),
        "{told}"
    );
    assert!(!told.contains("DOES NOT HOLD"), "{told}");
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
    // What the reports count is what the ledger has.
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
async fn queued_requests_are_polled_and_refusals_come_back_when_they_are_told() {
    let dir = TempDir::new().expect("a directory");
    // One at a time, and so few a minute that some are refused at first.
    let (gateway, _upstream) = answering("1.0", dir.path(), |name, text| match name {
        "limits.yaml" => text
            .replace("max_active_requests: 2000", "max_active_requests: 1")
            .replace("requests_per_minute: 300", "requests_per_minute: 60"),
        _ => text,
    })
    .await;
    let args = [
        "--base-url",
        &gateway.proxy,
        "--model",
        "knowing",
        "--num-problems",
        "70",
        "--concurrency",
        "8",
        "--out",
        "out",
    ];
    let output = eval(dir.path(), &args).await;
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(summary(&dir.path().join("out"))["passed"], 70);
    let tries: u32 = rows(&dir.path().join("out"))
        .iter()
        .map(|row| row["tries"].parse::<u32>().expect("a count"))
        .sum();
    assert!(tries > 70, "some were refused at first: {tries}");
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
async fn other_data_sets_work_by_their_fields() {
    let dir = TempDir::new().expect("a directory");
    let mbpp = json!({
        "task_id": 11, "text": "Write a python function to remove first and last occurrence of a given character.",
        "code": "def remove_Occ(s, ch):\n    return s",
        "test_list": ["assert remove_Occ(\"hello\",\"l\") == \"heo\"", "assert remove_Occ(\"abcda\",\"a\") == \"bcd\""],
        "test_setup_code": "",
    });
    let pairs = json!({
        "task_id": 601, "text": "Write a function with pairs.", "code": "def longest(pairs): ...",
        "test_list": ["assert longest([Pair(5, 24), Pair(15, 25)]) == 2"], "test_setup_code": "",
    });
    let plus = json!({
        "task_id": "HumanEval/45", "prompt": "def triangle_area(a, h):\n    \"\"\"Half of a times h.\"\"\"\n",
        "entry_point": "triangle_area", "canonical_solution": "    return a * h / 2.0\n",
        "base_input": [[5, 3]], "plus_input": [[2.5, 7], [1e9, 3]], "atol": 1e-6,
    });
    written(dir.path(), "set.jsonl", &[mbpp, pairs, plus]);
    let right = [
        json!({"task_id": 11, "completion": "```python\ndef remove_Occ(s, ch):\n    s = s.replace(ch, '', 1)\n    return s[::-1].replace(ch, '', 1)[::-1]\n```"}),
        json!({"task_id": 601, "completion": "class Pair:\n    def __init__(self, a, b):\n        self.a, self.b = a, b\n\ndef longest(pairs):\n    return len([p.a for p in pairs])\n"}),
        json!({"task_id": "HumanEval/45", "completion": "    return h * a * 0.5"}),
    ];
    written(dir.path(), "right.jsonl", &right);
    let wrong = [
        json!({"task_id": 11, "completion": "def remove_Occ(s, ch):\n    return s"}),
        json!({"task_id": 601, "completion": "def longest(pairs):\n    return 2"}),
        json!({"task_id": "HumanEval/45", "completion": "    return a * h // 2"}),
    ];
    written(dir.path(), "wrong.jsonl", &wrong);
    for (name, passed, errors) in [
        ("right", 3, json!({})),
        ("wrong", 0, json!({"AssertionError": 2, "NameError": 1})),
    ] {
        let file = format!("{name}.jsonl");
        let args = [
            "check",
            &file,
            "--local-dataset",
            "set.jsonl",
            "--num-problems",
            "all",
            "--out",
            name,
        ];
        let output = eval(dir.path(), &args).await;
        assert!(output.status.success(), "{}", said(&output));
        let summary = summary(&dir.path().join(name));
        assert_eq!(summary["passed"], passed, "{name}: {summary}");
        assert_eq!(summary["error_breakdown"], errors, "{name}");
    }
}

#[tokio::test]
async fn what_cannot_be_is_told_with_what_to_change() {
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
