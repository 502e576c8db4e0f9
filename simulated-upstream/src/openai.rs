//! OpenAI's API.

use crate::answer::{Answer, count_tokens};
use crate::pace::Pace;
use crate::{Model, Running, Server, tools};
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use futures_util::stream;
use serde::Deserialize;
use serde_json::{Value, json};
use std::convert::Infallible;

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
    n: Option<u64>,
}

#[derive(Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

/// The one call of an answer.
const CALL_ID: &str = "call_simulated_0";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Chat,
    Completion,
}

pub(crate) async fn chat(State(server): State<Server>, body: Bytes) -> Response {
    complete(server, &body, Kind::Chat).await
}

pub(crate) async fn completions(State(server): State<Server>, body: Bytes) -> Response {
    complete(server, &body, Kind::Completion).await
}

async fn complete(server: Server, body: &[u8], kind: Kind) -> Response {
    let request: Request = match serde_json::from_slice(body) {
        Ok(request) => request,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    let Some(model) = server.model(&request.model) else {
        return refuse(StatusCode::NOT_FOUND, &format!("there is no model `{}`", request.model));
    };
    let prompt = match kind {
        Kind::Chat => request
            .messages
            .iter()
            .map(|message| text_of(&message["content"]))
            .collect::<Vec<_>>()
            .join("\n"),
        Kind::Completion => request.prompt.as_ref().map(text_of).unwrap_or_default(),
    };
    let prompt_tokens = count_tokens(&prompt);
    if prompt_tokens > model.max_input_tokens {
        return refuse(
            StatusCode::BAD_REQUEST,
            &format!(
                "the prompt has {prompt_tokens} tokens, at most {} fit",
                model.max_input_tokens
            ),
        );
    }
    let limit = request
        .max_completion_tokens
        .or(request.max_tokens)
        .unwrap_or(model.max_output_tokens);
    let limit = limit.clamp(1, model.max_output_tokens);
    let last_said = request.messages.last().unwrap_or(&Value::Null);
    let call = tools::called(&request.tools, request.tool_choice.as_ref(), last_said);
    let format = request.response_format.as_ref();
    let schema = format.and_then(|format| format.pointer("/json_schema/schema"));
    let answer = match (&call, schema) {
        (Some((_, arguments)), _) => Answer::given(&arguments.to_string(), limit),
        (None, Some(schema)) => Answer::given(&tools::value_of(schema, 0).to_string(), limit),
        (None, None) => Answer::new(server.0.seed, &prompt, limit),
    };
    let tool = call.map(|(name, _)| name);
    let running = server.begin();
    if request.stream {
        let include_usage = request.stream_options.is_some_and(|options| options.include_usage);
        return streamed(running, kind, &model, (answer, tool), prompt_tokens, include_usage);
    }
    whole(
        running,
        kind,
        &model,
        (answer, tool),
        prompt_tokens,
        request.n.unwrap_or(1).clamp(1, 128),
    )
    .await
}

async fn whole(
    mut running: Running,
    kind: Kind,
    model: &Model,
    (answer, tool): (Answer, Option<String>),
    prompt_tokens: u64,
    n: u64,
) -> Response {
    Pace::begin(model.average_latency, answer.tokens).whole().await;
    let tokens = answer.tokens * n;
    let finish = finish_reason(&answer, tool.is_some());
    let text = answer.text();
    let choices: Vec<Value> = (0..n)
        .map(|index| match kind {
            Kind::Chat => {
                let message = match &tool {
                    None => json!({"role": "assistant", "content": text}),
                    Some(name) => json!({"role": "assistant", "content": null, "tool_calls": [
                        {"id": CALL_ID, "type": "function", "function": {"name": name, "arguments": text}}]}),
                };
                json!({"index": index, "message": message, "logprobs": null, "finish_reason": finish})
            }
            Kind::Completion => json!({"index": index, "text": text, "logprobs": null, "finish_reason": finish}),
        })
        .collect();
    let mut whole = frame(kind, model, false);
    whole["choices"] = choices.into();
    whole["usage"] = usage(prompt_tokens, tokens);
    running.complete(prompt_tokens, tokens);
    Json(whole).into_response()
}

fn streamed(
    running: Running,
    kind: Kind,
    model: &Model,
    (answer, tool): (Answer, Option<String>),
    prompt_tokens: u64,
    include_usage: bool,
) -> Response {
    struct Stream {
        running: Running,
        answer: Answer,
        pace: Pace,
        index: u64,
        is_done: bool,
    }
    let total = answer.tokens;
    let finish = finish_reason(&answer, tool.is_some());
    let frame = frame(kind, model, true);
    let start = Stream {
        running,
        pace: Pace::begin(model.average_latency, total),
        answer,
        index: 0,
        is_done: false,
    };
    let events = stream::unfold(start, move |mut state| {
        let mut chunk = frame.clone();
        let tool = tool.clone();
        async move {
            if state.is_done {
                return None;
            }
            state.pace.token(state.index).await;
            let mut out = String::new();
            if let Some(word) = state.answer.next() {
                chunk["choices"] = json!([match (kind, state.index) {
                    (Kind::Chat, 0) if tool.is_some() =>
                        json!({"index": 0, "delta": {"role": "assistant", "content": null, "tool_calls": [{"index": 0, "id": CALL_ID,
                            "type": "function", "function": {"name": tool, "arguments": word}}]}, "logprobs": null, "finish_reason": null}),
                    (Kind::Chat, _) if tool.is_some() =>
                        json!({"index": 0, "delta": {"tool_calls": [{"index": 0, "function": {"arguments": word}}]},
                            "logprobs": null, "finish_reason": null}),
                    (Kind::Chat, 0) =>
                        json!({"index": 0, "delta": {"role": "assistant", "content": word}, "logprobs": null, "finish_reason": null}),
                    (Kind::Chat, _) =>
                        json!({"index": 0, "delta": {"content": word}, "logprobs": null, "finish_reason": null}),
                    (Kind::Completion, _) => json!({"index": 0, "text": word, "logprobs": null, "finish_reason": null}),
                }]);
                event(&mut out, &chunk);
                state.index += 1;
            }
            if state.index == total {
                chunk["choices"] = json!([match kind {
                    Kind::Chat => json!({"index": 0, "delta": {}, "logprobs": null, "finish_reason": finish}),
                    Kind::Completion => json!({"index": 0, "text": "", "logprobs": null, "finish_reason": finish}),
                }]);
                event(&mut out, &chunk);
                if include_usage {
                    chunk["choices"] = json!([]);
                    chunk["usage"] = usage(prompt_tokens, total);
                    event(&mut out, &chunk);
                }
                out.push_str("data: [DONE]\n\n");
                state.running.complete(prompt_tokens, total);
                state.is_done = true;
            }
            Some((Ok::<_, Infallible>(out), state))
        }
    });
    (
        [("content-type", "text/event-stream"), ("cache-control", "no-cache")],
        Body::from_stream(events),
    )
        .into_response()
}

fn event(out: &mut String, chunk: &Value) {
    out.push_str("data: ");
    out.push_str(&chunk.to_string());
    out.push_str("\n\n");
}

pub(crate) async fn embeddings(State(server): State<Server>, body: Bytes) -> Response {
    let request: Request = match serde_json::from_slice(&body) {
        Ok(request) => request,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    if server.model(&request.model).is_none() {
        return refuse(StatusCode::NOT_FOUND, &format!("there is no model `{}`", request.model));
    }
    let mut running = server.begin();
    let inputs = inputs(request.input.as_ref());
    let tokens: u64 = inputs.iter().map(|input| count_tokens(input)).sum();
    let data: Vec<Value> = inputs
        .iter()
        .enumerate()
        .map(|(index, input)| json!({"object": "embedding", "index": index, "embedding": embedding(input)}))
        .collect();
    running.complete(tokens, 0);
    Json(json!({"object": "list", "model": request.model, "data": data, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}})).into_response()
}

pub(crate) async fn models(State(server): State<Server>) -> Json<Value> {
    let data: Vec<Value> = server
        .models()
        .iter()
        .map(|model| json!({"id": model.name, "object": "model", "created": 1_704_067_200, "owned_by": "simulated", "max_model_len": model.max_input_tokens}))
        .collect();
    Json(json!({"object": "list", "data": data}))
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

fn frame(kind: Kind, model: &Model, is_chunk: bool) -> Value {
    let (id, object) = match (kind, is_chunk) {
        (Kind::Chat, false) => ("chatcmpl-simulated", "chat.completion"),
        (Kind::Chat, true) => ("chatcmpl-simulated", "chat.completion.chunk"),
        (Kind::Completion, _) => ("cmpl-simulated", "text_completion"),
    };
    json!({"id": id, "object": object, "created": jiff::Timestamp::now().as_second(), "model": model.name})
}

fn finish_reason(answer: &Answer, is_call: bool) -> &'static str {
    match (answer.is_cut, is_call) {
        (true, _) => "length",
        (false, true) => "tool_calls",
        (false, false) => "stop",
    }
}

fn usage(prompt: u64, completion: u64) -> Value {
    json!({"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion})
}

fn refuse(status: StatusCode, message: &str) -> Response {
    let code = if status == StatusCode::NOT_FOUND {
        "model_not_found"
    } else {
        "bad_request"
    };
    (
        status,
        Json(json!({"error": {"message": message, "type": "invalid_request_error", "param": null, "code": code}})),
    )
        .into_response()
}
