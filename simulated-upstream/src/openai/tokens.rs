//! vLLM's `/tokenize` and `/detokenize`.

use super::chat::prompt_of;
use super::request::{Request, read};
use super::{Kind, refuse};
use crate::Server;
use crate::answer::{text_of_ids, token_ids};
use crate::refusal::Refusal;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Json, Response};
use serde::Deserialize;
use serde_json::{Value, json};

pub(crate) async fn tokenize(State(server): State<Server>, body: Bytes) -> Response {
    match tokenized(&server, &body) {
        Ok(answer) => Json(answer).into_response(),
        Err(refusal) => refuse(&server, &refusal),
    }
}

fn tokenized(server: &Server, body: &[u8]) -> Result<Value, Refusal> {
    let request: Request = read(body, &[])?;
    let model = server.model_named(request.model.as_deref())?;
    let kind = if request.prompt.is_some() {
        Kind::Completion
    } else {
        Kind::Chat
    };
    let tokens = token_ids(&prompt_of(&request, kind));
    Ok(json!({"count": tokens.len(), "max_model_len": model.context(), "tokens": tokens, "token_strs": null}))
}

#[derive(Deserialize)]
struct Tokens {
    model: Option<String>,
    tokens: Vec<u64>,
}

pub(crate) async fn detokenize(State(server): State<Server>, body: Bytes) -> Response {
    let text = read::<Tokens>(&body, &["tokens"]).and_then(|request| {
        server.model_named(request.model.as_deref())?;
        text_of_ids(&request.tokens).map_err(|id| Refusal::bad(format!("Token id {id} is out of vocabulary"), None))
    });
    match text {
        Ok(text) => Json::<Value>(json!({"prompt": text})).into_response(),
        Err(refusal) => refuse(&server, &refusal),
    }
}
