//! Operations that name a model and need none of its servers.

use super::final_part::FinalPart;
use crate::record::Record;
use bytes::Bytes;
use protocol::{ModelLoad, ParsedRequest};

/// The gateway's own answer where the model's servers do not speak the client's protocol and none is needed: a prompt's
/// token count by the learned estimate, Ollama's description of a model, the loading of one. Unloading is always answered
/// here: other projects use the same model.
pub(super) fn answer(record: &Record, parsed: &ParsedRequest<'_>, input_tokens: u64) -> Option<FinalPart> {
    let model = record.model?;
    let unloads = parsed.load == Some(ModelLoad::Unload);
    if !unloads && record.snapshot.upstreams.native_apis(model).supports(record.operation) {
        return None;
    }
    let entry = record.snapshot.config.model(model).entry();
    let body = protocol::answer_here(record.operation, parsed, &entry, input_tokens)?;
    let (content_type, end) = if parsed.is_streaming {
        (record.protocol().stream_type(), "\n")
    } else {
        ("application/json", "")
    };
    Some(FinalPart::Body {
        status: 200,
        content_type: Bytes::from_static(content_type.as_bytes()),
        body: format!("{body}{end}").into(),
    })
}
