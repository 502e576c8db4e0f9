//! Runs generated programs and finds out whether they are right.
//!
//! A problem's tests and the program that is tested run in two sandboxes, and only plain values pass between them: the
//! checker calls a function, its arguments go over as data, and what comes back is numbers, texts and collections of
//! them. The program never sees the tests, and its output, its patches and its exit are not trusted.

mod interpreter;
mod jail;
mod layers;
mod process;
mod relay;
mod seccomp;

pub(crate) use jail::child;
pub(crate) use layers::Layers;
pub(crate) use relay::{Judgement, Verdict};

use crate::extract::Block;
use process::SandboxedPython;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

const CHECKER: &str = concat!(
    include_str!("values.py"),
    include_str!("oracle.py"),
    include_str!("checker.py")
);
const SOLUTION: &str = concat!(
    include_str!("values.py"),
    include_str!("program.py"),
    include_str!("solution.py")
);
const PROBE: &str = include_str!("probe.py");
/// The time within which Python must start.
const START: Duration = Duration::from_secs(30);
/// The time that all inputs of an `EvalPlus` problem have together, as there (`EVALPLUS_TIMEOUT_PER_TASK`).
const ALL_INPUTS: Duration = Duration::from_secs(60);

/// A reply, and how it is judged.
#[derive(Debug, Clone)]
pub(crate) struct Task<'a> {
    /// The blocks of the reply, in each way in which it can be read, the likeliest first.
    pub(crate) readings: &'a [Vec<Block>],
    pub(crate) prompt: &'a str,
    /// True if the prompt is code that the reply may continue.
    pub(crate) is_code: bool,
    /// The function that is asked for, where it is known.
    pub(crate) entry_point: Option<&'a str>,
    /// Code of the data set's that tests may refer to.
    pub(crate) setup: &'a str,
    pub(crate) tests: &'a Tests,
    /// True if inputs that break the problem's contract are failures.
    pub(crate) checks_contract: bool,
}

/// The tests of a problem.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Tests {
    /// Code that defines `check(candidate)` (`HumanEval`).
    Check { code: String },
    /// Code that is run as it is, and calls what it tests by name (MBPP).
    Script { code: String },
    /// Arguments, for which the answers must be those of the data set's own solution (`EvalPlus`).
    Inputs {
        solution: String,
        /// The problem's JSON, unchanged: Python's numbers may exceed those of JSON libraries.
        row: String,
        /// `humaneval` or `mbpp`, which have special cases, or nothing.
        dataset: String,
        /// The number in the problem's name.
        number: u64,
        atol: f64,
        /// Assertions about the inputs, which are checked where the data set itself is.
        contract: String,
    },
    /// Arguments and answers as JSON, an argument a line (`LiveCodeBench`'s functions, and one's own tasks).
    Cases { cases: Vec<Case>, atol: f64 },
    /// Inputs of a script and the outputs that it must print (`LiveCodeBench`'s scripts, and one's own tasks).
    Stdin { cases: Vec<Case> },
}

/// An input and the output that is expected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Case {
    pub(crate) input: String,
    pub(crate) output: String,
}

/// Where generated programs run.
#[derive(Debug, Clone)]
pub(crate) struct Sandbox {
    python: PathBuf,
    files: Vec<PathBuf>,
    limits: Limits,
    is_required: bool,
}

/// The limits of a program.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// From its first line to the end of its tests.
    pub(crate) wall: Duration,
    pub(crate) memory_bytes: u64,
}

/// The result of a trial of the sandbox.
#[derive(Debug)]
pub(crate) struct Trial {
    pub(crate) python: String,
    pub(crate) layers: Layers,
    /// The number of attempts to get out, and those that succeeded.
    pub(crate) attempts: usize,
    pub(crate) escaped: Vec<String>,
}

#[derive(Deserialize)]
struct ProbeResult {
    attempts: usize,
    escaped: Vec<String>,
}

impl Sandbox {
    /// Finds Python, and tries the sandbox out with a program that attempts to get out of it.
    pub(crate) async fn prepare(python: &str, limits: Limits, is_required: bool) -> Result<(Self, Trial), String> {
        let found = interpreter::find(python).await?;
        let sandbox = Self {
            python: found.python,
            files: found.files,
            limits,
            is_required,
        };
        let mut probe = sandbox.start(PROBE, limits.wall).await?;
        let line = tokio::time::timeout(START, probe.read())
            .await
            .map_err(|_| "Python does not start in the sandbox".to_owned())?;
        let Ok(Some(line)) = line else {
            return Err(format!("Python does not run in the sandbox: {}", probe.exit().await));
        };
        let result: ProbeResult =
            serde_json::from_slice(&line).map_err(|error| format!("the trial of the sandbox: {error}"))?;
        let trial = Trial {
            python: found.version,
            layers: probe.layers.clone(),
            attempts: result.attempts,
            escaped: result.escaped,
        };
        if is_required && !trial.escaped.is_empty() {
            return Err(format!(
                "the sandbox did not stop: {}; run on a machine with all of its layers, or accept this with \
                 --sandbox best-effort",
                trial.escaped.join(", ")
            ));
        }
        Ok((sandbox, trial))
    }

    /// Tests a reply. An error is the sandbox's own.
    pub(crate) async fn judge(&self, task: &Task<'_>) -> Result<Judgement, String> {
        let wall = match task.tests {
            Tests::Inputs { .. } => self.limits.wall.max(ALL_INPUTS),
            _ => self.limits.wall,
        };
        let (checker, solution) = tokio::join!(self.start(CHECKER, wall), self.start(SOLUTION, wall));
        let (mut checker, mut solution) = (checker?, solution?);
        let ready = tokio::time::timeout(START, async { (checker.read().await, solution.read().await) })
            .await
            .map_err(|_| "Python does not start in the sandbox".to_owned())?;
        if !matches!(ready, (Ok(Some(_)), Ok(Some(_)))) {
            return Err(format!("Python does not run in the sandbox: {}", checker.exit().await));
        }
        let mut relay = relay::Relay::new(&mut checker, &mut solution, self.limits.wall);
        let judgement = relay.run(task, wall).await;
        tokio::join!(checker.end(), solution.end());
        judgement
    }

    async fn start(&self, program: &str, wall: Duration) -> Result<SandboxedPython, String> {
        let spec = jail::Spec {
            python: self.python.clone(),
            files: self.files.clone(),
            dir: PathBuf::new(),
            program: program.to_owned(),
            memory_bytes: self.limits.memory_bytes,
            cpu_seconds: wall.as_secs() + 2,
            is_required: self.is_required,
            layers: Layers::default(),
        };
        SandboxedPython::start(spec).await
    }
}
