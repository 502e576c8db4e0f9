//! OpenAI's responses.

use crate::answer::count_tokens;
use crate::generation::{Broken, Generation, GenerationRequest, close_the_connection};
use crate::openai::{read, refuse, text_of};
use crate::refusal::Refusal;
use crate::{Server, sse, streamed};
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Json, Response};
use futures_util::stream;
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Request {
    model: Option<String>,
    input: Value,
    #[serde(default)]
    instructions: Value,
    #[serde(default)]
    tools: Vec<Value>,
    tool_choice: Option<Value>,
    text: Option<Value>,
    max_output_tokens: Option<i64>,
    temperature: Option<f64>,
    #[serde(default)]
    stream: bool,
}

const ITEM: &str = "item_simulated_0";

fn generation_request(request: &Request, model: String) -> GenerationRequest {
    let said = match &request.input {
        Value::Array(items) => items
            .iter()
            .map(|item| text_of(&item["content"]) + &text_of(&item["output"]))
            .collect(),
        text => vec![text_of(text)],
    };
    let mut parts = vec![text_of(&request.instructions)];
    parts.extend(said);
    parts.retain(|part| !part.is_empty());
    let last = match &request.input {
        Value::Array(items) => items.last().cloned().unwrap_or_default(),
        text => json!({"role": "user", "content": text}),
    };
    let tools = request
        .tools
        .iter()
        .map(|tool| json!({"type": "function", "function": tool}));
    let choice = request
        .tool_choice
        .as_ref()
        .map(|choice| match choice["name"].as_str() {
            Some(name) => json!({"type": "function", "function": {"name": name}}),
            None => choice.clone(),
        });
    GenerationRequest {
        model,
        prompt: parts.join("\n"),
        limit: request.max_output_tokens.and_then(|limit| u64::try_from(limit).ok()),
        within_context: true,
        tools: tools.collect(),
        tool_choice: choice,
        last_message: last,
        schema: request
            .text
            .as_ref()
            .and_then(|text| text.pointer("/format/schema"))
            .cloned(),
        ..GenerationRequest::default()
    }
}

pub(crate) async fn create(State(server): State<Server>, body: Bytes) -> Response {
    let (request, mut generation) = match begin(&server, &body).await {
        Ok(begun) => begun,
        Err(refusal) => return refuse(&server, &refusal),
    };
    if request.stream {
        return events(generation);
    }
    match generation.whole().await {
        Ok(text) => Json(response(&generation, status(&generation), &[item(&generation, &text)])).into_response(),
        Err(Broken { is_reported: true }) => refuse(&server, &Refusal::engine_failure()),
        Err(Broken { is_reported: false }) => close_the_connection(),
    }
}

/// The number of input tokens of a request (OpenAI's `input_tokens`).
pub(crate) async fn input_tokens(State(server): State<Server>, body: Bytes) -> Response {
    let counted = read::<Request>(&body, &["input"]).and_then(|request| {
        server.model_named(request.model.as_deref())?;
        Ok(count_tokens(&generation_request(&request, String::new()).prompt))
    });
    match counted {
        Ok(tokens) => Json(json!({"object": "response.input_tokens", "input_tokens": tokens})).into_response(),
        Err(refusal) => refuse(&server, &refusal),
    }
}

async fn begin(server: &Server, body: &[u8]) -> Result<(Request, Generation), Refusal> {
    let request: Request = read(body, &["input"])?;
    if let Some(limit) = request.max_output_tokens.filter(|limit| *limit < 1) {
        let message = format!("max_tokens must be at least 1, got {limit}.");
        return Err(Refusal::bad(message, Some("max_tokens")));
    }
    if let Some(temperature) = request.temperature.filter(|temperature| *temperature < 0.0) {
        let message = format!("temperature must be non-negative, got {temperature:?}.");
        return Err(Refusal::bad(message, Some("temperature")));
    }
    let model = server.model_named(request.model.as_deref())?.name;
    let generation = Generation::begin(server, generation_request(&request, model)).await?;
    Ok((request, generation))
}

fn status(generation: &Generation) -> &'static str {
    if generation.is_cut { "incomplete" } else { "completed" }
}

fn item(generation: &Generation, text: &str) -> Value {
    match &generation.tool {
        Some(name) => json!({"id": ITEM, "type": "function_call", "call_id": "call_simulated_0", "name": name,
            "arguments": text, "status": "completed"}),
        None => json!({"id": ITEM, "type": "message", "role": "assistant", "status": status(generation),
            "content": [{"type": "output_text", "text": text, "annotations": []}]}),
    }
}

fn response(generation: &Generation, status: &str, output: &[Value]) -> Value {
    let details = (status == "incomplete").then(|| json!({"reason": "max_output_tokens"}));
    let (input, made) = (generation.prompt_tokens, generation.made);
    json!({"id": "resp_simulated", "object": "response", "created_at": jiff::Timestamp::now().as_second(), "status": status,
        "model": generation.model.name, "output": output, "error": null, "incomplete_details": details,
        "parallel_tool_calls": true, "tool_choice": "auto", "tools": [], "metadata": {},
        "usage": {"input_tokens": input, "input_tokens_details": {"cached_tokens": generation.cached_tokens},
            "output_tokens": made, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": input + made}})
}

/// A stream of responses under way.
struct Events {
    generation: Generation,
    text: String,
    number: u64,
    is_done: bool,
}

impl Events {
    fn event(&mut self, out: &mut String, name: &str, mut data: Value) {
        data["type"] = name.into();
        data["sequence_number"] = self.number.into();
        self.number += 1;
        sse::named(out, name, &data);
    }

    fn begin(&mut self, out: &mut String) {
        let begun = response(&self.generation, "in_progress", &[]);
        self.event(out, "response.created", json!({"response": begun}));
        let mut item = item(&self.generation, "");
        item["status"] = "in_progress".into();
        if self.generation.tool.is_none() {
            item["content"] = json!([]);
        }
        self.event(
            out,
            "response.output_item.added",
            json!({"output_index": 0, "item": item}),
        );
        if self.generation.tool.is_none() {
            let part = json!({"type": "output_text", "text": "", "annotations": []});
            self.event(
                out,
                "response.content_part.added",
                json!({"item_id": ITEM, "output_index": 0, "content_index": 0, "part": part}),
            );
        }
    }

    fn end(&mut self, out: &mut String) {
        let item = item(&self.generation, &self.text);
        if self.generation.tool.is_some() {
            let done =
                json!({"item_id": ITEM, "output_index": 0, "arguments": self.text, "name": self.generation.tool});
            self.event(out, "response.function_call_arguments.done", done);
        } else {
            let done =
                json!({"item_id": ITEM, "output_index": 0, "content_index": 0, "text": self.text, "logprobs": []});
            self.event(out, "response.output_text.done", done);
            let done = json!({"item_id": ITEM, "output_index": 0, "content_index": 0, "part": item["content"][0]});
            self.event(out, "response.content_part.done", done);
        }
        self.event(
            out,
            "response.output_item.done",
            json!({"output_index": 0, "item": item}),
        );
        let status = status(&self.generation);
        let whole = response(&self.generation, status, &[item]);
        self.event(out, &format!("response.{status}"), json!({"response": whole}));
    }
}

fn events(generation: Generation) -> Response {
    let start = Events {
        generation,
        text: String::new(),
        number: 0,
        is_done: false,
    };
    let events = stream::unfold(start, |mut state| async move {
        if state.is_done {
            return None;
        }
        let piece = match state.generation.next().await {
            Ok(piece) => piece.unwrap_or_default(),
            Err(broken) => {
                state.is_done = true;
                if broken.is_reported {
                    let failure =
                        json!({"code": "server_error", "message": Refusal::engine_failure().message, "param": null});
                    let mut out = String::new();
                    state.event(&mut out, "error", failure);
                    return Some((Ok(out), state));
                }
                return Some((Err(broken), state));
            }
        };
        let mut out = String::new();
        if state.generation.made == 1 {
            state.begin(&mut out);
        }
        let (name, delta) = if state.generation.tool.is_some() {
            (
                "response.function_call_arguments.delta",
                json!({"item_id": ITEM, "output_index": 0, "delta": piece}),
            )
        } else {
            let delta = json!({"item_id": ITEM, "output_index": 0, "content_index": 0, "delta": piece, "logprobs": []});
            ("response.output_text.delta", delta)
        };
        state.text.push_str(&piece);
        state.event(&mut out, name, delta);
        state.is_done = state.generation.made == state.generation.total;
        if state.is_done {
            state.end(&mut out);
        }
        Some((Ok(out), state))
    });
    streamed("text/event-stream", events)
}
