//! Starts the real programs for black-box tests, and ends them. Knows the gateway only over HTTP and
//! by its files.

mod accounts;
pub mod authority;
mod batches;
pub mod humaneval;
pub mod identity_provider;
pub mod llama;
pub mod nginx;
pub mod postgres;
pub mod python;
pub mod redis;
pub mod silent_proxy;
pub mod upstream;

pub use accounts::ledger_agrees;

use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A running gateway in a directory of its own.
pub struct Gateway {
    child: Child,
    /// Its working directory, with `config/` and `data/`.
    pub dir: TempDir,
    /// `http://host:port` for clients.
    pub proxy: String,
    /// `http://host:port` for operators.
    pub admin: String,
    /// Talks to both.
    pub http: reqwest::Client,
}

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .expect("the repository is there")
}

/// A program of this workspace, built before the tests by `make test`.
pub fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test is a program");
    let beside = test
        .parent()
        .and_then(Path::parent)
        .expect("target/debug/deps/test")
        .join(name);
    assert!(
        is_current(&beside).unwrap_or(false),
        "{} is not built, or older than its sources; run `cargo build --workspace --bins` first, or `make test`",
        beside.display()
    );
    beside
}

/// Returns whether no source of a program has changed since it was built; cargo lists them beside it.
fn is_current(program: &Path) -> std::io::Result<bool> {
    let built = program.metadata()?.modified()?;
    let listed = std::fs::read_to_string(program.with_extension("d"))?;
    let sources = listed.split_once(": ").map_or("", |(_, sources)| sources);
    for source in sources.split_whitespace() {
        if Path::new(source).metadata()?.modified()? > built {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A directory with the repository's configuration, changed by `edit` (file name, text → text).
pub fn config_dir(edit: impl Fn(&str, String) -> String) -> TempDir {
    let dir = TempDir::new().expect("a temporary directory");
    std::fs::create_dir(dir.path().join("config")).expect("writable");
    for entry in std::fs::read_dir(root().join("config")).expect("config/") {
        let path = entry.expect("readable").path();
        let name = path.file_name().expect("a file").to_string_lossy().into_owned();
        let mut text = std::fs::read_to_string(&path).expect("readable");
        if name == "gateway.yaml" {
            // A scripted upstream hears nothing but a test's own requests.
            text.push_str("\nhealth:\n  interval_seconds: 0\n");
        }
        std::fs::write(dir.path().join("config").join(&name), edit(&name, text)).expect("writable");
    }
    dir
}

/// Limits that are in nobody's way, for tests of something else.
pub fn roomy(name: &str, text: String) -> String {
    match name {
        "limits.yaml" => text
            .replace("requests_per_minute: 60\n", "requests_per_minute: 1000000\n")
            .replace("tokens_per_minute: 250000\n", "tokens_per_minute: 1000000000000\n")
            .replace("max_active_requests: 50", "max_active_requests: 2000"),
        "projects.yaml" => text
            .replace("monthly_token_quota: 1000000\n", "monthly_token_quota: 1000000000000\n")
            .replace("monthly_budget_eur: 50\n", "monthly_budget_eur: 1000000\n")
            .replace("max_concurrent_requests: 5\n", "max_concurrent_requests: 2000\n"),
        _ => text,
    }
}

/// `models.yaml` with one model more, at an upstream of the test's.
pub fn with_model(text: &str, name: &str, backend: &str, base_url: &str, more: &str) -> String {
    format!(
        "{text}  {name}:\n    backend: {backend}\n    max_input_tokens: 8000000\n    max_output_tokens: 4096\n    \
         input_cost_per_1k_tokens_eur: 0.001\n    output_cost_per_1k_tokens_eur: 0.002\n    \
         endpoints: [{{base_url: \"{base_url}\"{more}}}]\n"
    )
}

/// Runs a program of this workspace to its end in a directory.
pub fn run(name: &str, dir: &Path, args: &[&str]) -> Output {
    Command::new(program(name))
        .args(args)
        .current_dir(dir)
        .output()
        .expect("it runs")
}

/// The same, while the test goes on with what else it does.
pub async fn run_aside(name: &str, dir: &Path, args: &[&str]) -> Output {
    let (name, dir) = (name.to_owned(), dir.to_owned());
    let args: Vec<String> = args.iter().map(ToString::to_string).collect();
    let output = tokio::task::spawn_blocking(move || {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        run(&name, &dir, &args)
    });
    output.await.expect("no panic")
}

/// Runs `sluice` to its end in a directory.
pub fn sluice(dir: &Path, args: &[&str]) -> Output {
    Command::new(program("sluice"))
        .args(args)
        .current_dir(dir)
        .output()
        .expect("sluice runs")
}

impl Gateway {
    /// Moves what an ended gateway has left into a directory where the next can start.
    pub fn left(&self) -> TempDir {
        let next = TempDir::new().expect("a temporary directory");
        for part in ["config", "data"] {
            std::fs::rename(self.dir.path().join(part), next.path().join(part)).expect("moved");
        }
        // A killed one leaves it.
        let _ = std::fs::remove_file(next.path().join("data/sluice.addr"));
        next
    }

    /// Starts with the repository's configuration and roomy limits.
    pub async fn start() -> Self {
        Self::start_in(config_dir(roomy), &[]).await
    }

    /// Starts with one model more, at an upstream of the test's.
    pub async fn with_upstream(backend: &str, base_url: &str, more: &str) -> Self {
        let dir = config_dir(|name, text| match name {
            "models.yaml" => with_model(&text, "tested", backend, base_url, more),
            _ => roomy(name, text),
        });
        Self::start_in(dir, &[]).await
    }

    /// Starts in a directory that has `config/`, and waits until it is ready.
    pub async fn start_in(dir: TempDir, flags: &[&str]) -> Self {
        Self::start_with(dir, flags, &[]).await
    }

    /// The same with environment variables.
    pub async fn start_with(dir: TempDir, flags: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut command = Command::new(program("sluice"));
        command.envs(variables.iter().copied());
        Self::start_by(command, dir, flags).await
    }

    /// The same by another program, which becomes `sluice` with the arguments that follow its own.
    pub async fn start_by(mut command: Command, dir: TempDir, flags: &[&str]) -> Self {
        let log = std::fs::File::create(dir.path().join("sluice.log")).expect("writable");
        let child = command
            .args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
            .args(flags)
            .env("SLUICE_ADMIN_TOKEN", "admin-of-the-test")
            .env("UPSTREAM_KEY", "sk-up")
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("sluice starts");
        let mut gateway = Self {
            child,
            dir,
            proxy: String::new(),
            admin: String::new(),
            http: reqwest::Client::new(),
        };
        gateway.wait_until_ready().await;
        gateway
    }

    async fn wait_until_ready(&mut self) {
        let file = self.dir.path().join("data/sluice.addr");
        let give_up = Instant::now() + Duration::from_secs(30);
        loop {
            let written = std::fs::read_to_string(&file)
                .ok()
                .and_then(|text| serde_json::from_str::<Value>(&text).ok());
            if let Some(addresses) = written {
                self.proxy = format!("http://{}", addresses["proxy"].as_str().expect("an address"));
                self.admin = format!("http://{}", addresses["admin"].as_str().expect("an address"));
                return;
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("sluice ended with {status}: {}", self.log());
            }
            assert!(Instant::now() < give_up, "sluice is not ready: {}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("sluice.log")).unwrap_or_default()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `host:port` of the proxy listener.
    pub fn address(&self) -> &str {
        self.proxy.trim_start_matches("http://")
    }

    /// Posts JSON to the proxy.
    pub async fn post(&self, path: &str, body: &Value) -> reqwest::Response {
        self.http
            .post(format!("{}{path}", self.proxy))
            .json(body)
            .send()
            .await
            .expect("an answer")
    }

    /// Reads JSON from the admin listener.
    pub async fn admin_json(&self, path: &str) -> Value {
        let answer = as_admin(self.http.get(format!("{}{path}", self.admin))).await;
        answer.json().await.expect("JSON")
    }

    /// The newest records, newest first.
    pub async fn records(&self) -> Vec<Value> {
        self.admin_json("/usage/recent?limit=1000")
            .await
            .as_array()
            .expect("a list")
            .clone()
    }

    /// The records, once there are so many; they come a moment after an aborted request.
    pub async fn wait_for_records(&self, count: usize) -> Vec<Value> {
        wait_for("records", || async {
            let records = self.records().await;
            (records.len() >= count).then_some(records)
        })
        .await
    }

    /// A metric's value, by its name with labels, or by the beginning of it.
    pub async fn metric(&self, name: &str) -> f64 {
        let text = self
            .http
            .get(format!("{}/metrics", self.admin))
            .send()
            .await
            .expect("an answer");
        metric(&text.text().await.expect("text"), name)
    }

    /// The first column of a query's rows in its SQLite database, a row a line.
    pub fn query_sqlite(&self, sql: &str) -> String {
        let script = "import sqlite3, sys; c = sqlite3.connect('data/usage.db'); \
            print('\\n'.join(str(row[0]) for row in c.execute(sys.argv[1])))";
        let answer = Command::new("python3")
            .args(["-c", script, sql])
            .current_dir(self.dir.path())
            .output()
            .expect("python runs");
        assert!(answer.status.success(), "{answer:?}");
        String::from_utf8_lossy(&answer.stdout).trim_end().to_owned()
    }

    /// Sends a signal by name, such as TERM.
    pub fn signal(&self, name: &str) {
        let done = Command::new("kill")
            .args([format!("-{name}"), self.pid().to_string()])
            .status();
        assert!(done.expect("kill runs").success());
    }

    /// Waits for its end; the exit code.
    pub async fn ended(&mut self) -> Option<i32> {
        let give_up = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status.code();
            }
            assert!(Instant::now() < give_up, "sluice does not end");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- sluice's log\n{}", self.log());
        }
    }
}

/// A program that ends with its test.
pub struct Ends(pub Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sends a request with the admin token.
pub async fn as_admin(request: reqwest::RequestBuilder) -> reqwest::Response {
    request
        .bearer_auth("admin-of-the-test")
        .send()
        .await
        .expect("an answer")
}

/// All that comes of a body, and whether it ends as it should: the text of a broken stream is not lost.
pub async fn all_that_comes(mut answer: reqwest::Response) -> (String, bool) {
    let mut text = String::new();
    loop {
        match answer.chunk().await {
            Ok(Some(piece)) => text.push_str(&String::from_utf8_lossy(&piece)),
            Ok(None) => return (text, true),
            Err(_) => return (text, false),
        }
    }
}

/// Asks again and again, for a minute, until there is an answer.
pub async fn wait_for<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let give_up = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < give_up, "no {what} in a minute");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A value in Prometheus's text; 0 where the metric has not been seen.
pub fn metric(text: &str, name: &str) -> f64 {
    let lines = text.lines().filter(|line| line.starts_with(name));
    lines
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum()
}

/// A simulated upstream of its own process.
pub struct Simulated {
    child: Child,
    /// `http://host:port`.
    pub url: String,
}

impl Simulated {
    /// Starts with models such as `small=0.5`.
    pub fn start(models: &[&str]) -> Self {
        Self::start_at("127.0.0.1:0", models)
    }

    /// The same at an address that is known.
    pub fn start_at(listen: &str, models: &[&str]) -> Self {
        let models = models.iter().flat_map(|model| ["--model", model]);
        Self::start_with(&["--listen", listen].into_iter().chain(models).collect::<Vec<_>>())
    }

    /// The same with any flags.
    pub fn start_with(flags: &[&str]) -> Self {
        let mut command = Command::new(program("simulated-upstream"));
        command.args(flags);
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .expect("simulated-upstream starts");
        let mut said = String::new();
        let out = child.stdout.take().expect("piped");
        BufReader::new(out).read_line(&mut said).expect("readable");
        let url = said
            .split_whitespace()
            .find(|word| word.starts_with("http://"))
            .expect("it says where")
            .to_owned();
        Self { child, url }
    }

    /// One of its own metrics.
    pub async fn metric(&self, name: &str) -> f64 {
        let text = reqwest::get(format!("{}/metrics", self.url))
            .await
            .expect("an answer")
            .text()
            .await;
        metric(&text.expect("text"), name)
    }
}

impl Drop for Simulated {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
