//! Problems from a file, or the directory of a data set's hub. The format is detected.

mod file;
mod formats;
mod livecodebench;

pub(crate) use formats::task_id;

use crate::sandbox::Tests;
use file::Row;
use sha2::{Digest, Sha256};
use std::path::Path;

/// HumanEval itself, so that it is there wherever the program is.
const HUMANEVAL: &[u8] = include_bytes!("../../../../data/humaneval/HumanEval.jsonl.gz");

/// Problems, and where they are from.
#[derive(Debug, Clone)]
pub(crate) struct Dataset {
    pub(crate) name: String,
    /// Of the file, so that a resumed run detects another file.
    pub(crate) sha256: String,
    pub(crate) problems: Vec<Problem>,
}

/// A problem.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Problem {
    pub(crate) task_id: String,
    /// The question: the beginning of a program, or words.
    pub(crate) prompt: String,
    /// True if the prompt is code that an answer may go on with.
    pub(crate) is_code: bool,
    pub(crate) entry_point: Option<String>,
    /// A whole program that is right, as the data set has it; empty if it has none.
    pub(crate) canonical: String,
    /// Code that tests may refer to.
    pub(crate) setup: String,
    pub(crate) tests: Tests,
}

fn problem(row: &Row) -> Result<Problem, String> {
    if livecodebench::is(row) {
        livecodebench::problem(row)
    } else {
        formats::problem(row)
    }
}

impl Dataset {
    /// Reads it; `None` is HumanEval.
    pub(crate) fn load(path: Option<&Path>) -> Result<Self, String> {
        let Some(path) = path else {
            return Self::read("HumanEval", HUMANEVAL);
        };
        let file = file::file_in(path)?;
        let bytes = std::fs::read(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        Self::read(&file.display().to_string(), &bytes)
    }

    fn read(name: &str, bytes: &[u8]) -> Result<Self, String> {
        let sha256 = format!("{:x}", Sha256::digest(bytes));
        let rows = file::rows(bytes).map_err(|error| format!("{name}: {error}"))?;
        let problems = rows
            .iter()
            .zip(1..)
            .map(|(row, number)| problem(row).map_err(|error| format!("{name}: problem {number}: {error}")))
            .collect::<Result<Vec<_>, _>>()?;
        if problems.is_empty() {
            return Err(format!("{name} has no problems"));
        }
        Ok(Self {
            name: name.to_owned(),
            sha256,
            problems,
        })
    }

    /// The first so many.
    pub(crate) fn first(mut self, count: Option<usize>) -> Result<Self, String> {
        let all = self.problems.len();
        match count {
            Some(count) if count > all => {
                return Err(format!(
                    "{} has {all} problems; --num-problems {count} is more",
                    self.name
                ));
            }
            Some(count) => self.problems.truncate(count),
            None => {}
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_of_humaneval_hold_the_same_problems() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/humaneval");
        let lines = Dataset::load(Some(&root.join("HumanEval.jsonl.gz"))).expect("JSON lines");
        let hub = Dataset::load(Some(&root)).expect("the hub's layout");
        assert_eq!(lines.problems.len(), 164);
        assert_eq!(lines.problems, hub.problems);
        assert_eq!(lines.problems, Dataset::load(None).expect("the program's own").problems);
    }

    #[test]
    fn other_data_sets_are_known_by_their_fields() {
        let mbpp = r#"{"task_id": 2, "text": "Write a function to add.", "code": "def helper():\n  pass\ndef add(a, b):\n  return a + b", "test_list": ["assert add(1, 2) == 3"], "test_setup_code": "import math"}"#;
        let set = Dataset::read("mbpp", mbpp.as_bytes()).expect("MBPP");
        let problem = &set.problems[0];
        assert_eq!(
            (&*problem.task_id, problem.entry_point.as_deref()),
            ("MBPP/2", Some("add"))
        );
        assert!(problem.prompt.contains("assert add(1, 2) == 3") && problem.setup.contains("import math"));
        let plus = r#"{"task_id": "HumanEval/0", "prompt": "def f(x):\n    '''x'''\n", "entry_point": "f", "canonical_solution": "    return x\n", "base_input": [[1]], "plus_input": [[2.5]], "atol": 0.001}"#;
        let set = Dataset::read("plus", plus.as_bytes()).expect("EvalPlus");
        assert!(
            matches!(&set.problems[0].tests, Tests::Inputs { solution, dataset, .. } if dataset == "humaneval" && solution.ends_with("return x\n"))
        );
    }

    #[test]
    fn an_error_names_the_problem_and_its_line() {
        let error = |text: &str| Dataset::read("set", text.as_bytes()).expect_err("wrong");
        assert!(error("{\"task_id\": \"a\"}").contains("problem 1: a: `prompt`"));
        assert!(error("\n{").contains("line 2"));
        assert!(error("{\"task_id\": \"a\", \"prompt\": \"p\"}").contains("no tests"));
        assert!(error("").contains("no problems"));
        assert!(error("PAR1 but not really").starts_with("set: "));
    }
}
