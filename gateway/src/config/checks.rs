//! The checks that the fields of every file share, and where their problems are reported.

use super::checked::position;
use super::raw;
use super::read::{At, nearest};
use super::report::Problem;
use policy::Priority;
use std::path::Path;

/// The most requests that run or wait, anywhere: more than any machine holds, and far from where a number overflows.
const MOST_REQUESTS: usize = 10_000_000;

/// Where a problem is: file, line and key.
pub(super) struct Check<'a> {
    pub(super) dir: &'a Path,
    pub(super) problems: &'a mut Vec<Problem>,
}

impl Check<'_> {
    pub(super) fn problem(&mut self, file: &str, line: usize, key: String, message: impl Into<String>) {
        self.problems.push(Problem {
            file: self.dir.join(file).to_string_lossy().into_owned(),
            line,
            key,
            message: message.into(),
        });
    }

    /// The index of a name that must exist; 0 where it does not, or is a placeholder.
    pub(super) fn reference(
        &mut self,
        (file, key): (&str, String),
        name: &At<String>,
        known: Option<&[String]>,
        what: &str,
    ) -> u32 {
        let Some(known) = known.filter(|_| name.line > 0) else {
            return 0;
        };
        if let Some(index) = position(known.iter().position(|known| *known == name.value)) {
            return index;
        }
        let hint = nearest(&name.value, known.iter().map(String::as_str)).map_or_else(
            || format!("there are {}", known.join(", ")),
            |near| format!("did you mean `{near}`?"),
        );
        self.problem(
            file,
            name.line,
            key,
            format!("there is no {what} `{}`; {hint}", name.value),
        );
        0
    }

    pub(super) fn at_least_one<T: PartialEq + From<u8>>(&mut self, file: &str, key: &str, number: &At<T>) {
        if number.line > 0 && number.value == T::from(0) {
            self.problem(file, number.line, key.to_owned(), "must be at least 1");
        }
    }

    pub(super) fn at_least_one_of(&mut self, file: &str, key: &str, line: usize, count: usize) {
        if line > 0 && count == 0 {
            self.problem(file, line, key.to_owned(), "must be at least 1");
        }
    }

    /// Checks that a number of requests can be held at all.
    pub(super) fn at_most(&mut self, file: &str, key: &str, line: usize, count: usize) {
        if line > 0 && count > MOST_REQUESTS {
            self.problem(
                file,
                line,
                key.to_owned(),
                format!("must be at most {MOST_REQUESTS}, not {count}"),
            );
        }
    }

    /// Returns whether a file that is named can be read.
    pub(super) fn file_is_there(&mut self, file: &str, key: &str, name: &At<String>) -> bool {
        if name.line == 0 {
            return false;
        }
        let read = std::fs::File::open(&name.value);
        if let Err(error) = &read {
            let message = format!("`{}` cannot be read: {error}", name.value);
            self.problem(file, name.line, key.to_owned(), message);
        }
        read.is_ok()
    }
}

pub(super) fn band(band: raw::Band) -> Priority {
    match band {
        raw::Band::High => Priority::High,
        raw::Band::Normal => Priority::Normal,
        raw::Band::Low => Priority::Low,
    }
}
