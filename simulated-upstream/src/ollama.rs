//! Ollama's native API.

use crate::answer::count_tokens;
use crate::dialect::{Dialect, Quirk};
use crate::generation::{Broken, Generation, GenerationRequest, close_the_connection};
use crate::openai::{embedding, inputs, text_of, texts};
use crate::refusal::Refusal;
use crate::{Server, streamed};
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use futures_util::stream;
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;

#[derive(Deserialize)]
struct Request {
    #[serde(alias = "name")]
    model: String,
    #[serde(default)]
    messages: Vec<Value>,
    #[serde(default)]
    tools: Vec<Value>,
    format: Option<Value>,
    #[serde(default)]
    prompt: Value,
    system: Option<String>,
    input: Option<Value>,
    stream: Option<bool>,
    options: Option<Options>,
    keep_alive: Option<Value>,
}

#[derive(Deserialize)]
struct Options {
    num_predict: Option<i64>,
    seed: Option<u64>,
    stop: Option<Value>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Chat,
    Generate,
}

pub(crate) async fn chat(State(server): State<Server>, body: Bytes) -> Response {
    complete(server, &body, Kind::Chat).await
}

pub(crate) async fn generate(State(server): State<Server>, body: Bytes) -> Response {
    complete(server, &body, Kind::Generate).await
}

/// One answer under way.
struct Work {
    kind: Kind,
    generation: Generation,
    dialect: Dialect,
    is_done: bool,
}

async fn complete(server: Server, body: &[u8], kind: Kind) -> Response {
    let request: Request = match serde_json::from_slice(body) {
        Ok(request) => request,
        Err(error) => return refuse(&Refusal::new(StatusCode::BAD_REQUEST, error.to_string())),
    };
    let keep_alive = request.keep_alive.as_ref().and_then(duration);
    let is_empty = request.messages.is_empty() && text_of(&request.prompt).is_empty();
    if is_empty && keep_alive == Some(Duration::ZERO) {
        return unload(&server, &request.model, kind);
    }
    if server.model_named(Some(&request.model)).is_err() {
        return refuse(&unknown(&request.model));
    }
    let is_streaming = request.stream.unwrap_or(true);
    let request = generation_request(request, keep_alive);
    let generation = match Generation::begin(&server, request).await {
        Ok(generation) => generation,
        Err(refusal) => return refuse(&refusal),
    };
    let mut work = Work {
        kind,
        generation,
        dialect: server.0.dialect.clone(),
        is_done: false,
    };
    if is_streaming {
        return lines(work);
    }
    match work.generation.whole().await {
        Ok(text) => {
            let mut last = work.last(&text);
            if let Some(called) = work.called(&text) {
                last["message"] = called["message"].clone();
            }
            Json(last).into_response()
        }
        Err(Broken { is_reported: true }) => refuse(&engine_failure()),
        Err(Broken { is_reported: false }) => close_the_connection(),
    }
}

fn generation_request(request: Request, keep_alive: Option<Duration>) -> GenerationRequest {
    let mut parts: Vec<String> = request.system.into_iter().collect();
    parts.extend(request.messages.iter().map(|message| text_of(&message["content"])));
    parts.push(text_of(&request.prompt));
    let options = request.options.as_ref();
    GenerationRequest {
        model: request.model,
        prompt: parts.join("\n"),
        within_context: false,
        limit: options
            .and_then(|options| options.num_predict)
            .and_then(|limit| u64::try_from(limit).ok())
            // Ollama's runner stops at a number above 0 only.
            .filter(|limit| *limit > 0),
        ignore_eos: false,
        stop: texts(options.and_then(|options| options.stop.as_ref())),
        seed: options.and_then(|options| options.seed).unwrap_or(0),
        tools: request.tools,
        tool_choice: None,
        last_message: request.messages.last().cloned().unwrap_or_default(),
        schema: request.format.filter(Value::is_object),
        keep_alive,
    }
}

/// Seconds, or `5m` and the like; less than 0 is for ever.
fn duration(value: &Value) -> Option<Duration> {
    const FOR_EVER: Duration = Duration::from_secs(10 * 365 * 86_400);
    if let Some(seconds) = value.as_f64() {
        return Some(Duration::try_from_secs_f64(seconds).unwrap_or(FOR_EVER));
    }
    let text = value.as_str()?;
    let (number, unit) = text.split_at(
        text.find(|letter: char| letter.is_ascii_alphabetic())
            .unwrap_or(text.len()),
    );
    let number: f64 = number.parse().ok()?;
    let seconds = match unit {
        "ms" => 0.001,
        "m" => 60.0,
        "h" => 3600.0,
        _ => 1.0,
    };
    Some(Duration::try_from_secs_f64(number * seconds).unwrap_or(FOR_EVER))
}

/// `keep_alive: 0` without a question: the model goes.
fn unload(server: &Server, model: &str, kind: Kind) -> Response {
    if server.model(model).is_none() {
        return refuse(&unknown(model));
    }
    crate::lock(&server.0.loaded).remove(model);
    let mut answer = json!({"model": model, "created_at": jiff::Timestamp::now().to_string(), "done": true, "done_reason": "unload"});
    match kind {
        Kind::Chat => answer["message"] = json!({"role": "assistant", "content": ""}),
        Kind::Generate => answer["response"] = "".into(),
    }
    Json(answer).into_response()
}

fn lines(work: Work) -> Response {
    let start = (work, String::new());
    let lines = stream::unfold(start, |(mut work, mut arguments)| async move {
        if work.is_done {
            return None;
        }
        let piece = match work.generation.next().await {
            Ok(piece) => piece,
            Err(broken) => {
                work.is_done = true;
                let line = json!({"error": engine_failure().message});
                let step = if broken.is_reported {
                    Ok(work.line(&line))
                } else {
                    Err(broken)
                };
                return Some((step, (work, arguments)));
            }
        };
        let Some(piece) = piece else {
            work.is_done = true;
            let last = work.last("");
            let mut lines = work
                .called(&arguments)
                .map_or_else(String::new, |called| work.line(&called));
            lines.push_str(&work.line(&last));
            if work.dialect.has(Quirk::NoFinalNewline) {
                lines.pop();
            }
            return Some((Ok(lines), (work, arguments)));
        };
        if work.generation.tool.is_some() {
            // A call comes as a whole, when it is complete.
            arguments.push_str(&piece);
            return Some((Ok(String::new()), (work, arguments)));
        }
        let line = work.line(&work.piece(&piece));
        Some((Ok(line), (work, arguments)))
    });
    streamed("application/x-ndjson", lines)
}

impl Work {
    fn line(&self, value: &Value) -> String {
        self.dialect.json(value) + "\n"
    }

    fn piece(&self, text: &str) -> Value {
        let mut piece = json!({"model": self.generation.model.name, "created_at": jiff::Timestamp::now().to_string(), "done": false});
        match self.kind {
            Kind::Chat if self.generation.tool.is_some() => {
                piece["message"] = json!({"role": "assistant", "content": ""});
            }
            Kind::Chat => piece["message"] = json!({"role": "assistant", "content": text}),
            Kind::Generate => piece["response"] = text.into(),
        }
        piece
    }

    /// The call, as a whole, as Ollama gives it.
    fn called(&self, arguments: &str) -> Option<Value> {
        let name = self.generation.tool.as_ref()?;
        let arguments: Value = serde_json::from_str(arguments).unwrap_or_else(|_| json!({}));
        let mut piece = self.piece("");
        piece["message"]["tool_calls"] = json!([{"function": {"name": name, "arguments": arguments}}]);
        Some(piece)
    }

    fn last(&self, text: &str) -> Value {
        let generation = &self.generation;
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let total = generation.began.elapsed();
        let first = generation.first.unwrap_or(total);
        let mut last = self.piece(text);
        last["done"] = true.into();
        last["done_reason"] = if generation.is_cut { "length" } else { "stop" }.into();
        last["total_duration"] = nanos(total).into();
        last["load_duration"] = nanos(generation.loading).into();
        last["prompt_eval_count"] = generation.prompt_tokens.into();
        last["prompt_eval_duration"] = nanos(first.saturating_sub(generation.loading)).into();
        last["eval_count"] = generation.total.into();
        last["eval_duration"] = nanos(total.saturating_sub(first)).into();
        last
    }
}

pub(crate) async fn embed(State(server): State<Server>, body: Bytes) -> Response {
    embedded(&server, &body, |request, texts| {
        let tokens: u64 = texts.iter().map(|text| count_tokens(text)).sum();
        let vectors: Vec<_> = texts.iter().map(|text| embedding(text)).collect();
        json!({"model": request.model, "embeddings": vectors, "total_duration": 0, "load_duration": 0, "prompt_eval_count": tokens})
    })
}

pub(crate) async fn embeddings(State(server): State<Server>, body: Bytes) -> Response {
    embedded(
        &server,
        &body,
        |request, _| json!({"embedding": embedding(&text_of(&request.prompt))}),
    )
}

fn embedded(server: &Server, body: &[u8], answer: impl FnOnce(&Request, &[String]) -> Value) -> Response {
    let request = match parse(server, body) {
        Ok(request) => request,
        Err(refusal) => return refuse(&refusal),
    };
    let mut running = server.begin(&request.model);
    let texts = inputs(request.input.as_ref());
    let answer = answer(&request, &texts);
    running.complete(texts.iter().map(|text| count_tokens(text)).sum(), 0);
    Json(answer).into_response()
}

fn parse(server: &Server, body: &[u8]) -> Result<Request, Refusal> {
    let request: Request =
        serde_json::from_slice(body).map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, error.to_string()))?;
    if server.model(&request.model).is_none() {
        return Err(unknown(&request.model));
    }
    Ok(request)
}

pub(crate) async fn tags(State(server): State<Server>) -> Json<Value> {
    let models = server.models().into_iter().map(|model| entry(&model.name));
    Json(json!({"models": models.collect::<Vec<_>>()}))
}

/// The models in memory, and until when.
pub(crate) async fn ps(State(server): State<Server>) -> Json<Value> {
    let models = server.in_memory().into_iter().map(|(model, left)| {
        let mut entry = entry(&model.name);
        let left = left.unwrap_or(Duration::from_secs(10 * 365 * 86_400));
        let until = jiff::Timestamp::now() + jiff::SignedDuration::try_from(left).unwrap_or_default();
        entry["expires_at"] = until.to_string().into();
        entry["size_vram"] = 0.into();
        entry
    });
    Json(json!({"models": models.collect::<Vec<_>>()}))
}

fn entry(name: &str) -> Value {
    json!({"name": name, "model": name, "modified_at": "2024-01-01T00:00:00Z", "size": 0, "digest": "",
        "details": details()})
}

pub(crate) async fn show(State(server): State<Server>, body: Bytes) -> Response {
    let request = match parse(&server, &body) {
        Ok(request) => request,
        Err(refusal) => return refuse(&refusal),
    };
    let context = server.model(&request.model).map_or(0, |model| model.max_input_tokens);
    Json(json!({
        "modelfile": "", "parameters": "", "template": "", "details": details(),
        "model_info": {"general.architecture": "simulated", "simulated.context_length": context},
        "capabilities": ["completion", "tools", "embedding"], "modified_at": "2024-01-01T00:00:00Z",
    }))
    .into_response()
}

fn details() -> Value {
    json!({"parent_model": "", "format": "simulated", "family": "simulated", "families": ["simulated"],
        "parameter_size": "", "quantization_level": ""})
}

fn unknown(model: &str) -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, format!("model '{model}' not found"))
}

fn engine_failure() -> Refusal {
    Refusal::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "model runner has unexpectedly stopped",
    )
}

fn refuse(refusal: &Refusal) -> Response {
    refusal.respond(json!({"error": refusal.message}))
}
