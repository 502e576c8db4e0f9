//! The program against servers that know what they did and when: every figure is compared with the server's own clock,
//! every outcome with what the server answered.

mod client_limits;
mod figures;
mod generators;
mod method;
mod outcomes;
mod server;
mod workloads;

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tempfile::TempDir;

/// A run of the program, and the directory that it wrote into.
struct Run {
    output: Output,
    dir: TempDir,
}

static ALONE: Mutex<()> = Mutex::new(());

/// Keeps tests that measure milliseconds, or that load the machine, out of each other's way.
fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The program with arguments, in a directory.
fn program(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice-stress"));
    command
        .args(args)
        .current_dir(dir)
        .env_remove("SLUICE_KEY")
        .env_remove("SLUICE_ADMIN_TOKEN");
    command
}

/// Runs the program against a server, without pauses between requests and without an admin listener.
fn stress(url: &str, args: &str) -> Run {
    let common = format!("--base-url {url} --admin-url http://127.0.0.1:9 --gap 0 --out . {args}");
    let dir = TempDir::new().expect("a directory");
    let output = program(dir.path(), &common.split_whitespace().collect::<Vec<_>>())
        .output()
        .expect("it runs");
    Run { output, dir }
}

impl Run {
    fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(name))
            .unwrap_or_else(|error| panic!("{name}: {error}\n{}", self.said()))
    }

    fn summary(&self) -> Value {
        serde_json::from_str(&self.file("latest_summary.json")).expect("JSON")
    }

    /// The lines of the results, by column.
    fn rows(&self) -> Vec<Row> {
        let text = self.file("latest_results.csv");
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let names = reader.headers().expect("a head").clone();
        reader
            .records()
            .map(|row| Row {
                names: names.clone(),
                fields: row.expect("a row"),
            })
            .collect()
    }

    fn said(&self) -> String {
        format!(
            "{}{}",
            String::from_utf8_lossy(&self.output.stdout),
            String::from_utf8_lossy(&self.output.stderr)
        )
    }

    #[track_caller]
    fn succeeded(self) -> Self {
        assert!(self.output.status.success(), "{}", self.said());
        self
    }
}

/// A line of the results.
struct Row {
    names: csv::StringRecord,
    fields: csv::StringRecord,
}

impl Row {
    fn text(&self, name: &str) -> &str {
        let at = self
            .names
            .iter()
            .position(|known| known == name)
            .unwrap_or_else(|| panic!("no column {name}"));
        &self.fields[at]
    }

    fn number(&self, name: &str) -> Option<f64> {
        self.text(name).parse().ok()
    }
}
