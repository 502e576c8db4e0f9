//! The original system's `POST /generate`: a prompt in, a whole text out.

use crate::Operation;
use crate::dialect::Dialect;
use crate::error::{ErrorCode, RequestError};
use crate::hub::{About, Chat, Encoder, message};
use crate::request::{Limit, Lowered, ParsedRequest, Spans, model_named};
use crate::scan::{fields, top_level};
use crate::size::PromptSize;
use crate::unsupported::Dropped;
use crate::usage::Usage;
use policy::{Class, Estimate};
use serde_json::{Value, json};

fields! {
    struct Head { user_id, project_id, model, prompt, max_tokens, request_type }
}

/// The dialect. Its requests are always translated, so nothing is rewritten.
pub(crate) struct Generate;

impl Dialect for Generate {
    fn parse<'a>(&self, _: Operation, body: &'a [u8], _: Option<&str>) -> Result<ParsedRequest<'a>, RequestError> {
        let head: Head<'_> = top_level(body)?;
        if head.prompt.string("prompt")?.is_none_or(|prompt| prompt.is_empty()) {
            return Err(RequestError::invalid("prompt", "`prompt` is missing or empty"));
        }
        let limits = Limit::read_all(&[("max_tokens", head.max_tokens)], body)?;
        Ok(ParsedRequest {
            model: model_named(head.model)?,
            max_tokens: Limit::largest(&limits),
            answers: 1,
            size: PromptSize::of(&[head.prompt]),
            wants_usage: true,
            user_id: head.user_id.string("user_id")?,
            project_id: head.project_id.string("project_id")?,
            lowered: Lowered {
                class: class(&head)?,
                priority: None,
            },
            prompt: head.prompt.text(),
            spans: Spans {
                limits,
                ..Spans::default()
            },
            ..ParsedRequest::default()
        })
    }

    /// The original gives the reason as one word; for an invalid field, this gives the sentence that names it.
    fn error_body(&self, error: &RequestError, _: &str) -> Value {
        match error.code {
            ErrorCode::BadRequest | ErrorCode::RequestExceedsLimit => json!({"detail": error.message}),
            code => json!({"detail": code.name()}),
        }
    }

    fn read(
        &self,
        _: Operation,
        body: &[u8],
        _: &ParsedRequest<'_>,
        _: &About,
        _: &mut Dropped,
    ) -> Result<(Chat, Option<Box<dyn Encoder>>), RequestError> {
        Ok((request(body), None))
    }
}

fn class(head: &Head<'_>) -> Result<Option<Class>, RequestError> {
    match head.request_type.string("request_type")?.as_deref() {
        None | Some("interactive") => Ok(None),
        Some("batch") => Ok(Some(Class::Batch)),
        Some(other) => {
            let message = format!("`request_type` must be interactive or batch, not `{other}`");
            Err(RequestError::invalid("request_type", message))
        }
    }
}

/// The request as a chat completion.
pub(crate) fn request(body: &[u8]) -> Chat {
    let head = top_level::<Head<'_>>(body).ok();
    let prompt = head.and_then(|head| head.prompt.string("prompt").ok().flatten());
    let prompt = prompt.unwrap_or_default().into_owned();
    let mut chat = Chat::new();
    chat.insert("messages".to_owned(), json!([message("user", prompt)]));
    chat
}

/// The original's answer, made of the text of the model's answer.
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
