//! Runs nginx for tests.

use std::path::Path;
use std::process::Command;

/// The command that serves a `server` block, and what stands beside it in `http`. It is one process, which ends with the
/// test, and keeps its files in `dir`.
pub fn command(dir: &Path, server: &str) -> Command {
    let at = dir.display();
    let is_root = Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|id| id.stdout.starts_with(b"0\n"));
    let user = if is_root { "user root;" } else { "" };
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {at}/{kind};\n"))
        .concat();
    let all = format!(
        "{user}\npid {at}/nginx.pid;\nerror_log stderr;\nevents {{}}\nhttp {{\naccess_log off;\n{temporary}{server}}}\n"
    );
    let file = dir.join("nginx.conf");
    std::fs::write(&file, all).expect("writable");
    let mut command = Command::new("nginx");
    command
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .args(["-p", &at.to_string(), "-e", "stderr"])
        .args(["-g", "daemon off; master_process off;", "-c"])
        .arg(file);
    command
}
