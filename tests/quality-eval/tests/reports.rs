//! Output of a run: the original's lines, reports that survive closed pipes, and comparisons.

mod support;

use serde_json::json;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use support::{broken, eval, output_text, problems, rows, summary, text};
use tempfile::TempDir;

/// A server that answers every request with one status and one body, until the test ends.
fn server(status: &'static str, body: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut head = [0; 4096];
            let read = stream.read(&mut head).expect("a request");
            let is_health = head[..read].starts_with(b"GET /health");
            let (status, body) = if is_health { ("200 OK", "{}") } else { (status, body) };
            let length = body.len();
            // The body of the request may still be on its way; the answer comes all the same.
            let _ = write!(
                stream,
                "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
            );
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new());
        }
    });
    format!("http://{address}")
}

#[test]
fn a_failing_server_is_no_refusal() {
    let dir = TempDir::new().expect("a directory");
    for (status, body, kind, reason) in [
        (
            "500 Internal Server Error",
            "boom",
            "request_failed",
            "HTTP 500: Internal Server Error",
        ),
        (
            "502 Bad Gateway",
            r#"{"detail": "upstream_error"}"#,
            "request_failed",
            "HTTP 502: upstream_error",
        ),
        (
            "503 Service Unavailable",
            r#"{"detail": "emergency"}"#,
            "simulator_rejected",
            "HTTP 503: emergency",
        ),
        (
            "403 Forbidden",
            r#"{"detail": "unknown_user"}"#,
            "simulator_rejected",
            "HTTP 403: unknown_user",
        ),
    ] {
        let url = server(status, body);
        let output = eval(dir.path(), &["--base-url", &url, "--num-problems", "2", "--out", "out"]);
        assert!(output.status.success(), "{}", output_text(&output));
        let summary = summary(&dir.path().join("out"));
        assert_eq!(summary["error_breakdown"], json!({kind: 2}), "{status}");
        assert_eq!(
            summary["simulator_rejected"],
            if kind == "simulator_rejected" { 2 } else { 0 }
        );
        assert!(
            rows(&dir.path().join("out"))
                .iter()
                .all(|row| row["error_message"] == reason)
        );
    }
}

/// Replies to the first problems, of which some are right.
fn replies(dir: &Path, name: &str, count: usize, is_right: impl Fn(usize) -> bool) {
    let lines: Vec<String> = problems()
        .iter()
        .take(count)
        .enumerate()
        .map(|(at, problem)| {
            let body = text(problem, "canonical_solution");
            let body = if is_right(at) { body.to_owned() } else { broken(body) };
            json!({"task_id": problem["task_id"], "completion": body}).to_string()
        })
        .collect();
    std::fs::write(dir.join(name), lines.join("\n")).expect("writable");
}

#[test]
fn the_lines_are_the_originals() {
    let dir = TempDir::new().expect("a directory");
    replies(dir.path(), "three.jsonl", 3, |at| at == 1);
    let output = eval(
        dir.path(),
        &["check", "three.jsonl", "--num-problems", "3", "--out", "out"],
    );
    let text = String::from_utf8(output.stdout).expect("text");
    let mut lines: Vec<&str> = text.lines().collect();
    // Programs end in any order; their numbers are in order.
    assert!(
        (1..=3).all(|number| lines[number - 1].starts_with(&format!("[ {number}/3] HumanEval/"))),
        "{text}"
    );
    lines[..3].sort_by_key(|line| line.split_once("] ").map(|(_, rest)| rest));
    let rest: Vec<&str> = lines[..3]
        .iter()
        .filter_map(|line| Some(line.split_once("] ")?.1))
        .collect();
    assert_eq!(
        rest,
        [
            "HumanEval/0 — FAIL | latency=0.0s | error=AssertionError",
            "HumanEval/1 — PASS | latency=0.0s",
            "HumanEval/2 — FAIL | latency=0.0s | error=AssertionError"
        ]
    );
    assert_eq!(
        lines[3..],
        [
            "",
            "pass@1: 33.3 % (1 of 3 problems)",
            "P95 latency: 0.00s",
            "Total cost: €0.000000",
            "Cost per passed problem: €0.000000"
        ]
    );
    assert_eq!(String::from_utf8(output.stderr).expect("text"), "");
    let verbose = eval(
        dir.path(),
        &[
            "check",
            "three.jsonl",
            "--num-problems",
            "3",
            "--out",
            "out",
            "--verbose",
        ],
    );
    let verbose = output_text(&verbose);
    // Wilson's interval for 1 of 3.
    assert!(
        verbose.contains("95 % interval: 6.1 % to 79.2 %") && verbose.contains("layers hold"),
        "{verbose}"
    );
}

#[test]
fn a_pipe_that_is_closed_early_does_not_cost_the_reports() {
    let dir = TempDir::new().expect("a directory");
    replies(dir.path(), "five.jsonl", 5, |_| true);
    for arguments in [&[][..], &["--json"], &["--verbose"]] {
        let out = TempDir::new().expect("a directory");
        let mut child = Command::new(env!("CARGO_BIN_EXE_sluice-eval"))
            .args(["check", "five.jsonl", "--num-problems", "5", "--out"])
            .arg(out.path())
            .args(arguments)
            .current_dir(dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        drop((child.stdout.take(), child.stderr.take()));
        assert!(child.wait().expect("an end").success(), "{arguments:?}");
        assert_eq!(summary(out.path())["passed"], 5);
        assert_eq!(rows(out.path()).len(), 5);
        assert!(out.path().join("quality_report.md").exists());
    }
}

#[test]
fn runs_are_compared_by_the_problems_that_both_have() {
    let dir = TempDir::new().expect("a directory");
    replies(dir.path(), "better.jsonl", 20, |at| at < 16);
    replies(dir.path(), "worse.jsonl", 20, |at| at < 7);
    for name in ["better", "worse"] {
        let output = eval(
            dir.path(),
            &["check", &format!("{name}.jsonl"), "--num-problems", "20", "--out", name],
        );
        assert!(output.status.success(), "{}", output_text(&output));
    }
    let output = eval(dir.path(), &["compare", "better", "worse", "--out", "both"]);
    let page = output_text(&output);
    assert!(output.status.success(), "{page}");
    // Wilson's intervals for 16 and 7 of 20; nine coins on one side, 2 / 2⁹ = 0.0039.
    assert!(page.contains("| better | 20 | 80.0 % | 58.4 % to 91.9 % |"), "{page}");
    assert!(page.contains("| worse | 20 | 35.0 % | 18.1 % to 56.7 % |"), "{page}");
    assert!(
        page.contains("| better − worse | 20 | +45.0 |") && page.contains("| 9 : 0 | **0.004** |"),
        "{page}"
    );
    let written = std::fs::read_to_string(dir.path().join("both/quality_comparison.md")).expect("the page");
    assert_eq!(written.trim(), page.trim());
    let same = eval(dir.path(), &["compare", "better", "better", "--out", "both"]);
    assert!(output_text(&same).contains("| better − better (better) | 20 | +0.0 | +0.0 to +0.0 | 0 : 0 | 1.000 |"));
    let alone = eval(dir.path(), &["compare", "better", "--out", "both"]);
    assert_eq!(alone.status.code(), Some(2));
    assert!(output_text(&alone).contains("name several runs"));
    let missing = eval(dir.path(), &["compare", "nowhere", "better", "--out", "both"]);
    assert_eq!(missing.status.code(), Some(2));
}
