//! OpenAI: responses.

pub(crate) mod client;
mod conversation;
mod history;
mod input_tokens;
mod references;
pub(crate) mod view;
mod whole;

pub use conversation::{Label, Stateless, history, input_items, last_response, not_stored, replay, stateless};
pub(crate) use input_tokens::InputTokens;
pub use references::{StoredItems, output_ids, references};

use crate::Operation;
use crate::dialect::{Dialect, NativeApis};
use crate::error::RequestError;
use crate::hub::{About, Chat, Encoder};
use crate::request::{Limit, Lowered, ParsedRequest, RequestChanges, Spans, flex, model_named, splice_limits};
use crate::scan::{Splices, fields, top_level};
use crate::size::PromptSize;
use crate::unsupported::{Dropped, Side};
use crate::view::Seen;
use policy::Class;
use serde_json::{Map, Value, json};

fields! {
    struct Head {
        model, stream, background, service_tier, truncation,
        max_output_tokens, max_tokens, max_completion_tokens,
        input, instructions, tools, text, previous_response_id, conversation, prompt, store,
    }
}

/// The dialect.
pub(crate) struct Responses;

impl Dialect for Responses {
    fn parse<'a>(&self, _: Operation, body: &'a [u8], _: Option<&str>) -> Result<ParsedRequest<'a>, RequestError> {
        let head: Head<'_> = top_level(body)?;
        let in_background = head.background.truth().unwrap_or(false);
        let is_streaming = head.stream.truth().unwrap_or(false);
        if in_background && is_streaming {
            let message = "a response in the background cannot be streamed; leave `stream` or `background` out";
            return Err(RequestError::invalid("stream", message));
        }
        let foreign = [
            ("max_tokens", head.max_tokens),
            ("max_completion_tokens", head.max_completion_tokens),
        ];
        let mut limits = Limit::read_all(&[("max_output_tokens", head.max_output_tokens)], body)?;
        limits.extend(
            foreign
                .iter()
                .filter_map(|(key, raw)| Limit::of_another(key, *raw, body)),
        );
        Ok(ParsedRequest {
            model: model_named(head.model)?,
            is_streaming,
            max_tokens: Limit::largest(&limits),
            answers: 1,
            size: size(&head),
            wants_usage: true,
            lowered: Lowered {
                class: in_background.then_some(Class::Batch).or(flex(head.service_tier)),
                priority: None,
            },
            in_background,
            prompt: head.input.text(),
            storage: conversation::storage_of(&head),
            spans: Spans {
                model: head.model.range(body),
                limits,
                background: head.background.range(body),
                ..Spans::default()
            },
            ..ParsedRequest::default()
        })
    }

    fn rewrite(
        &self,
        _: Operation,
        body: &[u8],
        parsed: &ParsedRequest<'_>,
        changes: &RequestChanges<'_>,
        splices: &mut Splices,
    ) {
        // The gateway makes it in the background; its server is asked as by a client that waits.
        if let Some(range) = parsed.spans.background.clone().filter(|_| parsed.in_background) {
            splices.replace(range, "false");
        }
        splice_limits("max_output_tokens", body, parsed, changes, splices);
    }

    fn error_event(&self, error: &RequestError, _: &str) -> Vec<u8> {
        let (_, code) = error.code.openai();
        let body = json!({"type": "error", "code": code, "message": error.message, "param": error.param});
        format!("event: error\ndata: {body}\n\n").into_bytes()
    }

    fn measure<'a>(&self, data: &'a [u8]) -> Option<Seen<'a>> {
        view::view(data)
    }

    fn as_stream(&self, whole: Map<String, Value>, _: bool) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        whole::write_stream(&whole.into(), None, &mut out);
        Some(out)
    }

    fn gathered(&self, records: &mut dyn Iterator<Item = Value>) -> Option<Value> {
        let responses = records.filter(|event| event["response"]["output"].is_array());
        responses.last().map(|mut event| event["response"].take())
    }

    fn is_native(&self, apis: NativeApis) -> bool {
        apis.responses
    }

    fn side(&self) -> Side {
        Side::Responses
    }

    fn read(
        &self,
        _: Operation,
        body: &[u8],
        _: &ParsedRequest<'_>,
        about: &About,
        dropped: &mut Dropped,
    ) -> Result<(Chat, Option<Box<dyn Encoder>>), RequestError> {
        let (chat, repeated) = client::read(body, dropped)?;
        let encoder = client::ResponseEncoder::new(about.clone(), repeated);
        Ok((chat, Some(Box::new(encoder))))
    }
}

/// The size of the prompt; what its server stored of a conversation or a prompt is not in the body.
fn size(head: &Head<'_>) -> PromptSize {
    let unseen = [head.previous_response_id, head.conversation, head.prompt];
    PromptSize::of(&[head.input, head.instructions, head.tools, head.text])
        .unbounded_if(unseen.iter().any(|field| field.text().is_some()))
        .truncated_if(head.truncation.text() == Some("\"auto\""))
}

/// A response that is made in the background, as it is shown before there is one or where there will be none.
pub fn pending(body: &[u8], request_id: &str, created: i64, status: &str) -> Value {
    let repeated = client::request(body).map(|(_, repeated)| repeated).unwrap_or_default();
    let model = Responses
        .parse(Operation::Responses, body, None)
        .map(|parsed| parsed.model.into_owned());
    let about = About {
        request_id: request_id.to_owned(),
        model: model.unwrap_or_default(),
        created,
        ..About::default()
    };
    let mut response = client::shape(&about, &repeated, status);
    response["background"] = true.into();
    response
}
