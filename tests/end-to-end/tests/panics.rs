//! A panic at each step of a request: exactly one record, nothing held, and counters that say what the ledger says.

use end_to_end::upstream::{FINISH, Scripted, USAGE, WHOLE, delta};
use end_to_end::{Gateway, all_that_comes, config_dir, ledger_agrees, roomy, sluice, wait_for, with_model};
use serde_json::{Value, json};
use std::path::PathBuf;
use tempfile::TempDir;

/// Steps before a request is admitted: nothing was used.
const BEFORE_ADMISSION: [&str; 5] = ["received", "authenticated", "bodyread", "parsed", "resolved"];

/// Steps of a request that holds a slot.
const ADMITTED: [&str; 6] = [
    "admitted",
    "forwarding",
    "answering",
    "settling",
    "recording",
    "recorded",
];

/// More than half of what all buffered bodies may have together: one that is not released refuses the next.
const BODY: usize = 600_000;

struct World {
    gateway: Gateway,
    upstream: Scripted,
    faults: TempDir,
}

impl World {
    /// A gateway with little room, at an upstream that answers at once: whatever a panic keeps, the next request
    /// misses.
    async fn start() -> Self {
        let upstream = Scripted::start(|mut connection| async move {
            while connection.read_request().await {
                if connection.last_request().contains("\"stream\":true") {
                    connection.begin_stream().await;
                    connection.chunk(&delta("hello")).await;
                    connection.chunk(&delta("again")).await;
                    connection.chunk(&format!("{FINISH}{USAGE}data: [DONE]\n\n")).await;
                    connection.write("0\r\n\r\n").await;
                } else {
                    connection.answer("200 OK", WHOLE).await;
                }
            }
        })
        .await;
        let dir = config_dir(|name, text| match name {
            "models.yaml" => with_model(&text, "tested", "openai", &upstream.url, ", max_concurrent_requests: 1"),
            "limits.yaml" => roomy(name, text).replace("max_active_requests: 2000", "max_active_requests: 4"),
            "gateway.yaml" => {
                assert!(!text.contains("max_buffered_bytes"));
                text.replacen("bounds:\n", "bounds:\n  max_buffered_bytes: 1000000\n", 1)
            }
            _ => roomy(name, text),
        });
        let faults = TempDir::new().expect("a temporary directory");
        let file = faults.path().join("fault").to_string_lossy().into_owned();
        let gateway = Gateway::start_with(dir, &[], &[("SLUICE_FAULT_FILE", &file)]).await;
        Self {
            gateway,
            upstream,
            faults,
        }
    }

    fn file(&self) -> PathBuf {
        self.faults.path().join("fault")
    }

    /// The next request that reaches the step panics there.
    fn arm(&self, step: &str) {
        // Whole at once: the gateway reads it at any moment.
        let new = self.faults.path().join("new");
        std::fs::write(&new, format!("panic {step}")).expect("writable");
        std::fs::rename(new, self.file()).expect("renamed");
    }

    fn assert_panicked(&self, step: &str) {
        assert!(!self.file().exists(), "no request came to the step `{step}`");
    }

    /// The part of an answer that a client received: status and text.
    async fn chat(&self, stream: bool) -> (Option<u16>, String) {
        let content = "a".repeat(BODY);
        let body = json!({"model": "tested", "max_tokens": 9, "stream": stream,
            "messages": [{"role": "user", "content": content}]});
        let request = self
            .gateway
            .http
            .post(format!("{}/v1/chat/completions", self.gateway.proxy));
        let Ok(answer) = request.json(&body).send().await else {
            return (None, String::new());
        };
        let status = answer.status().as_u16();
        (Some(status), all_that_comes(answer).await.0)
    }

    /// Nothing is held, and the counters are those of the ledger.
    async fn assert_free(&self, after: &str) {
        let queue = self.gateway.admin_json("/queue/status").await;
        assert_eq!(
            (&queue["active_requests"], &queue["queue_size"]),
            (&json!(0), &json!(0)),
            "after {after}: {queue}"
        );
        let upstreams = self.gateway.admin_json("/upstreams").await;
        for server in upstreams["upstreams"].as_array().expect("a list") {
            assert_eq!(
                (&server["active_requests"], &server["outstanding_tokens"]),
                (&json!(0), &json!(0)),
                "after {after}: {server}"
            );
        }
        ledger_agrees(&self.gateway).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_at_any_step_leaves_one_record_frees_everything_and_counts_as_the_ledger_does() {
    let world = World::start().await;
    let mut expected = 0;
    for stream in [false, true] {
        for step in BEFORE_ADMISSION.iter().chain(&ADMITTED).chain(&["streaming"]) {
            if *step == "streaming" && !stream {
                continue;
            }
            let asked = world.upstream.requests.lock().expect("no panic").len();
            world.arm(step);
            let (status, text) = world.chat(stream).await;
            world.assert_panicked(step);
            expected += 1;
            let is_before_the_answer = !(stream && ["streaming", "settling", "recording", "recorded"].contains(step));
            if is_before_the_answer {
                assert_eq!(status, Some(500), "{step}: {text}");
                let error: Value = serde_json::from_str(&text).expect("JSON");
                assert_eq!(error["error"]["type"], "server_error", "{step}: {text}");
            }
            assert!(
                !text.contains("[DONE]"),
                "{step}: a broken answer never ends cleanly: {text}"
            );
            let records = world.gateway.wait_for_records(expected).await;
            assert_eq!(records.len(), expected, "one record each, after a panic at `{step}`");
            let record = &records[0];
            let was_forwarded = world.upstream.requests.lock().expect("no panic").len() > asked;
            assert_eq!(
                record["decision"] != "rejected",
                was_forwarded || *step == "forwarding",
                "{step}: {record}"
            );
            if *step == "streaming" {
                assert!(
                    record["output_tokens"].as_u64() > Some(0),
                    "what was delivered is charged: {record}"
                );
            }
            world.assert_free(step).await;
        }
        // The gateway that is left works as before.
        let (status, text) = world.chat(stream).await;
        assert_eq!(status, Some(200), "{text}");
        assert_eq!(text.contains("[DONE]"), stream);
        expected += 1;
        world.gateway.wait_for_records(expected).await;
        world.assert_free("a request without a fault").await;
    }
    let verified = sluice(world.gateway.dir.path(), &["ledger", "verify"]);
    assert!(verified.status.success(), "{verified:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_a_stored_request_is_its_answer() {
    let world = World::start().await;
    let gateway = &world.gateway;
    for (number, step) in ADMITTED.iter().enumerate() {
        world.arm(step);
        let body = json!({"model": "tested", "input": "hello", "background": true});
        let accepted: Value = gateway.post("/v1/responses", &body).await.json().await.expect("JSON");
        let id = accepted["id"].as_str().expect("an id").to_owned();
        let ended = wait_for("the end of a response", || async {
            let request = gateway.http.get(format!("{}/v1/responses/{id}", gateway.proxy));
            let response: Value = request.send().await.expect("an answer").json().await.expect("JSON");
            let is_open = ["queued", "in_progress"].contains(&response["status"].as_str().expect("a status"));
            (!is_open).then_some(response)
        })
        .await;
        world.assert_panicked(step);
        // Recorded with its answer, it has both.
        let expected = if *step == "recorded" { "completed" } else { "failed" };
        assert_eq!(ended["status"], expected, "{step}: {ended}");
        let records = gateway.wait_for_records(number + 1).await;
        assert_eq!(records.len(), number + 1, "one record each, after a panic at `{step}`");
        world.assert_free(step).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_one_line_of_a_batch_is_that_lines_error_and_the_others_are_answered() {
    let world = World::start().await;
    let gateway = &world.gateway;
    let steps = [
        "resolved",
        "admitted",
        "forwarding",
        "answering",
        "settling",
        "recording",
        "recorded",
    ];
    for (number, step) in steps.iter().enumerate() {
        world.arm(step);
        let batch = gateway.start_batch("tested", 20).await;
        let ended = gateway.ended_batch(&batch).await;
        world.assert_panicked(step);
        assert_eq!(ended["status"], "completed", "{step}: {ended}");
        // Recorded with its answer, it has both.
        let failed = usize::from(*step != "recorded");
        assert_eq!(
            ended["request_counts"],
            json!({"total": 20, "completed": 20 - failed, "failed": failed}),
            "{step}"
        );
        let records = gateway.wait_for_records(20 * (number + 1)).await;
        assert_eq!(records.len(), 20 * (number + 1), "{step}");
        world.assert_free(step).await;
    }
}
