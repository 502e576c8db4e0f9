//! `POST /v1/responses/input_tokens`: the number of tokens of a response's input. A server that has no such endpoint
//! is spared it: the gateway answers with its estimate.

use super::Responses;
use crate::Operation;
use crate::catalogue::Entry;
use crate::dialect::Dialect;
use crate::error::RequestError;
use crate::request::ParsedRequest;
use serde_json::{Value, json};

/// The dialect: a response of which only the input counts.
pub(crate) struct InputTokens;

impl Dialect for InputTokens {
    fn parse<'a>(&self, _: Operation, body: &'a [u8], _: Option<&str>) -> Result<ParsedRequest<'a>, RequestError> {
        let parsed = Responses.parse(Operation::Responses, body, None)?;
        Ok(ParsedRequest {
            is_streaming: false,
            in_background: false,
            ..parsed
        })
    }

    fn answer_here(&self, _: Operation, _: &ParsedRequest<'_>, _: &Entry<'_>, input_tokens: u64) -> Option<Value> {
        Some(json!({"object": "response.input_tokens", "input_tokens": input_tokens}))
    }
}

#[cfg(test)]
mod tests {
    use crate::catalogue::Entry;
    use crate::{Operation, Route, answer_here, parse, route};

    #[test]
    fn the_estimate_is_given_in_openais_shape() {
        let operation = Operation::ResponseInputTokens;
        assert_eq!(route("POST", "/v1/responses/input_tokens"), Route::Operation(operation));
        let body = br#"{"model":"m","input":"Tell me a joke."}"#;
        let parsed = parse(operation, body).expect("valid");
        assert_eq!((parsed.answers, parsed.size.text_bytes), (0, 15));
        let entry = Entry {
            name: "m",
            owner: "openai",
            max_input_tokens: 1000,
        };
        // https://platform.openai.com/docs/api-reference/responses/input-tokens
        let answer = answer_here(operation, &parsed, &entry, 11).expect("answered");
        assert_eq!(
            answer.to_string(),
            r#"{"object":"response.input_tokens","input_tokens":11}"#
        );
    }
}
