//! Chat and text completions.

use super::request::Request;
use super::shape::Shape;
use super::stream;
use super::{Kind, refuse, text_of, texts, usage};
use crate::Server;
use crate::dialect::Quirk;
use crate::generation::{Broken, Generation, GenerationRequest, close_the_connection};
use crate::refusal::Refusal;
use crate::tools::CALL_ID;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

pub(crate) async fn chat(State(server): State<Server>, body: Bytes) -> Response {
    complete(server, &body, Kind::Chat).await
}

pub(crate) async fn completions(State(server): State<Server>, body: Bytes) -> Response {
    complete(server, &body, Kind::Completion).await
}

async fn complete(server: Server, body: &[u8], kind: Kind) -> Response {
    let (request, generations) = match begin(&server, body, kind).await {
        Ok(begun) => begun,
        Err(refusal) => return refuse(&server, &refusal),
    };
    let shape = Shape::new(&server, &request, kind, &generations[0].model.name);
    let dialect = &server.0.dialect;
    let is_streaming = dialect.has(Quirk::AlwaysStreams) || request.stream && !dialect.has(Quirk::StreamIgnored);
    if is_streaming {
        return stream::respond(generations, shape, request.stream_options.unwrap_or_default());
    }
    match whole(generations, &shape, &request).await {
        Ok(mut answer) => {
            dialect.whole(&mut answer);
            ([(CONTENT_TYPE, "application/json")], dialect.json(&answer)).into_response()
        }
        Err(Broken { is_reported: true }) => refuse(&server, &Refusal::engine_failure()),
        Err(Broken { is_reported: false }) => close_the_connection(),
    }
}

/// Reads a request and takes each of its answers in.
async fn begin(server: &Server, body: &[u8], kind: Kind) -> Result<(Request, Vec<Generation>), Refusal> {
    let request = Request::read(body, kind)?;
    let model = server.model_named(request.model.as_deref())?.name;
    if server.0.dialect.has(Quirk::NoPictures) && has_picture(&request.messages) {
        let message = "image input is not supported - hint: if this is unexpected, you may need to provide the mmproj";
        return Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, message));
    }
    let count = request.n.unwrap_or(1).max(1);
    server.0.metrics.count_request(&model, count, request.limit());
    let mut generations = Vec::new();
    for number in 0..count {
        generations.push(Generation::begin(server, generation_request(&request, kind, &model, number)).await?);
    }
    Ok((request, generations))
}

fn has_picture(messages: &[Value]) -> bool {
    let mut parts = messages
        .iter()
        .filter_map(|message| message["content"].as_array())
        .flatten();
    parts.any(|part| part["type"] == "image_url" || part["type"] == "input_image")
}

pub(super) fn prompt_of(request: &Request, kind: Kind) -> String {
    match kind {
        Kind::Chat => {
            let texts = request.messages.iter().map(|message| text_of(&message["content"]));
            texts.collect::<Vec<_>>().join("\n")
        }
        Kind::Completion => request.prompt.as_ref().map(text_of).unwrap_or_default(),
    }
}

fn generation_request(request: &Request, kind: Kind, model: &str, number: i64) -> GenerationRequest {
    let format = request.response_format.as_ref();
    let seed = request.seed.unwrap_or(0).wrapping_add(number.wrapping_mul(0x9e37_79b9));
    GenerationRequest {
        model: model.to_owned(),
        prompt: prompt_of(request, kind),
        limit: request.limit().and_then(|limit| u64::try_from(limit).ok()),
        within_context: true,
        ignore_eos: request.ignore_eos,
        stop: texts(request.stop.as_ref()),
        seed: seed.cast_unsigned(),
        tools: request.tools.clone(),
        tool_choice: request.tool_choice.clone(),
        last_message: request.messages.last().cloned().unwrap_or_default(),
        schema: format.and_then(|format| format.pointer("/json_schema/schema")).cloned(),
        keep_alive: None,
    }
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
        let mut choice = json!({"index": index, "logprobs": shape.logprobs(&pieces),
            "finish_reason": generation.finish_reason(), "stop_reason": generation.stopped_by()});
        if shape.kind == Kind::Completion {
            if request.echo {
                text = request.prompt.as_ref().map(text_of).unwrap_or_default() + &text;
            }
            choice["text"] = text.into();
        } else {
            choice["message"] = message(&generation, &text);
        }
        choices.push(choice);
    }
    let mut whole = shape.frame(false);
    whole["choices"] = choices.into();
    whole["usage"] = usage(prompt, cached, output);
    Ok(whole)
}

fn message(generation: &Generation, text: &str) -> Value {
    let (content, calls) = match &generation.tool {
        Some(name) => {
            let function = json!({"name": name, "arguments": text});
            (
                Value::Null,
                json!([{"id": CALL_ID, "type": "function", "function": function}]),
            )
        }
        None => (text.into(), json!([])),
    };
    json!({"role": "assistant", "content": content, "refusal": null, "annotations": null, "audio": null,
        "function_call": null, "tool_calls": calls})
}
