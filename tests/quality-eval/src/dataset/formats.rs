//! Problems from rows: the fields of `HumanEval`, MBPP and `EvalPlus`, and those for one's own tasks.

use super::Problem;
use super::file::Row;
use crate::sandbox::{Case, Tests};
use serde_json::{Map, Value};

type Fields = Map<String, Value>;

/// A problem's name; MBPP's are numbers.
pub(crate) fn task_id(given: &Value) -> Option<String> {
    match given {
        Value::String(id) => Some(id.clone()),
        Value::Number(id) => Some(format!("MBPP/{id}")),
        _ => None,
    }
}

pub(super) fn problem(row: &Row) -> Result<Problem, String> {
    let fields = &row.fields;
    let task_id = fields.get("task_id").and_then(task_id).ok_or("`task_id` is missing")?;
    let fail = |what: &str| format!("{task_id}: {what}");
    let prompt = row
        .text(&["prompt", "text"])
        .ok_or_else(|| fail("`prompt` (or `text`) is missing"))?;
    let solution = row.text(&["canonical_solution", "code"]).unwrap_or_default();
    let list = lines(fields, "test_list");
    let entry_point = row
        .text(&["entry_point"])
        .map(str::to_owned)
        .or_else(|| tested(solution, list.as_deref().unwrap_or_default()));
    let is_code = fields.contains_key("entry_point") && looks_like_code(prompt, entry_point.as_deref());
    let setup = [lines(fields, "test_setup_code"), lines(fields, "test_imports")];
    let setup = setup.into_iter().flatten().collect::<Vec<_>>().join("\n");
    let whole = if is_code {
        format!("{prompt}{solution}")
    } else {
        solution.to_owned()
    };
    let tests = tests(row, &task_id, &whole, list.as_deref()).map_err(|what| fail(&what))?;
    let needs_function = matches!(tests, Tests::Check { .. } | Tests::Inputs { .. } | Tests::Cases { .. });
    if needs_function && entry_point.is_none() {
        return Err(fail("`entry_point` is missing"));
    }
    let question = match (&list, row.text(&["test"])) {
        // A question in words needs its tests: they name the function.
        (Some(tests), _) if !is_code => format!("{}\nYour code should pass these tests:\n{tests}\n", prompt.trim_end()),
        _ => prompt.to_owned(),
    };
    Ok(Problem {
        setup: if is_code { format!("{setup}\n{prompt}") } else { setup },
        canonical: whole,
        task_id,
        prompt: question,
        is_code,
        entry_point,
        tests,
    })
}

/// The tests that a row has, the most thorough first.
fn tests(row: &Row, task_id: &str, solution: &str, list: Option<&str>) -> Result<Tests, String> {
    let fields = &row.fields;
    let atol = fields.get("atol").and_then(Value::as_f64).unwrap_or(0.0);
    let count = |name: &str| fields.get(name).and_then(Value::as_array).map_or(0, Vec::len);
    if count("base_input") + count("plus_input") > 0 {
        let (set, number) = task_id.rsplit_once('/').unwrap_or_default();
        return Ok(Tests::Inputs {
            solution: solution.to_owned(),
            row: row.json.clone(),
            dataset: set.to_lowercase(),
            number: number.parse().unwrap_or_default(),
            atol,
            contract: row.text(&["contract"]).unwrap_or_default().to_owned(),
        });
    }
    if let Some(cases) = fields.get("stdin_tests") {
        return Ok(Tests::Stdin {
            cases: stdin_cases(cases)?,
        });
    }
    if let Some(cases) = fields.get("cases") {
        return Ok(Tests::Cases {
            cases: function_cases(cases)?,
            atol,
        });
    }
    let code = |code: &str| code.to_owned();
    match (row.text(&["test"]).filter(|test| !test.trim().is_empty()), list) {
        (Some(test), _) if test.contains("def check(") => Ok(Tests::Check { code: code(test) }),
        (Some(test), _) | (None, Some(test)) => Ok(Tests::Script { code: code(test) }),
        (None, None) => Err(
            "it has no tests: none of `base_input`, `plus_input`, `stdin_tests`, `cases`, `test` and \
                             `test_list`"
                .to_owned(),
        ),
    }
}

/// `[{"input": "3\n", "output": "9\n"}, …]`
fn stdin_cases(given: &Value) -> Result<Vec<Case>, String> {
    let cases: Vec<Case> = serde_json::from_value(given.clone())
        .map_err(|error| format!("`stdin_tests` must be a list of {{\"input\", \"output\"}}: {error}"))?;
    if cases.is_empty() {
        Err("`stdin_tests` is empty".to_owned())
    } else {
        Ok(cases)
    }
}

/// `[{"args": [1, 2], "returns": 3}, …]`
fn function_cases(given: &Value) -> Result<Vec<Case>, String> {
    let wrong = || "`cases` must be a list of {\"args\": […], \"returns\"}, and not empty".to_owned();
    let cases = given.as_array().filter(|cases| !cases.is_empty()).ok_or_else(wrong)?;
    let case = |case: &Value| {
        let args = case.get("args")?.as_array()?.iter().map(Value::to_string);
        Some(Case {
            input: args.collect::<Vec<_>>().join("\n"),
            output: case.get("returns")?.to_string(),
        })
    };
    cases.iter().map(|given| case(given).ok_or_else(wrong)).collect()
}

/// Lines of code, given as a list or as a text.
fn lines(fields: &Fields, name: &str) -> Option<String> {
    match fields.get(name)? {
        Value::Array(items) => {
            let lines: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
            (!lines.is_empty()).then(|| lines.join("\n"))
        }
        Value::String(text) if !text.trim().is_empty() => Some(text.clone()),
        _ => None,
    }
}

/// Returns whether a prompt is the beginning of the function and not words: MBPP+'s is a docstring.
fn looks_like_code(prompt: &str, entry_point: Option<&str>) -> bool {
    let head = format!("def {}", entry_point.unwrap_or_default());
    prompt.lines().any(|line| line.trim_start().starts_with(&head)) && !prompt.trim_start().starts_with("\"\"\"")
}

/// The function of a solution that tests call.
fn tested(solution: &str, tests: &str) -> Option<String> {
    let mut defined = solution.lines().filter_map(|line| {
        let name = line.strip_prefix("def ")?.split('(').next()?.trim();
        tests.contains(&format!("{name}(")).then(|| name.to_owned())
    });
    defined.next_back()
}
