//! Everything that is wrong with a configuration, at once, each with file, line and key.

use std::fmt::{self, Write};

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// Path of the file.
    pub(crate) file: String,
    /// Line, from 1; 0 where the whole file is meant.
    pub(crate) line: usize,
    /// Dotted path of the key; empty at the top.
    pub(crate) key: String,
    /// The problem and its remedy.
    pub(crate) message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// All mistakes of a configuration, in the order of files and lines.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", lines(.0))]
pub(crate) struct Report(pub(crate) Vec<Problem>);

fn lines(problems: &[Problem]) -> String {
    let mut text = String::new();
    for problem in problems {
        text.push_str(&problem.to_string());
        text.push('\n');
    }
    let mistakes = if problems.len() == 1 { "mistake" } else { "mistakes" };
    let _ = write!(text, "{} {mistakes} in the configuration", problems.len());
    text
}
