//! The conversation of a checker and the program that it tests.

use super::process::SandboxedPython;
use super::{Task, Tests};
use serde::Deserialize;
use serde_json::json;
use std::time::Duration;

/// Kinds of failure that are the evaluator's words. An exception of such a name is reported as `execution_error`.
const RESERVED: [&str; 6] = [
    "extraction_failed",
    "execution_error",
    "execution_timeout",
    "simulator_rejected",
    "request_failed",
    "",
];

/// The outcome of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Passed,
    Failed {
        /// `extraction_failed`, `execution_error`, `execution_timeout`, or an exception's name: an identifier.
        kind: String,
        message: String,
    },
}

impl Verdict {
    pub(crate) fn failed(kind: &str, message: impl Into<String>) -> Self {
        Self::Failed {
            kind: kind.to_owned(),
            message: message.into(),
        }
    }
}

/// A verdict, and what is known of the base tests alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Judgement {
    pub(crate) verdict: Verdict,
    /// True if the base inputs passed, where there are others, too (`EvalPlus`).
    pub(crate) base_passed: Option<bool>,
}

#[derive(Deserialize)]
struct CheckerVerdict {
    passed: bool,
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
struct Assembled {
    no_code: Option<String>,
    error: Option<CheckerError>,
}

#[derive(Deserialize)]
struct CheckerError {
    #[serde(rename = "type")]
    kind: String,
    message: String,
}

/// Carries calls from the checker to the program and answers back, until there is a verdict.
pub(super) struct Relay<'a> {
    checker: &'a mut SandboxedPython,
    solution: &'a mut SandboxedPython,
    /// The longest time for one call.
    longest_call: Duration,
    base_passed: bool,
}

impl<'a> Relay<'a> {
    pub(super) fn new(
        checker: &'a mut SandboxedPython,
        solution: &'a mut SandboxedPython,
        longest_call: Duration,
    ) -> Self {
        Self {
            checker,
            solution,
            longest_call,
            base_passed: false,
        }
    }

    pub(super) async fn run(&mut self, task: &Task<'_>, wall: Duration) -> Result<Judgement, String> {
        let verdict = match tokio::time::timeout(wall, self.verdict(task)).await {
            Ok(verdict) => verdict?,
            Err(_) => still_running(wall),
        };
        let base_passed =
            matches!(task.tests, Tests::Inputs { .. }).then_some(self.base_passed || verdict == Verdict::Passed);
        Ok(Judgement { verdict, base_passed })
    }

    async fn verdict(&mut self, task: &Task<'_>) -> Result<Verdict, String> {
        if let Err(verdict) = self.assemble(task).await {
            return Ok(verdict);
        }
        let lost = |error: std::io::Error| format!("the checker is gone: {error}");
        let mut tests = serde_json::to_value(task.tests).map_err(|error| error.to_string())?;
        tests["entry_point"] = json!(task.entry_point);
        tests["setup"] = json!(task.setup);
        tests["checks_contract"] = json!(task.checks_contract);
        self.checker.write(tests.to_string().as_bytes()).await.map_err(lost)?;
        loop {
            let Some(message) = self.checker.read().await? else {
                let how = self.checker.exit().await;
                return Ok(Verdict::failed(
                    "execution_error",
                    format!("the tests came to no end ({how})"),
                ));
            };
            if message.starts_with(b"{\"passed\"") {
                return verdict_of(&message);
            }
            if message.starts_with(b"{\"base\"") {
                self.base_passed = true;
                continue;
            }
            let limit = seconds_of(&message).map_or(self.longest_call, |limit| limit.min(self.longest_call));
            match tokio::time::timeout(limit, ask(self.solution, &message)).await {
                Ok(Ok(answer)) => self.checker.write(&answer).await.map_err(lost)?,
                Ok(Err(verdict)) => return Ok(verdict),
                Err(_) => return Ok(still_running(limit)),
            }
        }
    }

    /// Finds the program in the reply. None of it has run yet, so the answer can be trusted.
    async fn assemble(&mut self, task: &Task<'_>) -> Result<(), Verdict> {
        let reply = json!({
            "readings": task.readings,
            "prompt": task.prompt,
            "is_code": task.is_code,
            "entry_point": task.entry_point,
            "is_script": matches!(task.tests, Tests::Stdin { .. }),
        });
        let answer = ask(self.solution, reply.to_string().as_bytes()).await?;
        let assembled: Assembled = serde_json::from_slice(&answer)
            .map_err(|error| Verdict::failed("extraction_failed", format!("the reply cannot be read: {error}")))?;
        match (assembled.no_code, assembled.error) {
            (Some(why), _) => Err(Verdict::failed("extraction_failed", why)),
            (_, Some(error)) => Err(Verdict::failed(&identifier(&error.kind), error.message)),
            (None, None) => Ok(()),
        }
    }
}

fn still_running(limit: Duration) -> Verdict {
    Verdict::failed(
        "execution_timeout",
        format!("still running after {} s", limit.as_secs_f64()),
    )
}

fn verdict_of(message: &[u8]) -> Result<Verdict, String> {
    let verdict: CheckerVerdict = serde_json::from_slice(message).map_err(|error| format!("a verdict: {error}"))?;
    Ok(if verdict.passed {
        Verdict::Passed
    } else {
        Verdict::failed(&identifier(&verdict.kind), verdict.message)
    })
}

/// The limit that a call begins with: `{"seconds": 1.5, …`.
fn seconds_of(message: &[u8]) -> Option<Duration> {
    let rest = message.strip_prefix(b"{\"seconds\": ")?;
    let end = rest.iter().position(|byte| *byte == b',')?;
    let seconds = std::str::from_utf8(&rest[..end]).ok()?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// An exception's name as an identifier of at most 64 letters: a program can name a class as it likes.
fn identifier(name: &str) -> String {
    let is_plain = name
        .chars()
        .all(|each| each.is_ascii_alphanumeric() || each == '_' || each == '.');
    if is_plain && name.len() <= 64 && !RESERVED.contains(&name) {
        name.to_owned()
    } else {
        "execution_error".to_owned()
    }
}

/// The program's answer to a message, or the verdict on a program that gives none.
async fn ask(solution: &mut SandboxedPython, message: &[u8]) -> Result<Vec<u8>, Verdict> {
    let answer = match solution.write(message).await {
        Ok(()) => solution.read().await,
        Err(_) => Ok(None),
    };
    match answer {
        Ok(Some(answer)) => Ok(answer),
        Err(message) => Err(Verdict::failed("execution_error", message)),
        Ok(None) => {
            let how = solution.exit().await;
            // SIGXCPU: the limit of processor time.
            let is_late = how.contains("signal 24");
            let kind = if is_late {
                "execution_timeout"
            } else {
                "execution_error"
            };
            Err(Verdict::failed(
                kind,
                format!("the program ended before its tests were done ({how})"),
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_cannot_choose_what_its_failure_is_called() {
        assert_eq!(identifier("AssertionError"), "AssertionError");
        assert_eq!(identifier("json.JSONDecodeError"), "json.JSONDecodeError");
        for name in [
            "simulator_rejected",
            "",
            "a|b",
            "\u{1b}[31mred",
            "=HYPERLINK()",
            &"x".repeat(65),
            "é",
        ] {
            assert_eq!(identifier(name), "execution_error", "{name:?}");
        }
    }

    #[test]
    fn a_call_says_how_long_it_may_take() {
        assert_eq!(
            seconds_of(b"{\"seconds\": 1.5, \"do\": \"call\"}"),
            Some(Duration::from_millis(1500))
        );
        assert_eq!(seconds_of(b"{\"do\": \"call\", \"seconds\": 1.5, "), None);
        assert_eq!(seconds_of(b"{\"seconds\": -1, "), None);
    }
}
