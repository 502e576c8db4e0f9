//! Runs generated programs and finds out whether they are right.
//!
//! A problem's tests and the program that is tested run in two sandboxes, and only plain values pass between them: the
//! checker calls a function, its arguments go over as data, and what comes back is numbers, texts and collections of
//! them. The program never sees the tests, and what it prints, patches or leaves early has nobody to deceive.

mod jail;
mod layers;
mod seccomp;

pub(crate) use jail::child;
pub(crate) use layers::Layers;

use jail::{OUTER, Spec, Told};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

const CHECKER: &str = concat!(include_str!("values.py"), include_str!("checker.py"));
const SOLUTION: &str = concat!(include_str!("values.py"), include_str!("solution.py"));
const PROBE: &str = include_str!("probe.py");
/// The longest message between the two, in bytes; a program that answers more has failed.
const LONGEST_MESSAGE: u64 = 32 << 20;
/// How long Python may take to begin.
const START: Duration = Duration::from_secs(30);

/// What is to be judged.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Task<'a> {
    /// The same program, as it may have been meant; the first that is Python counts.
    pub(crate) programs: &'a [String],
    /// The function that is asked for, where it is known.
    pub(crate) entry_point: Option<&'a str>,
    /// Code of the data set's that tests may refer to.
    pub(crate) setup: &'a str,
    #[serde(flatten)]
    pub(crate) tests: &'a Tests,
}

/// How a problem is tested.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Tests {
    /// Code that defines `check(candidate)` (HumanEval).
    Check { code: String },
    /// Code that is run as it is, and calls what it tests by name (MBPP).
    Script { code: String },
    /// Arguments, for which the answers must be those of the data set's own solution (EvalPlus).
    Inputs {
        solution: String,
        inputs: Vec<Value>,
        atol: f64,
    },
}

/// What became of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Passed,
    Failed {
        /// `execution_error`, `execution_timeout`, or an exception's name.
        kind: String,
        message: String,
    },
}

/// Where generated programs run.
#[derive(Debug, Clone)]
pub(crate) struct Sandbox {
    python: PathBuf,
    files: Vec<PathBuf>,
    limits: Limits,
    must_hold: bool,
}

/// What a program may use.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// From its first line to the end of its tests.
    pub(crate) wall: Duration,
    pub(crate) memory_bytes: u64,
}

/// What a trial of the sandbox found.
#[derive(Debug)]
pub(crate) struct Trial {
    pub(crate) python: String,
    pub(crate) layers: Layers,
    /// Attempts to get out, and those that got out.
    pub(crate) attempts: usize,
    pub(crate) escaped: Vec<String>,
}

#[derive(Deserialize)]
struct Interpreter {
    python: PathBuf,
    version: String,
    files: Vec<PathBuf>,
}

#[derive(Deserialize)]
struct Probed {
    attempts: usize,
    escaped: Vec<String>,
}

impl Sandbox {
    /// Finds Python, and tries the sandbox out with a program that wants to get out of it.
    pub(crate) async fn prepare(python: &str, limits: Limits, must_hold: bool) -> Result<(Self, Trial), String> {
        let found = interpreter(python).await?;
        let sandbox = Self {
            python: found.python,
            files: found.files,
            limits,
            must_hold,
        };
        let mut probe = sandbox.start(PROBE).await?;
        let line = tokio::time::timeout(START, probe.read())
            .await
            .map_err(|_| "Python does not begin in the sandbox".to_owned())?;
        let Ok(Some(line)) = line else {
            return Err(format!("Python does not run in the sandbox: {}", probe.ended().await));
        };
        let probed: Probed = serde_json::from_slice(&line).map_err(|error| format!("the sandbox's trial: {error}"))?;
        let trial = Trial {
            python: found.version,
            layers: probe.layers.clone(),
            attempts: probed.attempts,
            escaped: probed.escaped,
        };
        if must_hold && !trial.escaped.is_empty() {
            return Err(format!("the sandbox let out: {}", trial.escaped.join(", ")));
        }
        Ok((sandbox, trial))
    }

    /// Tests a program. An error is the sandbox's own.
    pub(crate) async fn judge(&self, task: &Task<'_>) -> Result<Verdict, String> {
        let (checker, solution) = tokio::join!(self.start(CHECKER), self.start(SOLUTION));
        let (mut checker, mut solution) = (checker?, solution?);
        let ready = tokio::time::timeout(START, async { (checker.read().await, solution.read().await) });
        let ready = ready
            .await
            .map_err(|_| "Python does not begin in the sandbox".to_owned())?;
        if !matches!(ready, (Ok(Some(_)), Ok(Some(_)))) {
            return Err(format!("Python does not run in the sandbox: {}", checker.ended().await));
        }
        let judged = tokio::time::timeout(self.limits.wall, relay(&mut checker, &mut solution, task)).await;
        let verdict = judged.unwrap_or_else(|_| {
            let seconds = self.limits.wall.as_secs_f64();
            Ok(failed("execution_timeout", format!("still running after {seconds} s")))
        });
        tokio::join!(checker.end(), solution.end());
        verdict
    }

    async fn start(&self, program: &str) -> Result<Running, String> {
        let dir = TempDir::with_prefix("sluice-eval-").map_err(|error| format!("a private directory: {error}"))?;
        let spec = Spec {
            python: self.python.clone(),
            files: self.files.clone(),
            dir: dir.path().to_owned(),
            program: program.to_owned(),
            memory_bytes: self.limits.memory_bytes,
            cpu_seconds: self.limits.wall.as_secs() + 2,
            must_hold: self.must_hold,
            layers: Layers::default(),
        };
        let spec = serde_json::to_string(&spec).map_err(|error| error.to_string())?;
        let mut child = Command::new("/proc/self/exe")
            .args([OUTER, &spec])
            .env_clear()
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("a sandbox: {error}"))?;
        let (Some(input), Some(output), Some(errors)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err("a sandbox without pipes".to_owned());
        };
        let mut running = Running {
            child,
            input,
            output: BufReader::new(output),
            errors: BufReader::new(errors),
            layers: Layers::default(),
            _dir: dir,
        };
        running.hear_layers().await?;
        Ok(running)
    }
}

/// Python in a sandbox.
#[derive(Debug)]
struct Running {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    errors: BufReader<ChildStderr>,
    layers: Layers,
    _dir: TempDir,
}

impl Running {
    async fn hear_layers(&mut self) -> Result<(), String> {
        let mut line = Vec::new();
        let mut bounded = (&mut self.errors).take(1 << 16);
        let heard = tokio::time::timeout(START, bounded.read_until(b'\n', &mut line)).await;
        heard
            .map_err(|_| "the sandbox does not begin".to_owned())?
            .map_err(|error| error.to_string())?;
        let told: Told = serde_json::from_slice(&line)
            .map_err(|_| format!("the sandbox does not begin: {}", String::from_utf8_lossy(&line).trim()))?;
        self.layers = told.layers;
        match told.refused {
            None => Ok(()),
            Some(why) => {
                let open: Vec<String> = self.layers.lines().filter(|line| line.starts_with('D')).collect();
                Err(format!("the sandbox refuses to run: {why}\n{}", open.join("\n"))
                    .trim()
                    .to_owned())
            }
        }
    }

    /// The next message; `None` at the end.
    async fn read(&mut self) -> Result<Option<Vec<u8>>, String> {
        let mut line = Vec::new();
        let read = (&mut self.output)
            .take(LONGEST_MESSAGE)
            .read_until(b'\n', &mut line)
            .await;
        read.map_err(|error| error.to_string())?;
        match line.pop() {
            None => Ok(None),
            Some(b'\n') => Ok(Some(line)),
            Some(_) if line.len() as u64 + 1 == LONGEST_MESSAGE => {
                Err(format!("it answered more than {LONGEST_MESSAGE} bytes"))
            }
            Some(_) => Ok(None),
        }
    }

    async fn write(&mut self, message: &[u8]) -> std::io::Result<()> {
        self.input.write_all(message).await?;
        self.input.write_all(b"\n").await?;
        self.input.flush().await
    }

    /// How it has ended, and what it said.
    async fn ended(&mut self) -> String {
        let mut said = Vec::new();
        let _ = tokio::time::timeout(
            Duration::from_millis(200),
            (&mut self.errors).take(4096).read_to_end(&mut said),
        )
        .await;
        let status = tokio::time::timeout(Duration::from_millis(500), self.child.wait()).await;
        let how = match status {
            Ok(Ok(status)) => match (status.code(), status.signal()) {
                // The outer process tells a signal as a shell does.
                (Some(code), _) if code > 128 => format!("ended by signal {}", code - 128),
                (Some(code), _) => format!("exit code {code}"),
                (None, signal) => format!("ended by signal {}", signal.unwrap_or_default()),
            },
            _ => "not ended".to_owned(),
        };
        let said = String::from_utf8_lossy(&said);
        match said.trim().lines().last() {
            Some(last) => format!("{how}: {last}"),
            None => how,
        }
    }

    /// Ends it and all that it has begun.
    async fn end(&mut self) {
        if let Some(id) = self.child.id().and_then(|id| i32::try_from(id).ok()) {
            let group = nix::unistd::Pid::from_raw(id);
            let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
        }
        let _ = self.child.kill().await;
    }
}

fn failed(kind: &str, message: impl Into<String>) -> Verdict {
    Verdict::Failed {
        kind: kind.to_owned(),
        message: message.into(),
    }
}

#[derive(Deserialize)]
struct Judged {
    passed: bool,
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    message: String,
}

/// Carries calls from the checker to the program and answers back, until there is a verdict.
async fn relay(checker: &mut Running, solution: &mut Running, task: &Task<'_>) -> Result<Verdict, String> {
    let lost = |error: std::io::Error| format!("the checker is gone: {error}");
    let programs = json!({"programs": task.programs, "entry_point": task.entry_point});
    let loaded = match asked(solution, programs.to_string().as_bytes()).await {
        Ok(loaded) => loaded,
        Err(verdict) => return Ok(verdict),
    };
    let mut tests = serde_json::to_value(task).map_err(|error| error.to_string())?;
    if let Some(fields) = tests.as_object_mut() {
        fields.remove("programs");
    }
    checker.write(tests.to_string().as_bytes()).await.map_err(lost)?;
    checker.write(&loaded).await.map_err(lost)?;
    loop {
        let Some(message) = checker.read().await? else {
            return Ok(failed(
                "execution_error",
                format!("the tests came to no end ({})", checker.ended().await),
            ));
        };
        if message.starts_with(b"{\"passed\"") {
            let judged: Judged = serde_json::from_slice(&message).map_err(|error| format!("a verdict: {error}"))?;
            return Ok(if judged.passed {
                Verdict::Passed
            } else {
                failed(&judged.kind, judged.message)
            });
        }
        match asked(solution, &message).await {
            Ok(answer) => checker.write(&answer).await.map_err(lost)?,
            Err(verdict) => return Ok(verdict),
        }
    }
}

/// The program's answer to a message, or what is to be said of a program that gives none.
async fn asked(solution: &mut Running, message: &[u8]) -> Result<Vec<u8>, Verdict> {
    let answer = match solution.write(message).await {
        Ok(()) => solution.read().await,
        Err(_) => Ok(None),
    };
    match answer {
        Ok(Some(answer)) => Ok(answer),
        Err(message) => Err(failed("execution_error", message)),
        Ok(None) => {
            let how = solution.ended().await;
            // The limit of processor time says so with these signals.
            let is_late = how.contains("signal 24");
            let kind = if is_late {
                "execution_timeout"
            } else {
                "execution_error"
            };
            Err(failed(
                kind,
                format!("the program ended before its tests were done ({how})"),
            ))
        }
    }
}

/// Asks Python what it is made of.
async fn interpreter(python: &str) -> Result<Interpreter, String> {
    const ASK: &str = "import json, os, sys, sysconfig\n\
        paths = {sys.executable, os.path.realpath(sys.executable)}\n\
        paths |= {sysconfig.get_path(name) for name in ('stdlib', 'platstdlib', 'purelib', 'platlib')}\n\
        paths |= {os.path.join(sys.base_prefix, name) for name in ('lib', 'lib64')}\n\
        if sys.prefix != sys.base_prefix: paths.add(sys.prefix)\n\
        print(json.dumps({'python': sys.executable, 'version': sys.version.split()[0],\n\
            'files': sorted(path for path in paths if path and os.path.exists(path))}))";
    let output = Command::new(python)
        .args(["-I", "-c", ASK])
        .output()
        .await
        .map_err(|error| format!("cannot run `{python}`: {error}; install Python 3, or name it with --python"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!(
            "`{python}` is no Python 3 that runs: {}",
            said.trim().lines().last().unwrap_or_default()
        ));
    }
    let mut found: Interpreter =
        serde_json::from_slice(&output.stdout).map_err(|error| format!("`{python}` says: {error}"))?;
    let machine = [
        "/lib",
        "/lib64",
        "/usr/lib",
        "/usr/lib64",
        "/usr/local/lib",
        "/etc/ld.so.cache",
        "/dev/null",
        "/dev/urandom",
    ];
    found
        .files
        .extend(machine.into_iter().map(PathBuf::from).filter(|path| Path::exists(path)));
    Ok(found)
}
