//! Random histories of the real gateway: requests of every operation and every end, cancelled ones, panics, kills, stops, reloads, projects that go and
//! come back, corrections, midnights, months' ends and clocks that are set back. After every step the counters are
//! those of the ledger's rows. `SLUICE_RUNS=50` runs as many histories as a release should stand; `SLUICE_SEED=7`
//! repeats one.

use end_to_end::upstream::{Connection, FINISH, Scripted, USAGE, WHOLE, delta};
use end_to_end::{Gateway, as_admin, config_dir, ledger_agrees, roomy, wait_for, with_model};
use futures_util::future::join_all;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;

/// Steps of a history.
const STEPS: usize = 25;

const DAY: i64 = 86_400;

const USERS: [&str; 2] = ["user_standard_01", "user_vip_01"];

/// The scripted server's behavior for a request with this message.
const SERVERS: [&str; 9] = [
    "fine", "fine", "fails", "limits", "nousage", "absurd", "negative", "slow", "breaks",
];

const STEPS_OF_A_REQUEST: [&str; 11] = [
    "received",
    "authenticated",
    "bodyread",
    "parsed",
    "resolved",
    "admitted",
    "forwarding",
    "answering",
    "settling",
    "recording",
    "recorded",
];

async fn serve(mut connection: Connection) {
    while connection.read_request().await {
        let request = connection.last_request();
        let is_stream = request.contains("\"stream\":true");
        let says = |name: &str| request.contains(&format!("\"{name}\""));
        let odd = |usage: &str| {
            WHOLE.replace(
                "\"prompt_tokens\":11,\"completion_tokens\":7,\"total_tokens\":18",
                usage,
            )
        };
        if says("slow") {
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
        if says("fails") {
            connection.answer("500 Oops", "{}").await;
        } else if says("limits") {
            connection.answer("429 Slow down", "{}").await;
        } else if is_stream {
            connection.begin_stream().await;
            connection.chunk(&delta("hello")).await;
            if says("breaks") {
                return;
            }
            let usage = if says("nousage") { "" } else { USAGE };
            connection.chunk(&format!("{FINISH}{usage}data: [DONE]\n\n")).await;
            connection.write("0\r\n\r\n").await;
        } else if says("breaks") {
            connection
                .write("HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{")
                .await;
            return;
        } else if says("nousage") {
            connection.answer("200 OK", &odd("")).await;
        } else if says("absurd") {
            let usage = "\"prompt_tokens\":18446744073709551615,\"completion_tokens\":99999999";
            connection.answer("200 OK", &odd(usage)).await;
        } else if says("negative") {
            connection
                .answer("200 OK", &odd("\"prompt_tokens\":-3,\"completion_tokens\":-7.5"))
                .await;
        } else {
            connection.answer("200 OK", WHOLE).await;
        }
    }
}

/// A path of every operation that takes JSON, and of every protocol.
const PATHS: [&str; 11] = [
    "/v1/chat/completions",
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
    "/v1/messages",
    "/v1/rerank",
    "/v1/score",
    "/api/chat",
    "/api/generate",
    "/generate",
];

/// A request's body for a path, without its model.
fn of_operation(path: &str, text: &str, tokens: usize) -> Value {
    match path {
        "/v1/completions" => json!({"prompt": [text, text], "max_tokens": tokens, "n": 2}),
        "/v1/embeddings" => json!({"input": [text, "more"]}),
        "/v1/responses" => json!({"input": text, "max_output_tokens": tokens, "store": true}),
        "/v1/rerank" => json!({"query": text, "documents": ["a", "b"]}),
        "/v1/score" => json!({"text_1": text, "text_2": ["a", "b"]}),
        "/api/generate" => json!({"prompt": text, "options": {"num_predict": tokens}}),
        "/generate" => json!({"prompt": text, "max_tokens": tokens}),
        _ => json!({"messages": [{"role": "user", "content": text}], "max_tokens": tokens}),
    }
}

/// A splitmix64 generator: a seed repeats a history.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % bound as u64).expect("below a usize")
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}

/// A gateway whose clock, faults and configuration a history sets.
struct World {
    gateway: Gateway,
    _upstream: Scripted,
    control: TempDir,
    random: Random,
    /// Seconds by which the gateway's wall clock is ahead.
    ahead: i64,
    /// The configuration as it was first.
    original: Vec<(PathBuf, String)>,
}

impl World {
    async fn start(seed: u64) -> Self {
        let upstream = Scripted::start(serve).await;
        let dir = config_dir(|name, text| match name {
            "models.yaml" => {
                let more = with_model(&text, "spare", "openai", &upstream.url, "");
                with_model(&more, "tested", "openai", &upstream.url, ", max_concurrent_requests: 3")
                    .replace("  tested:\n", "  tested:\n    fallbacks: [spare]\n")
            }
            _ => roomy(name, text),
        });
        let control = TempDir::new().expect("a temporary directory");
        std::fs::write(control.path().join("clock"), "0").expect("writable");
        let original = ["limits", "projects", "users"].map(|name| {
            let path = PathBuf::from(format!("config/{name}.yaml"));
            let text = std::fs::read_to_string(dir.path().join(&path)).expect("readable");
            (path, text)
        });
        Self {
            gateway: begin(dir, &control).await,
            _upstream: upstream,
            control,
            random: Random(seed),
            ahead: 0,
            original: original.to_vec(),
        }
    }

    /// Sends a request; whatever comes of it.
    async fn send(&mut self, within: Duration) {
        let request = self.request();
        let _ = tokio::time::timeout(within, async { request.await.ok()?.bytes().await.ok() }).await;
    }

    /// A random request, ready to be sent.
    fn request(&mut self) -> impl Future<Output = reqwest::Result<reqwest::Response>> + use<> {
        let path = self.random.pick(&PATHS);
        let text = self.random.pick(&SERVERS);
        let mut body = of_operation(path, text, 1 + self.random.below(40));
        body["model"] = self.random.pick(&["tested", "tested", "spare", "nowhere"]).into();
        if self.random.below(2) == 0 {
            body["stream"] = true.into();
        }
        self.sending(path, &body)
    }

    /// A request of a random user, some of them in a hurry.
    fn sending(
        &mut self,
        path: &str,
        body: &Value,
    ) -> impl Future<Output = reqwest::Result<reqwest::Response>> + use<> {
        let request = self.gateway.http.post(format!("{}{path}", self.gateway.proxy));
        let mut request = request.header("x-sluice-user", self.random.pick(&USERS));
        if self.random.below(8) == 0 {
            request = request.header("x-request-timeout-seconds", "0.05");
        }
        request.json(body).send()
    }

    /// Sends a background response, and cancels it before, while or after it runs.
    async fn cancel(&mut self) -> String {
        let path = "/v1/responses";
        let mut body = of_operation(path, self.random.pick(&["slow", "fine"]), 9);
        body["model"] = "tested".into();
        body["background"] = true.into();
        let Ok(answer) = self.sending(path, &body).await else {
            return "a lost request".into();
        };
        let id = answer.headers().get("x-sluice-request-id").cloned();
        tokio::time::sleep(Duration::from_millis(100 * self.random.below(6) as u64)).await;
        let id = id.as_ref().and_then(|id| id.to_str().ok()).unwrap_or("none");
        let url = format!("{}/requests/{id}", self.gateway.admin);
        let cancelled = as_admin(self.gateway.http.delete(url)).await.status();
        format!("a cancelled request: {cancelled}")
    }

    /// One step; its name.
    async fn step(&mut self) -> String {
        let patient = Duration::from_secs(30);
        match self.random.below(17) {
            0..=3 => {
                self.send(patient).await;
                "a request".into()
            }
            4 | 5 => {
                let several: Vec<_> = (0..6).map(|_| self.request()).collect();
                join_all(
                    several
                        .into_iter()
                        .map(|request| async { request.await.ok()?.bytes().await.ok() }),
                )
                .await;
                "requests at once".into()
            }
            6 => {
                self.send(Duration::from_millis(60)).await;
                "a client that may leave".into()
            }
            7 | 8 => {
                let step = self.random.pick(&STEPS_OF_A_REQUEST);
                let fault = self.control.path().join("fault");
                std::fs::write(&fault, format!("panic {step}")).expect("writable");
                self.send(patient).await;
                let _ = std::fs::remove_file(fault);
                format!("a panic at {step}")
            }
            9 => self.reload().await,
            10 => self.correct().await,
            11 => self.restart("TERM").await,
            12 => self.restart("KILL").await,
            13 => {
                let batch = self.gateway.start_batch("spare", 3).await;
                self.gateway.ended_batch(&batch).await;
                "a batch".into()
            }
            14 | 15 => self.cancel().await,
            _ => self.set_clock(),
        }
    }

    /// Changes limits, or takes a project and its users away, or restores everything.
    async fn reload(&mut self) -> String {
        let choice = self.random.below(3);
        for (path, text) in &self.original {
            let text = match choice {
                0 => text.replace("max_active_requests: 2000", "max_active_requests: 2"),
                1 => without(text, &["vip_project", "user_vip_01", "admin_01"]),
                _ => text.clone(),
            };
            std::fs::write(self.gateway.dir.path().join(path), text).expect("writable");
        }
        let request = self.gateway.http.post(format!("{}/config/reload", self.gateway.admin));
        let reloaded: Value = as_admin(request).await.json().await.expect("JSON");
        assert_eq!(reloaded["result"], "ok", "{reloaded}");
        format!("reload {choice}")
    }

    async fn correct(&mut self) -> String {
        let body = json!({"user": "user_standard_01", "model": "tested", "output_tokens": self.random.below(500),
            "cost_eur": 0.001, "reason": "a test"});
        let request = self
            .gateway
            .http
            .post(format!("{}/usage/corrections", self.gateway.admin))
            .json(&body);
        assert_eq!(as_admin(request).await.status(), 200);
        "a correction".into()
    }

    /// Ends the gateway while requests run, and starts the next.
    async fn restart(&mut self, signal: &str) -> String {
        let running: Vec<_> = (0..3).map(|_| tokio::spawn(self.request())).collect();
        tokio::time::sleep(Duration::from_millis(20 * self.random.below(20) as u64)).await;
        self.gateway.signal(signal);
        self.gateway.ended().await;
        for request in running {
            let _ = request.await;
        }
        self.gateway = begin(self.gateway.left(), &self.control).await;
        format!("a restart by {signal}")
    }

    /// Sets the clock to a moment before the next midnight, the end of the month, some days on, or back.
    fn set_clock(&mut self) -> String {
        let real = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("after 1970")
            .as_secs();
        let now = i64::try_from(real).expect("small") + self.ahead;
        let to_midnight = DAY - now % DAY;
        let by = match self.random.below(4) {
            0 => to_midnight - 1,
            1 => to_midnight + DAY * 40,
            2 => DAY + 3600,
            _ => -3600 * (1 + i64::try_from(self.random.below(40)).expect("small")),
        };
        self.ahead += by;
        let new = self.control.path().join("new");
        std::fs::write(&new, self.ahead.to_string()).expect("writable");
        std::fs::rename(new, self.control.path().join("clock")).expect("renamed");
        format!("the clock by {by} s")
    }

    /// Nothing runs, waits or is on its way into the ledger.
    async fn is_idle(&self) {
        wait_for("idle gateway", || async {
            let queue = self.gateway.admin_json("/queue/status").await;
            (queue["active_requests"] == 0 && queue["queue_size"] == 0).then_some(())
        })
        .await;
    }
}

async fn begin(dir: TempDir, control: &TempDir) -> Gateway {
    let file = |name: &str| control.path().join(name).to_string_lossy().into_owned();
    let variables = [
        ("SLUICE_FAULT_FILE", &*file("fault")),
        ("SLUICE_CLOCK_FILE", &file("clock")),
    ];
    Gateway::start_with(dir, &[], &variables).await
}

/// A file without the entries of these names, two spaces deep.
fn without(text: &str, names: &[&str]) -> String {
    let mut is_dropped = false;
    let kept = text.lines().filter(|line| {
        let is_entry = line.starts_with("  ") && !line.starts_with("   ");
        if is_entry || !line.starts_with(' ') {
            is_dropped = names.iter().any(|name| line.trim() == format!("{name}:"));
        }
        !is_dropped
    });
    kept.collect::<Vec<_>>().join("\n") + "\n"
}

async fn history(seed: u64) {
    let mut world = World::start(seed).await;
    let mut steps = Vec::new();
    for _ in 0..STEPS {
        steps.push(world.step().await);
        eprintln!("seed {seed}: {}", steps[steps.len() - 1]);
        world.is_idle().await;
        ledger_agrees(&world.gateway).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_equal_the_ledger_after_every_step_of_random_histories() {
    let variable = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    if let Some(seed) = variable("SLUICE_SEED") {
        return history(seed).await;
    }
    for seed in 0..variable("SLUICE_RUNS").unwrap_or(4) {
        history(seed).await;
    }
}
