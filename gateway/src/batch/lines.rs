//! The lines of a batch: what is asked in its input file, and what is answered in its output and error files.

use protocol::Operation;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::collections::HashSet;

/// Problems that are told, at most.
const PROBLEMS: usize = 20;

/// One request of a batch.
#[derive(Debug, Deserialize)]
pub(super) struct Line {
    pub(super) custom_id: String,
    method: String,
    url: String,
    pub(super) body: Box<RawValue>,
}

/// The operation of an endpoint that a batch may use.
pub(crate) fn endpoint(url: &str) -> Option<Operation> {
    match url {
        "/v1/chat/completions" => Some(Operation::ChatCompletions),
        "/v1/completions" => Some(Operation::Completions),
        "/v1/embeddings" => Some(Operation::Embeddings),
        "/v1/responses" => Some(Operation::Responses),
        _ => None,
    }
}

/// Reads a whole input file; or everything that is wrong with it, as OpenAI's list of errors.
pub(super) fn read(text: &str, endpoint: &str) -> Result<Vec<Line>, Value> {
    let mut lines: Vec<Line> = Vec::new();
    let mut ids = HashSet::new();
    let mut problems = Vec::new();
    for (text, number) in text.lines().zip(1..).filter(|(text, _)| !text.trim().is_empty()) {
        let mut problem = |code: &str, message: String| {
            problems.push(json!({"code": code, "line": number, "message": message, "param": null}));
        };
        match serde_json::from_str::<Line>(text) {
            Err(error) => problem("invalid_json_line", format!("line {number} is not a request: {error}")),
            Ok(line) if line.method != "POST" => {
                problem("invalid_method", format!("line {number}: method must be POST"));
            }
            Ok(line) if line.url != endpoint => {
                problem(
                    "mismatched_url",
                    format!("line {number}: url must be {endpoint}, as the batch's endpoint is"),
                );
            }
            Ok(line) if !ids.insert(line.custom_id.clone()) => {
                problem(
                    "duplicate_custom_id",
                    format!("line {number}: custom_id `{}` is given twice", line.custom_id),
                );
            }
            Ok(line) => lines.push(line),
        }
    }
    if lines.is_empty() && problems.is_empty() {
        problems.push(
            json!({"code": "empty_file", "line": null, "message": "the input file has no requests", "param": null}),
        );
    }
    if problems.is_empty() {
        return Ok(lines);
    }
    problems.truncate(PROBLEMS);
    Err(json!({"object": "list", "data": problems}))
}

/// An input file that was deleted, as OpenAI's list of errors.
pub(super) fn no_file(id: &str) -> Value {
    let message = format!("the input file {id} was deleted before the batch was done");
    json!({"object": "list", "data": [{"code": "invalid_input_file", "line": null, "message": message, "param": null}]})
}

/// One answer of a batch.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    id: &'a str,
    custom_id: &'a str,
    response: Option<Response<'a>>,
    error: Option<Value>,
}

#[derive(Debug, Serialize)]
struct Response<'a> {
    status_code: u16,
    request_id: &'a str,
    body: &'a Value,
}

/// A line of the output file, or of the error file.
pub(super) fn answer(request_id: &str, custom_id: &str, status: u16, body: &Value) -> String {
    text(&Answer {
        id: request_id,
        custom_id,
        response: Some(Response {
            status_code: status,
            request_id,
            body,
        }),
        error: None,
    })
}

/// A line of the error file for a request that was not made.
pub(super) fn not_made(request_id: &str, custom_id: &str, code: &str, message: &str) -> String {
    text(&Answer {
        id: request_id,
        custom_id,
        response: None,
        error: Some(json!({"code": code, "message": message})),
    })
}

fn text(answer: &Answer<'_>) -> String {
    let mut text = serde_json::to_string(answer).unwrap_or_default();
    text.push('\n');
    text
}

/// The id of a file that a batch writes: its answers, or its failed requests.
pub(super) fn file_id(batch_id: &str, is_output: bool) -> String {
    format!("file-{batch_id}-{}", if is_output { "output" } else { "errors" })
}

/// Returns whether a file of this id is one of [`file_id`].
pub(super) fn is_written_by_batch(file_id: &str) -> bool {
    file_id.starts_with("file-batch_") && (file_id.ends_with("-output") || file_id.ends_with("-errors"))
}

/// The number of the line that an answer is of; `None` for what is no whole answer.
pub(super) fn number_of(answer: &[u8]) -> Option<i64> {
    #[derive(Deserialize)]
    struct Answered {
        id: String,
    }
    let answered: Answered = serde_json::from_slice(answer).ok()?;
    answered.id.rsplit_once('-')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wrong_line_is_named_with_its_number() {
        let good = r#"{"custom_id":"a","method":"POST","url":"/v1/embeddings","body":{"model":"m"}}"#;
        let text = format!(
            "{good}\n{good}\nnonsense\n{}\n{}",
            good.replace("POST", "GET"),
            good.replace("embeddings", "models")
        );
        let problems = read(&text, "/v1/embeddings").expect_err("four are wrong");
        let found: Vec<(String, i64)> = problems["data"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|one| {
                (
                    one["code"].as_str().expect("a code").to_owned(),
                    one["line"].as_i64().expect("a line"),
                )
            })
            .collect();
        let expected = [
            ("duplicate_custom_id", 2),
            ("invalid_json_line", 3),
            ("invalid_method", 4),
            ("mismatched_url", 5),
        ];
        assert_eq!(found, expected.map(|(code, line)| (code.to_owned(), line)));
        assert_eq!(read(good, "/v1/embeddings").expect("right").len(), 1);
        assert!(read("\n", "/v1/embeddings").is_err());
    }

    #[test]
    fn an_answer_says_which_line_it_is_of_and_a_torn_one_does_not() {
        let made = answer("batch_x-7", "a", 200, &json!({}));
        assert_eq!(number_of(made.as_bytes()), Some(7));
        let failed = not_made("batch_x-12", "b", "c", "d");
        assert_eq!(number_of(failed.as_bytes()), Some(12));
        assert_eq!(number_of(&made.as_bytes()[..12]), None);
    }
}
