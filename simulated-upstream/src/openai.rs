//! OpenAI's API, and what vLLM's server adds to it.

use crate::answer::count_tokens;
use crate::generation::{Broken, Generation, Refusal, Want, close_the_connection};
use crate::{Server, sse, streamed};
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use futures_util::stream;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

#[derive(Deserialize)]
struct Request {
    model: String,
    #[serde(default)]
    messages: Vec<Value>,
    #[serde(default)]
    tools: Vec<Value>,
    tool_choice: Option<Value>,
    response_format: Option<Value>,
    prompt: Option<Value>,
    input: Option<Value>,
    max_tokens: Option<u64>,
    max_completion_tokens: Option<u64>,
    #[serde(default)]
    stream: bool,
    stream_options: Option<StreamOptions>,
    n: Option<usize>,
    stop: Option<Value>,
    seed: Option<u64>,
    #[serde(default)]
    ignore_eos: bool,
    #[serde(default)]
    echo: bool,
    /// True, or for completions how many.
    logprobs: Option<Value>,
    top_logprobs: Option<usize>,
    encoding_format: Option<String>,
    dimensions: Option<usize>,
}

#[derive(Clone, Copy, Default, Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
    #[serde(default)]
    continuous_usage_stats: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Chat,
    Completion,
}

/// The one call of an answer.
const CALL_ID: &str = "call_simulated_0";

/// Answers of one request, at most.
const MOST_ANSWERS: usize = 128;

pub(crate) async fn chat(State(server): State<Server>, body: Bytes) -> Response {
    complete(server, &body, Kind::Chat).await
}

pub(crate) async fn completions(State(server): State<Server>, body: Bytes) -> Response {
    complete(server, &body, Kind::Completion).await
}

async fn complete(server: Server, body: &[u8], kind: Kind) -> Response {
    let request: Request = match serde_json::from_slice(body) {
        Ok(request) => request,
        Err(error) => return refuse(&Refusal::new(StatusCode::BAD_REQUEST, error.to_string())),
    };
    let count = request.n.unwrap_or(1).clamp(1, MOST_ANSWERS);
    let mut generations = Vec::with_capacity(count);
    for number in 0..count {
        match Generation::begin(&server, want(&request, kind, number as u64)).await {
            Ok(generation) => generations.push(generation),
            Err(refusal) => return refuse(&refusal),
        }
    }
    let shape = Shape::new(&request, kind);
    if request.stream {
        return stream(generations, shape, request.stream_options.unwrap_or_default());
    }
    match whole(generations, &shape, &request).await {
        Ok(answer) => Json(answer).into_response(),
        Err(Broken) => close_the_connection(),
    }
}

fn want(request: &Request, kind: Kind, number: u64) -> Want {
    let prompt = match kind {
        Kind::Chat => {
            let texts = request.messages.iter().map(|message| text_of(&message["content"]));
            texts.collect::<Vec<_>>().join("\n")
        }
        Kind::Completion => request.prompt.as_ref().map(text_of).unwrap_or_default(),
    };
    let format = request.response_format.as_ref();
    Want {
        model: request.model.clone(),
        prompt,
        limit: request.max_completion_tokens.or(request.max_tokens),
        ignore_eos: request.ignore_eos,
        stop: texts(request.stop.as_ref()),
        seed: request.seed.unwrap_or(0).wrapping_add(number.wrapping_mul(0x9e37_79b9)),
        tools: request.tools.clone(),
        tool_choice: request.tool_choice.clone(),
        last_said: request.messages.last().cloned().unwrap_or_default(),
        schema: format.and_then(|format| format.pointer("/json_schema/schema")).cloned(),
        keep_alive: None,
    }
}

/// A text or several.
pub(crate) fn texts(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::String(text)) => vec![text.clone()],
        Some(Value::Array(texts)) => texts
            .iter()
            .filter_map(|text| text.as_str().map(str::to_owned))
            .collect(),
        _ => Vec::new(),
    }
}

/// How an answer is written.
#[derive(Debug, Clone)]
struct Shape {
    kind: Kind,
    id: String,
    model: String,
    created: i64,
    /// How many others each token's probability is told beside, where any are.
    logprobs: Option<usize>,
}

impl Shape {
    fn new(request: &Request, kind: Kind) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Relaxed);
        let prefix = if kind == Kind::Chat { "chatcmpl" } else { "cmpl" };
        let logprobs = match &request.logprobs {
            Some(Value::Bool(true)) => Some(request.top_logprobs.unwrap_or(0)),
            Some(Value::Number(count)) => count.as_u64().and_then(|count| usize::try_from(count).ok()),
            _ => None,
        };
        Self {
            kind,
            id: format!("{prefix}-simulated-{number}"),
            model: request.model.clone(),
            created: jiff::Timestamp::now().as_second(),
            logprobs: logprobs.map(|count| count.min(20)),
        }
    }

    fn frame(&self, is_chunk: bool) -> Value {
        let object = match (self.kind, is_chunk) {
            (Kind::Chat, true) => "chat.completion.chunk",
            (Kind::Chat, false) => "chat.completion",
            (Kind::Completion, _) => "text_completion",
        };
        json!({"id": self.id, "object": object, "created": self.created, "model": self.model})
    }

    fn logprobs(&self, pieces: &[String]) -> Value {
        let Some(others) = self.logprobs else {
            return Value::Null;
        };
        if self.kind == Kind::Completion {
            let logprobs: Vec<f64> = pieces.iter().map(|piece| logprob(piece)).collect();
            return json!({"tokens": pieces, "token_logprobs": logprobs, "text_offset": [], "top_logprobs": null});
        }
        let entry = |token: &str, at: f64| json!({"token": token, "logprob": at, "bytes": token.as_bytes()});
        let content = pieces.iter().map(|piece| {
            let mut told = entry(piece, logprob(piece));
            let top = (0..others).map(|number| match number {
                0 => entry(piece, logprob(piece)),
                number => entry(
                    &format!("{piece}{number}"),
                    logprob(piece) - f64::from(u8::try_from(number).unwrap_or(u8::MAX)),
                ),
            });
            told["top_logprobs"] = top.collect::<Vec<_>>().into();
            told
        });
        json!({"content": content.collect::<Vec<_>>(), "refusal": null})
    }
}

/// A probability that depends on the token alone.
#[allow(clippy::cast_precision_loss)]
fn logprob(token: &str) -> f64 {
    let sum: u32 = token.bytes().map(u32::from).sum();
    -f64::from(sum % 100) / 200.0
}

async fn whole(generations: Vec<Generation>, shape: &Shape, request: &Request) -> Result<Value, Broken> {
    let mut choices = Vec::with_capacity(generations.len());
    let (mut prompt, mut cached, mut output) = (0, 0, 0);
    for (index, mut generation) in generations.into_iter().enumerate() {
        let mut pieces = Vec::new();
        while let Some(piece) = generation.next().await? {
            pieces.push(piece);
        }
        (prompt, cached) = (generation.prompt_tokens, generation.cached_tokens);
        output += generation.total;
        let mut text = pieces.concat();
        let logprobs = shape.logprobs(&pieces);
        let finish = generation.finish_reason();
        choices.push(match (shape.kind, &generation.tool) {
            (Kind::Chat, Some(name)) => json!({"index": index, "logprobs": logprobs, "finish_reason": finish,
                "message": {"role": "assistant", "content": null, "tool_calls": [
                    {"id": CALL_ID, "type": "function", "function": {"name": name, "arguments": text}}]}}),
            (Kind::Chat, None) => json!({"index": index, "logprobs": logprobs, "finish_reason": finish,
                "message": {"role": "assistant", "content": text}}),
            (Kind::Completion, _) => {
                if request.echo {
                    text = request.prompt.as_ref().map(text_of).unwrap_or_default() + &text;
                }
                json!({"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish})
            }
        });
    }
    let mut whole = shape.frame(false);
    whole["choices"] = choices.into();
    whole["usage"] = usage(prompt, cached, output);
    Ok(whole)
}

/// A stream under way.
struct Stream {
    generations: Vec<Generation>,
    shape: Shape,
    options: StreamOptions,
    /// Which of the answers is next.
    turn: usize,
    /// The text before and after a word of a plain chunk.
    around: (String, &'static str),
    is_done: bool,
}

fn stream(generations: Vec<Generation>, shape: Shape, options: StreamOptions) -> Response {
    let frame = shape.frame(true).to_string();
    let before = frame.trim_end_matches('}').to_owned();
    let around = match shape.kind {
        Kind::Chat => (
            format!("data: {before},\"choices\":[{{\"index\":0,\"delta\":{{\"content\":"),
            "},\"logprobs\":null,\"finish_reason\":null}]}\n\n",
        ),
        Kind::Completion => (
            format!("data: {before},\"choices\":[{{\"index\":0,\"text\":"),
            ",\"logprobs\":null,\"finish_reason\":null}]}\n\n",
        ),
    };
    let start = Stream {
        generations,
        shape,
        options,
        turn: 0,
        around,
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
                Some((Err(broken), state))
            }
        }
    });
    streamed("text/event-stream", pieces)
}

impl Stream {
    /// The next chunk, and with the last one everything that ends a stream.
    async fn piece(&mut self, out: &mut String) -> Result<(), Broken> {
        let index = self.turn % self.generations.len();
        let is_alone = self.generations.len() == 1;
        let generation = &mut self.generations[index];
        let is_first = generation.made == 0;
        if let Some(piece) = generation.next().await? {
            let is_plain = is_alone && !is_first && self.shape.logprobs.is_none() && generation.tool.is_none();
            if is_plain && !self.options.continuous_usage_stats {
                out.push_str(&self.around.0);
                quote(&piece, out);
                out.push_str(self.around.1);
            } else {
                self.chunk(index, &piece, is_first, out);
            }
        }
        let generation = &self.generations[index];
        if generation.made == generation.total {
            let choice = match self.shape.kind {
                Kind::Chat => {
                    json!({"index": index, "delta": {}, "logprobs": null, "finish_reason": generation.finish_reason()})
                }
                Kind::Completion => {
                    json!({"index": index, "text": "", "logprobs": null, "finish_reason": generation.finish_reason()})
                }
            };
            let mut last = self.shape.frame(true);
            last["choices"] = json!([choice]);
            sse::data(out, &last);
        }
        // Whose turn is next, of those who are not at their end.
        let count = self.generations.len();
        let open = |at: usize| self.generations[at % count].made < self.generations[at % count].total;
        match (self.turn + 1..=self.turn + count).find(|at| open(*at)) {
            Some(next) => self.turn = next,
            None => {
                self.is_done = true;
                if self.options.include_usage {
                    let mut last = self.shape.frame(true);
                    last["choices"] = json!([]);
                    last["usage"] = self.usage();
                    sse::data(out, &last);
                }
                out.push_str("data: [DONE]\n\n");
            }
        }
        Ok(())
    }

    fn usage(&self) -> Value {
        let made = self.generations.iter().map(|generation| generation.made).sum();
        let first = &self.generations[0];
        usage(first.prompt_tokens, first.cached_tokens, made)
    }

    /// A chunk with more in it than a word.
    fn chunk(&self, index: usize, piece: &str, is_first: bool, out: &mut String) {
        let tool = self.generations[index].tool.as_ref();
        let logprobs = self.shape.logprobs(&[piece.to_owned()]);
        let mut choice = json!({"index": index});
        match self.shape.kind {
            Kind::Completion => choice["text"] = piece.into(),
            Kind::Chat => {
                let mut delta = match (tool, is_first) {
                    (None, _) => json!({"content": piece}),
                    (Some(name), true) => json!({"content": null, "tool_calls": [{"index": 0, "id": CALL_ID,
                        "type": "function", "function": {"name": name, "arguments": piece}}]}),
                    (Some(_), false) => json!({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}),
                };
                if is_first {
                    delta["role"] = "assistant".into();
                }
                choice["delta"] = delta;
            }
        }
        choice["logprobs"] = logprobs;
        choice["finish_reason"] = Value::Null;
        let mut chunk = self.shape.frame(true);
        chunk["choices"] = json!([choice]);
        if self.options.continuous_usage_stats {
            chunk["usage"] = self.usage();
        }
        sse::data(out, &chunk);
    }
}

pub(crate) async fn embeddings(State(server): State<Server>, body: Bytes) -> Response {
    let request: Request = match serde_json::from_slice(&body) {
        Ok(request) => request,
        Err(error) => return refuse(&Refusal::new(StatusCode::BAD_REQUEST, error.to_string())),
    };
    if server.model(&request.model).is_none() {
        let message = format!("there is no model `{}`", request.model);
        return refuse(&Refusal::new(StatusCode::NOT_FOUND, message));
    }
    let mut running = server.begin(&request.model);
    let inputs = inputs(request.input.as_ref());
    let tokens: u64 = inputs.iter().map(|input| count_tokens(input)).sum();
    let is_packed = request.encoding_format.as_deref() == Some("base64");
    let data = inputs.iter().enumerate().map(|(index, input)| {
        let mut figures = embedding(input);
        figures.truncate(request.dimensions.unwrap_or(usize::MAX).max(1));
        let figures = if is_packed {
            packed(&figures).into()
        } else {
            json!(figures)
        };
        json!({"object": "embedding", "index": index, "embedding": figures})
    });
    let data: Vec<Value> = data.collect();
    running.complete(tokens, 0);
    Json(json!({"object": "list", "model": request.model, "data": data, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}})).into_response()
}

/// Numbers of 32 bits, the lowest byte first, in base64.
#[allow(clippy::cast_possible_truncation)]
fn packed(figures: &[f64]) -> String {
    use base64::Engine;
    let bytes: Vec<u8> = figures
        .iter()
        .flat_map(|figure| (*figure as f32).to_le_bytes())
        .collect();
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

pub(crate) async fn models(State(server): State<Server>) -> Json<Value> {
    let data = server.models().into_iter().map(|model| {
        json!({"id": model.name, "object": "model", "created": 1_704_067_200, "owned_by": "simulated",
            "root": model.adapter_of.as_ref().unwrap_or(&model.name), "parent": model.adapter_of,
            "max_model_len": model.max_input_tokens})
    });
    Json(json!({"object": "list", "data": data.collect::<Vec<_>>()}))
}

/// vLLM's `/tokenize`.
pub(crate) async fn tokenize(State(server): State<Server>, body: Bytes) -> Response {
    let request: Request = match serde_json::from_slice(&body) {
        Ok(request) => request,
        Err(error) => return refuse(&Refusal::new(StatusCode::BAD_REQUEST, error.to_string())),
    };
    let kind = if request.prompt.is_some() {
        Kind::Completion
    } else {
        Kind::Chat
    };
    let count = count_tokens(&want(&request, kind, 0).prompt);
    let most = server.model(&request.model).map(|model| model.max_input_tokens);
    let tokens: Vec<u64> = (0..count).collect();
    Json(json!({"count": count, "max_model_len": most, "tokens": tokens})).into_response()
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

/// A text, a list of texts, or OpenAI's list of parts.
pub(crate) fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().map(text_of).collect::<Vec<_>>().join("\n"),
        Value::Object(part) => part.get("text").and_then(Value::as_str).unwrap_or_default().to_owned(),
        _ => String::new(),
    }
}

/// What is to be embedded, text by text.
pub(crate) fn inputs(input: Option<&Value>) -> Vec<String> {
    match input {
        Some(Value::Array(texts)) => texts.iter().map(text_of).collect(),
        Some(text) => vec![text_of(text)],
        None => Vec::new(),
    }
}

/// Sixteen figures of length 1 that depend on the text alone.
pub(crate) fn embedding(text: &str) -> Vec<f64> {
    let mut figures = [0.0f64; 16];
    for (at, byte) in text.bytes().enumerate() {
        figures[(at + usize::from(byte)) % 16] += f64::from(byte) - 96.0;
    }
    let length = figures
        .iter()
        .map(|figure| figure * figure)
        .sum::<f64>()
        .sqrt()
        .max(1e-9);
    figures.iter().map(|figure| figure / length).collect()
}

fn usage(prompt: u64, cached: u64, completion: u64) -> Value {
    json!({"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached}})
}

fn refuse(refusal: &Refusal) -> Response {
    let kind = if refusal.status.is_client_error() {
        "invalid_request_error"
    } else {
        "server_error"
    };
    let body = json!({"error": {"message": refusal.message, "type": kind, "param": null, "code": null}});
    refused(refusal, body)
}

/// A refusal in an API's shape.
pub(crate) fn refused(refusal: &Refusal, body: Value) -> Response {
    if refusal.is_garbage {
        return ([(header::CONTENT_TYPE, "application/json")], refusal.message.clone()).into_response();
    }
    let mut response = (refusal.status, Json(body)).into_response();
    if let Some(after) = refusal.retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, after.into());
    }
    response
}
