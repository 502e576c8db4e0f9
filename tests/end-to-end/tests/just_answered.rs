//! Kills just before the answer of a detached request is written with its record, and just after it: the answer is kept,
//! and charged once. Before, the request runs again, and it is charged once, too.

use end_to_end::upstream::{Scripted, WHOLE};
use end_to_end::{Gateway, config_dir, ledger_agrees, roomy, wait_for, with_model};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use tempfile::TempDir;

/// The text of [`WHOLE`].
const TEXT: &str = "hello";

struct World {
    gateway: Gateway,
    _upstream: Scripted,
    /// Requests that the server has answered.
    answered: Arc<AtomicUsize>,
    faults: TempDir,
}

impl World {
    /// A gateway at a server that answers at once; `status` and `body` say what.
    async fn start(status: &'static str, body: &'static str) -> Self {
        let answered = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&answered);
        let upstream = Scripted::start(move |mut connection| {
            let count = Arc::clone(&count);
            async move {
                while connection.read_request().await {
                    connection.answer(status, body).await;
                    count.fetch_add(1, Relaxed);
                }
            }
        })
        .await;
        let dir = config_dir(|name, text| match name {
            "models.yaml" => with_model(&text, "tested", "openai", &upstream.url, ""),
            _ => roomy(name, text),
        });
        let faults = TempDir::new().expect("a temporary directory");
        Self {
            gateway: begin(dir, &faults).await,
            _upstream: upstream,
            answered,
            faults,
        }
    }

    /// The next request that reaches the step stays there.
    fn hold(&self, step: &str) {
        std::fs::write(self.faults.path().join("fault"), format!("hold {step}")).expect("writable");
    }

    /// Kills the gateway while the request is held, and starts the next.
    async fn kill_held(&mut self) {
        let reached = self.faults.path().join("fault.reached");
        wait_for("request at the step", || async { reached.exists().then_some(()) }).await;
        self.gateway.signal("KILL");
        self.gateway.ended().await;
        std::fs::remove_file(reached).expect("a held request");
        self.gateway = begin(self.gateway.left(), &self.faults).await;
    }

    /// One record of the status, and counters that are the ledger's.
    async fn assert_recorded_once(&self, status: &str) {
        let records = self.gateway.wait_for_records(1).await;
        assert_eq!(
            (records.len(), &records[0]["status"]),
            (1, &json!(status)),
            "{records:?}"
        );
        ledger_agrees(&self.gateway).await;
    }

    async fn ended_response(&self, id: &str) -> Value {
        wait_for("the end of the response", || async {
            let url = format!("{}/v1/responses/{id}", self.gateway.proxy);
            let shown: Value = self.gateway.http.get(url).send().await.ok()?.json().await.ok()?;
            (!matches!(shown["status"].as_str(), Some("queued" | "in_progress"))).then_some(shown)
        })
        .await
    }
}

async fn begin(dir: TempDir, faults: &TempDir) -> Gateway {
    let file = faults.path().join("fault").to_string_lossy().into_owned();
    Gateway::start_with(dir, &[], &[("SLUICE_FAULT_FILE", &file)]).await
}

/// The step at which the gateway is killed, and how often the server is asked then.
const KILLS: [(&str, usize); 2] = [("recorded", 1), ("recording", 2)];

#[tokio::test(flavor = "multi_thread")]
async fn a_background_response_that_was_just_answered_survives_a_kill() {
    for (step, asked) in KILLS {
        let mut world = World::start("200 OK", WHOLE).await;
        world.hold(step);
        let body = json!({"model": "tested", "input": "Why?", "max_output_tokens": 9, "background": true});
        let accepted = world.gateway.post("/v1/responses", &body).await;
        let accepted: Value = accepted.json().await.expect("JSON");
        world.kill_held().await;
        let shown = world.ended_response(accepted["id"].as_str().expect("an id")).await;
        assert_eq!(shown["status"], "completed", "{shown}");
        assert_eq!(shown["output"][0]["content"][0]["text"], TEXT, "{shown}");
        assert_eq!(shown["id"], accepted["id"]);
        assert_eq!(world.answered.load(Relaxed), asked, "{step}");
        world.assert_recorded_once("completed").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_of_a_batch_that_was_just_answered_survives_a_kill() {
    for (step, asked) in KILLS {
        let mut world = World::start("200 OK", WHOLE).await;
        world.hold(step);
        let batch = world.gateway.start_batch("tested", 1).await;
        world.kill_held().await;
        let ended = world.gateway.ended_batch(&batch).await;
        let rows = world.gateway.batch_rows(&ended).await;
        assert_eq!(rows.len(), 1, "{rows:?}");
        assert_eq!(rows[0]["response"]["status_code"], 200, "{rows:?}");
        let text = &rows[0]["response"]["body"]["choices"][0]["message"]["content"];
        assert_eq!(text, TEXT, "{rows:?}");
        assert_eq!(world.answered.load(Relaxed), asked, "{step}");
        world.assert_recorded_once("completed").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_of_the_server_survives_a_kill_with_its_words() {
    let refusal = "{\"error\":{\"message\":\"temperature is too high\",\"type\":\"invalid_request_error\"}}";
    let mut world = World::start("400 Bad Request", refusal).await;
    world.hold("recorded");
    let batch = world.gateway.start_batch("tested", 1).await;
    world.kill_held().await;
    let ended = world.gateway.ended_batch(&batch).await;
    let rows = world.gateway.batch_rows(&ended).await;
    assert_eq!(rows[0]["response"]["status_code"], 400, "{rows:?}");
    assert_eq!(
        rows[0]["response"]["body"]["error"]["message"], "temperature is too high",
        "{rows:?}"
    );
    assert_eq!(world.answered.load(Relaxed), 1);
    world.assert_recorded_once("failed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_the_gateway_survives_a_kill_with_its_words() {
    let mut world = World::start("500 Oops", "{}").await;
    world.hold("recorded");
    let body = json!({"model": "tested", "input": "Why?", "max_output_tokens": 9, "background": true});
    let accepted = world.gateway.post("/v1/responses", &body).await;
    let accepted: Value = accepted.json().await.expect("JSON");
    world.kill_held().await;
    let shown = world.ended_response(accepted["id"].as_str().expect("an id")).await;
    assert_eq!(shown["status"], "failed", "{shown}");
    let message = shown["error"]["message"].as_str().expect("a message");
    assert!(message.contains("500") && !message.contains("lost"), "{shown}");
    world.assert_recorded_once("failed").await;
}
