//! Runs client programs with what `tests/setup test` has installed: Python, or Node.

use crate::{llama, root};
use std::path::PathBuf;
use std::process::Command;

/// Runs `tests/clients/NAME` with arguments; what it printed. Panics with its output if it fails.
pub async fn run(name: &str, args: &[&str]) -> String {
    let python = llama::home().join("clients/bin/python");
    run_with(python, root().join("tests/clients").join(name), args).await
}

/// The same with Node: `tests/clients/node/NAME`, where its modules are.
pub async fn run_node(name: &str, args: &[&str]) -> String {
    run_with("node".into(), llama::home().join("node").join(name), args).await
}

async fn run_with(interpreter: PathBuf, script: PathBuf, args: &[&str]) -> String {
    let args: Vec<String> = args.iter().map(ToString::to_string).collect();
    let output = tokio::task::spawn_blocking(move || Command::new(interpreter).arg(script).args(args).output()).await;
    let output = output
        .expect("no panic")
        .expect("the interpreter runs; `tests/setup test` installs it");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");
    text
}
