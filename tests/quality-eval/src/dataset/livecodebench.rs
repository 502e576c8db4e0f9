//! Problems of `LiveCodeBench` (arXiv:2403.07974; fields of `livecodebench/code_generation_lite`): scripts that read
//! their standard input, and methods of a class `Solution`.

use super::Problem;
use super::file::Row;
use crate::sandbox::{Case, Tests};
use flate2::read::ZlibDecoder;
use serde::Deserialize;
use serde_json::Value;
use std::io::Read;

#[derive(Deserialize)]
struct PublishedCase {
    input: String,
    output: String,
    testtype: String,
}

/// Returns whether a row is of `LiveCodeBench`.
pub(super) fn is(row: &Row) -> bool {
    row.fields.contains_key("question_content")
}

pub(super) fn problem(row: &Row) -> Result<Problem, String> {
    let id = row.text(&["question_id"]).ok_or("`question_id` is missing")?;
    let fail = |what: String| format!("{id}: {what}");
    let content = row
        .text(&["question_content"])
        .ok_or_else(|| fail("`question_content` is missing".to_owned()))?;
    let mut cases = Vec::new();
    for name in ["public_test_cases", "private_test_cases"] {
        let given = row.text(&[name]).unwrap_or_default();
        cases.extend(published(given).map_err(|error| fail(format!("`{name}`: {error}")))?);
    }
    let Some(first) = cases.first() else {
        return Err(fail("it has no test cases".to_owned()));
    };
    let is_function = first.testtype == "functional";
    let cases = cases
        .into_iter()
        .map(|PublishedCase { input, output, .. }| Case { input, output });
    let cases: Vec<Case> = cases.collect();
    let starter = row.text(&["starter_code"]).unwrap_or_default();
    let (tests, entry_point, how) = if is_function {
        let name = function_name(row).ok_or_else(|| fail("`metadata` has no `func_name`".to_owned()))?;
        let how = format!("Use this starter code:\n\n```python\n{}\n```", starter.trim_end());
        (Tests::Cases { cases, atol: 0.0 }, Some(name), how)
    } else {
        let how = "Read the input from standard input and print the answer to standard output.".to_owned();
        (Tests::Stdin { cases }, None, how)
    };
    Ok(Problem {
        task_id: format!("LiveCodeBench/{id}"),
        prompt: format!("{}\n\n{how}\n", content.trim_end()),
        is_code: false,
        entry_point,
        canonical: String::new(),
        setup: String::new(),
        tests,
    })
}

fn function_name(row: &Row) -> Option<String> {
    let metadata: Value = serde_json::from_str(row.text(&["metadata"])?).ok()?;
    metadata.get("func_name")?.as_str().map(str::to_owned)
}

/// Test cases as JSON, or as the data set hides its private ones: JSON in a pickle, deflated, in base64.
fn published(given: &str) -> Result<Vec<PublishedCase>, String> {
    if given.trim().is_empty() {
        return Ok(Vec::new());
    }
    let read = |json: &str| serde_json::from_str(json).map_err(|error| error.to_string());
    if given.trim_start().starts_with('[') {
        return read(given);
    }
    let deflated = base64(given).ok_or("it is neither JSON nor base64")?;
    let mut pickle = Vec::new();
    ZlibDecoder::new(&deflated[..])
        .read_to_end(&mut pickle)
        .map_err(|error| format!("it cannot be inflated: {error}"))?;
    read(pickled_text(&pickle).ok_or("its pickle is not of one text")?)
}

/// The text that a pickle holds. Python's own reader would run code of the pickle.
fn pickled_text(pickle: &[u8]) -> Option<&str> {
    let mut rest = pickle;
    loop {
        let (opcode, after) = rest.split_first()?;
        let (length, width) = match opcode {
            // PROTO and FRAME come before the text.
            0x80 => (0, 1),
            0x95 => (0, 8),
            // SHORT_BINUNICODE, BINUNICODE and BINUNICODE8 are the text.
            0x8c => (usize::from(*after.first()?), 1),
            b'X' => (
                usize::try_from(u32::from_le_bytes(after.get(..4)?.try_into().ok()?)).ok()?,
                4,
            ),
            0x8d => (
                usize::try_from(u64::from_le_bytes(after.get(..8)?.try_into().ok()?)).ok()?,
                8,
            ),
            _ => return None,
        };
        let after = after.get(width..)?;
        if matches!(opcode, 0x80 | 0x95) {
            rest = after;
        } else {
            return std::str::from_utf8(after.get(..length)?).ok();
        }
    }
}

fn base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0_u32, 0);
    for letter in text.bytes().filter(|byte| !byte.is_ascii_whitespace() && *byte != b'=') {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(bits >> count & 0xff).ok()?);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_test_cases_are_read_without_running_their_pickle() {
        // Python 3.11: base64.b64encode(zlib.compress(pickle.dumps(json.dumps([{"input": "3\n", "output": "9\n",
        // "testtype": "stdin"}])))).
        let hidden = "eJxrYJlqwwABPRbR1UqZeQWlJUpWCkrGMXlKOgpK+aUlUAFLiEBJanFJSWVBKkiouCQlM0+pNnaKHgCWMBRP";
        let cases = published(hidden).expect("cases");
        assert_eq!(
            (&*cases[0].input, &*cases[0].output, &*cases[0].testtype),
            ("3\n", "9\n", "stdin")
        );
        assert!(published("!").is_err() && published("AAAA").is_err());
        assert_eq!(pickled_text(b"\x80\x04cos\nsystem\n"), None);
    }
}
