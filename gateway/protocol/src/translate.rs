//! Between a client's protocol and its model's server's, where they are not the same: through [`super::hub`].

use super::calls::{CallOrder, CallPiece};
use super::error::RequestError;
use super::hub::{About, Chat, Encoder, Finish, Part, ToolPart, not_an_answer, untranslatable};
use super::meter::is_json;
use super::unsupported::{Dropped, Side};
use super::wire::{Framing, records};
use super::{
    Operation, ParsedRequest, Protocol, RequestChanges, Work, anthropic, embeddings, generate, ollama, openai,
    responses,
};
use bytes::Bytes;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};
use std::borrow::Cow;

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

impl NativeApis {
    /// Whether the server accepts an operation's requests without translation.
    pub fn supports(self, call: Operation) -> bool {
        match call.protocol() {
            Protocol::OpenAi => self.openai,
            Protocol::Responses => self.responses,
            Protocol::Anthropic => self.anthropic,
            Protocol::Ollama => self.ollama,
            Protocol::Generate => false,
        }
    }
}

/// A request in the words of its model's server, and the way back for the answer.
#[derive(Debug)]
pub struct Translation {
    /// What the server is asked.
    pub call: Operation,
    /// Hints of the request that the server's protocol cannot say, for the header `x-sluice-dropped`.
    pub dropped: Vec<Cow<'static, str>>,
    body: Map<String, Value>,
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
        Work::Score => return Err(untranslatable(call.client_path())),
        Work::Generate | Work::Embed => {}
    }
    let mut dropped = Dropped::new(side(call), about.unsupported);
    let (call, body, into) = if call.work() == Work::Embed {
        let (body, wanted) = embeddings::request(call, body, &mut dropped)?;
        let call = if native_apis.openai {
            Operation::Embeddings
        } else {
            Operation::OllamaEmbed
        };
        (call, body, Writing::Embeddings(wanted, about.model.clone()))
    } else {
        let (chat, into) = read(call, body, parsed, about, &mut dropped)?;
        let (call, body) = if native_apis.openai {
            openai::upstream::request(chat, parsed.is_streaming)
        } else {
            dropped.side = Side::OllamaServer;
            ollama::upstream::request(chat, parsed.is_streaming, &mut dropped)?
        };
        (call, body, into)
    };
    Ok(Some(Translation {
        call,
        dropped: dropped.into_names(),
        body,
        into,
        calls: CallOrder::new(&about.request_id),
    }))
}

fn side(call: Operation) -> Side {
    match call.protocol() {
        Protocol::OpenAi | Protocol::Generate => Side::OpenAi,
        Protocol::Responses => Side::Responses,
        Protocol::Anthropic => Side::Anthropic,
        Protocol::Ollama => Side::Ollama,
    }
}

/// Reads a request that generates, and says how its answer is to be written.
fn read(
    call: Operation,
    body: &[u8],
    parsed: &ParsedRequest<'_>,
    about: &About,
    dropped: &mut Dropped,
) -> Result<(Chat, Writing), RequestError> {
    let (wants_usage, about) = (parsed.wants_usage, about.clone());
    Ok(match call.protocol() {
        Protocol::OpenAi => {
            let chat = openai::client::request(body, dropped)?;
            let into = match call {
                Operation::Completions => encoder(openai::client::CompletionEncoder::new(about, wants_usage)),
                _ => encoder(openai::client::ChatEncoder::new(about, wants_usage)),
            };
            (chat, into)
        }
        Protocol::Responses => {
            let (chat, repeated) = responses::client::read(body, dropped)?;
            (chat, encoder(responses::client::ResponseEncoder::new(about, repeated)))
        }
        Protocol::Anthropic => {
            let chat = anthropic::client::request(body, dropped)?;
            (chat, encoder(anthropic::client::MessageEncoder::new(about)))
        }
        Protocol::Ollama => {
            let chat = ollama::client::request(call, body, about.context, dropped)?;
            let is_chat = call == Operation::OllamaChat;
            (chat, encoder(ollama::client::OllamaEncoder::new(about, is_chat)))
        }
        Protocol::Generate => (generate::request(body), Writing::Text),
    })
}

fn encoder(encoder: impl Encoder + 'static) -> Writing {
    Writing::Encoder(Box::new(encoder))
}

impl Translation {
    /// The body for the server.
    pub fn body(&mut self, changes: &RequestChanges<'_>) -> Vec<u8> {
        self.body.insert("model".to_owned(), changes.model.into());
        if !changes.asks_usage {
            self.body.shift_remove("stream_options");
        }
        match self.call {
            Operation::ChatCompletions | Operation::Completions => {
                let limit = changes.max_tokens.map(|limit| ("max_tokens".to_owned(), limit.into()));
                self.body.extend(limit);
            }
            Operation::OllamaChat | Operation::OllamaGenerate => {
                if let Some(limit) = changes.max_tokens {
                    self.body["options"]["num_predict"] = limit.into();
                }
            }
            _ => {}
        }
        // A map of JSON can be written, always.
        serde_json::to_vec(&self.body).unwrap_or_default()
    }

    /// Translates an event of the server's stream.
    pub fn event(&mut self, event: &[u8], out: &mut Vec<u8>) -> Result<(), RequestError> {
        let read = match Framing::of(self.call.protocol()) {
            Framing::JsonLines => ollama::upstream::line(event)?,
            Framing::EventStream => openai::upstream::event(event)?,
        };
        let Some((mut part, pieces)) = read else { return Ok(()) };
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
        let rest = self.calls.rest();
        if rest != Part::default() {
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
        let framing = Framing::of(self.call.protocol());
        let (mut part, pieces) = match framing {
            Framing::EventStream if !is_json(body) => gather(framing, body, openai::upstream::event)?,
            Framing::EventStream => openai::upstream::whole(body)?,
            Framing::JsonLines if serde_json::from_slice::<IgnoredAny>(body).is_err() => {
                gather(framing, body, ollama::upstream::line)?
            }
            Framing::JsonLines => ollama::upstream::whole(body)?,
        };
        self.calls.arrange(pieces, &mut part);
        let rest = self.calls.rest();
        part.tools.extend(rest.tools);
        part.text += &rest.text;
        part.tools = joined(std::mem::take(&mut part.tools));
        Ok(part)
    }
}

type Read = (Part, Vec<CallPiece>);

/// Puts the events of a stream together to one answer.
fn gather(
    framing: Framing,
    body: &[u8],
    read: impl Fn(&[u8]) -> Result<Option<Read>, RequestError>,
) -> Result<Read, RequestError> {
    let (mut all, mut pieces) = (Part::default(), Vec::new());
    for record in records(framing, body) {
        let Some((part, more)) = read(record)? else { continue };
        all.text += &part.text;
        all.thought += &part.thought;
        all.logprobs.extend(part.logprobs);
        all.finish = part.finish.or(all.finish);
        all.stop_sequence = part.stop_sequence.or(all.stop_sequence);
        all.usage = part.usage.or(all.usage);
        pieces.extend(more);
    }
    all.finish.is_some().then_some((all, pieces)).ok_or_else(not_an_answer)
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
#[path = "server_quirks_tests.rs"]
mod server_quirks;
#[cfg(test)]
#[path = "translate_tests.rs"]
mod tests;
