//! Collecting warnings about configuration files.

use super::report::Problem;
use std::path::Path;

/// The warnings found so far.
pub(super) struct Warnings<'a> {
    pub(super) dir: &'a Path,
    pub(super) found: Vec<Problem>,
}

impl<'a> Warnings<'a> {
    pub(super) fn new(dir: &'a Path) -> Self {
        Self { dir, found: Vec::new() }
    }

    /// Adds a warning about a key of a file.
    pub(super) fn warn(&mut self, file: &str, line: usize, key: String, message: impl Into<String>) {
        self.found.push(Problem {
            file: self.dir.join(file).to_string_lossy().into_owned(),
            line,
            key,
            message: message.into(),
        });
    }
}
