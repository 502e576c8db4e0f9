//! `POST /v1/audio/speech`: text in, its sound out, as OpenAI's API has it. The answer is whatever the server makes of it,
//! and is not read.

use crate::Operation;
use crate::dialect::Dialect;
use crate::error::RequestError;
use crate::request::{ParsedRequest, Spans, model_named};
use crate::scan::{fields, top_level};
use crate::size::PromptSize;

fields! {
    struct Head { model, input, instructions, ref_text }
}

/// The dialect.
pub(crate) struct Speech;

impl Dialect for Speech {
    fn parse<'a>(&self, _: Operation, body: &'a [u8], _: Option<&str>) -> Result<ParsedRequest<'a>, RequestError> {
        let head: Head<'_> = top_level(body)?;
        if head.input.text().is_none() {
            return Err(RequestError::invalid(
                "input",
                "`input` is missing: the text to be spoken",
            ));
        }
        Ok(ParsedRequest {
            model: model_named(head.model)?,
            size: PromptSize::of(&[head.input, head.instructions, head.ref_text]),
            spans: Spans {
                model: head.model.range(body),
                ..Spans::default()
            },
            ..ParsedRequest::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::{LimitRule, Operation, RequestChanges, parse, rewrite};

    #[test]
    fn the_text_is_measured_and_only_the_models_name_changes() {
        let body = r#"{"input": "ein Märchen", "voice":"alloy", "speed": 1.0, "model":"tts"}"#.as_bytes();
        let parsed = parse(Operation::Speech, body).expect("valid");
        // Twelve bytes of text and two quotation marks, of which the size may count none or both.
        assert!(
            (12..=14).contains(&parsed.size.text_bytes),
            "{}",
            parsed.size.text_bytes
        );
        assert_eq!((parsed.answers, parsed.is_streaming), (0, false));
        let changes = RequestChanges::new(&parsed, "kokoro", 7, LimitRule::WhereGiven);
        let out = rewrite(Operation::Speech, body, &parsed, &changes).expect("changed");
        let wanted = r#"{"input": "ein Märchen", "voice":"alloy", "speed": 1.0, "model":"kokoro"}"#;
        assert_eq!(out, wanted.as_bytes());
    }

    #[test]
    fn a_request_without_a_text_is_refused_by_the_fields_name() {
        let error = parse(Operation::Speech, br#"{"model":"m","voice":"v"}"#).expect_err("no input");
        assert_eq!(error.param.as_deref(), Some("input"));
    }
}
