//! A real OpenID Connect provider on loopback: `tests/clients/node/issuer.mjs`.

use crate::{Ends, llama, wait_for};
use std::net::TcpListener;
use std::process::{Command, Stdio};

/// A provider that ends with its test.
pub struct Provider {
    _process: Ends,
    /// Its issuer URL.
    pub url: String,
    /// Talks to it.
    pub http: reqwest::Client,
}

impl Provider {
    /// Starts one on a free port.
    pub async fn start() -> Self {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
        let port = free.expect("a free port").port();
        let process = Command::new("node")
            .arg(llama::home().join("node/issuer.mjs"))
            .arg(port.to_string())
            .stdout(Stdio::null())
            .spawn()
            .expect("node runs; `tests/setup test` installs it");
        let provider = Self {
            _process: Ends(process),
            url: format!("http://127.0.0.1:{port}"),
            http: reqwest::Client::new(),
        };
        wait_for("the provider", || async {
            let url = format!("{}/.well-known/openid-configuration", provider.url);
            provider.http.get(url).send().await.ok()
        })
        .await;
        provider
    }

    /// Asks it to change, as the script says; its answer.
    pub async fn control(&self, what: &str) -> String {
        let asked = self.http.get(format!("{}/-/{what}", self.url)).send().await;
        let answer = asked.expect("an answer");
        assert_eq!(answer.status(), 200, "{what}");
        answer.text().await.expect("text")
    }
}
