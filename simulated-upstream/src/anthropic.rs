//! Anthropic's messages.

use crate::answer::count_tokens;
use crate::generation::{Broken, Generation, GenerationRequest, close_the_connection};
use crate::openai::text_of;
use crate::refusal::Refusal;
use crate::{Server, sse, streamed};
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use futures_util::stream;
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Request {
    model: String,
    #[serde(default)]
    messages: Vec<Value>,
    #[serde(default)]
    system: Value,
    #[serde(default)]
    tools: Vec<Value>,
    tool_choice: Option<Value>,
    max_tokens: Option<u64>,
    #[serde(default)]
    stream: bool,
    #[serde(default)]
    stop_sequences: Vec<String>,
    mcp_servers: Option<Value>,
}

fn parse(body: &[u8]) -> Result<Request, Refusal> {
    let bad = |why: String| Refusal::new(StatusCode::BAD_REQUEST, why);
    let request: Request = serde_json::from_slice(body).map_err(|error| bad(error.to_string()))?;
    if request.max_tokens == Some(0) {
        return Err(bad("max_tokens: Input should be greater than or equal to 1".to_owned()));
    }
    if request.mcp_servers.is_some() {
        return Err(bad("mcp_servers: a simulated server asks no other".to_owned()));
    }
    Ok(request)
}

fn prompt(request: &Request) -> String {
    let mut parts = vec![text_of(&request.system)];
    parts.extend(request.messages.iter().map(|message| text_of(&message["content"])));
    parts.retain(|part| !part.is_empty());
    parts.join("\n")
}

fn generation_request(request: &Request) -> GenerationRequest {
    let tools = request.tools.iter().map(
        |tool| json!({"type": "function", "function": {"name": tool["name"], "parameters": tool["input_schema"]}}),
    );
    let choice = request
        .tool_choice
        .as_ref()
        .and_then(|choice| match choice["type"].as_str() {
            Some("any") => Some("required".into()),
            Some("none") => Some("none".into()),
            Some("tool") => Some(json!({"type": "function", "function": {"name": choice["name"]}})),
            _ => None,
        });
    // A tool's result is no question.
    let mut last = request.messages.last().cloned().unwrap_or_default();
    let is_result = |block: &Value| block["type"] == "tool_result";
    if last["content"]
        .as_array()
        .is_some_and(|blocks| blocks.iter().any(is_result))
    {
        last["role"] = "tool".into();
    }
    GenerationRequest {
        model: request.model.clone(),
        prompt: prompt(request),
        limit: request.max_tokens,
        stop: request.stop_sequences.clone(),
        tools: tools.collect(),
        tool_choice: choice,
        last_message: last,
        ..GenerationRequest::default()
    }
}

pub(crate) async fn count(State(server): State<Server>, body: Bytes) -> Response {
    let request = match parse(&body) {
        Ok(request) => request,
        Err(refusal) => return refuse(&refusal),
    };
    if server.model(&request.model).is_none() {
        return refuse(&Refusal::new(
            StatusCode::NOT_FOUND,
            format!("model: {}", request.model),
        ));
    }
    Json(json!({"input_tokens": count_tokens(&prompt(&request))})).into_response()
}

pub(crate) async fn messages(State(server): State<Server>, body: Bytes) -> Response {
    let request = match parse(&body) {
        Ok(request) => request,
        Err(refusal) => return refuse(&refusal),
    };
    let mut generation = match Generation::begin(&server, generation_request(&request)).await {
        Ok(generation) => generation,
        Err(refusal) => return refuse(&refusal),
    };
    if request.stream {
        return events(generation);
    }
    let text = match generation.whole().await {
        Ok(text) => text,
        Err(Broken { is_reported: true }) => return refuse(&engine_failure()),
        Err(Broken { is_reported: false }) => close_the_connection(),
    };
    let block = match &generation.tool {
        None => json!({"type": "text", "text": text}),
        Some(name) => {
            let input: Value = serde_json::from_str(&text).unwrap_or_else(|_| json!({}));
            json!({"type": "tool_use", "id": "toolu_simulated_0", "name": name, "input": input})
        }
    };
    let mut message = message(&generation);
    message["content"] = json!([block]);
    message["stop_reason"] = stop_reason(&generation).into();
    Json(message).into_response()
}

fn message(generation: &Generation) -> Value {
    json!({"id": "msg_simulated", "type": "message", "role": "assistant", "model": generation.model.name, "content": [],
        "stop_reason": null, "stop_sequence": null, "usage": usage(generation)})
}

fn usage(generation: &Generation) -> Value {
    json!({"input_tokens": generation.prompt_tokens - generation.cached_tokens.min(generation.prompt_tokens),
        "cache_creation_input_tokens": 0, "cache_read_input_tokens": generation.cached_tokens,
        "output_tokens": generation.made})
}

fn stop_reason(generation: &Generation) -> &'static str {
    match generation.finish_reason() {
        "length" => "max_tokens",
        "tool_calls" => "tool_use",
        _ => "end_turn",
    }
}

fn events(generation: Generation) -> Response {
    let events = stream::unfold((generation, false), |(mut generation, is_done)| async move {
        if is_done {
            return None;
        }
        let piece = match generation.next().await {
            Ok(piece) => piece.unwrap_or_default(),
            Err(broken) => {
                let error =
                    json!({"type": "error", "error": {"type": "api_error", "message": engine_failure().message}});
                let mut out = String::new();
                sse::named(&mut out, "error", &error);
                let step = if broken.is_reported { Ok(out) } else { Err(broken) };
                return Some((step, (generation, true)));
            }
        };
        let mut out = String::new();
        let (start, delta) = match &generation.tool {
            None => (
                json!({"type": "text", "text": ""}),
                json!({"type": "text_delta", "text": piece}),
            ),
            Some(name) => (
                json!({"type": "tool_use", "id": "toolu_simulated_0", "name": name, "input": {}}),
                json!({"type": "input_json_delta", "partial_json": piece}),
            ),
        };
        if generation.made == 1 {
            sse::named(
                &mut out,
                "message_start",
                &json!({"type": "message_start", "message": message(&generation)}),
            );
            let begun = json!({"type": "content_block_start", "index": 0, "content_block": start});
            sse::named(&mut out, "content_block_start", &begun);
        }
        let delta = json!({"type": "content_block_delta", "index": 0, "delta": delta});
        sse::named(&mut out, "content_block_delta", &delta);
        let is_done = generation.made == generation.total;
        if is_done {
            sse::named(
                &mut out,
                "content_block_stop",
                &json!({"type": "content_block_stop", "index": 0}),
            );
            let last = json!({"type": "message_delta", "usage": usage(&generation),
                "delta": {"stop_reason": stop_reason(&generation), "stop_sequence": null}});
            sse::named(&mut out, "message_delta", &last);
            sse::named(&mut out, "message_stop", &json!({"type": "message_stop"}));
        }
        Some((Ok(out), (generation, is_done)))
    });
    streamed("text/event-stream", events)
}

fn refuse(refusal: &Refusal) -> Response {
    let kind = match refusal.status.as_u16() {
        400 => "invalid_request_error",
        404 => "not_found_error",
        429 => "rate_limit_error",
        503 => "overloaded_error",
        _ => "api_error",
    };
    refusal.respond(json!({"type": "error", "error": {"type": kind, "message": refusal.message}}))
}

fn engine_failure() -> Refusal {
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "Internal server error")
}
