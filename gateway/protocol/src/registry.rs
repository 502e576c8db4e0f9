//! The dialect of each protocol and operation, and what is done with requests and errors through them.

use crate::catalogue::Entry;
use crate::dialect::{Dialect, NativeApis, Server};
use crate::error::RequestError;
use crate::operation::{Operation, Protocol, with_operations, with_protocols};
use crate::request::{HeadFields, LimitRule, ParsedRequest, RequestChanges};
use crate::scan::{Splices, quoted};
use crate::{
    anthropic, form, generate, images, ollama, openai, passthrough, rerank, responses, score, speech, transcriptions,
};
use bytes::Bytes;
use serde_json::Value;
use std::borrow::Cow;

macro_rules! dialects_of_protocols {
    ($($(#[$doc:meta])* $name:ident = $dialect:expr, $label:literal, [$($prefix:literal),*];)*) => {
        impl Protocol {
            pub(crate) fn dialect(self) -> &'static dyn Dialect {
                match self { $(Protocol::$name => &$dialect,)* }
            }
        }
    };
}

with_protocols!(dialects_of_protocols);

macro_rules! dialects_of_operations {
    ($($(#[$doc:meta])* $name:ident = $protocol:ident, $dialect:expr, $work:ident,
       [$($path:literal),*] => $upstream:literal;)*) => {
        impl Operation {
            pub(crate) fn dialect(self) -> &'static dyn Dialect {
                match self { $(Operation::$name => &$dialect,)* }
            }
        }
    };
}

with_operations!(dialects_of_operations);

impl Protocol {
    /// The content type of its streams.
    pub fn stream_type(self) -> &'static str {
        self.dialect().stream_type()
    }
}

impl NativeApis {
    /// The server's side of the protocol that requests are translated into: the first of the table that it speaks.
    pub(crate) fn server(self) -> Option<&'static dyn Server> {
        let mut spoken = Protocol::ALL.iter().map(|protocol| protocol.dialect());
        spoken.find_map(|dialect| dialect.server().filter(|_| dialect.is_native(self)))
    }
}

impl Operation {
    /// When a limit is written for a server that is asked this. Ollama generates up to ten contexts where none is given.
    pub fn limit_rule(self, is_lowered: bool) -> LimitRule {
        if self.protocol().dialect().has_no_default_limit() {
            LimitRule::UnderOwnName
        } else if is_lowered {
            LimitRule::Always
        } else {
            LimitRule::WhereGiven
        }
    }
}

impl RequestError {
    /// The body in a protocol's shape.
    pub fn body(&self, protocol: Protocol, request_id: &str) -> Vec<u8> {
        let body = protocol.dialect().error_body(self, request_id);
        body.to_string().into_bytes()
    }

    /// The event that ends a stream which has begun; no clean end comes after it.
    pub fn event(&self, protocol: Protocol, request_id: &str) -> Vec<u8> {
        protocol.dialect().error_event(self, request_id)
    }
}

/// Reads what policy needs of a body.
pub fn parse(operation: Operation, body: &[u8]) -> Result<ParsedRequest<'_>, RequestError> {
    parse_with_head(operation, body, HeadFields::default())
}

/// The same with what the request's head says.
pub fn parse_with_head<'a>(
    operation: Operation,
    body: &'a [u8],
    head: HeadFields<'_>,
) -> Result<ParsedRequest<'a>, RequestError> {
    let mut parsed = operation.dialect().parse(operation, body, head.content_type)?;
    if let Some(model) = head.model {
        parsed.spans.has_model_of_head = parsed.model != model;
        let of_body = std::mem::replace(&mut parsed.model, Cow::Owned(model.to_owned()));
        parsed.model_of_body = Some(of_body).filter(|name| !name.is_empty() && *name != model);
    }
    if parsed.model.is_empty() {
        return Err(RequestError::invalid(
            "model",
            "`model` is missing; GET /v1/models lists the models",
        ));
    }
    if !operation.generates() {
        parsed.answers = 0;
        parsed.is_streaming &= operation.writes_text();
    } else if parsed.load.is_some() {
        parsed.answers = 0;
    }
    Ok(parsed)
}

/// The body for the server: the client's bytes but for what had to change. `None`: unchanged.
pub fn rewrite(
    operation: Operation,
    body: &[u8],
    parsed: &ParsedRequest<'_>,
    changes: &RequestChanges<'_>,
) -> Option<Vec<u8>> {
    splices(operation, body, parsed, changes).apply(body)
}

/// The same without copying what stays: large uploads are kept once.
pub fn rewrite_in_pieces(
    operation: Operation,
    body: &Bytes,
    parsed: &ParsedRequest<'_>,
    changes: &RequestChanges<'_>,
) -> Option<Vec<Bytes>> {
    splices(operation, body, parsed, changes).pieces(body)
}

fn splices(operation: Operation, body: &[u8], parsed: &ParsedRequest<'_>, changes: &RequestChanges<'_>) -> Splices {
    let mut splices = Splices::default();
    let spans = &parsed.spans;
    if changes.model != parsed.model || spans.has_model_of_head {
        match (&spans.model, spans.form_start) {
            (Some(range), Some(_)) => {
                splices.replace(range.clone(), changes.model);
                if let Some(length) = &spans.model_length {
                    splices.replace(length.clone(), changes.model.len().to_string());
                }
            }
            (Some(range), None) => splices.replace(range.clone(), quoted(changes.model)),
            (None, _) if spans.is_opaque => {}
            (None, Some(start)) => splices.replace(start..start, form::field(body, start, "model", changes.model)),
            (None, None) => splices.add_key(body, 0, "model", &quoted(changes.model)),
        }
    }
    operation
        .dialect()
        .rewrite(operation, body, parsed, changes, &mut splices);
    splices
}

/// The gateway's own answer, for an operation that needs no model or that the model's server does not know: the number
/// of a prompt's tokens by an estimate, the description of a model, the loading of one. `None`: a server is asked.
pub fn answer_here(
    operation: Operation,
    parsed: &ParsedRequest<'_>,
    model: &Entry<'_>,
    input_tokens: u64,
) -> Option<Value> {
    operation.dialect().answer_here(operation, parsed, model, input_tokens)
}
