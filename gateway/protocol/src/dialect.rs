//! The interface of a protocol; everything else in this crate asks it through here.

use crate::Operation;
use crate::calls::CallPiece;
use crate::catalogue::Entry;
use crate::error::RequestError;
use crate::hub::{About, Chat, Encoder, Part, untranslatable};
use crate::request::{ParsedRequest, RequestChanges};
use crate::scan::Splices;
use crate::tokens::TextSize;
use crate::unsupported::{Dropped, Side};
use crate::view::Seen;
use crate::wire::Framing;
use serde_json::{Map, Value, json};

/// A protocol, or an operation that is read in its own way. The default methods are OpenAI's, which most servers share.
pub(crate) trait Dialect: Sync {
    /// Reads what policy needs of a body; anything else in it stays unread. A `model` that is missing is empty. Protocols
    /// of JSON read it whatever the content type says.
    fn parse<'a>(
        &self,
        operation: Operation,
        body: &'a [u8],
        content_type: Option<&str>,
    ) -> Result<ParsedRequest<'a>, RequestError>;

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

    /// The gateway's own answer where the model's server does not speak the protocol: a count, a description.
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

    /// Returns whether a server of this protocol generates beyond the model's context where a request has no limit.
    fn has_no_default_limit(&self) -> bool {
        false
    }

    /// The content type of a stream.
    fn stream_type(&self) -> &'static str {
        match self.framing() {
            Framing::EventStream => "text/event-stream",
            Framing::JsonLines => "application/x-ndjson",
        }
    }

    /// The framing of a stream: its division into records.
    fn framing(&self) -> Framing {
        Framing::EventStream
    }

    /// Measures one record's data, or a whole answer. `None` where it cannot be read in place.
    fn measure<'a>(&self, data: &'a [u8]) -> Option<Seen<'a>> {
        let _ = data;
        None
    }

    /// Measures a whole answer that is plain text; `None` where it is no such answer.
    fn measure_plain(&self, body: &[u8]) -> Option<TextSize> {
        let _ = body;
        None
    }

    /// Returns whether the end of every stream is marked in it, so that one without a mark was cut off.
    fn marks_its_end(&self) -> bool {
        true
    }

    /// A whole answer as the stream that was asked for; `None` where it is one.
    fn as_stream(&self, whole: Map<String, Value>, wants_usage: bool) -> Option<Vec<u8>> {
        let _ = (whole, wants_usage);
        None
    }

    /// The records of a stream as a whole answer.
    fn gathered(&self, records: &mut dyn Iterator<Item = Value>) -> Option<Value> {
        let _ = records;
        None
    }

    /// Returns whether a server with these APIs takes this protocol's requests without translation.
    fn is_native(&self, apis: NativeApis) -> bool {
        let _ = apis;
        false
    }

    /// The rows of the table of [`crate::unsupported`] that its requests are under.
    fn side(&self) -> Side {
        Side::OpenAi
    }

    /// Reads a request that generates, as a chat completion, and the encoder of its answer; without one, the client
    /// gets the text alone.
    fn read(
        &self,
        operation: Operation,
        body: &[u8],
        parsed: &ParsedRequest<'_>,
        about: &About,
        dropped: &mut Dropped,
    ) -> Result<(Chat, Option<Box<dyn Encoder>>), RequestError> {
        let _ = (body, parsed, about, dropped);
        Err(untranslatable(operation.client_path()))
    }

    /// Its server's side, if requests are translated for such servers.
    fn server(&self) -> Option<&'static dyn Server> {
        None
    }
}

/// The APIs that a model's server offers itself.
#[allow(clippy::struct_excessive_bools)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NativeApis {
    /// Chat completions, completions, embeddings.
    pub openai: bool,
    /// OpenAI's Responses API.
    pub responses: bool,
    /// Anthropic's Messages API.
    pub anthropic: bool,
    /// Ollama's native API.
    pub ollama: bool,
}

/// Part of an answer, and the pieces of calls in it.
pub(crate) type Piece = (Part, Vec<CallPiece>);

/// A server of a protocol into which requests are translated.
pub(crate) trait Server: std::fmt::Debug + Sync {
    /// Writes the limit of output tokens into a request.
    fn set_limit(&self, request: &mut Chat, limit: u64);

    /// Reads a record of a stream; `None` where it says nothing.
    fn record(&self, record: &[u8]) -> Result<Option<Piece>, RequestError>;

    /// Reads a whole answer.
    fn whole(&self, body: &[u8]) -> Result<Piece, RequestError>;

    /// Returns whether a body is a whole answer, and not a stream that was not asked for.
    fn is_whole(&self, body: &[u8]) -> bool;
}
