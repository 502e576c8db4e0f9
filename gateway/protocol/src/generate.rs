//! The original system's `POST /generate`: a prompt in, a whole text out.

use super::hub::{Chat, message};
use super::meter::Usage;
use super::refuse::{ErrorCode, RequestError};
use super::scan::{Places, Raw, model_named, top_level};
use super::{Lowered, ParsedRequest};
use policy::{Class, Estimate};
use serde::Deserialize;
use serde_json::json;

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow, default)]
    user_id: Raw<'a>,
    #[serde(borrow, default)]
    project_id: Raw<'a>,
    #[serde(borrow, default)]
    model: Raw<'a>,
    #[serde(borrow, default)]
    prompt: Raw<'a>,
    #[serde(borrow, default)]
    max_tokens: Raw<'a>,
    #[serde(borrow, default)]
    request_type: Raw<'a>,
}

pub(crate) fn parse(body: &[u8]) -> Result<ParsedRequest<'_>, RequestError> {
    let head: Head<'_> = top_level(body)?;
    if head.prompt.string("prompt")?.is_none_or(|prompt| prompt.is_empty()) {
        return Err(RequestError::param(
            ErrorCode::BadRequest,
            "prompt",
            "`prompt` is missing or empty",
        ));
    }
    let class = match head.request_type.string("request_type")?.as_deref() {
        None | Some("interactive") => None,
        Some("batch") => Some(Class::Batch),
        Some(other) => {
            let message = format!("`request_type` must be interactive or batch, not `{other}`");
            return Err(RequestError::param(ErrorCode::BadRequest, "request_type", message));
        }
    };
    Ok(ParsedRequest {
        model: model_named(head.model)?,
        is_streaming: false,
        max_tokens: head.max_tokens.count("max_tokens")?,
        answers: 1,
        prompt_bytes: head.prompt.len(),
        wants_usage: true,
        user_id: head.user_id.string("user_id")?,
        project_id: head.project_id.string("project_id")?,
        lowered: Lowered { class, priority: None },
        in_background: false,
        prompt: head.prompt.text(),
        places: Places::default(),
    })
}

/// The same question as a chat completion.
pub(crate) fn request(body: &[u8]) -> Chat {
    let head = serde_json::from_slice::<Head<'_>>(body).ok();
    let prompt = head.and_then(|head| head.prompt.string("prompt").ok().flatten());
    let prompt = prompt.unwrap_or_default().into_owned();
    let mut chat = Chat::new();
    chat.insert("messages".to_owned(), json!([message("user", prompt)]));
    chat
}

/// The original's answer, made of the text of the model's.
pub fn answer(request_id: &str, text: &[u8], estimate: &Estimate, used: Usage, cost_eur: f64) -> Vec<u8> {
    let text = String::from_utf8_lossy(text);
    let answer = json!({
        "request_id": request_id,
        "status": "completed",
        "message": text,
        "estimated_input_tokens": estimate.input_tokens,
        "estimated_output_tokens": estimate.output_tokens,
        "estimated_cost_eur": estimate.cost.euros(),
        "input_tokens": used.input_tokens,
        "output_tokens": used.output_tokens,
        "cost_eur": cost_eur,
    });
    answer.to_string().into_bytes()
}
