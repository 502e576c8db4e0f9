//! What the gateway answers itself, though it names a model.

use super::answer::FinalPart;
use super::exchange::Exchange;
use bytes::Bytes;
use protocol::{Operation, catalogue};
use serde_json::json;

/// The answer, if the model's servers have none: a prompt's tokens by what was learned of the model, and what Ollama
/// shows of a model that is not Ollama's.
pub(super) fn answer(exchange: &Exchange, input_tokens: u64) -> Option<FinalPart> {
    let record = &exchange.record;
    let model = record.model?;
    if record.snapshot.upstreams.speaks(model).natively(record.call) {
        return None;
    }
    let model = record.snapshot.config.model(model);
    let body = match record.call {
        Operation::CountTokens => json!({"input_tokens": input_tokens}),
        Operation::OllamaShow => catalogue::ollama_show(model.backend.word(), model.max_input_tokens),
        _ => return None,
    };
    Some(FinalPart::Body {
        status: 200,
        content_type: Bytes::from_static(b"application/json"),
        body: body.to_string().into(),
    })
}
