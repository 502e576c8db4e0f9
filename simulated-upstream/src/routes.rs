//! The paths.

use crate::replay;
use crate::{Server, anthropic, generation, metrics, ollama, openai, responses};
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{Json, Response};
use axum::routing::{get, post};
use serde_json::json;

pub(crate) fn router(server: Server) -> Router {
    openai_routes()
        .merge(other_routes())
        .fallback(|| async { (StatusCode::NOT_FOUND, Json(json!({"detail": "Not Found"}))) })
        .method_not_allowed_fallback(|| async {
            (
                StatusCode::METHOD_NOT_ALLOWED,
                Json(json!({"detail": "Method Not Allowed"})),
            )
        })
        .layer(DefaultBodyLimit::max(256 << 20))
        .layer(middleware::from_fn_with_state(server.clone(), replay::or_next))
        .layer(middleware::from_fn_with_state(server.clone(), unless_crashed))
        .with_state(server)
}

/// Routes of vLLM's server.
fn openai_routes() -> Router<Server> {
    let version = concat!(env!("CARGO_PKG_VERSION"), "+simulated");
    Router::new()
        .route("/health", get(|| async { Json(json!({"status": "ok"})) }))
        .route("/ping", get(|| async {}).post(|| async {}))
        .route(
            "/version",
            get(move || async move { Json(json!({"version": version})) }),
        )
        .route("/metrics", get(metrics::show))
        .route("/tokenize", post(openai::tokenize))
        .route("/detokenize", post(openai::detokenize))
        .route("/v1/models", get(openai::models))
        .route("/v1/models/{*name}", get(openai::model))
        .route("/v1/chat/completions", post(openai::chat))
        .route("/v1/completions", post(openai::completions))
        .route("/v1/embeddings", post(openai::embeddings))
        .route("/v1/responses", post(responses::create))
        .route("/v1/responses/input_tokens", post(responses::input_tokens))
        .route("/rerank", post(openai::rerank))
        .route("/v1/rerank", post(openai::rerank))
        .route("/v2/rerank", post(openai::rerank))
        .route("/score", post(openai::score))
        .route("/v1/score", post(openai::score))
        .route("/v1/audio/transcriptions", post(openai::transcriptions))
        .route("/v1/audio/translations", post(openai::translations))
        .route("/v1/audio/speech", post(openai::speech))
        .route("/v1/images/generations", post(openai::images))
}

/// Anthropic's and Ollama's.
fn other_routes() -> Router<Server> {
    Router::new()
        .route("/v1/messages", post(anthropic::messages))
        .route("/v1/messages/count_tokens", post(anthropic::count))
        .route("/api/chat", post(ollama::chat))
        .route("/api/generate", post(ollama::generate))
        .route("/api/embed", post(ollama::embed))
        .route("/api/embeddings", post(ollama::embeddings))
        .route("/api/tags", get(ollama::tags))
        .route("/api/ps", get(ollama::ps))
        .route("/api/show", post(ollama::show))
        .route(
            "/api/version",
            get(|| async { Json(json!({"version": env!("CARGO_PKG_VERSION")})) }),
        )
        .route(
            "/api/pull",
            post(|| async {
                let error = json!({"error": "a simulated server pulls no models"});
                (StatusCode::FORBIDDEN, Json(error))
            }),
        )
}

/// Answers no request while a crash lasts.
async fn unless_crashed(State(server): State<Server>, request: Request, next: Next) -> Response {
    if server.is_down() {
        generation::close_the_connection();
    }
    next.run(request).await
}
