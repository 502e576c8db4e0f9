//! Embeddings: figures that depend on the text alone.

use super::{inputs, read, refuse};
use crate::Server;
use crate::answer::count_tokens;
use crate::refusal::Refusal;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Json, Response};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Request {
    model: Option<String>,
    input: Value,
    encoding_format: Option<String>,
    dimensions: Option<usize>,
}

pub(crate) async fn embeddings(State(server): State<Server>, body: Bytes) -> Response {
    match embedded(&server, &body) {
        Ok(answer) => Json(answer).into_response(),
        Err(refusal) => refuse(&server, &refusal),
    }
}

fn embedded(server: &Server, body: &[u8]) -> Result<Value, Refusal> {
    let request: Request = read(body, &["input"])?;
    let model = server.model_named(request.model.as_deref())?;
    let mut running = server.begin(&model.name);
    let inputs = inputs(Some(&request.input));
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
    Ok(json!({"object": "list", "model": model.name, "data": data,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}))
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
