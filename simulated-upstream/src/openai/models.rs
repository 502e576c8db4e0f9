//! The list of models.

use super::refuse;
use crate::refusal::Refusal;
use crate::{Model, Server};
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Json, Response};
use serde_json::{Value, json};

pub(crate) async fn models(State(server): State<Server>) -> Json<Value> {
    let data = server.models().iter().map(entry).collect::<Vec<_>>();
    Json(json!({"object": "list", "data": data}))
}

pub(crate) async fn model(State(server): State<Server>, Path(name): Path<String>) -> Response {
    match server.model(&name) {
        Some(model) => Json(entry(&model)).into_response(),
        None => refuse(&server, &Refusal::no_model(&name)),
    }
}

fn entry(model: &Model) -> Value {
    json!({"id": model.name, "object": "model", "created": 1_704_067_200, "owned_by": "simulated",
        "root": model.adapter_of.as_ref().unwrap_or(&model.name), "parent": model.adapter_of,
        "max_model_len": model.context()})
}
