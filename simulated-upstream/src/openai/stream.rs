//! Completions as streams: a chunk with the role, a chunk a token, a chunk with the reason for the end, usage if it was
//! asked for, and the end; in the dialect of the server.

use super::request::StreamOptions;
use super::shape::Shape;
use super::{Kind, usage};
use crate::dialect::Quirk;
use crate::generation::{Broken, Generation};
use crate::refusal::Refusal;
use crate::streamed;
use crate::tools::CALL_ID;
use axum::response::Response;
use futures_util::stream;
use serde_json::{Value, json};

/// A stream under way.
struct Stream {
    generations: Vec<Generation>,
    shape: Shape,
    options: StreamOptions,
    /// Which of the answers is next.
    turn: usize,
    /// The text before and after a word of a plain chunk.
    around: (String, &'static str),
    /// Arguments of a call that comes as a whole.
    kept: String,
    is_done: bool,
}

pub(super) fn respond(generations: Vec<Generation>, shape: Shape, options: StreamOptions) -> Response {
    let frame = shape.frame(true).to_string();
    let before = frame.trim_end_matches('}').to_owned();
    let field = match shape.kind {
        Kind::Chat => (
            "\"delta\":{\"content\":",
            "},\"logprobs\":null,\"finish_reason\":null}]}\n\n",
        ),
        Kind::Completion => ("\"text\":", ",\"logprobs\":null,\"finish_reason\":null}]}\n\n"),
    };
    let start = Stream {
        around: (
            format!("data: {before},\"choices\":[{{\"index\":0,{}", field.0),
            field.1,
        ),
        generations,
        shape,
        options,
        turn: 0,
        kept: String::new(),
        is_done: false,
    };
    let pieces = stream::unfold(start, |mut state| async move {
        if state.is_done {
            return None;
        }
        let mut out = String::with_capacity(256);
        match state.piece(&mut out).await {
            Ok(()) => Some((Ok(out), state)),
            Err(broken) => {
                state.is_done = true;
                if broken.is_reported {
                    let dialect = &state.shape.dialect;
                    dialect.error_event(&mut out, &dialect.refusal(&Refusal::engine_failure()));
                    return Some((Ok(out), state));
                }
                Some((Err(broken), state))
            }
        }
    });
    streamed("text/event-stream", pieces)
}

impl Stream {
    /// The next chunk, before the first of a choice its role, and with the last one everything that ends a stream.
    async fn piece(&mut self, out: &mut String) -> Result<(), Broken> {
        let index = self.turn % self.generations.len();
        let is_first = self.generations[index].made == 0;
        if let Some(piece) = self.generations[index].next().await? {
            if is_first && self.shape.kind == Kind::Chat {
                self.begin(index, out);
            }
            self.token(index, &piece, is_first, out);
        }
        let generation = &self.generations[index];
        if generation.made == generation.total {
            self.end(index, out);
        }
        // Whose turn is next, of those who are not at their end.
        let count = self.generations.len();
        let open = |at: usize| self.generations[at % count].made < self.generations[at % count].total;
        match (self.turn + 1..=self.turn + count).find(|at| open(*at)) {
            Some(next) => self.turn = next,
            None => self.finish(out),
        }
        Ok(())
    }

    fn begin(&self, index: usize, out: &mut String) {
        let dialect = &self.shape.dialect;
        if !dialect.has(Quirk::NoRoleChunk) {
            let content = if dialect.has(Quirk::RoleNull) {
                Value::Null
            } else {
                "".into()
            };
            let delta = json!({"role": "assistant", "content": content});
            let choice = json!({"index": index, "delta": delta, "logprobs": null, "finish_reason": null});
            // The token for which it is written has not been sent yet.
            self.chunk_after(&choice, self.made() - 1, out);
        }
        if let Some(thought) = dialect.thought() {
            self.delta(index, &thought, out);
        }
    }

    fn token(&mut self, index: usize, piece: &str, is_first: bool, out: &mut String) {
        let dialect = &self.shape.dialect;
        let generation = &self.generations[index];
        let is_plain = self.generations.len() == 1 && !self.shape.has_logprobs() && generation.tool.is_none();
        if is_plain && !self.options.continuous_usage_stats && dialect.is_plain() {
            out.push_str(&self.around.0);
            quote(piece, out);
            out.push_str(self.around.1);
            return;
        }
        if self.shape.kind == Kind::Completion {
            let choice = json!({"index": index, "text": piece, "finish_reason": null,
                "logprobs": self.shape.logprobs(&[piece.to_owned()])});
            return self.chunk(&choice, out);
        }
        let Some(name) = &generation.tool else {
            let mut delta = json!({"content": piece});
            if is_first && dialect.has(Quirk::NoRoleChunk) {
                delta["role"] = "assistant".into();
            }
            return self.delta(index, &delta, out);
        };
        let mut arguments = piece;
        if dialect.has(Quirk::ToolWhole) {
            self.kept.push_str(piece);
            if generation.made < generation.total {
                return;
            }
            arguments = &self.kept;
        }
        let call = if is_first || dialect.has(Quirk::ToolWhole) {
            json!({"index": 0, "id": CALL_ID, "type": "function", "function": {"name": name, "arguments": arguments}})
        } else {
            json!({"index": 0, "function": {"arguments": arguments}})
        };
        self.delta(index, &json!({"tool_calls": [call]}), out);
    }

    fn delta(&self, index: usize, delta: &Value, out: &mut String) {
        let piece = delta["content"].as_str().filter(|piece| !piece.is_empty());
        let logprobs = piece.map_or(Value::Null, |piece| self.shape.logprobs(&[piece.to_owned()]));
        let choice = json!({"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": null});
        self.chunk_after(&choice, self.made(), out);
    }

    fn chunk(&self, choice: &Value, out: &mut String) {
        self.chunk_after(choice, self.made(), out);
    }

    /// A chunk that is written when so many tokens have been sent.
    fn chunk_after(&self, choice: &Value, made: u64, out: &mut String) {
        let mut chunk = self.shape.frame(true);
        chunk["choices"] = json!([choice]);
        if self.options.continuous_usage_stats {
            chunk["usage"] = self.usage(made);
        }
        self.shape.dialect.chunk(&mut chunk);
        self.shape.dialect.event(out, &chunk);
    }

    /// Writes the chunk with a choice's finish reason.
    fn end(&self, index: usize, out: &mut String) {
        let generation = &self.generations[index];
        let mut choice = json!({"index": index, "logprobs": null, "finish_reason": generation.finish_reason(),
            "stop_reason": generation.stopped_by()});
        match self.shape.kind {
            Kind::Chat => choice["delta"] = json!({}),
            Kind::Completion => choice["text"] = "".into(),
        }
        self.chunk(&choice, out);
    }

    /// Writes usage, if it was requested, and the end of the stream.
    fn finish(&mut self, out: &mut String) {
        self.is_done = true;
        let dialect = &self.shape.dialect;
        if self.options.include_usage && !dialect.has(Quirk::NoUsage) {
            let mut last = self.shape.frame(true);
            last["choices"] = json!([]);
            last["usage"] = self.usage(self.made());
            if dialect.has(Quirk::Timings) {
                last["timings"] = self.timings();
            }
            dialect.chunk(&mut last);
            dialect.event(out, &last);
        }
        dialect.done(out);
    }

    fn made(&self) -> u64 {
        self.generations.iter().map(|generation| generation.made).sum()
    }

    fn usage(&self, made: u64) -> Value {
        let first = &self.generations[0];
        usage(first.prompt_tokens, first.cached_tokens, made)
    }

    /// llama.cpp's.
    #[allow(clippy::cast_precision_loss)]
    fn timings(&self) -> Value {
        let first = &self.generations[0];
        let prompt = first.first.unwrap_or_default().as_secs_f64() * 1e3;
        let predicted = first.began.elapsed().as_secs_f64() * 1e3 - prompt;
        let read = first.prompt_tokens - first.cached_tokens.min(first.prompt_tokens);
        json!({"cache_n": first.cached_tokens, "prompt_n": read, "prompt_ms": prompt, "predicted_n": first.made,
            "predicted_ms": predicted, "predicted_per_second": first.made as f64 * 1e3 / predicted.max(1e-3)})
    }
}

/// A text as JSON. Words need no escaping, and are nearly all that there is.
fn quote(text: &str, out: &mut String) {
    let is_plain = |byte: u8| byte >= 0x20 && byte != b'"' && byte != b'\\';
    if text.bytes().all(is_plain) {
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else {
        out.push_str(&Value::from(text).to_string());
    }
}
