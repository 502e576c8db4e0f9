//! Batches of chat completions over HTTP.

use crate::Gateway;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// The longest that a batch of a test may take after whatever delays it has ended.
const ENDS_WITHIN: Duration = Duration::from_secs(120);

impl Gateway {
    /// Uploads a file for batches; its id.
    pub async fn upload(&self, text: &str) -> String {
        let form = format!(
            "--b\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--b\r\n\
             content-disposition: form-data; name=\"file\"; filename=\"x.jsonl\"\r\n\r\n{text}\r\n--b--\r\n"
        );
        let request = self.http.post(format!("{}/v1/files", self.proxy));
        let request = request
            .header("content-type", "multipart/form-data; boundary=b")
            .body(form);
        let file: Value = request.send().await.expect("an answer").json().await.expect("JSON");
        file["id"]
            .as_str()
            .unwrap_or_else(|| panic!("no id: {file}"))
            .to_owned()
    }

    /// Starts a batch of so many chats, named `line-0` and so on; its id.
    pub async fn start_batch(&self, model: &str, lines: usize) -> String {
        let line = |number: usize| {
            json!({"custom_id": format!("line-{number}"), "method": "POST", "url": "/v1/chat/completions",
                "body": {"model": model, "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]}})
            .to_string()
        };
        let text: Vec<String> = (0..lines).map(line).collect();
        let input = self.upload(&text.join("\n")).await;
        let body = json!({"input_file_id": input, "endpoint": "/v1/chat/completions", "completion_window": "24h"});
        let batch: Value = self.post("/v1/batches", &body).await.json().await.expect("JSON");
        batch["id"]
            .as_str()
            .unwrap_or_else(|| panic!("no id: {batch}"))
            .to_owned()
    }

    /// A batch as it is now.
    pub async fn batch(&self, id: &str) -> Value {
        let request = self.http.get(format!("{}/v1/batches/{id}", self.proxy));
        request.send().await.expect("an answer").json().await.expect("JSON")
    }

    /// A batch once it has ended.
    pub async fn ended_batch(&self, id: &str) -> Value {
        let give_up = Instant::now() + ENDS_WITHIN;
        loop {
            let batch = self.batch(id).await;
            if ["completed", "failed", "expired", "cancelled"].contains(&batch["status"].as_str().expect("a status")) {
                return batch;
            }
            assert!(Instant::now() < give_up, "the batch does not end: {batch}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The rows of an ended batch's output and error files.
    pub async fn batch_rows(&self, batch: &Value) -> Vec<Value> {
        let mut rows = Vec::new();
        for file in ["output_file_id", "error_file_id"] {
            let Some(id) = batch[file].as_str() else { continue };
            let request = self.http.get(format!("{}/v1/files/{id}/content", self.proxy));
            let text = request.send().await.expect("an answer").text().await.expect("text");
            rows.extend(
                text.lines()
                    .map(|line| serde_json::from_str::<Value>(line).expect("JSON")),
            );
        }
        rows
    }
}
