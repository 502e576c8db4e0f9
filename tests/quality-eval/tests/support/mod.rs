//! `HumanEval`, and the program that judges replies.

// Each test takes what it needs.
#![allow(dead_code, unused_imports)]

use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};

pub(crate) use end_to_end::humaneval::problems;
pub(crate) use end_to_end::root;

/// A field of a problem.
pub(crate) fn text<'a>(problem: &'a Value, name: &str) -> &'a str {
    problem[name].as_str().expect("a text")
}

/// The body with `return None` instead of its last line.
pub(crate) fn broken(body: &str) -> String {
    let lines: Vec<&str> = body.trim_end().lines().collect();
    let last = lines.last().expect("a line");
    let indent = &last[..last.len() - last.trim_start().len()];
    format!("{}\n{indent}return None\n", lines[..lines.len() - 1].join("\n"))
}

/// Runs `sluice-eval` in a directory.
pub(crate) fn eval(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sluice-eval"))
        .args(args)
        .current_dir(dir)
        .output()
        .expect("sluice-eval runs")
}

/// Judges replies; the rows of the report, one a reply, in order.
pub(crate) fn check(dir: &Path, replies: &[Value], args: &[&str]) -> Vec<BTreeMap<String, String>> {
    let lines: Vec<String> = replies.iter().map(Value::to_string).collect();
    std::fs::write(dir.join("replies.jsonl"), lines.join("\n")).expect("writable");
    let args = [
        &["check", "replies.jsonl", "--num-problems", "all", "--out", "out"],
        args,
    ]
    .concat();
    let output = eval(dir, &args);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut by_task: BTreeMap<(String, usize), BTreeMap<String, String>> = BTreeMap::new();
    for row in rows(&dir.join("out")) {
        let sample = row["sample"].parse().expect("a number");
        by_task.insert((row["task_id"].clone(), sample), row);
    }
    let mut next: BTreeMap<&str, usize> = BTreeMap::new();
    replies
        .iter()
        .map(|reply| {
            let task = text(reply, "task_id");
            let sample = next.entry(task).or_default();
            *sample += 1;
            by_task
                .remove(&(task.to_owned(), *sample - 1))
                .expect("a row for each reply")
        })
        .collect()
}

/// A program's standard output and standard error.
pub(crate) fn output_text(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout);
    format!("{text}{}", String::from_utf8_lossy(&output.stderr))
}

/// The table of a run.
pub(crate) fn rows(out: &Path) -> Vec<BTreeMap<String, String>> {
    let mut reader = csv::Reader::from_path(out.join("quality_results.csv")).expect("a table");
    reader.deserialize().map(|row| row.expect("a row")).collect()
}

/// The summary of a run.
pub(crate) fn summary(out: &Path) -> Value {
    let text = std::fs::read(out.join("quality_summary.json")).expect("a summary");
    serde_json::from_slice(&text).expect("JSON")
}
