//! Requests that were right and are mutated at random, byte by byte, over both listeners. A seed makes every run the same;
//! `SLUICE_SEED` sets another.

use super::watch::Watch;
use end_to_end::upstream::{Scripted, WHOLE};
use end_to_end::{Gateway, config_dir, roomy, with_model};
use futures_util::stream::{self, StreamExt};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

/// Connections at once.
const AT_ONCE: usize = 48;

/// A request whose answer does not come by then is left to itself.
const PATIENCE: Duration = Duration::from_millis(250);

/// Source addresses, so that ports do not run out.
const ADDRESSES: u64 = 100;

/// What is put into requests.
const MORSELS: &[&str] = &[
    "\r\n",
    "\n",
    "\r",
    "\0",
    "\r\n\r\n",
    " ",
    "\t",
    ":",
    ";",
    ",",
    "\"",
    "\\",
    "{",
    "}",
    "[[[[",
    "null",
    "-1",
    "1e999",
    "99999999999999999999",
    "\\ud800",
    "\u{feff}",
    "%00",
    "%2e%2e/",
    "../",
    "//",
    "?",
    "#",
    "chunked",
    "0\r\n\r\n",
    "content-length: 0\r\n",
    "content-length: 18446744073709551616\r\n",
    "transfer-encoding: chunked\r\n",
    "transfer-encoding: identity\r\n",
    "connection: close\r\n",
    "expect: 100-continue\r\n",
    "upgrade: h2c\r\n",
    "host: evil.example\r\n",
    "content-encoding: gzip\r\n",
    "content-encoding: br\r\n",
    "x-sluice-user: nobody\r\n",
    "authorization: Bearer sk-sluice-x\r\n",
    "x-request-timeout-seconds: 0.001\r\n",
    "GET /health HTTP/1.1\r\n\r\n",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "\"stream\":true,",
    "\"n\":1000000,",
    "\"max_tokens\":-1,",
];

/// Right requests, for the proxy listener.
fn proxy_corpus() -> Vec<Vec<u8>> {
    let message = r#"[{"role":"user","content":"hello"}]"#;
    let tool = r#"[{"type":"function","function":{"name":"f","parameters":{"type":"object"}}}]"#;
    let image = r#"[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,iVBORw0KGgo="}}]}]"#;
    let posts = [
        (
            "/v1/chat/completions",
            format!(r#"{{"model":"tested","max_tokens":5,"messages":{message}}}"#),
        ),
        (
            "/v1/chat/completions",
            format!(r#"{{"model":"tested","stream":true,"messages":{message},"tools":{tool}}}"#),
        ),
        (
            "/v1/chat/completions",
            format!(r#"{{"model":"tested","messages":{image}}}"#),
        ),
        (
            "/v1/completions",
            r#"{"model":"tested","prompt":["a","b"],"max_tokens":3}"#.to_owned(),
        ),
        (
            "/v1/embeddings",
            r#"{"model":"tested","input":["a",[1,2,3]]}"#.to_owned(),
        ),
        (
            "/v1/responses",
            r#"{"model":"tested","input":"hello","previous_response_id":null}"#.to_owned(),
        ),
        (
            "/v1/rerank",
            r#"{"model":"tested","query":"q","documents":["a"]}"#.to_owned(),
        ),
        (
            "/v1/messages",
            format!(r#"{{"model":"tested","max_tokens":5,"messages":{message}}}"#),
        ),
        (
            "/v1/messages/count_tokens",
            format!(r#"{{"model":"tested","messages":{message}}}"#),
        ),
        (
            "/api/chat",
            format!(r#"{{"model":"tested","stream":false,"messages":{message}}}"#),
        ),
        (
            "/api/generate",
            r#"{"model":"tested","prompt":"hello","options":{"num_predict":3}}"#.to_owned(),
        ),
        ("/api/show", r#"{"model":"tested"}"#.to_owned()),
        (
            "/generate",
            r#"{"user_id":"user_vip_01","project_id":"vip_project","model":"tested","prompt":"x"}"#.to_owned(),
        ),
        (
            "/v1/batches",
            r#"{"input_file_id":"file-x","endpoint":"/v1/responses","completion_window":"24h"}"#.to_owned(),
        ),
    ];
    let gets = [
        "/v1/models",
        "/v1/files?limit=3&after=x",
        "/v1/batches",
        "/requests/req_1",
        "/usage/me",
        "/api/tags",
    ];
    let form = "--b\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--b\r\ncontent-disposition: \
                form-data; name=\"file\"; filename=\"x\"\r\n\r\n{}\r\n--b--\r\n";
    let chunked = "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ntransfer-encoding: chunked\r\n\r\n\
                   12\r\n{\"model\":\"tested\",\r\n10\r\n\"messages\":[]}   \r\n0\r\n\r\n";
    let mut all: Vec<Vec<u8>> = posts
        .iter()
        .map(|(path, body)| post(path, "application/json", body))
        .collect();
    all.extend(gets.map(get));
    all.push(post("/v1/files", "multipart/form-data; boundary=b", form));
    all.push(post(
        "/v1/audio/transcriptions",
        "multipart/form-data; boundary=b",
        form,
    ));
    all.push(chunked.into());
    all
}

/// Right requests, for the admin listener.
fn admin_corpus() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = [
        "/health",
        "/ready",
        "/metrics",
        "/queue",
        "/keys",
        "/usage?by=project,day&from=2026-01-01",
        "/usage/recent?limit=5",
        "/usage/project/vip_project",
        "/limits/user/user_vip_01",
        "/config/summary",
        "/upstreams",
        "/requests/req_1",
        "/login?code=guess",
        "/",
        "/console/requests?project=x&status=failed",
        "/console.css",
        "/openapi.json",
    ]
    .map(get)
    .into();
    all.push(post(
        "/usage/corrections",
        "application/json",
        r#"{"request_id":"req_1","cost_eur":0,"reason":"x"}"#,
    ));
    all.push(post("/login", "application/x-www-form-urlencoded", "token=guessed"));
    all.push(post("/keys/import", "text/csv", "user,label\nnobody,x\n"));
    all
}

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer admin-of-the-test\r\naccept: */*\r\n\r\n")
        .into()
}

fn post(path: &str, content_type: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer admin-of-the-test\r\n\
         content-type: {content_type}\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .into()
}

/// Numbers that a seed determines (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(high).expect("31 bits") % bound.max(1)
    }
}

/// A request of the corpus with one to eight mutations.
fn mutate(random: &mut Random, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = corpus[random.below(corpus.len())].clone();
    for _ in 0..[1, 1, 2, 3, 8][random.below(5)] {
        let at = random.below(bytes.len());
        let length = random.below(40).min(bytes.len() - at);
        match random.below(8) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = u8::try_from(random.below(256)).expect("a byte"),
            2 => drop(bytes.drain(at..at + length)),
            3 => drop(bytes.splice(at..at, MORSELS[random.below(MORSELS.len())].bytes())),
            4 => {
                let copied = bytes[at..at + length].to_vec();
                let to = random.below(bytes.len());
                drop(bytes.splice(to..to, copied));
            }
            5 => {
                // The rest of another request.
                let other = &corpus[random.below(corpus.len())];
                bytes.truncate(at);
                bytes.extend_from_slice(&other[random.below(other.len())..]);
            }
            6 => {
                let line = bytes[at..]
                    .windows(2)
                    .position(|pair| pair == b"\r\n")
                    .map_or(bytes.len(), |end| at + end + 2);
                drop(bytes.splice(line..line, MORSELS[random.below(MORSELS.len())].bytes()));
            }
            _ => bytes.truncate(at),
        }
        if bytes.is_empty() {
            bytes.push(b'\n');
        }
    }
    bytes
}

/// Sends bytes from an address of its own and reads what comes back.
async fn send(to: SocketAddr, number: u64, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let socket = TcpSocket::new_v4()?;
    let last = u8::try_from(number % ADDRESSES + 10).expect("below 256");
    socket.bind((IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)), 0).into())?;
    let mut stream = socket.connect(to).await?;
    stream.write_all(bytes).await?;
    // Half of the clients say that nothing more will come.
    if number.is_multiple_of(2) {
        stream.shutdown().await?;
    }
    let mut got = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.take(64 << 10).read_to_end(&mut got)).await;
    Ok(got)
}

async fn abuse(count: u64) {
    let seed = std::env::var("SLUICE_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(20_261_128);
    let server = Scripted::answering(WHOLE).await;
    let dir = config_dir(|name, text| match name {
        "models.yaml" => with_model(&text, "tested", "openai", &server.url, ""),
        _ => roomy(name, text),
    });
    let gateway = Gateway::start_in(dir, &[]).await;
    let address = |url: &str| {
        url.trim_start_matches("http://")
            .parse::<SocketAddr>()
            .expect("an address")
    };
    let targets = [
        (address(&gateway.proxy), proxy_corpus()),
        (address(&gateway.admin), admin_corpus()),
    ];
    let watch = Watch::begin(&gateway);
    let mut statuses: BTreeMap<String, u64> = BTreeMap::new();
    let mut answers = stream::iter(0..count)
        .map(|number| {
            // Each request is a function of seed and number alone.
            let mut random = Random((seed ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15)) | 1);
            for _ in 0..4 {
                random.below(2);
            }
            let (to, corpus) = &targets[usize::from(random.below(4) == 0)];
            let bytes = mutate(&mut random, corpus);
            async move {
                let got = send(*to, number, &bytes).await;
                (number, bytes, got)
            }
        })
        .buffer_unordered(AT_ONCE);
    while let Some((number, bytes, got)) = answers.next().await {
        let status = match &got {
            Ok(got) if got.starts_with(b"HTTP/1.") => String::from_utf8_lossy(&got[9..12.min(got.len())]).into_owned(),
            Ok(got) if got.is_empty() => "none".to_owned(),
            Ok(_) => "other".to_owned(),
            Err(error) => format!("{:?}", error.kind()),
        };
        assert_ne!(
            status,
            "500",
            "request {number} of seed {seed}: {:?}",
            String::from_utf8_lossy(&bytes)
        );
        *statuses.entry(status).or_default() += 1;
    }
    drop(answers);
    println!("{count} requests of seed {seed}: {statuses:?}");
    assert!(
        statuses.contains_key("200") && statuses.contains_key("400"),
        "{statuses:?}"
    );
    watch.end(&gateway).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mutated_requests_are_answered_or_refused_and_none_by_a_panic() {
    abuse(3_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: `make abuse`"]
async fn a_hundred_thousand_mutated_requests_are_answered_or_refused_and_none_by_a_panic() {
    abuse(100_000).await;
}
