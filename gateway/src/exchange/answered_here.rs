//! Operations that name a model and need none of its servers.

use super::reply::FinalPart;
use crate::record::Record;
use bytes::Bytes;
use protocol::{Operation, catalogue};
use serde_json::json;

/// The gateway's own answer where the model's servers have no such call: a prompt's token count by the learned estimate,
/// and the details that Ollama shows of a model.
pub(super) fn answer(record: &Record, input_tokens: u64) -> Option<FinalPart> {
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
