//! Collecting warnings about configuration files.

use super::report::Problem;
use std::path::Path;

/// Where warnings are collected.
pub(super) struct Advice<'a> {
    pub(super) dir: &'a Path,
    pub(super) warnings: Vec<Problem>,
}

impl<'a> Advice<'a> {
    pub(super) fn new(dir: &'a Path) -> Self {
        let warnings = Vec::new();
        Self { dir, warnings }
    }

    /// Adds a warning about a key of a file.
    pub(super) fn warn(&mut self, file: &str, line: usize, key: String, message: impl Into<String>) {
        self.warnings.push(Problem {
            file: self.dir.join(file).to_string_lossy().into_owned(),
            line,
            key,
            message: message.into(),
        });
    }
}
