//! The dialect of each protocol and operation, and what is done with requests and errors through them.

use crate::catalogue::Entry;
use crate::dialect::Dialect;
use crate::error::RequestError;
use crate::operation::{Operation, Protocol, with_operations, with_protocols};
use crate::request::{LimitRule, ParsedRequest, RequestChanges};
use crate::scan::{Splices, quoted};
use crate::{anthropic, generate, ollama, openai, rerank, responses, score};
use serde_json::Value;
use std::borrow::Cow;

macro_rules! dialects_of_protocols {
    ($($(#[$doc:meta])* $name:ident = $dialect:expr, $label:literal;)*) => {
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
       [$($path:literal),+] => $upstream:literal;)*) => {
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
    parse_with_model(operation, body, None)
}

/// The same; `model` is the one that an Azure client names in its path, which counts more than the body's.
pub fn parse_with_model<'a>(
    operation: Operation,
    body: &'a [u8],
    model: Option<&str>,
) -> Result<ParsedRequest<'a>, RequestError> {
    let mut parsed = operation.dialect().parse(operation, body)?;
    if let Some(model) = model {
        parsed.places.has_model_of_path = parsed.model != model;
        parsed.model = Cow::Owned(model.to_owned());
    }
    if parsed.model.is_empty() {
        return Err(RequestError::invalid(
            "model",
            "`model` is missing; GET /v1/models lists the models",
        ));
    }
    if !operation.generates() {
        (parsed.answers, parsed.is_streaming) = (0, false);
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
    let mut splices = Splices::default();
    let places = &parsed.places;
    if changes.model != parsed.model || places.has_model_of_path {
        match &places.model {
            Some(range) => splices.replace(range.clone(), quoted(changes.model)),
            None => splices.add_key(body, 0, "model", &quoted(changes.model)),
        }
    }
    operation
        .dialect()
        .rewrite(operation, body, parsed, changes, &mut splices);
    splices.apply(body)
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
