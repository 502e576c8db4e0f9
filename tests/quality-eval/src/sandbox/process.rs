//! A Python process in the sandbox, seen from outside: started, talked to by lines, and ended with all that it has
//! begun.

use super::START;
use super::jail::{OUTER, SetUp, Spec};
use super::layers::Layers;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

/// The longest message from a sandbox, in bytes; a program that answers more has failed.
const LONGEST_MESSAGE: u64 = 32 << 20;

/// Python in a sandbox.
#[derive(Debug)]
pub(super) struct SandboxedPython {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    errors: BufReader<ChildStderr>,
    pub(super) layers: Layers,
    _dir: TempDir,
}

impl SandboxedPython {
    /// Starts it in a directory of its own.
    pub(super) async fn start(mut spec: Spec) -> Result<Self, String> {
        let dir = TempDir::with_prefix("sluice-eval-").map_err(|error| format!("a private directory: {error}"))?;
        dir.path().clone_into(&mut spec.dir);
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
        let mut python = Self {
            child,
            input,
            output: BufReader::new(output),
            errors: BufReader::new(errors),
            layers: Layers::default(),
            _dir: dir,
        };
        python.await_set_up().await?;
        Ok(python)
    }

    /// Waits until the layers stand.
    async fn await_set_up(&mut self) -> Result<(), String> {
        let mut line = Vec::new();
        let mut bounded = (&mut self.errors).take(1 << 16);
        let read = tokio::time::timeout(START, bounded.read_until(b'\n', &mut line)).await;
        read.map_err(|_| "the sandbox does not start".to_owned())?
            .map_err(|error| error.to_string())?;
        let set_up: SetUp = serde_json::from_slice(&line)
            .map_err(|_| format!("the sandbox does not start: {}", String::from_utf8_lossy(&line).trim()))?;
        self.layers = set_up.layers;
        match set_up.refused {
            None => Ok(()),
            Some(why) => Err(format!(
                "the sandbox refuses to run: {why}\n{}",
                self.layers.missing().join("\n")
            )
            .trim()
            .to_owned()),
        }
    }

    /// The next message; `None` at the end.
    pub(super) async fn read(&mut self) -> Result<Option<Vec<u8>>, String> {
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

    pub(super) async fn write(&mut self, message: &[u8]) -> std::io::Result<()> {
        self.input.write_all(message).await?;
        self.input.write_all(b"\n").await?;
        self.input.flush().await
    }

    /// The exit status, and the last line of its standard error.
    pub(super) async fn exit(&mut self) -> String {
        let mut errors = Vec::new();
        let _ = tokio::time::timeout(
            Duration::from_millis(200),
            (&mut self.errors).take(4096).read_to_end(&mut errors),
        )
        .await;
        let status = tokio::time::timeout(Duration::from_millis(500), self.child.wait()).await;
        let how = match status {
            Ok(Ok(status)) => match (status.code(), status.signal()) {
                // The outer process reports a signal as a shell does.
                (Some(code), _) if code > 128 => format!("ended by signal {}", code - 128),
                (Some(code), _) => format!("exit code {code}"),
                (None, signal) => format!("ended by signal {}", signal.unwrap_or_default()),
            },
            _ => "not ended".to_owned(),
        };
        let errors = String::from_utf8_lossy(&errors);
        match errors.trim().lines().last() {
            Some(last) => format!("{how}: {last}"),
            None => how,
        }
    }

    /// Ends it and all that it has begun.
    pub(super) async fn end(&mut self) {
        if let Some(id) = self.child.id().and_then(|id| i32::try_from(id).ok()) {
            let group = nix::unistd::Pid::from_raw(id);
            let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
        }
        let _ = self.child.kill().await;
    }
}
