//! A real llama.cpp server with a tiny model, which `tests/setup test` has installed.

use crate::root;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::NamedTempFile;

/// A running llama.cpp server; its model is called `tiny`, its key is `sk-up`.
pub struct Llama {
    child: Child,
    /// `http://host:port`.
    pub url: String,
}

/// The directory in which the test tools are installed.
pub fn home() -> PathBuf {
    std::env::var_os("SLUICE_TEST_HOME").map_or_else(|| root().join("tests/.work"), PathBuf::from)
}

/// The longest that loading the model may take.
const READY_WITHIN: Duration = Duration::from_secs(60);

impl Llama {
    /// Starts the server on a free port and waits until its model is loaded. Panics with its log if it does not get there.
    pub async fn start() -> Self {
        let home = home().join("llama");
        let log = NamedTempFile::new().expect("a temporary file");
        let mut child = Command::new(home.join("venv/bin/python"))
            .arg(root().join("tests/llama/server.py"))
            .arg(home.join("models/tiny.gguf"))
            .args(["--alias", "tiny", "--slots", "4", "--context", "131072"])
            .args(["--api-key", "sk-up"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log.reopen().expect("writable"))
            .spawn()
            .unwrap_or_else(|error| panic!("llama.cpp's server does not start ({error}); run `tests/setup test`"));
        let stdout = child.stdout.take().expect("piped");
        let mut llama = Self {
            child,
            url: String::new(),
        };
        // Its first line is its URL, printed once it is ready; the end of its output is its own end.
        let first_line = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            BufReader::new(stdout).read_line(&mut line).map(|_| line)
        });
        let line = tokio::time::timeout(READY_WITHIN, first_line).await;
        llama.url = match line {
            Ok(read) => read.expect("no panic").expect("readable").trim().to_owned(),
            Err(_) => String::new(),
        };
        if llama.url.is_empty() {
            let log = std::fs::read_to_string(log.path()).unwrap_or_default();
            // A reader that still waits for the first line gets the end of the output.
            drop(llama);
            panic!(
                "llama.cpp's server is not ready after {READY_WITHIN:?}, or has ended; run `tests/setup test`. Its log:\n{log}"
            );
        }
        llama
    }
}

impl Drop for Llama {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[tokio::test]
    async fn the_server_answers_a_chat_of_its_key_with_exactly_the_tokens_asked_for() {
        let llama = Llama::start().await;
        let http = reqwest::Client::new();
        let body = json!({"model": "tiny", "max_tokens": 7, "messages": [{"role": "user", "content": "hello"}]});
        let chat = || http.post(format!("{}/v1/chat/completions", llama.url)).json(&body);
        let answer: Value = chat()
            .bearer_auth("sk-up")
            .send()
            .await
            .expect("an answer")
            .json()
            .await
            .expect("JSON");
        assert_eq!(answer["usage"]["completion_tokens"], 7, "{answer}");
        assert_eq!(chat().send().await.expect("an answer").status(), 401);
    }
}
