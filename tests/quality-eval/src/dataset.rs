//! Problems from a file: HumanEval's, MBPP's and EvalPlus's fields, as JSON lines (also gzip) or Parquet, or the
//! directory of a data set's hub. What it is, the file says.

use crate::sandbox::Tests;
use bytes::Bytes;
use flate2::read::GzDecoder;
use parquet::file::reader::{FileReader, SerializedFileReader};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::io::Read;
use std::path::{Path, PathBuf};

/// HumanEval itself, so that it is there wherever the program is.
const HUMANEVAL: &[u8] = include_bytes!("../../../data/humaneval/HumanEval.jsonl.gz");

/// Problems, and where they are from.
#[derive(Debug, Clone)]
pub(crate) struct Dataset {
    pub(crate) name: String,
    /// Of the file, so that a run that goes on can tell whether it is the same.
    pub(crate) sha256: String,
    pub(crate) problems: Vec<Problem>,
}

/// A problem.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Problem {
    pub(crate) task_id: String,
    /// What is asked: the beginning of a program, or words.
    pub(crate) prompt: String,
    /// Whether the prompt is code that an answer may go on with.
    pub(crate) is_code: bool,
    pub(crate) entry_point: Option<String>,
    /// An answer that is right, as the data set has it.
    pub(crate) canonical: String,
    /// Code that tests may refer to.
    pub(crate) setup: String,
    pub(crate) tests: Tests,
}

impl Dataset {
    /// Reads it; `None` is HumanEval.
    pub(crate) fn load(path: Option<&Path>) -> Result<Self, String> {
        let Some(path) = path else {
            return Self::read("HumanEval", HUMANEVAL);
        };
        let file = file_in(path)?;
        let bytes = std::fs::read(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        Self::read(&file.display().to_string(), &bytes)
    }

    fn read(name: &str, bytes: &[u8]) -> Result<Self, String> {
        let sha256 = format!("{:x}", Sha256::digest(bytes));
        let rows = rows(bytes).map_err(|error| format!("{name}: {error}"))?;
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

/// The file of a directory: the hub's layout, or the only one in it.
fn file_in(path: &Path) -> Result<PathBuf, String> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    let hub = path.join("openai_humaneval/test-00000-of-00001.parquet");
    if hub.exists() {
        return Ok(hub);
    }
    let listed = std::fs::read_dir(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut found: Vec<PathBuf> = listed
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|file| {
            let name = file.to_string_lossy();
            [".jsonl", ".jsonl.gz", ".parquet"]
                .iter()
                .any(|ending| name.ends_with(ending))
        })
        .collect();
    found.sort();
    match found.as_slice() {
        [only] => Ok(only.clone()),
        [] => Err(format!(
            "{} has neither openai_humaneval/test-00000-of-00001.parquet nor a .jsonl, .jsonl.gz or .parquet file",
            path.display()
        )),
        several => Err(format!(
            "{} has {} data sets; name one, such as {}",
            path.display(),
            several.len(),
            several[0].display()
        )),
    }
}

/// The rows of a file, whatever it is.
fn rows(bytes: &[u8]) -> Result<Vec<Map<String, Value>>, String> {
    if bytes.starts_with(b"PAR1") {
        return parquet_rows(bytes);
    }
    let mut text = String::new();
    let read = if bytes.starts_with(&[0x1f, 0x8b]) {
        GzDecoder::new(bytes).read_to_string(&mut text)
    } else {
        (&mut &*bytes).read_to_string(&mut text)
    };
    read.map_err(|error| format!("it is neither JSON lines nor Parquet: {error}"))?;
    let lines = text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty());
    lines
        .map(|(line, number)| serde_json::from_str(line).map_err(|error| format!("line {number}: {error}")))
        .collect()
}

fn parquet_rows(bytes: &[u8]) -> Result<Vec<Map<String, Value>>, String> {
    let reader = SerializedFileReader::new(Bytes::copy_from_slice(bytes)).map_err(|error| error.to_string())?;
    let rows = reader.get_row_iter(None).map_err(|error| error.to_string())?;
    rows.map(|row| match row.map_err(|error| error.to_string())?.to_json_value() {
        Value::Object(fields) => Ok(fields),
        other => Err(format!("a row that is {other}")),
    })
    .collect()
}

fn text<'a>(row: &'a Map<String, Value>, names: &[&str]) -> Option<&'a str> {
    names.iter().find_map(|name| row.get(*name)?.as_str())
}

/// Lines of code, given as a list or as a text.
fn lines(row: &Map<String, Value>, name: &str) -> Option<String> {
    match row.get(name)? {
        Value::Array(items) => {
            let lines: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
            (!lines.is_empty()).then(|| lines.join("\n"))
        }
        Value::String(text) if !text.trim().is_empty() => Some(text.clone()),
        _ => None,
    }
}

/// A problem's name; MBPP's are numbers.
pub(crate) fn task_id(given: &Value) -> Option<String> {
    match given {
        Value::String(id) => Some(id.clone()),
        Value::Number(id) => Some(format!("MBPP/{id}")),
        _ => None,
    }
}

fn problem(row: &Map<String, Value>) -> Result<Problem, String> {
    let task_id = row.get("task_id").and_then(task_id).ok_or("`task_id` is missing")?;
    let told = |what: &str| format!("{task_id}: {what}");
    let prompt = text(row, &["prompt", "text"]).ok_or_else(|| told("`prompt` (or `text`) is missing"))?;
    let solution = text(row, &["canonical_solution", "code"]).unwrap_or_default();
    let list = lines(row, "test_list");
    let entry_point = text(row, &["entry_point"])
        .map(str::to_owned)
        .or_else(|| tested(solution, list.as_deref().unwrap_or_default()));
    let is_code = row.contains_key("entry_point") && !prompt.trim_start().starts_with("\"\"\"");
    let setup = [lines(row, "test_setup_code"), lines(row, "test_imports")];
    let setup = setup.into_iter().flatten().collect::<Vec<_>>().join("\n");
    let test = text(row, &["test"]).filter(|test| !test.trim().is_empty());
    let inputs = || -> Vec<Value> {
        let given = ["base_input", "plus_input"]
            .iter()
            .filter_map(|name| row.get(*name)?.as_array());
        given.flatten().cloned().collect()
    };
    let tests = match (test, &list) {
        (Some(code), _) if code.contains("def check(") => Tests::Check { code: code.to_owned() },
        (Some(code), _) => Tests::Script { code: code.to_owned() },
        (None, Some(code)) => Tests::Script { code: code.clone() },
        (None, None) => Tests::Inputs {
            solution: if is_code {
                format!("{prompt}{solution}")
            } else {
                solution.to_owned()
            },
            inputs: inputs(),
            atol: row.get("atol").and_then(Value::as_f64).unwrap_or(0.0),
        },
    };
    match &tests {
        Tests::Inputs { inputs, .. } if inputs.is_empty() => {
            return Err(told("it has no tests: neither `test`, `test_list` nor `base_input`"));
        }
        Tests::Check { .. } | Tests::Inputs { .. } if entry_point.is_none() => {
            return Err(told("`entry_point` is missing"));
        }
        _ => {}
    }
    let prompt = match &list {
        // What is asked in words says how the function is named by the tests.
        Some(tests) if !is_code => format!("{}\nYour code should pass these tests:\n{tests}\n", prompt.trim_end()),
        _ => prompt.to_owned(),
    };
    Ok(Problem {
        setup: if is_code { format!("{setup}\n{prompt}") } else { setup },
        canonical: solution.to_owned(),
        task_id,
        prompt,
        is_code,
        entry_point,
        tests,
    })
}

/// The function of a solution that tests call.
fn tested(solution: &str, tests: &str) -> Option<String> {
    let mut defined = solution.lines().filter_map(|line| {
        let name = line.strip_prefix("def ")?.split('(').next()?.trim();
        tests.contains(&format!("{name}(")).then(|| name.to_owned())
    });
    defined.next_back()
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
            matches!(&set.problems[0].tests, Tests::Inputs { inputs, solution, .. } if inputs.len() == 2 && solution.ends_with("return x\n"))
        );
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let told = |text: &str| Dataset::read("set", text.as_bytes()).expect_err("wrong");
        assert!(told("{\"task_id\": \"a\"}").contains("problem 1: a: `prompt`"));
        assert!(told("\n{").contains("line 2"));
        assert!(told("{\"task_id\": \"a\", \"prompt\": \"p\"}").contains("no tests"));
        assert!(told("").contains("no problems"));
        assert!(told("PAR1 but not really").starts_with("set: "));
    }
}
