//! OpenAI: responses.

pub(crate) mod client;
mod history;
pub(crate) mod view;

use super::hub::About;
use super::refuse::{ErrorCode, RequestError};
use super::scan::{Places, Raw, Splices, model_named, top_level};
use super::{Changes, Lowered, ParsedRequest, splice_limit, splice_model};
use policy::Class;
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow, default)]
    model: Raw<'a>,
    #[serde(borrow, default)]
    stream: Raw<'a>,
    #[serde(borrow, default)]
    background: Raw<'a>,
    #[serde(borrow, default)]
    max_output_tokens: Raw<'a>,
    #[serde(borrow, default)]
    service_tier: Raw<'a>,
    #[serde(borrow, default)]
    input: Raw<'a>,
    #[serde(borrow, default)]
    instructions: Raw<'a>,
    #[serde(borrow, default)]
    tools: Raw<'a>,
}

pub(crate) fn parse(body: &[u8]) -> Result<ParsedRequest<'_>, RequestError> {
    let head: Head<'_> = top_level(body)?;
    let parts = [head.input, head.instructions, head.tools];
    let in_background = head.background.truth("background")?.unwrap_or(false);
    if in_background && head.stream.truth("stream")? == Some(true) {
        let message = "nobody is there to read a stream in the background; leave `stream` out";
        return Err(RequestError::param(ErrorCode::BadRequest, "stream", message));
    }
    Ok(ParsedRequest {
        model: model_named(head.model)?,
        is_streaming: head.stream.truth("stream")?.unwrap_or(false),
        max_tokens: head.max_output_tokens.count("max_output_tokens")?,
        answers: 1,
        prompt_bytes: parts.into_iter().map(Raw::len).sum(),
        wants_usage: true,
        user_id: None,
        project_id: None,
        lowered: Lowered {
            class: (in_background || head.service_tier.text() == Some("\"flex\"")).then_some(Class::Batch),
            priority: None,
        },
        in_background,
        prompt: head.input.text(),
        places: Places {
            model: head.model.place(body),
            max_tokens: head.max_output_tokens.place(body),
            options: None,
            background: head.background.place(body),
        },
    })
}

pub(crate) fn changes(body: &[u8], parsed: &ParsedRequest<'_>, changes: &Changes<'_>, splices: &mut Splices) {
    let places = &parsed.places;
    splice_model(parsed, changes, splices);
    // It is made in the background of the gateway: its server is asked as by anybody who waits.
    if let Some(place) = places.background.clone().filter(|_| parsed.in_background) {
        splices.replace(place, "false");
    }
    splice_limit("max_output_tokens", body, parsed, changes, splices);
}

/// A response that is made in the background, before there is one or where there will be none.
pub fn pending(body: &[u8], request_id: &str, created: i64, status: &str) -> Value {
    let repeated = client::request(body).map(|(_, repeated)| repeated).unwrap_or_default();
    let model = parse(body).map(|parsed| parsed.model.into_owned());
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
