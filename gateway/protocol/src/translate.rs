//! Between a client's protocol and its model's server's, where they are not the same: through [`super::hub`].

use super::calls::CallOrder;
use super::dialect::{Piece, Server};
use super::error::{ErrorCode, RequestError};
use super::hub::{About, Encoder, Finish, Part, ToolPart, not_an_answer};
use super::unsupported::Dropped;
use super::wire::records;
use super::{Operation, ParsedRequest, RequestChanges, Work, embeddings};
use bytes::Bytes;
use serde_json::{Map, Value};
use std::borrow::Cow;

pub use super::dialect::NativeApis;

impl NativeApis {
    /// Returns whether the server accepts an operation's requests without translation.
    pub fn supports(self, call: Operation) -> bool {
        call.work() == Work::Relay || call.protocol().dialect().is_native(self)
    }
}

/// A request in the words of its model's server, and the way back for the answer.
#[derive(Debug)]
pub struct Translation {
    /// The operation that the server is asked for.
    pub operation: Operation,
    /// Hints of the request that the server's protocol cannot say, for the header `x-sluice-dropped`.
    pub dropped: Vec<Cow<'static, str>>,
    body: Map<String, Value>,
    server: &'static dyn Server,
    into: Writing,
    /// Tools that were called so far.
    calls: CallOrder,
}

#[derive(Debug)]
enum Writing {
    Encoder(Box<dyn Encoder>),
    /// The text alone.
    Text,
    Embeddings(embeddings::Wanted, String),
}

/// Translates a request; `None` where the server takes it as it is. Model and limit come at the end.
///
/// # Errors
/// The request is wrong, or says what the server's protocol cannot say and what the answer depends on.
pub fn request(
    native_apis: NativeApis,
    call: Operation,
    body: &[u8],
    parsed: &ParsedRequest<'_>,
    about: &About,
) -> Result<Option<Translation>, RequestError> {
    if native_apis.supports(call) {
        return Ok(None);
    }
    match call.work() {
        // Answered by the gateway itself.
        Work::Count | Work::Describe => return Ok(None),
        // Only servers that speak OpenAI's API have them.
        Work::Score | Work::Transcribe | Work::Speak | Work::Draw => return Err(no_such_endpoint(call)),
        Work::Relay => return Ok(None),
        Work::Generate | Work::Embed => {}
    }
    let dialect = call.protocol().dialect();
    let server = native_apis.server().ok_or_else(|| no_such_endpoint(call))?;
    let mut dropped = Dropped::new(dialect.side(), about.unsupported);
    let (call, body, into) = if call.work() == Work::Embed {
        let (body, wanted) = embeddings::request(call, body, &mut dropped)?;
        let into = Writing::Embeddings(wanted, about.model.clone());
        (server.embeddings(), body, into)
    } else {
        let (chat, encoder) = dialect.read(call, body, parsed, about, &mut dropped)?;
        let into = encoder.map_or(Writing::Text, Writing::Encoder);
        let (call, body) = server.request(chat, parsed.is_streaming, &mut dropped)?;
        (call, body, into)
    };
    Ok(Some(Translation {
        operation: call,
        server,
        dropped: dropped.into_names(),
        body,
        into,
        calls: CallOrder::new(&about.request_id),
    }))
}

fn no_such_endpoint(call: Operation) -> RequestError {
    let message = format!(
        "this model's servers have no `{}`: the gateway calls them through another API; use a model of an \
         OpenAI-compatible server, or add `openai` to the model's native_apis if its servers have it",
        call.client_path()
    );
    RequestError::new(ErrorCode::BadRequest, message)
}

impl Translation {
    /// The body for the server.
    pub fn body(&mut self, changes: &RequestChanges<'_>) -> Vec<u8> {
        self.body.insert("model".to_owned(), changes.model.into());
        if !changes.asks_usage {
            self.body.shift_remove("stream_options");
        }
        let limit = changes.max_tokens.filter(|_| self.operation.generates());
        if let Some(limit) = limit {
            self.server.set_limit(&mut self.body, limit);
        }
        // A map of JSON can be written, always.
        serde_json::to_vec(&self.body).unwrap_or_default()
    }

    /// Translates an event of the server's stream.
    pub fn event(&mut self, event: &[u8], out: &mut Vec<u8>) -> Result<(), RequestError> {
        let Some((mut part, pieces)) = self.server.record(event)? else {
            return Ok(());
        };
        self.calls.arrange(pieces, &mut part);
        self.write(part, out);
        Ok(())
    }

    fn write(&mut self, mut part: Part, out: &mut Vec<u8>) {
        // An answer with tool calls in it has ended for them, whatever its server says.
        if part.finish == Some(Finish::Stop) && self.calls.has_calls() {
            part.finish = Some(Finish::Tools);
        }
        if let Writing::Encoder(encoder) = &mut self.into {
            encoder.part(part, out);
        }
    }

    /// The end of the client's stream.
    pub fn finish(&mut self) -> Bytes {
        let mut out = Vec::new();
        for rest in self.calls.rest() {
            self.write(rest, &mut out);
        }
        if let Writing::Encoder(encoder) = &mut self.into {
            encoder.finish(&mut out);
        }
        out.into()
    }

    /// Translates a whole answer, which may be a stream that nobody asked for.
    pub fn whole(&mut self, body: &[u8]) -> Result<Vec<u8>, RequestError> {
        if let Writing::Embeddings(wanted, model) = &self.into {
            let answer = embeddings::answer(body, *wanted, model)?;
            return Ok(answer.to_string().into_bytes());
        }
        let part = self.part(body)?;
        match &mut self.into {
            Writing::Encoder(encoder) => Ok(encoder.whole(part).to_string().into_bytes()),
            _ => Ok(part.text.into_bytes()),
        }
    }

    /// Translates a whole answer into the stream that the client has asked for.
    pub(crate) fn stream_from_whole(&mut self, body: &[u8]) -> Result<Bytes, RequestError> {
        let part = self.part(body)?;
        let mut out = Vec::new();
        self.write(part, &mut out);
        out.extend_from_slice(&self.finish());
        Ok(out.into())
    }

    /// Reads a whole answer of the server's, or puts its stream together.
    fn part(&mut self, body: &[u8]) -> Result<Part, RequestError> {
        let (mut part, pieces) = if self.server.is_whole(body) {
            self.server.whole(body)?
        } else {
            self.gather(body)?
        };
        self.calls.arrange(pieces, &mut part);
        for rest in self.calls.rest() {
            part.tools.extend(rest.tools);
            part.text += &rest.text;
            part.reasoning += &rest.reasoning;
        }
        part.tools = joined(std::mem::take(&mut part.tools));
        Ok(part)
    }

    /// Puts the records of a stream together to one answer.
    fn gather(&self, body: &[u8]) -> Result<Piece, RequestError> {
        let (mut all, mut pieces) = (Part::default(), Vec::new());
        for record in records(self.operation.protocol().dialect().framing(), body) {
            let Some((part, more)) = self.server.record(record)? else {
                continue;
            };
            all.text += &part.text;
            all.reasoning += &part.reasoning;
            all.logprobs.extend(part.logprobs);
            all.finish = part.finish.or(all.finish);
            all.stop_sequence = part.stop_sequence.or(all.stop_sequence);
            all.usage = part.usage.or(all.usage);
            pieces.extend(more);
        }
        all.finish.is_some().then_some((all, pieces)).ok_or_else(not_an_answer)
    }
}

/// The pieces of calls, which follow each other, as whole calls.
fn joined(pieces: Vec<ToolPart>) -> Vec<ToolPart> {
    let mut calls: Vec<ToolPart> = Vec::new();
    for piece in pieces {
        match calls.last_mut().filter(|last| last.index == piece.index) {
            Some(last) => last.arguments += &piece.arguments,
            None => calls.push(piece),
        }
    }
    calls
}

#[cfg(test)]
#[path = "client_quirks_tests.rs"]
mod client_quirks;
#[cfg(test)]
#[path = "server_names_tests.rs"]
mod server_names;
#[cfg(test)]
#[path = "server_quirks_tests.rs"]
mod server_quirks;
#[cfg(test)]
#[path = "translate_tests.rs"]
mod tests;
