//! OpenAI's API, and what vLLM's server adds to it.

mod chat;
mod embeddings;
mod media;
mod models;
mod rank;
mod request;
mod shape;
mod stream;
mod tokens;

pub(crate) use chat::{chat, completions};
pub(crate) use embeddings::{embedding, embeddings};
pub(crate) use media::{images, speech, transcriptions, translations};
pub(crate) use models::{model, models};
pub(crate) use rank::{rerank, score};
pub(crate) use request::read;
pub(crate) use tokens::{detokenize, tokenize};

use crate::Server;
use crate::refusal::Refusal;
use axum::response::Response;
use serde_json::{Value, json};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Chat,
    Completion,
}

/// A text or several.
pub(crate) fn texts(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::String(text)) => vec![text.clone()],
        Some(Value::Array(texts)) => texts
            .iter()
            .filter_map(|text| text.as_str().map(str::to_owned))
            .collect(),
        _ => Vec::new(),
    }
}

/// A text, a list of texts, or OpenAI's list of parts.
pub(crate) fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().map(text_of).collect::<Vec<_>>().join("\n"),
        Value::Object(part) => part.get("text").and_then(Value::as_str).unwrap_or_default().to_owned(),
        _ => String::new(),
    }
}

/// The texts of an embeddings request.
pub(crate) fn inputs(input: Option<&Value>) -> Vec<String> {
    match input {
        Some(Value::Array(texts)) => texts.iter().map(text_of).collect(),
        Some(text) => vec![text_of(text)],
        None => Vec::new(),
    }
}

pub(crate) fn usage(prompt: u64, cached: u64, completion: u64) -> Value {
    json!({"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached}})
}

/// A refusal in the shape of the server's dialect.
pub(crate) fn refuse(server: &Server, refusal: &Refusal) -> Response {
    refusal.respond(server.0.dialect.refusal(refusal))
}
