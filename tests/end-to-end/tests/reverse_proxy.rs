//! The configurations of docs/reverse-proxy.md in the real nginx and Caddy, with TLS: streams arrive as they are written,
//! large bodies and long waits pass, and nobody gets around the keys.

use end_to_end::{Ends, Gateway, config_dir, nginx, roomy, root, sluice, wait_for};
use futures_util::StreamExt;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use serde_json::json;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The name in the page's configurations.
const NAME: &str = "llm.example.org";

/// The page's block of a language.
fn block(language: &str) -> String {
    let page = std::fs::read_to_string(root().join("docs/reverse-proxy.md")).expect("the page");
    let start = page.find(&format!("```{language}\n")).expect("a block") + language.len() + 4;
    let length = page[start..].find("```").expect("its end");
    page[start..start + length].to_owned()
}

/// The text with another in the place of one that must be there.
fn instead(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "the page has no {from:?}");
    text.replace(from, to)
}

/// A gateway whose answers of 40 tokens take two seconds, with its key.
async fn gateway() -> (Gateway, String) {
    let dir = config_dir(|name, text| match name {
        "models.yaml" => text.replacen("average_latency_seconds: 0.5", "profile: 20ms/50ms", 1),
        _ => roomy(name, text),
    });
    let gateway = Gateway::start_in(dir, &["--identity", "keys"]).await;
    let at = ["--admin-url", &gateway.admin, "--admin-token", "admin-of-the-test"];
    let made = sluice(
        gateway.dir.path(),
        &[&["keys", "create", "--user", "user_vip_01"], &at[..]].concat(),
    );
    let key = String::from_utf8(made.stdout).expect("text").trim().to_owned();
    assert!(
        key.starts_with("sk-sluice-"),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    (gateway, key)
}

/// A proxy with a certificate of its own, once it accepts connections.
struct Proxy {
    _process: Ends,
    client: reqwest::Client,
    url: String,
}

impl Proxy {
    async fn start(dir: &TempDir, certificate: &CertifiedKey<rcgen::KeyPair>, port: u16, mut command: Command) -> Self {
        let log = std::fs::File::create(dir.path().join("proxy.log")).expect("writable");
        let process = command
            .stdout(Stdio::null())
            .stderr(log)
            .stdin(Stdio::null())
            .spawn()
            .expect("the proxy starts");
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let trusted = reqwest::Certificate::from_pem(certificate.cert.pem().as_bytes()).expect("a certificate");
        let client = reqwest::Client::builder()
            .add_root_certificate(trusted)
            .use_rustls_tls()
            .resolve(NAME, address);
        let proxy = Self {
            _process: Ends(process),
            client: client.build().expect("a client"),
            url: format!("https://{NAME}:{port}"),
        };
        let log = || std::fs::read_to_string(dir.path().join("proxy.log")).unwrap_or_default();
        wait_for("proxy", || async {
            let answer = proxy.client.get(format!("{}/health", proxy.url)).send().await;
            answer
                .inspect_err(|error| eprintln!("{error:?}\n{}", log()))
                .ok()
                .map(drop)
        })
        .await;
        proxy
    }

    fn post(&self, key: &str, body: &serde_json::Value) -> reqwest::RequestBuilder {
        let request = self.client.post(format!("{}/v1/chat/completions", self.url));
        request.bearer_auth(key).json(body)
    }

    /// When the chunks of a stream of two seconds came.
    async fn stream(&self, key: &str) -> Vec<Duration> {
        let body = json!({"model": "simulated-small", "stream": true, "max_tokens": 40,
            "messages": [{"role": "user", "content": "Count."}]});
        let began = Instant::now();
        let answer = self.post(key, &body).send().await.expect("an answer");
        assert_eq!(answer.status(), 200);
        let mut chunks = answer.bytes_stream();
        let mut times = Vec::new();
        while let Some(chunk) = chunks.next().await {
            chunk.expect("a chunk");
            times.push(began.elapsed());
        }
        times
    }

    /// What the page promises of both proxies.
    async fn check(&self, gateway: &Gateway, key: &str) {
        let times = self.stream(key).await;
        let (first, last) = (times[0], times[times.len() - 1]);
        assert!(times.len() >= 20, "{} chunks", times.len());
        assert!(
            last > Duration::from_millis(1_500) && first * 3 < last,
            "{first:?}, {last:?}"
        );
        let without = self
            .client
            .get(format!("{}/v1/models", self.url))
            .send()
            .await
            .expect("an answer");
        assert_eq!(without.status(), 401);
        let large = json!({"model": "simulated-small", "max_tokens": 1,
            "messages": [{"role": "user", "content": "word ".repeat(4 << 20)}]});
        let refused = self.post(key, &large).send().await.expect("an answer");
        // 20 MiB are too many tokens for the model, and not too many bytes for the proxy.
        assert_eq!(refused.status(), 400);
        assert!(refused.headers().contains_key("x-sluice-request-id"));
        assert!(
            gateway
                .records()
                .await
                .iter()
                .any(|record| record["status"] == "completed")
        );
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .expect("a free port")
        .local_addr()
        .expect("bound")
        .port()
}

fn certificate(dir: &Path) -> CertifiedKey<rcgen::KeyPair> {
    let made = generate_simple_self_signed(vec![NAME.to_owned()]).expect("a certificate");
    std::fs::write(dir.join("cert.pem"), made.cert.pem()).expect("writable");
    std::fs::write(dir.join("key.pem"), made.signing_key.serialize_pem()).expect("writable");
    made
}

#[tokio::test]
async fn nginx_passes_streams_on_as_they_come() {
    let (gateway, key) = gateway().await;
    let dir = TempDir::new().expect("a directory");
    let certificate = certificate(dir.path());
    let at = dir.path().display().to_string();
    let port = free_port();
    let server = instead(&block("nginx"), "127.0.0.1:8000", gateway.address());
    let server = instead(
        &server,
        "listen 443 ssl http2",
        &format!("listen 127.0.0.1:{port} ssl http2"),
    );
    let server = instead(&server, "/etc/ssl/llm.example.org.pem", &format!("{at}/cert.pem"));
    let server = instead(&server, "/etc/ssl/llm.example.org.key", &format!("{at}/key.pem"));
    let command = nginx::command(dir.path(), &server);
    let proxy = Proxy::start(&dir, &certificate, port, command).await;
    proxy.check(&gateway, &key).await;
}

#[tokio::test]
async fn caddy_passes_streams_on_as_they_come() {
    let (gateway, key) = gateway().await;
    let dir = TempDir::new().expect("a directory");
    let certificate = certificate(dir.path());
    let at = dir.path().display().to_string();
    let port = free_port();
    let site = instead(&block("caddy"), "127.0.0.1:8000", gateway.address());
    // The page's certificate comes from a public authority; here it is the test's own.
    let site = instead(
        &site,
        "llm.example.org {",
        &format!("https://llm.example.org:{port} {{\n\ttls {at}/cert.pem {at}/key.pem"),
    );
    std::fs::write(
        dir.path().join("Caddyfile"),
        format!("{{\n\tadmin off\n\tauto_https disable_redirects\n}}\n{site}"),
    )
    .expect("writable");
    let mut command = Command::new("caddy");
    command
        .args(["run", "--adapter", "caddyfile", "--config"])
        .arg(dir.path().join("Caddyfile"));
    command
        .env("HOME", &at)
        .env("XDG_DATA_HOME", &at)
        .env("XDG_CONFIG_HOME", &at);
    let proxy = Proxy::start(&dir, &certificate, port, command).await;
    proxy.check(&gateway, &key).await;
}
