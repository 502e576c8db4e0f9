//! A real llama.cpp server with a tiny model, which `tests/setup test` has installed.

use crate::root;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A running llama-server; its model is called `tiny`, its key is `sk-up`.
pub struct Llama {
    child: Child,
    /// `http://host:port`.
    pub url: String,
}

/// Where the test tools are installed.
pub fn home() -> PathBuf {
    std::env::var_os("SLUICE_TEST_HOME").map_or_else(|| root().join("tests/.work"), PathBuf::from)
}

impl Llama {
    /// Starts it on a free port and waits until it answers.
    pub async fn start() -> Self {
        let home = home().join("llama");
        let bin = home.join("bin");
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = free.local_addr().expect("bound").port();
        drop(free);
        let child = Command::new(bin.join("llama-server"))
            .arg("-m")
            .arg(home.join("models/tiny.gguf"))
            .args(["--alias", "tiny", "--host", "127.0.0.1", "--port", &port.to_string()])
            .args([
                "-c",
                "131072",
                "-np",
                "4",
                "--embeddings",
                "--pooling",
                "mean",
                "--offline",
                "--no-webui",
            ])
            .args(["--metrics", "--jinja", "--api-key", "sk-up"])
            .env("LD_LIBRARY_PATH", &bin)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("llama-server does not start ({error}); run `tests/setup test`"));
        let llama = Self {
            child,
            url: format!("http://127.0.0.1:{port}"),
        };
        let health = format!("{}/health", llama.url);
        for _ in 0..600 {
            if reqwest::get(&health)
                .await
                .is_ok_and(|answer| answer.status().is_success())
            {
                return llama;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("llama-server is not ready after 60 s");
    }
}

impl Drop for Llama {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
