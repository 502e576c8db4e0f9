//! `sluice stress`, `eval`, `simulate`: the program of that name beside this one, as cargo does.

use super::Failure;
use clap::Args;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

/// Whatever the program takes.
#[derive(Debug, Args)]
pub(super) struct ToolArgs {
    /// Arguments passed to the program.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(super) args: Vec<OsString>,
}

/// Becomes the program; comes back only if that fails.
pub(super) fn run(program: &str, args: &ToolArgs) -> Result<ExitCode, Failure> {
    let beside = std::env::current_exe()
        .ok()
        .and_then(|me| Some(me.parent()?.join(program)));
    let found = beside.filter(|path| path.exists()).unwrap_or_else(|| program.into());
    let error = Command::new(&found).args(&args.args).exec();
    Err(Failure::other(format!(
        "cannot run {}: {error}; build it with `make build`",
        found.display()
    )))
}
