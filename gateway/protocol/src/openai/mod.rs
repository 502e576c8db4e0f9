//! OpenAI: chat completions, completions, embeddings.

pub(crate) mod client;
pub(crate) mod upstream;
pub(crate) mod view;

use super::refuse::RequestError;
use super::scan::{Places, Raw, Splices, model_named, top_level};
use super::{Changes, Lowered, Operation, ParsedRequest, splice_limit, splice_model};
use policy::Class;
use serde::Deserialize;

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow, default)]
    model: Raw<'a>,
    #[serde(borrow, default)]
    stream: Raw<'a>,
    #[serde(borrow, default)]
    max_tokens: Raw<'a>,
    #[serde(borrow, default)]
    max_completion_tokens: Raw<'a>,
    #[serde(borrow, default)]
    n: Raw<'a>,
    #[serde(borrow, default)]
    stream_options: Raw<'a>,
    #[serde(borrow, default)]
    service_tier: Raw<'a>,
    #[serde(borrow, default)]
    messages: Raw<'a>,
    #[serde(borrow, default)]
    prompt: Raw<'a>,
    #[serde(borrow, default)]
    input: Raw<'a>,
    #[serde(borrow, default)]
    tools: Raw<'a>,
}

#[derive(Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

pub(crate) fn parse(body: &[u8]) -> Result<ParsedRequest<'_>, RequestError> {
    let head: Head<'_> = top_level(body)?;
    // `max_completion_tokens` is the newer name, and wins where both are given.
    let limit = match head.max_completion_tokens.text() {
        Some(_) => head.max_completion_tokens,
        None if head.max_tokens.len() > 0 => head.max_tokens,
        None => head.max_completion_tokens,
    };
    let wants_usage = match head.stream_options.text() {
        Some(options) => top_level::<StreamOptions>(options.as_bytes())?.include_usage,
        None => None,
    };
    Ok(ParsedRequest {
        model: model_named(head.model)?,
        is_streaming: head.stream.truth("stream")?.unwrap_or(false),
        max_tokens: limit.count("max_tokens")?,
        answers: head.n.count("n")?.unwrap_or(1),
        prompt_bytes: [head.messages, head.prompt, head.input, head.tools]
            .into_iter()
            .map(Raw::len)
            .sum(),
        wants_usage: wants_usage.unwrap_or(false),
        user_id: None,
        project_id: None,
        lowered: Lowered {
            class: (head.service_tier.text() == Some("\"flex\"")).then_some(Class::Batch),
            priority: None,
        },
        in_background: false,
        prompt: [head.messages, head.prompt, head.input].into_iter().find_map(Raw::text),
        places: Places {
            model: head.model.place(body),
            max_tokens: limit.place(body),
            options: head.stream_options.place(body),
            background: None,
        },
    })
}

pub(crate) fn changes(
    call: Operation,
    body: &[u8],
    parsed: &ParsedRequest<'_>,
    changes: &Changes<'_>,
    splices: &mut Splices,
) {
    let places = &parsed.places;
    splice_model(parsed, changes, splices);
    if call.generates() {
        splice_limit("max_tokens", body, parsed, changes, splices);
    }
    if parsed.is_streaming && call.generates() && !parsed.wants_usage {
        match &places.options {
            Some(place) => splices.replace(place.clone(), asking_usage(&body[place.clone()])),
            None => splices.add_key(body, 0, "stream_options", r#"{"include_usage":true}"#),
        }
    }
}

/// The client's own stream options, and that its usage is wanted.
fn asking_usage(options: &[u8]) -> String {
    let mut options = match serde_json::from_slice(options) {
        Ok(serde_json::Value::Object(options)) => options,
        _ => serde_json::Map::new(),
    };
    options.insert("include_usage".to_owned(), true.into());
    serde_json::Value::Object(options).to_string()
}
