//! Programs are found however a model wraps them: right answers pass and wrong ones fail, in every style, judged by
//! running the problem's tests. CI takes a sample; `cargo test -p quality-eval --test extraction -- --ignored` takes
//! every style with every problem of `HumanEval`.

mod styles;
mod support;

use serde_json::json;
use std::collections::BTreeMap;
use styles::{Parts, Style};
use support::{broken, check, problems, text};

/// The number of problems that each style is tried with in CI.
const SAMPLED: usize = 3;

#[test]
fn no_right_answer_is_lost_and_no_wrong_one_passes_in_a_sample_of_every_style() {
    // The problems differ from style to style; together the styles use most of them.
    judge(|style, problem| (0..SAMPLED).any(|turn| (style * 7 + turn * 41) % 164 == problem));
}

#[test]
#[ignore = "takes an hour: every style with every problem"]
fn no_right_answer_is_lost_and_no_wrong_one_passes_in_any_style_with_any_problem() {
    judge(|_, _| true);
}

/// Ways in which a right answer is broken, and must not be mended.
const BREAKAGES: &[Style] = &[
    ("a line between the margins", |parts| {
        format!("{}  return 1\n      return 2\n", parts.body)
    }),
    ("a line between the margins of a program", |parts| {
        format!("{}  return 1\n", parts.program())
    }),
    ("a signature without its colon", |parts| {
        parts
            .program()
            .replacen(parts.signature(), parts.signature().trim_end_matches(':'), 1)
    }),
    ("an open bracket", |parts| {
        format!("```python\n{} (\n```", parts.program().trim_end())
    }),
    ("a last line that is cut", |parts| {
        let program = parts.program();
        let program = program.trim_end();
        program[..program.len() - 3].to_owned()
    }),
    ("another name", |parts| {
        format!(
            "```python\n{}```",
            parts
                .program()
                .replace(&format!("{}(", parts.entry_point), "something_else(")
        )
    }),
    ("reasoning that is given up", |parts| {
        format!("<think>\n```python\n{}```\n</think>\nI cannot.", parts.program())
    }),
    ("a quotation of another's turn", |parts| {
        format!("I cannot.<|im_end|>\n{}", parts.program())
    }),
];

#[test]
fn broken_answers_are_not_mended() {
    let problems = problems();
    let (mut replies, mut names) = (Vec::new(), Vec::new());
    for (at, (name, reply)) in BREAKAGES.iter().enumerate() {
        for problem in problems.iter().skip(at).step_by(12) {
            replies.push(json!({"task_id": problem["task_id"], "completion": reply(&parts(problem, true))}));
            names.push(name);
        }
    }
    let dir = tempfile::TempDir::new().expect("a directory");
    let rows = check(dir.path(), &replies, &[]);
    let mended: Vec<String> = rows
        .iter()
        .zip(names)
        .filter(|(row, _)| row["passed"] == "true")
        .map(|(row, name)| format!("{} with {name}", row["task_id"]))
        .collect();
    assert!(mended.is_empty(), "{mended:#?}");
}

fn parts(problem: &serde_json::Value, is_right: bool) -> Parts {
    let solution = text(problem, "canonical_solution");
    let (right, wrong) = (solution.to_owned(), broken(solution));
    let (body, draft) = if is_right { (right, wrong) } else { (wrong, right) };
    Parts {
        task_id: text(problem, "task_id").to_owned(),
        prompt: text(problem, "prompt").to_owned(),
        entry_point: text(problem, "entry_point").to_owned(),
        body,
        draft,
    }
}

fn judge(is_taken: impl Fn(usize, usize) -> bool) {
    let styles = styles::all();
    assert!(styles.len() >= 60, "{} styles", styles.len());
    let problems = problems();
    let (mut replies, mut expected) = (Vec::new(), Vec::new());
    for (at, (style, reply)) in styles.iter().enumerate() {
        for problem in problems.iter().enumerate().filter(|(number, _)| is_taken(at, *number)) {
            for is_right in [true, false] {
                let parts = parts(problem.1, is_right);
                replies.push(json!({"task_id": parts.task_id, "completion": reply(&parts)}));
                expected.push((*style, is_right));
            }
        }
    }
    assert!(replies.len() >= 600, "{} replies", replies.len());
    let dir = tempfile::TempDir::new().expect("a directory");
    let rows = check(dir.path(), &replies, &[]);
    let mut wrong: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (row, (style, is_right)) in rows.iter().zip(&expected) {
        if (row["passed"] == "true") != *is_right {
            let what = if *is_right { "lost" } else { "invented" };
            let why = format!(
                "{what} {} {}: {}",
                row["task_id"], row["error_type"], row["error_message"]
            );
            wrong.entry(style).or_default().push(why);
        }
    }
    println!("{} replies in {} styles", replies.len(), styles.len());
    assert!(wrong.is_empty(), "{wrong:#?}");
}
