//! Nothing gets out of the sandbox or stops a run: programs that try are in `attacks/`, each with the errors that it may be
//! reported as.

mod support;

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};
use support::output_text;
use tempfile::TempDir;

/// An attack: its name, the errors that it may be reported as, and its program.
struct Attack {
    name: String,
    errors: Vec<String>,
    program: String,
}

fn attacks() -> Vec<Attack> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("attacks");
    let mut found: Vec<Attack> = std::fs::read_dir(dir)
        .expect("attacks")
        .map(|entry| {
            let path = entry.expect("readable").path();
            let program = std::fs::read_to_string(&path).expect("text");
            let errors = program.lines().next().and_then(|line| line.strip_prefix("# told as: "));
            Attack {
                name: path.file_stem().expect("a name").to_string_lossy().into_owned(),
                errors: errors.expect("its errors").split(' ').map(str::to_owned).collect(),
                program,
            }
        })
        .collect();
    found.sort_by(|one, other| one.name.cmp(&other.name));
    assert!(found.len() >= 61);
    found
}

/// `sluice-eval`, by a command that limits it.
fn limited(limits: &[&str]) -> Command {
    let program = env!("CARGO_BIN_EXE_sluice-eval");
    let mut command = Command::new(limits.first().unwrap_or(&program));
    command
        .args(limits.iter().skip(1))
        .args(limits.first().map(|_| program));
    command
}

/// A user namespace in which there can be no other.
const WITHOUT_NAMESPACES: [&str; 7] = [
    "unshare",
    "--user",
    "--map-root-user",
    "sh",
    "-c",
    "for kind in user pid net ipc mnt; do echo 0 > /proc/sys/user/max_${kind}_namespaces; done; exec \"$@\"",
    "sh",
];

fn run_attacks(limits: &[&str], policy: &str) {
    let dir = TempDir::new().expect("a directory");
    let attacks = attacks();
    let lines: Vec<String> = attacks
        .iter()
        .map(|attack| json!({"task_id": "HumanEval/0", "completion": attack.program}).to_string())
        .collect();
    std::fs::write(dir.path().join("attacks.jsonl"), lines.join("\n")).expect("writable");
    let output = limited(limits)
        .args(["check", "attacks.jsonl", "--num-problems", "1", "--code-timeout", "3"])
        .args(["--code-memory-mb", "256", "--sandbox", policy, "--out", "out"])
        .env("SLUICE_SECRET_OF_THE_EVALUATOR", "to be kept")
        .current_dir(dir.path())
        .output()
        .expect("it runs");
    let text = output_text(&output);
    assert!(output.status.success(), "{text}");
    assert!(!text.contains('\u{1b}'), "a program controls the terminal: {text:?}");
    let rows = support::rows(&dir.path().join("out"));
    assert_eq!(rows.len(), attacks.len(), "every attack has its row");
    for (row, attack) in rows.iter().zip(&attacks) {
        let Attack { name, errors, .. } = attack;
        assert_eq!(row["passed"], "false", "{name}");
        let (error, message) = (&row["error_type"], &row["error_message"]);
        assert!(errors.contains(error), "{name} is reported as {error} ({message})");
    }
    let report = |file: &str| std::fs::read_to_string(dir.path().join("out").join(file)).expect("a report");
    assert!(!report("quality_results.csv").contains('\u{1b}'));
    let page = report("quality_report.md");
    assert!(!page.contains('\u{1b}') && !page.contains("<script>"), "{page}");
    let summary = support::summary(&dir.path().join("out"));
    assert_eq!(summary["simulator_rejected"], 0, "a program cannot pose as a refusal");
    assert!(summary["error_breakdown"].get("simulator_rejected").is_none());
    assert!(!Path::new("/tmp/sluice-eval-escaped").exists());
}

#[test]
fn no_attack_gets_out_or_stops_the_run() {
    run_attacks(&[], "require");
}

#[test]
fn no_attack_gets_out_where_there_are_no_namespaces() {
    run_attacks(&WITHOUT_NAMESPACES, "best-effort");
}

fn tried(limits: &[&str], args: &[&str]) -> Output {
    limited(limits).arg("sandbox").args(args).output().expect("it runs")
}

#[test]
fn without_namespaces_nothing_runs_unless_that_is_accepted() {
    let refused = tried(&WITHOUT_NAMESPACES, &[]);
    let text = output_text(&refused);
    assert_eq!(refused.status.code(), Some(2), "{text}");
    assert!(
        text.contains("DOES NOT HOLD  mount namespace") && text.contains("--sandbox best-effort"),
        "{text}"
    );
    let accepted = output_text(&tried(&WITHOUT_NAMESPACES, &["--sandbox", "best-effort"]));
    // Nothing beside a root of its own hides which files there are; all else is refused.
    assert!(accepted.contains("NOT REFUSED: whether a file exists\n"), "{accepted}");
    assert!(accepted.contains("holds          landlock"), "{accepted}");
}

#[test]
fn the_layers_that_are_listed_are_those_that_are_counted() {
    for limits in [&[][..], &WITHOUT_NAMESPACES] {
        let text = output_text(&tried(limits, &["--sandbox", "best-effort"]));
        let count = |start: &str| text.lines().filter(|line| line.trim_start().starts_with(start)).count();
        let (holding, missing) = (count("holds "), count("DOES NOT HOLD "));
        let counted = format!("{holding} of {} layers hold", holding + missing);
        assert!(text.lines().next().expect("a line").ends_with(&counted), "{text}");
    }
}

#[test]
fn the_sandbox_holds_for_someone_who_is_not_root() {
    let dir = TempDir::with_prefix("sluice-eval-as-another-").expect("a directory");
    let program = dir.path().join("sluice-eval");
    std::fs::copy(env!("CARGO_BIN_EXE_sluice-eval"), &program).expect("copied");
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
    let text = output_text(&output);
    assert!(
        output.status.success() && text.contains("none of them is one"),
        "{text}"
    );
    assert!(!text.contains("DOES NOT HOLD"), "{text}");
}

#[test]
fn errors_of_programs_are_shown_and_not_obeyed() {
    let dir = TempDir::new().expect("a directory");
    let replies: Vec<Value> = ["=HYPERLINK(\\\"x\\\")", "\\x1b]0;title\\x07", "a | b <b>[x](y)"]
        .iter()
        .map(|message| {
            let program = format!("def has_close_elements(numbers, threshold):\n    raise ValueError(\"{message}\")\n");
            json!({"task_id": "HumanEval/0", "completion": program})
        })
        .collect();
    let rows: Vec<BTreeMap<String, String>> = support::check(dir.path(), &replies, &["-v"]);
    let messages: Vec<&str> = rows.iter().map(|row| &*row["error_message"]).collect();
    assert_eq!(
        messages,
        ["'=HYPERLINK(\"x\")", "\\u{1b}]0;title\\u{7}", "a | b <b>[x](y)"]
    );
    let report = std::fs::read_to_string(dir.path().join("out/quality_report.md")).expect("a report");
    assert!(report.contains("| a \\| b &lt;b>\\[x](y) |"), "{report}");
}
