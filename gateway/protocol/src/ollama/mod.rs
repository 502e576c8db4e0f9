//! Ollama's native API: chat, generate, embed, embeddings, show.

pub(crate) mod client;
mod history;
mod keep_alive;
pub(crate) mod upstream;
pub(crate) mod view;
mod whole;

use crate::Operation;
use crate::catalogue::{self, Entry};
use crate::dialect::{Dialect, NativeApis, Server};
use crate::error::RequestError;
use crate::hub::{About, Chat, Encoder};
use crate::request::{Limit, Limited, ModelLoad, ParsedRequest, RequestChanges, Spans, model_named, splice_limits};
use crate::scan::{Raw, Splices, fields, inner, top_level};
use crate::size::PromptSize;
use crate::unsupported::{Dropped, Side};
use crate::view::Seen;
use crate::wire::Framing;
use serde_json::{Value, json};

fields! {
    struct Head {
        model, stream, options, messages, prompt, system, suffix, template, context, images, input, tools, format,
        keep_alive,
        // The older name of `model`.
        name,
    }
}

fields! {
    struct Options { num_predict }
}

/// The dialect.
pub(crate) struct Ollama;

impl Dialect for Ollama {
    fn parse<'a>(
        &self,
        operation: Operation,
        body: &'a [u8],
        _: Option<&str>,
    ) -> Result<ParsedRequest<'a>, RequestError> {
        let head: Head<'_> = top_level(body)?;
        let named = if head.model.text().is_none() {
            head.name
        } else {
            head.model
        };
        let options: Options<'_> = inner(head.options, "options")?;
        let mut limits = Limit::read_all(&[("num_predict", options.num_predict)], body)?;
        for limit in &mut limits {
            // Its runner stops at a number above 0 only.
            if limit.value == Limited::Tokens(0) {
                limit.value = Limited::Unlimited;
            }
        }
        let unloads = unloads(head.keep_alive);
        Ok(ParsedRequest {
            model: model_named(named)?,
            is_streaming: operation.generates() && head.stream.truth().unwrap_or(true),
            max_tokens: Limit::largest(&limits),
            answers: 1,
            size: size(&head),
            wants_usage: true,
            load: operation.generates().then(|| load(operation, &head, unloads)).flatten(),
            prompt: [head.messages, head.prompt, head.input].into_iter().find_map(Raw::text),
            spans: Spans {
                model: named.range(body),
                limits,
                options: head.options.range(body),
                unload: head.keep_alive.range(body).filter(|_| unloads),
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
        let spans = &parsed.spans;
        if let Some(keep_alive) = &spans.unload {
            splices.remove_key(body, keep_alive.clone());
        }
        if !operation.generates() || parsed.load.is_some() {
            return;
        }
        let Some(granted) = changes.max_tokens else { return };
        if !spans.limits.is_empty() {
            return splice_limits("num_predict", body, parsed, changes, splices);
        }
        match &spans.options {
            Some(options) if body[options.clone()].starts_with(b"{") => {
                splices.add_key(body, options.start, "num_predict", &granted.to_string());
            }
            Some(null) => splices.replace(null.clone(), format!("{{\"num_predict\":{granted}}}")),
            None => splices.add_key(body, 0, "options", &format!("{{\"num_predict\":{granted}}}")),
        }
    }

    fn answer_here(
        &self,
        operation: Operation,
        parsed: &ParsedRequest<'_>,
        model: &Entry<'_>,
        _: u64,
    ) -> Option<Value> {
        match parsed.load {
            Some(load) => Some(catalogue::ollama_loaded(operation, load, &parsed.model)),
            None => (operation == Operation::OllamaShow).then(|| catalogue::ollama_show(model)),
        }
    }

    fn error_body(&self, error: &RequestError, _: &str) -> Value {
        json!({"error": error.message})
    }

    fn error_event(&self, error: &RequestError, request_id: &str) -> Vec<u8> {
        format!("{}\n", self.error_body(error, request_id)).into_bytes()
    }

    fn has_no_default_limit(&self) -> bool {
        true
    }

    fn framing(&self) -> Framing {
        Framing::JsonLines
    }

    fn measure<'a>(&self, data: &'a [u8]) -> Option<Seen<'a>> {
        view::view(data)
    }

    fn gathered(&self, records: &mut dyn Iterator<Item = Value>) -> Option<Value> {
        whole::gathered(records)
    }

    fn is_native(&self, apis: NativeApis) -> bool {
        apis.ollama
    }

    fn side(&self) -> Side {
        Side::Ollama
    }

    fn read(
        &self,
        operation: Operation,
        body: &[u8],
        _: &ParsedRequest<'_>,
        about: &About,
        dropped: &mut Dropped,
    ) -> Result<(Chat, Option<Box<dyn Encoder>>), RequestError> {
        let chat = client::request(operation, body, about.context, dropped)?;
        let is_chat = operation == Operation::OllamaChat;
        let encoder = client::OllamaEncoder::new(about.clone(), is_chat);
        Ok((chat, Some(Box::new(encoder))))
    }

    fn server(&self) -> Option<&'static dyn Server> {
        Some(&upstream::OllamaServer)
    }
}

/// The size of the prompt. Ollama cuts a prompt that is longer than its context.
fn size(head: &Head<'_>) -> PromptSize {
    let read = [
        head.messages,
        head.system,
        head.suffix,
        head.template,
        head.tools,
        head.format,
    ];
    let mut size = PromptSize::of(&read);
    size.add(head.prompt, false);
    // The numbers that an earlier answer gave back.
    size.add(head.context, true);
    size.add(head.input, false);
    size.add_images(head.images);
    let mut inputs = 0;
    head.input.each(|_| inputs += 1);
    size.split(inputs).truncated_if(true)
}

/// Returns whether a request has its model unloaded when it is done.
fn unloads(keep_alive: Raw<'_>) -> bool {
    let value = keep_alive.text().and_then(|text| serde_json::from_str(text).ok());
    value.is_some_and(|value: Value| keep_alive::unloads(&value))
}

/// The loading of a model, if there is nothing to answer: no messages, or no prompt.
fn load(operation: Operation, head: &Head<'_>, unloads: bool) -> Option<ModelLoad> {
    let mut messages = 0;
    head.messages.each(|_| messages += 1);
    let is_empty = match operation {
        Operation::OllamaChat => messages == 0,
        _ => head.prompt.text().is_none_or(|prompt| prompt == "\"\""),
    };
    is_empty.then_some(if unloads { ModelLoad::Unload } else { ModelLoad::Load })
}
