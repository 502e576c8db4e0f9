//! Lists of models, in OpenAI's and Ollama's shapes.

use serde_json::{Value, json};

/// A model as a client sees it.
#[derive(Debug)]
pub struct Entry<'a> {
    pub name: &'a str,
    pub owner: &'a str,
    pub max_input_tokens: u64,
}

/// A time for files and models that have none: 2024-01-01.
const CREATED: u64 = 1_704_067_200;

/// `GET /v1/models`.
pub fn openai_list(entries: &[Entry<'_>]) -> Value {
    let data: Vec<Value> = entries.iter().map(openai_model).collect();
    json!({"object": "list", "data": data})
}

/// `GET /v1/models/{id}`.
pub fn openai_model(entry: &Entry<'_>) -> Value {
    json!({
        "id": entry.name, "object": "model", "created": CREATED, "owned_by": entry.owner,
        "max_model_len": entry.max_input_tokens,
    })
}

/// `GET /api/tags`; `GET /api/ps` is the same of those that are ready.
pub fn ollama_list(entries: &[Entry<'_>]) -> Value {
    let models = entries.iter().map(|entry| {
        json!({
            "name": entry.name, "model": entry.name, "modified_at": "2024-01-01T00:00:00Z",
            "size": 0, "digest": "", "details": {
                "parent_model": "", "format": "", "family": entry.owner, "families": null,
                "parameter_size": "", "quantization_level": "",
            },
        })
    });
    json!({"models": models.collect::<Vec<_>>()})
}

/// `POST /api/show` of a model that is not Ollama's.
pub fn ollama_show(owner: &str, max_input_tokens: u64) -> Value {
    json!({
        "modelfile": "", "parameters": "", "template": "", "modified_at": "2024-01-01T00:00:00Z",
        "details": {
            "parent_model": "", "format": "", "family": owner, "families": null,
            "parameter_size": "", "quantization_level": "",
        },
        "model_info": {"general.architecture": owner, format!("{owner}.context_length"): max_input_tokens},
        "capabilities": ["completion", "tools"],
    })
}
