//! The dependency rule and the sizes of files, checked by reading them.

mod architecture;
mod graph;
mod modules;
mod security;

use end_to_end::root;
use std::path::{Path, PathBuf};

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

fn texts(folder: &str) -> Vec<(String, String)> {
    let base = root().join(folder);
    let mut found = Vec::new();
    sources(&base, &mut found);
    let named = found.into_iter().map(|path| {
        let name = path.strip_prefix(&base).expect("below").to_string_lossy().into_owned();
        (name, std::fs::read_to_string(&path).expect("text"))
    });
    named.collect()
}

#[test]
fn policy_uses_no_clock_no_io_and_nothing_of_the_gateway() {
    for (name, text) in texts("gateway/policy/src") {
        for forbidden in [
            "Instant::now",
            "SystemTime",
            "tokio",
            "std::fs",
            "std::net",
            "std::thread",
            "println!",
        ] {
            assert!(!text.contains(forbidden), "{name} has {forbidden}");
        }
    }
}

#[test]
fn each_outside_library_is_known_to_its_own_modules_alone() {
    let rule: [(&str, &[&str]); 5] = [
        (
            "pingora",
            &["listener/", "endpoints/", "exchange/", "upstream/", "cli/serve.rs"],
        ),
        ("sqlx", &[]),
        ("rusqlite", &[]),
        ("axum", &["admin/", "cli/serve.rs"]),
        ("prometheus::", &["telemetry/"]),
    ];
    for (name, text) in texts("gateway/src") {
        for (library, allowed) in &rule {
            let uses = text
                .lines()
                .any(|line| !line.trim_start().starts_with("//") && line.contains(library) && !line.contains('"'));
            assert!(
                !uses || allowed.iter().any(|place| name.starts_with(place)),
                "{name} uses {library}"
            );
        }
    }
}

#[test]
fn protocol_uses_no_io() {
    for (name, text) in texts("gateway/protocol/src") {
        for forbidden in ["tokio", "pingora", "std::net", "std::fs", "std::thread"] {
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            let uses = code
                .lines()
                .any(|line| !line.trim_start().starts_with("//") && line.contains(forbidden));
            assert!(!uses, "{name} has {forbidden}");
        }
    }
}

#[test]
fn the_ledger_uses_nothing_of_the_proxy() {
    let manifest = std::fs::read_to_string(root().join("gateway/ledger/Cargo.toml")).expect("a manifest");
    for forbidden in ["pingora", "axum", "http", "gateway", "protocol"] {
        let depends = manifest.lines().any(|line| line.starts_with(forbidden));
        assert!(!depends, "the ledger depends on {forbidden}");
    }
}

#[test]
fn no_file_has_grown_past_reading() {
    for folder in [
        "gateway/src",
        "gateway/ledger/src",
        "gateway/policy/src",
        "simulated-upstream/src",
        "tests/end-to-end/src",
        "tests/quality-eval/src",
        "tests/stress-tester/src",
    ] {
        for (name, text) in texts(folder) {
            assert!(
                text.lines().count() <= 500,
                "{folder}/{name} has {} lines",
                text.lines().count()
            );
        }
    }
}
