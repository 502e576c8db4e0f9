//! A real server, measured: clients that stream one answer after the other, as the engine's closed loop does.

use crate::fit::Row;
use bytes::Bytes;
use futures_util::future::try_join_all;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Method, Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// A server with an OpenAI API.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its root, `http://host:port`, with or without `/v1`.
    pub url: String,
    /// The model that is asked.
    pub model: String,
    /// Its API key, if it requires one.
    pub key: Option<String>,
}

/// Properties that a server reports; `None` where it does not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Requests that are computed at once.
    pub max_sequences: Option<usize>,
    /// Tokens that fit into the memory for keys and values.
    pub kv_tokens: Option<usize>,
}

/// A size of load to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Words of a prompt; the server reports their tokens.
    pub prompt: usize,
    /// Tokens of an answer.
    pub output: usize,
    /// Clients.
    pub concurrency: usize,
    /// Requests of each client.
    pub each: usize,
}

/// One answer, by the time since the measurement began.
#[derive(Debug, Clone, Copy)]
struct Answered {
    sent: Duration,
    first: Duration,
    last: Duration,
    prompt: usize,
    output: usize,
}

/// Asks a server.
#[derive(Debug, Clone)]
pub struct Meter {
    target: Target,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Meter {
    /// Asks over plain HTTP.
    ///
    /// # Errors
    /// A URL of another kind.
    pub fn new(mut target: Target) -> Result<Self, String> {
        let root = target.url.trim_end_matches('/').trim_end_matches("/v1").to_owned();
        if !root.starts_with("http://") {
            return Err(format!(
                "`{root}`: give a URL such as http://127.0.0.1:8000; for TLS, use a tunnel"
            ));
        }
        target.url = root;
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        // A connection each: some servers close one that has been idle, or used often enough, just as it is used again.
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .build(connector);
        Ok(Self { target, client })
    }

    /// Reads llama.cpp's `/props` or vLLM's `/metrics`.
    pub async fn limits(&self) -> Limits {
        let mut limits = Limits::default();
        if let Ok(props) = self.text("/props").await
            && let Ok(props) = serde_json::from_str::<Value>(&props)
        {
            let number = |value: &Value| value.as_u64().and_then(|number| usize::try_from(number).ok());
            limits.max_sequences = number(&props["total_slots"]);
            let context = number(&props["default_generation_settings"]["n_ctx"]);
            limits.kv_tokens = context
                .zip(limits.max_sequences)
                .map(|(context, slots)| context * slots);
        }
        if let Ok(metrics) = self.text("/metrics").await
            && let Some(info) = metrics.lines().find(|line| line.starts_with("vllm:cache_config_info{"))
        {
            let label = |name: &str| {
                info.split_once(&format!("{name}=\""))?
                    .1
                    .split('"')
                    .next()?
                    .parse::<usize>()
                    .ok()
            };
            limits.kv_tokens = label("num_gpu_blocks")
                .zip(label("block_size"))
                .map(|(blocks, size)| blocks * size);
        }
        limits
    }

    async fn text(&self, path: &str) -> Result<String, String> {
        let answer = self.send(Method::GET, path, Bytes::new()).await?;
        if !answer.status().is_success() {
            return Err(answer.status().to_string());
        }
        let body = answer.into_body().collect().await.map_err(|error| error.to_string())?;
        Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Response<Incoming>, String> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.target.url))
            .header("content-type", "application/json");
        if let Some(key) = &self.target.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let request = request.body(Full::new(body)).map_err(|error| error.to_string())?;
        let sent = self.client.request(request).await;
        sent.map_err(|error| format!("{}: {error}", self.target.url))
    }

    /// Measures a load.
    ///
    /// # Errors
    /// An answer that is none, or that is not as long as was asked for.
    #[allow(clippy::cast_precision_loss)]
    pub async fn measure(&self, load: Load) -> Result<Row, String> {
        let began = Instant::now();
        let clients = (0..load.concurrency).map(|_| async move {
            let mut answered = Vec::with_capacity(load.each);
            for _ in 0..load.each {
                answered.push(self.ask(load, began).await?);
            }
            Ok::<_, String>(answered)
        });
        let all = try_join_all(clients).await?.concat();
        let count = all.len().max(1) as f64;
        let first = all.iter().map(|one| one.sent).min().unwrap_or_default();
        let last = all.iter().map(|one| one.last).max().unwrap_or_default();
        let tokens: usize = all.iter().map(|one| one.output).sum();
        let prompt = all.iter().map(|one| one.prompt).sum::<usize>() / all.len().max(1);
        let mean = |of: fn(&Answered) -> f64| all.iter().map(of).sum::<f64>() / count * 1e3;
        Ok(Row {
            prompt,
            output: load.output,
            prompt_spread: 0.0,
            output_spread: 0.0,
            concurrency: load.concurrency,
            requests: all.len(),
            tokens_per_second: Some(tokens as f64 / last.saturating_sub(first).as_secs_f64().max(1e-9)),
            first_token_ms: Some(mean(|one| one.first.saturating_sub(one.sent).as_secs_f64())),
            per_token_ms: Some(mean(|one| {
                one.last.saturating_sub(one.first).as_secs_f64() / (one.output.max(2) - 1) as f64
            })),
            max_sequences: None,
            held: false,
        })
    }

    /// Streams one answer.
    async fn ask(&self, load: Load, began: Instant) -> Result<Answered, String> {
        let body = json!({"model": self.target.model, "stream": true, "stream_options": {"include_usage": true},
            "max_tokens": load.output, "ignore_eos": true, "temperature": 0,
            "messages": [{"role": "user", "content": prompt(load.prompt)}]});
        let sent = began.elapsed();
        let answer = self
            .send(Method::POST, "/v1/chat/completions", body.to_string().into())
            .await?;
        let status = answer.status();
        let mut body = answer.into_body();
        let (mut first, mut last, mut usage, mut rest) = (None, sent, None, String::new());
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| format!("the answer broke off: {error}"))?;
            let now = began.elapsed();
            let Ok(data) = frame.into_data() else { continue };
            rest.push_str(&String::from_utf8_lossy(&data));
            while let Some((line, after)) = rest
                .split_once('\n')
                .map(|(line, after)| (line.to_owned(), after.to_owned()))
            {
                rest = after;
                let Some(event) = line
                    .strip_prefix("data:")
                    .and_then(|data| serde_json::from_str::<Value>(data.trim()).ok())
                else {
                    continue;
                };
                if has_token(&event) {
                    first.get_or_insert(now);
                    last = now;
                }
                if event["usage"].is_object() {
                    usage = Some(event["usage"].clone());
                }
            }
        }
        if !status.is_success() {
            return Err(format!("the server answered {status}: {rest}"));
        }
        let first = first.ok_or("the server streamed no token")?;
        let usage = usage.ok_or("the server sent no usage; it must support stream_options.include_usage")?;
        let count = |name: &str| usage[name].as_u64().and_then(|count| usize::try_from(count).ok());
        let (prompt, output) = (
            count("prompt_tokens").unwrap_or(load.prompt),
            count("completion_tokens").unwrap_or(0),
        );
        if output != load.output {
            let wanted = load.output;
            return Err(format!(
                "an answer has {output} tokens, not {wanted}; the server has to know ignore_eos"
            ));
        }
        Ok(Answered {
            sent,
            first,
            last,
            prompt,
            output,
        })
    }
}

/// Returns whether a chunk has a part of the answer, or of a thought, in it.
fn has_token(event: &Value) -> bool {
    let delta = &event["choices"][0]["delta"];
    ["content", "reasoning", "reasoning_content"]
        .iter()
        .any(|field| delta[field].as_str().is_some_and(|text| !text.is_empty()))
}

/// A prompt of so many words that no other has begun with, so that nothing of it is in memory.
fn prompt(words: usize) -> String {
    const WORDS: &[&str] = &["water", "gate", "house", "light", "world", "people", "number", "system"];
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let mut state = COUNT.fetch_add(1, Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(std::process::id());
    let mut text = format!("{state:x}");
    for _ in 1..words {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let at = usize::try_from(state >> 33).unwrap_or(0) % WORDS.len();
        text.push(' ');
        text.push_str(WORDS[at]);
    }
    text
}
