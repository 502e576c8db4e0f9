//! A simulated LLM server: OpenAI's and Ollama's APIs, plain and streamed, with exact usage and a given
//! latency; the same answer to the same question, by seed. For trying a gateway without a GPU.

mod answer;
mod ollama;
mod openai;
mod pace;
mod tools;

pub use answer::count_tokens;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use serde_json::json;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::net::TcpListener;

/// A model that is simulated.
#[derive(Debug, Clone)]
pub struct Model {
    /// The name that requests use.
    pub name: String,
    /// From the request to the end of an answer of any length; a fifth of it passes before the first
    /// token.
    pub average_latency: Duration,
    /// The longest prompt, in tokens.
    pub max_input_tokens: u64,
    /// The longest answer, in tokens.
    pub max_output_tokens: u64,
}

/// The server.
#[derive(Debug, Clone)]
pub struct Server(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    models: RwLock<Vec<Model>>,
    seed: u64,
    counts: Counts,
}

/// What `/metrics` tells.
#[derive(Debug, Default)]
struct Counts {
    requests: AtomicU64,
    running: AtomicU64,
    aborted: AtomicU64,
    prompt_tokens: AtomicU64,
    generation_tokens: AtomicU64,
}

/// A request under way; counted as aborted if it is dropped before its end.
#[derive(Debug)]
struct Running {
    server: Server,
    is_complete: bool,
}

impl Server {
    /// `seed` varies the answers.
    pub fn new(models: Vec<Model>, seed: u64) -> Self {
        Self(Arc::new(Inner {
            models: RwLock::new(models),
            seed,
            counts: Counts::default(),
        }))
    }

    /// Serves until the listener fails or the future is dropped.
    ///
    /// # Errors
    /// Those of the listener.
    pub async fn serve(self, listener: TcpListener) -> std::io::Result<()> {
        use axum::serve::ListenerExt;
        let listener = listener.tap_io(|stream| {
            let _ = stream.set_nodelay(true);
        });
        axum::serve(listener, self.router()).await
    }

    fn router(self) -> Router {
        Router::new()
            .route("/health", get(|| async { Json(json!({"status": "ok"})) }))
            .route("/metrics", get(metrics))
            .route("/v1/chat/completions", post(openai::chat))
            .route("/v1/completions", post(openai::completions))
            .route("/v1/embeddings", post(openai::embeddings))
            .route("/v1/models", get(openai::models))
            .route("/api/chat", post(ollama::chat))
            .route("/api/generate", post(ollama::generate))
            .route("/api/embed", post(ollama::embed))
            .route("/api/embeddings", post(ollama::embeddings))
            .route("/api/tags", get(ollama::tags))
            .route("/api/ps", get(ollama::tags))
            .route("/api/show", post(ollama::show))
            .route(
                "/api/version",
                get(|| async { Json(json!({"version": env!("CARGO_PKG_VERSION")})) }),
            )
            .fallback(|| async {
                (
                    StatusCode::NOT_FOUND,
                    Json(json!({"error": "there is nothing at this path"})),
                )
            })
            .layer(axum::extract::DefaultBodyLimit::max(256 << 20))
            .with_state(self)
    }

    /// Serves these models from now on; answers under way are finished.
    pub fn set_models(&self, models: Vec<Model>) {
        *self.0.models.write().unwrap_or_else(PoisonError::into_inner) = models;
    }

    fn models(&self) -> Vec<Model> {
        self.0.models.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn model(&self, name: &str) -> Option<Model> {
        let models = self.0.models.read().unwrap_or_else(PoisonError::into_inner);
        models.iter().find(|model| model.name == name).cloned()
    }

    fn begin(&self) -> Running {
        self.0.counts.requests.fetch_add(1, Relaxed);
        self.0.counts.running.fetch_add(1, Relaxed);
        Running {
            server: self.clone(),
            is_complete: false,
        }
    }
}

impl Running {
    fn complete(&mut self, prompt_tokens: u64, generation_tokens: u64) {
        let counts = &self.server.0.counts;
        counts.prompt_tokens.fetch_add(prompt_tokens, Relaxed);
        counts.generation_tokens.fetch_add(generation_tokens, Relaxed);
        self.is_complete = true;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let counts = &self.server.0.counts;
        counts.running.fetch_sub(1, Relaxed);
        counts.aborted.fetch_add(u64::from(!self.is_complete), Relaxed);
    }
}

async fn metrics(State(server): State<Server>) -> Response {
    let counts = &server.0.counts;
    let mut text = String::new();
    for (name, kind, help, value) in [
        (
            "simulated_requests_total",
            "counter",
            "Requests received.",
            &counts.requests,
        ),
        (
            "simulated_requests_running",
            "gauge",
            "Requests under way.",
            &counts.running,
        ),
        (
            "simulated_requests_aborted_total",
            "counter",
            "Requests whose client left before the end.",
            &counts.aborted,
        ),
        (
            "simulated_prompt_tokens_total",
            "counter",
            "Tokens read, of complete requests.",
            &counts.prompt_tokens,
        ),
        (
            "simulated_generation_tokens_total",
            "counter",
            "Tokens written, of complete requests.",
            &counts.generation_tokens,
        ),
    ] {
        let _ = writeln!(
            text,
            "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {}",
            value.load(Relaxed)
        );
    }
    ([("content-type", "text/plain; version=0.0.4")], text).into_response()
}
