//! Anthropic: messages, and the count of a prompt's tokens.

pub(crate) mod client;
mod history;
pub(crate) mod view;
mod whole;

use crate::Operation;
use crate::catalogue::Entry;
use crate::dialect::{Dialect, NativeApis};
use crate::error::RequestError;
use crate::hub::{About, Chat, Encoder};
use crate::request::{Limit, ParsedRequest, RequestChanges, Spans, model_named, splice_limits};
use crate::scan::{Splices, fields, top_level};
use crate::size::PromptSize;
use crate::unsupported::{Dropped, Side};
use crate::view::Seen;
use serde_json::{Map, Value, json};

fields! {
    struct Head {
        model, stream, max_tokens, messages, system, tools, output_config, output_format, thread, container,
    }
}

/// The dialect.
pub(crate) struct Anthropic;

impl Dialect for Anthropic {
    fn parse<'a>(&self, _: Operation, body: &'a [u8], _: Option<&str>) -> Result<ParsedRequest<'a>, RequestError> {
        let head: Head<'_> = top_level(body)?;
        let limits = Limit::read_all(&[("max_tokens", head.max_tokens)], body)?;
        let read = [
            head.messages,
            head.system,
            head.tools,
            head.output_config,
            head.output_format,
        ];
        // What a thread or a container holds is at the server.
        let is_unbounded = head.thread.text().is_some() || head.container.text().is_some();
        Ok(ParsedRequest {
            model: model_named(head.model)?,
            is_streaming: head.stream.truth().unwrap_or(false),
            max_tokens: Limit::largest(&limits),
            answers: 1,
            size: PromptSize::of(&read).unbounded_if(is_unbounded),
            wants_usage: true,
            prompt: head.messages.text(),
            spans: Spans {
                model: head.model.range(body),
                limits,
                ..Spans::default()
            },
            ..ParsedRequest::default()
        })
    }

    fn rewrite(
        &self,
        operation: Operation,
        body: &[u8],
        parsed: &ParsedRequest<'_>,
        changes: &RequestChanges<'_>,
        splices: &mut Splices,
    ) {
        if operation.generates() {
            splice_limits("max_tokens", body, parsed, changes, splices);
        }
    }

    fn answer_here(
        &self,
        operation: Operation,
        _: &ParsedRequest<'_>,
        _: &Entry<'_>,
        input_tokens: u64,
    ) -> Option<Value> {
        (operation == Operation::CountTokens).then(|| json!({"input_tokens": input_tokens}))
    }

    fn error_body(&self, error: &RequestError, request_id: &str) -> Value {
        let mut body = json!({
            "type": "error",
            "error": {"type": error_type(error.code.status()), "message": error.message},
            "request_id": request_id,
        });
        if let Some(detail) = error.detail {
            body["error"]["details"] = json!({"error_code": detail});
        }
        body
    }

    fn error_event(&self, error: &RequestError, request_id: &str) -> Vec<u8> {
        format!("event: error\ndata: {}\n\n", self.error_body(error, request_id)).into_bytes()
    }

    fn measure<'a>(&self, data: &'a [u8]) -> Option<Seen<'a>> {
        view::view(data)
    }

    fn as_stream(&self, whole: Map<String, Value>, _: bool) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        whole::write_stream(whole.into(), &mut out);
        Some(out)
    }

    fn gathered(&self, records: &mut dyn Iterator<Item = Value>) -> Option<Value> {
        whole::gathered(records)
    }

    fn is_native(&self, apis: NativeApis) -> bool {
        apis.anthropic
    }

    fn side(&self) -> Side {
        Side::Anthropic
    }

    fn read(
        &self,
        _: Operation,
        body: &[u8],
        _: &ParsedRequest<'_>,
        about: &About,
        dropped: &mut Dropped,
    ) -> Result<(Chat, Option<Box<dyn Encoder>>), RequestError> {
        let chat = client::request(body, dropped)?;
        Ok((chat, Some(Box::new(client::MessageEncoder::new(about.clone())))))
    }
}

/// Anthropic's error type for a status.
fn error_type(status: u16) -> &'static str {
    match status {
        400 | 405 | 408 | 409 | 415 => "invalid_request_error",
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        503 => "overloaded_error",
        504 => "timeout_error",
        _ => "api_error",
    }
}
