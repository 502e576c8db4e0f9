//! Fields that all chunks of a completion have, streamed or not.

use super::Kind;
use super::request::Request;
use crate::Server;
use crate::dialect::Dialect;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The form of one request's answers.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    pub(super) kind: Kind,
    pub(super) dialect: Dialect,
    id: String,
    model: String,
    created: i64,
    /// Alternatives listed beside each token (`top_logprobs`), if log probabilities were requested.
    logprobs: Option<usize>,
}

impl Shape {
    pub(super) fn new(server: &Server, request: &Request, kind: Kind, model: &str) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Relaxed);
        let prefix = if kind == Kind::Chat { "chatcmpl" } else { "cmpl" };
        let logprobs = match &request.logprobs {
            Some(Value::Bool(true)) => usize::try_from(request.top_logprobs.unwrap_or(0)).ok(),
            Some(Value::Number(count)) => count.as_u64().and_then(|count| usize::try_from(count).ok()),
            _ => None,
        };
        Self {
            kind,
            dialect: server.0.dialect.clone(),
            id: format!("{prefix}-simulated-{number}"),
            model: model.to_owned(),
            created: jiff::Timestamp::now().as_second(),
            logprobs: logprobs.map(|count| count.min(20)),
        }
    }

    pub(super) fn has_logprobs(&self) -> bool {
        self.logprobs.is_some()
    }

    /// The fields of a chunk or of a whole answer, without its choices.
    pub(super) fn frame(&self, is_chunk: bool) -> Value {
        let object = match (self.kind, is_chunk) {
            (Kind::Chat, true) => "chat.completion.chunk",
            (Kind::Chat, false) => "chat.completion",
            (Kind::Completion, _) => "text_completion",
        };
        json!({"id": self.id, "object": object, "created": self.created, "model": self.model})
    }

    pub(super) fn logprobs(&self, pieces: &[String]) -> Value {
        let Some(others) = self.logprobs else {
            return Value::Null;
        };
        if self.kind == Kind::Completion {
            let logprobs: Vec<f64> = pieces.iter().map(|piece| logprob(piece)).collect();
            return json!({"tokens": pieces, "token_logprobs": logprobs, "text_offset": [], "top_logprobs": null});
        }
        let entry = |token: &str, at: f64| json!({"token": token, "logprob": at, "bytes": token.as_bytes()});
        let content = pieces.iter().map(|piece| {
            let mut described = entry(piece, logprob(piece));
            let top = (0..others).map(|number| match number {
                0 => entry(piece, logprob(piece)),
                number => entry(
                    &format!("{piece}{number}"),
                    logprob(piece) - f64::from(u8::try_from(number).unwrap_or(u8::MAX)),
                ),
            });
            described["top_logprobs"] = top.collect::<Vec<_>>().into();
            described
        });
        json!({"content": content.collect::<Vec<_>>(), "refusal": null})
    }
}

/// A probability that depends on the token alone.
fn logprob(token: &str) -> f64 {
    let sum: u32 = token.bytes().map(u32::from).sum();
    -f64::from(sum % 100) / 200.0
}
