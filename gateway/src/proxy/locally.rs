//! What the gateway answers itself, though it names a model.

use super::answer::FinalPart;
use super::exchange::Exchange;
use super::lists::entry;
use bytes::Bytes;
use protocol::ParsedRequest;

/// The answer, where the model's servers do not speak the client's protocol and none is needed: a prompt's tokens by
/// what was learned of the model, Ollama's description of a model, the loading of one.
pub(super) fn answer(exchange: &Exchange, parsed: &ParsedRequest<'_>, input_tokens: u64) -> Option<FinalPart> {
    let record = &exchange.record;
    let model = record.model?;
    if record.snapshot.upstreams.speaks(model).natively(record.call) {
        return None;
    }
    let model = entry(record.snapshot.config.model(model));
    let body = protocol::answer_here(record.call, parsed, &model, input_tokens)?;
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
