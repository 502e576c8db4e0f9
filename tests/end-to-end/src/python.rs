//! Runs a client program in the Python that `tests/setup test` has made.

use crate::{llama, root};
use std::process::Command;

/// Runs `tests/clients/NAME` with arguments; what it printed. Panics with its output if it fails.
pub async fn run(name: &str, args: &[&str]) -> String {
    let python = llama::home().join("clients/bin/python");
    let script = root().join("tests/clients").join(name);
    let args: Vec<String> = args.iter().map(ToString::to_string).collect();
    let output = tokio::task::spawn_blocking(move || Command::new(python).arg(script).args(args).output()).await;
    let output = output
        .expect("no panic")
        .expect("python runs; `tests/setup test` installs it");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");
    text
}
