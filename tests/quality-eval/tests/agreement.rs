//! The verdicts are `EvalPlus`'s: 1,000 mutated solutions and more, with `EvalPlus` 0.3.1's verdict on each, are in
//! `evalplus/` (made by `evalplus/agree.py`). CI takes every fifth; `cargo test -p quality-eval --test agreement --
//! --ignored` takes all.

mod support;

use serde_json::{Value, json};
use std::io::Read;
use std::path::PathBuf;
use support::{check, text};

fn recorded(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("evalplus").join(name)
}

#[test]
fn verdicts_are_those_of_evalplus_for_a_fifth_of_the_mutants() {
    agree(5);
}

#[test]
#[ignore = "takes minutes: all mutants"]
fn verdicts_are_those_of_evalplus_for_all_mutants() {
    agree(1);
}

fn agree(every: usize) {
    let mut lines = String::new();
    let packed = std::fs::read(recorded("verdicts.jsonl.gz")).expect("verdicts");
    flate2::read::GzDecoder::new(&packed[..])
        .read_to_string(&mut lines)
        .expect("gzip");
    let verdicts: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert!(verdicts.len() > 1_800, "{} verdicts", verdicts.len());
    let verdicts: Vec<Value> = verdicts.into_iter().step_by(every).collect();
    let replies: Vec<Value> = verdicts
        .iter()
        .map(|verdict| json!({"task_id": verdict["task_id"], "solution": verdict["solution"]}))
        .collect();
    let dir = tempfile::TempDir::new().expect("a directory");
    let problems = recorded("problems.jsonl.gz");
    let rows = check(dir.path(), &replies, &["--local-dataset", &problems.to_string_lossy()]);
    let mut differences = Vec::new();
    for (verdict, row) in verdicts.iter().zip(&rows) {
        let ours = (row["base_passed"] == "true", row["passed"] == "true");
        let theirs = (verdict["base"] == true, verdict["plus"] == true);
        if ours != theirs {
            differences.push(format!(
                "{}: ours {ours:?}, EvalPlus {theirs:?}: {} {}\n{}",
                text(verdict, "task_id"),
                row["error_type"],
                row["error_message"],
                text(verdict, "solution")
            ));
        }
    }
    let passed = verdicts.iter().filter(|verdict| verdict["plus"] == true).count();
    println!(
        "{} solutions, {passed} pass, {} differences",
        verdicts.len(),
        differences.len()
    );
    assert!(
        passed * 20 > verdicts.len() && passed * 2 < verdicts.len(),
        "{passed} pass"
    );
    assert!(differences.is_empty(), "{}", differences.join("\n----\n"));
}
