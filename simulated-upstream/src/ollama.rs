//! Ollama's native API.

use crate::answer::{Answer, count_tokens};
use crate::openai::{embedding, inputs, text_of};
use crate::pace::Pace;
use crate::{Running, Server, tools};
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use futures_util::stream;
use serde::Deserialize;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::time::{Duration, Instant};

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
}

#[derive(Deserialize)]
struct Options {
    num_predict: Option<i64>,
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
    running: Running,
    kind: Kind,
    model: String,
    /// The tool that is called in the place of a text.
    call: Option<(String, Value)>,
    answer: Answer,
    pace: Pace,
    began: Instant,
    prompt_tokens: u64,
    total: u64,
}

async fn complete(server: Server, body: &[u8], kind: Kind) -> Response {
    let (request, latency, longest) = match parse(&server, body) {
        Ok(parsed) => parsed,
        Err(refusal) => return *refusal,
    };
    let mut parts: Vec<String> = request.system.into_iter().collect();
    parts.extend(request.messages.iter().map(|message| text_of(&message["content"])));
    parts.push(text_of(&request.prompt));
    let prompt = parts.join("\n");
    let limit = request
        .options
        .and_then(|options| options.num_predict)
        .and_then(|limit| u64::try_from(limit).ok());
    let limit = limit.unwrap_or(longest).clamp(1, longest);
    let last_said = request.messages.last().unwrap_or(&Value::Null);
    let call = tools::called(&request.tools, None, last_said);
    let schema = request.format.as_ref().filter(|format| format.is_object());
    let answer = match (&call, schema) {
        (Some((_, arguments)), _) => Answer::given(&arguments.to_string(), limit),
        (None, Some(schema)) => Answer::given(&tools::value_of(schema, 0).to_string(), limit),
        (None, None) => Answer::new(server.0.seed, &prompt, limit),
    };
    let work = Work {
        running: server.begin(),
        kind,
        call,
        model: request.model,
        total: answer.tokens,
        pace: Pace::begin(latency, answer.tokens),
        answer,
        began: Instant::now(),
        prompt_tokens: count_tokens(&prompt),
    };
    if request.stream.unwrap_or(true) {
        streamed(work)
    } else {
        whole(work).await
    }
}

fn parse(server: &Server, body: &[u8]) -> Result<(Request, Duration, u64), Box<Response>> {
    let request: Request =
        serde_json::from_slice(body).map_err(|error| Box::new(refuse(StatusCode::BAD_REQUEST, &error.to_string())))?;
    let model = server.model(&request.model).ok_or_else(|| {
        Box::new(refuse(
            StatusCode::NOT_FOUND,
            &format!("model '{}' not found", request.model),
        ))
    })?;
    let (latency, longest) = (model.average_latency, model.max_output_tokens);
    Ok((request, latency, longest))
}

async fn whole(mut work: Work) -> Response {
    work.pace.whole().await;
    let text = work.answer.clone().text();
    let mut last = work.last(&text);
    if let Some(called) = work.called() {
        last["message"]["tool_calls"] = called["message"]["tool_calls"].clone();
    }
    Json(last).into_response()
}

fn streamed(work: Work) -> Response {
    let lines = stream::unfold((work, 0u64), |(mut work, index)| async move {
        if index > work.total {
            return None;
        }
        let line = if index == work.total {
            let last = work.last("");
            match work.called() {
                Some(called) => return Some((Ok::<_, Infallible>(format!("{called}\n{last}\n")), (work, index + 1))),
                None => last,
            }
        } else {
            work.pace.token(index).await;
            let word = work.answer.next().unwrap_or_default();
            work.piece(&word)
        };
        Some((Ok::<_, Infallible>(format!("{line}\n")), (work, index + 1)))
    });
    ([("content-type", "application/x-ndjson")], Body::from_stream(lines)).into_response()
}

impl Work {
    fn piece(&self, text: &str) -> Value {
        let mut piece = json!({"model": self.model, "created_at": jiff::Timestamp::now().to_string(), "done": false});
        match self.kind {
            Kind::Chat if self.call.is_some() => piece["message"] = json!({"role": "assistant", "content": ""}),
            Kind::Chat => piece["message"] = json!({"role": "assistant", "content": text}),
            Kind::Generate => piece["response"] = text.into(),
        }
        piece
    }

    /// The call, as a whole, as Ollama gives it.
    fn called(&self) -> Option<Value> {
        let (name, arguments) = self.call.as_ref()?;
        let mut piece = self.piece("");
        piece["message"]["tool_calls"] = json!([{"function": {"name": name, "arguments": arguments}}]);
        Some(piece)
    }

    fn last(&mut self, text: &str) -> Value {
        self.running.complete(self.prompt_tokens, self.total);
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let total = self.began.elapsed();
        let mut last = self.piece(text);
        last["done"] = true.into();
        last["done_reason"] = if self.answer.is_cut { "length" } else { "stop" }.into();
        last["total_duration"] = nanos(total).into();
        last["load_duration"] = 0.into();
        last["prompt_eval_count"] = self.prompt_tokens.into();
        last["prompt_eval_duration"] = nanos(total / 5).into();
        last["eval_count"] = self.total.into();
        last["eval_duration"] = nanos(total.saturating_sub(total / 5)).into();
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
    let (request, _, _) = match parse(server, body) {
        Ok(parsed) => parsed,
        Err(refusal) => return *refusal,
    };
    let mut running = server.begin();
    let texts = inputs(request.input.as_ref());
    let answer = answer(&request, &texts);
    running.complete(texts.iter().map(|text| count_tokens(text)).sum(), 0);
    Json(answer).into_response()
}

pub(crate) async fn tags(State(server): State<Server>) -> Json<Value> {
    let models: Vec<Value> = server
        .models()
        .iter()
        .map(|model| {
            json!({"name": model.name, "model": model.name, "modified_at": "2024-01-01T00:00:00Z", "size": 0, "digest": "",
                "details": details()})
        })
        .collect();
    Json(json!({"models": models}))
}

pub(crate) async fn show(State(server): State<Server>, body: Bytes) -> Response {
    let (request, _, _) = match parse(&server, &body) {
        Ok(parsed) => parsed,
        Err(refusal) => return *refusal,
    };
    let context = server.model(&request.model).map_or(0, |model| model.max_input_tokens);
    Json(json!({
        "modelfile": "", "parameters": "", "template": "", "details": details(),
        "model_info": {"general.architecture": "simulated", "simulated.context_length": context},
        "capabilities": ["completion", "embedding"], "modified_at": "2024-01-01T00:00:00Z",
    }))
    .into_response()
}

fn details() -> Value {
    json!({"parent_model": "", "format": "simulated", "family": "simulated", "families": ["simulated"],
        "parameter_size": "", "quantization_level": ""})
}

fn refuse(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({"error": message}))).into_response()
}
