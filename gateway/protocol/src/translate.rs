//! Between a client's protocol and its model's server's, where they are not the same: through [`super::hub`].

use super::hub::{self, About, Chat, Encoder, Finish, Part};
use super::refuse::RequestError;
use super::{Changes, Operation, ParsedRequest, Protocol, anthropic, embeddings, generate, ollama, openai, responses};
use bytes::Bytes;
use serde_json::{Map, Value};

/// What a model's server speaks.
#[allow(clippy::struct_excessive_bools)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Speaks {
    /// Chat completions, completions, embeddings.
    pub openai: bool,
    pub responses: bool,
    pub anthropic: bool,
    /// Ollama's native API.
    pub ollama: bool,
}

impl Speaks {
    /// Whether the server takes a call as it is.
    pub fn natively(self, call: Operation) -> bool {
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
    body: Map<String, Value>,
    request_id: String,
    into: Writing,
    /// Tools that were called so far.
    calls: usize,
}

#[derive(Debug)]
enum Writing {
    Encoder(Box<dyn Encoder>),
    /// The text alone.
    Text,
    Embeddings(embeddings::Wanted, String),
}

/// Translates a request; `None` where the server takes it as it is. Model and limit come at the end.
pub fn request(
    speaks: Speaks,
    call: Operation,
    body: &[u8],
    parsed: &ParsedRequest<'_>,
    about: &About,
) -> Result<Option<Translation>, RequestError> {
    if speaks.natively(call) {
        return Ok(None);
    }
    let request_id = about.request_id.clone();
    let about = || about.clone();
    let (chat, into): (Chat, Writing) = match call {
        Operation::Embeddings | Operation::OllamaEmbed | Operation::OllamaEmbeddings => {
            let (body, wanted) = embeddings::request(call, body)?;
            let call = if speaks.openai {
                Operation::Embeddings
            } else {
                Operation::OllamaEmbed
            };
            return Ok(Some(Translation {
                call,
                body,
                request_id,
                into: Writing::Embeddings(wanted, about().model),
                calls: 0,
            }));
        }
        // These are answered by the gateway itself.
        Operation::OllamaShow | Operation::CountTokens | Operation::ResponseInputTokens => return Ok(None),
        // Only servers that speak OpenAI's API have them.
        Operation::Rerank | Operation::Score => return Err(hub::untranslatable(call.client_path())),
        Operation::ChatCompletions => (
            openai::client::request(body)?,
            encoder(openai::client::ChatEncoder::new(about(), parsed.wants_usage)),
        ),
        Operation::Completions => (
            openai::client::request(body)?,
            encoder(openai::client::CompletionEncoder::new(about(), parsed.wants_usage)),
        ),
        Operation::Responses => {
            let (chat, repeated) = responses::client::request(body)?;
            (
                chat,
                encoder(responses::client::ResponseEncoder::new(about(), repeated)),
            )
        }
        Operation::Messages => (
            anthropic::client::request(body)?,
            encoder(anthropic::client::MessageEncoder::new(about())),
        ),
        Operation::OllamaChat | Operation::OllamaGenerate => (
            ollama::client::request(call, body, about().context)?,
            encoder(ollama::client::OllamaEncoder::new(
                about(),
                call == Operation::OllamaChat,
            )),
        ),
        Operation::Generate => (generate::request(body), Writing::Text),
    };
    let (call, body) = if speaks.openai {
        openai::upstream::request(chat, parsed.is_streaming)
    } else {
        ollama::upstream::request(chat, parsed.is_streaming)?
    };
    Ok(Some(Translation {
        call,
        body,
        request_id,
        into,
        calls: 0,
    }))
}

fn encoder(encoder: impl Encoder + 'static) -> Writing {
    Writing::Encoder(Box::new(encoder))
}

impl Translation {
    /// The body for the server.
    pub fn body(&mut self, changes: &Changes<'_>) -> Vec<u8> {
        self.body.insert("model".to_owned(), changes.model.into());
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
        let part = if self.call.protocol() == Protocol::Ollama {
            ollama::upstream::line(event, &self.request_id, &mut self.calls)?
        } else {
            openai::upstream::event(event)?
        };
        let Some(mut part) = part else { return Ok(()) };
        if let Some(last) = part.tools.last() {
            self.calls = self.calls.max(last.index.saturating_add(1));
        }
        // An answer with tool calls in it has ended for them, whatever its server says.
        if part.finish == Some(Finish::Stop) && self.calls > 0 {
            part.finish = Some(Finish::Tools);
        }
        if let Writing::Encoder(encoder) = &mut self.into {
            encoder.part(part, out);
        }
        Ok(())
    }

    /// The end of the client's stream.
    pub fn finish(&mut self) -> Bytes {
        let mut out = Vec::new();
        if let Writing::Encoder(encoder) = &mut self.into {
            encoder.finish(&mut out);
        }
        out.into()
    }

    /// Translates a whole answer.
    pub fn whole(&mut self, body: &[u8]) -> Result<Vec<u8>, RequestError> {
        let whole = match &mut self.into {
            Writing::Embeddings(wanted, model) => embeddings::answer(body, *wanted, model)?,
            Writing::Text => return part(self.call, body, &self.request_id).map(|part| part.text.into_bytes()),
            Writing::Encoder(encoder) => encoder.whole(part(self.call, body, &self.request_id)?),
        };
        Ok(whole.to_string().into_bytes())
    }
}

/// Reads a whole answer of the server's.
fn part(call: Operation, body: &[u8], request_id: &str) -> Result<Part, RequestError> {
    if call.protocol() == Protocol::Ollama {
        ollama::upstream::whole(body, request_id)
    } else {
        openai::upstream::whole(body)
    }
}

#[cfg(test)]
#[path = "translate_tests.rs"]
mod tests;
