//! A real PostgreSQL of the test's own, which `tests/setup test` has installed.

use std::fs::Permissions;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A running server with an empty database.
pub struct Postgres {
    child: Option<Child>,
    dir: TempDir,
    port: u16,
    /// It speaks TLS, and accepts nothing else from TCP connections.
    has_tls: bool,
    /// `postgres://…`.
    pub url: String,
}

fn programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is installed; run `tests/setup test`");
    let newest = versions.filter_map(|entry| Some(entry.ok()?.path().join("bin"))).max();
    newest.expect("a version of PostgreSQL")
}

/// The server refuses to run as root; then it runs as the user that its package has made.
fn command(program: &str) -> Command {
    let path = programs().join(program);
    let is_root = Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|id| id.stdout.starts_with(b"0\n"));
    if !is_root {
        return Command::new(path);
    }
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=postgres", "--regid=postgres", "--clear-groups"])
        .arg(path);
    command
}

impl Postgres {
    /// Makes a server's files and starts it on a free port.
    pub fn start() -> Self {
        Self::start_with(None)
    }

    /// The same with a certificate and its key (PEM); the server refuses TCP connections without TLS.
    pub fn start_with_tls(certificate: &Path, key: &Path) -> Self {
        Self::start_with(Some((certificate, key)))
    }

    fn start_with(tls: Option<(&Path, &Path)>) -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let _ = Command::new("chown").arg("postgres").arg(dir.path()).status();
        let made = command("initdb")
            .arg("-D")
            .arg(dir.path().join("data"))
            .args(["-A", "trust", "-U", "sluice", "--no-sync", "-E", "UTF8", "--locale=C"])
            .current_dir("/")
            .output()
            .expect("initdb runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = free.local_addr().expect("bound").port();
        drop(free);
        let mut server = Self {
            child: None,
            dir,
            port,
            has_tls: tls.is_some(),
            url: format!("postgres://sluice@127.0.0.1:{port}/postgres"),
        };
        if let Some((certificate, key)) = tls {
            server.demand_tls(certificate, key);
        }
        server.run();
        server
    }

    /// Puts certificate and key where the server reads them, and lets nobody in without TLS.
    fn demand_tls(&self, certificate: &Path, key: &Path) {
        let data = self.dir.path().join("data");
        for (from, to) in [(certificate, "server.crt"), (key, "server.key")] {
            let to = data.join(to);
            std::fs::copy(from, &to).expect("copied");
            std::fs::set_permissions(&to, Permissions::from_mode(0o600)).expect("ours");
            let _ = Command::new("chown").arg("postgres").arg(&to).status();
        }
        let rules = "local all all trust\nhostssl all all 127.0.0.1/32 trust\n";
        std::fs::write(data.join("pg_hba.conf"), rules).expect("writable");
    }

    /// Starts it again.
    pub fn run(&mut self) {
        let log = std::fs::File::create(self.dir.path().join("log")).ok();
        let child = command("postgres")
            .args(["-c", if self.has_tls { "ssl=on" } else { "ssl=off" }])
            .arg("-D")
            .arg(self.dir.path().join("data"))
            .args([
                "-p",
                &self.port.to_string(),
                "-c",
                "listen_addresses=127.0.0.1",
                "-c",
                "max_connections=50",
            ])
            .arg("-k")
            .arg(self.dir.path())
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.map_or_else(Stdio::null, Stdio::from))
            .spawn()
            .expect("postgres starts");
        self.child = Some(child);
        let give_up = Instant::now() + Duration::from_secs(30);
        while !self.ask("SELECT 1").status.success() {
            assert!(Instant::now() < give_up, "postgres is not ready");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Stops it, cutting its connections.
    pub fn stop(&mut self) {
        self.end("-INT");
    }

    /// Ends it at once, as a crash does: its next start recovers from its log.
    pub fn crash(&mut self) {
        self.end("-QUIT");
    }

    fn end(&mut self, signal: &str) {
        if let Some(mut child) = self.child.take() {
            let _ = Command::new("kill").args([signal, &child.id().to_string()]).status();
            let _ = child.wait();
        }
    }

    /// The first column of a query's rows.
    pub fn column(&self, sql: &str) -> Vec<String> {
        let output = self.ask(sql);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .map(str::to_owned)
            .collect()
    }

    fn ask(&self, sql: &str) -> std::process::Output {
        let psql = Command::new(programs().join("psql"))
            .args([&self.url, "-At", "-c", sql])
            .output();
        psql.expect("psql runs")
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
    }
}
