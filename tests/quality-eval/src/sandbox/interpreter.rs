//! The Python that runs programs, and the files that it needs.

use serde::Deserialize;
use std::path::{Path, PathBuf};
use tokio::process::Command;

/// Files of the machine that any Python needs.
const MACHINE: [&str; 8] = [
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/etc/ld.so.cache",
    "/dev/null",
    "/dev/urandom",
];
const DESCRIBE: &str = "import json, os, sys, sysconfig\n\
    paths = {sys.executable, os.path.realpath(sys.executable)}\n\
    paths |= {sysconfig.get_path(name) for name in ('stdlib', 'platstdlib', 'purelib', 'platlib')}\n\
    paths |= {os.path.join(sys.base_prefix, name) for name in ('lib', 'lib64')}\n\
    if sys.prefix != sys.base_prefix: paths.add(sys.prefix)\n\
    print(json.dumps({'python': sys.executable, 'version': sys.version.split()[0],\n\
        'files': sorted(path for path in paths if path and os.path.exists(path))}))";

#[derive(Deserialize)]
pub(super) struct Interpreter {
    pub(super) python: PathBuf,
    pub(super) version: String,
    pub(super) files: Vec<PathBuf>,
}

/// Asks Python what it consists of.
pub(super) async fn find(python: &str) -> Result<Interpreter, String> {
    let output = Command::new(python)
        .args(["-I", "-c", DESCRIBE])
        .output()
        .await
        .map_err(|error| format!("cannot run `{python}`: {error}; install Python 3, or name it with --python"))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Err(format!(
            "`{python}` is no Python 3 that runs: {}",
            errors.trim().lines().last().unwrap_or_default()
        ));
    }
    let mut found: Interpreter =
        serde_json::from_slice(&output.stdout).map_err(|error| format!("`{python}` describes itself: {error}"))?;
    let machine = MACHINE.into_iter().map(PathBuf::from);
    found.files.extend(machine.filter(|path| Path::exists(path)));
    Ok(found)
}
