//! What a protocol must know of itself; everything else in this crate asks it through here.

use crate::Operation;
use crate::catalogue::Entry;
use crate::error::RequestError;
use crate::request::{ParsedRequest, RequestChanges};
use crate::scan::Splices;
use serde_json::{Value, json};

/// A protocol, or an operation that is read in its own way. The default methods are OpenAI's, which most servers share.
pub(crate) trait Dialect: Sync {
    /// Reads what policy needs of a body; anything else in it stays unread. A `model` that is missing is empty.
    fn parse<'a>(&self, operation: Operation, body: &'a [u8]) -> Result<ParsedRequest<'a>, RequestError>;

    /// The same for a body of some content type; most protocols read JSON, whatever the header says.
    fn parse_typed<'a>(
        &self,
        operation: Operation,
        body: &'a [u8],
        content_type: Option<&str>,
    ) -> Result<ParsedRequest<'a>, RequestError> {
        let _ = content_type;
        self.parse(operation, body)
    }

    /// Notes what of a body has to change for the server; the model's name is changed for all.
    fn rewrite(
        &self,
        operation: Operation,
        body: &[u8],
        parsed: &ParsedRequest<'_>,
        changes: &RequestChanges<'_>,
        splices: &mut Splices,
    ) {
        let _ = (operation, body, parsed, changes, splices);
    }

    /// What the gateway answers itself where the model's server does not speak the protocol: a count, a description.
    fn answer_here(
        &self,
        operation: Operation,
        parsed: &ParsedRequest<'_>,
        model: &Entry<'_>,
        input_tokens: u64,
    ) -> Option<Value> {
        let _ = (operation, parsed, model, input_tokens);
        None
    }

    /// The body of an error.
    fn error_body(&self, error: &RequestError, request_id: &str) -> Value {
        let _ = request_id;
        let (kind, code) = error.code.openai();
        json!({"error": {"message": error.message, "type": kind, "param": error.param, "code": code}})
    }

    /// The event that ends a stream with an error.
    fn error_event(&self, error: &RequestError, request_id: &str) -> Vec<u8> {
        format!("data: {}\n\n", self.error_body(error, request_id)).into_bytes()
    }

    /// The content type of a stream.
    fn stream_type(&self) -> &'static str {
        "text/event-stream"
    }
}
