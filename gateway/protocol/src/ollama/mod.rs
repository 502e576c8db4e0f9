//! Ollama's native API: chat, generate, embed, embeddings, show.

pub(crate) mod client;
mod history;
pub(crate) mod upstream;
pub(crate) mod view;

use super::refuse::{ErrorCode, RequestError};
use super::scan::{Places, Raw, Splices, model_named, top_level};
use super::{Changes, Lowered, Operation, ParsedRequest, splice_model};
use serde::Deserialize;
use std::ops::Range;

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow, default)]
    model: Raw<'a>,
    /// What `/api/show` called it once.
    #[serde(borrow, default)]
    name: Raw<'a>,
    #[serde(borrow, default)]
    stream: Raw<'a>,
    #[serde(borrow, default)]
    options: Raw<'a>,
    #[serde(borrow, default)]
    messages: Raw<'a>,
    #[serde(borrow, default)]
    prompt: Raw<'a>,
    #[serde(borrow, default)]
    system: Raw<'a>,
    #[serde(borrow, default)]
    input: Raw<'a>,
    #[serde(borrow, default)]
    tools: Raw<'a>,
}

#[derive(Deserialize)]
struct Options<'a> {
    #[serde(borrow, default)]
    num_predict: Raw<'a>,
}

pub(crate) fn parse(call: Operation, body: &[u8]) -> Result<ParsedRequest<'_>, RequestError> {
    let head: Head<'_> = top_level(body)?;
    let named = if head.model.text().is_none() {
        head.name
    } else {
        head.model
    };
    let (max_tokens, max_tokens_place) = output_limit(body, head.options)?;
    let streams = matches!(call, Operation::OllamaChat | Operation::OllamaGenerate);
    let parts = [head.messages, head.prompt, head.system, head.input, head.tools];
    Ok(ParsedRequest {
        model: model_named(named)?,
        is_streaming: streams && head.stream.truth("stream")?.unwrap_or(true),
        max_tokens,
        answers: 1,
        prompt_bytes: parts.into_iter().map(Raw::len).sum(),
        wants_usage: true,
        user_id: None,
        project_id: None,
        lowered: Lowered::default(),
        in_background: false,
        prompt: [head.messages, head.prompt, head.input].into_iter().find_map(Raw::text),
        places: Places {
            model: named.place(body),
            max_tokens: max_tokens_place,
            options: head.options.place(body),
            background: None,
        },
    })
}

/// `options.num_predict` and its place; -1 (no end) and -2 (to the context's end) are no limit.
fn output_limit(body: &[u8], options: Raw<'_>) -> Result<(Option<u64>, Option<Range<usize>>), RequestError> {
    let Some(text) = options.text() else {
        return Ok((None, None));
    };
    let options: Options<'_> = serde_json::from_str(text).map_err(|error| {
        RequestError::param(
            ErrorCode::BadRequest,
            "options",
            format!("`options` is not what is expected: {error}"),
        )
    })?;
    let limit = options.num_predict;
    let unlimited = limit.text().is_some_and(|text| text.starts_with('-') || text == "0");
    let count = if unlimited { None } else { limit.count("num_predict")? };
    Ok((count, limit.place(body)))
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
    if call.generates() && parsed.max_tokens != Some(changes.max_tokens) {
        let limit = changes.max_tokens.to_string();
        match (&places.max_tokens, &places.options) {
            (Some(place), _) => splices.replace(place.clone(), limit),
            (None, Some(options)) if body[options.clone()].starts_with(b"{") => {
                splices.add_key(body, options.start, "num_predict", &limit);
            }
            (None, Some(null)) => splices.replace(null.clone(), format!("{{\"num_predict\":{limit}}}")),
            (None, None) => splices.add_key(body, 0, "options", &format!("{{\"num_predict\":{limit}}}")),
        }
    }
}
