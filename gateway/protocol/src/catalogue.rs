//! Lists and descriptions of models, in OpenAI's, Anthropic's and Ollama's shapes.

use crate::{ModelLoad, Operation};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fmt::Write;

/// A model as a client sees it.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// Its name.
    pub name: &'a str,
    /// The kind of its servers.
    pub owner: &'a str,
    /// Tokens that a prompt may have.
    pub max_input_tokens: u64,
}

/// The version of Ollama that the gateway gives itself out for, unless it is configured: Codex asks for 0.13.4 at
/// least, VS Code for 0.6.4.
pub const OLLAMA_VERSION: &str = "0.13.5";

/// The date of models, which have none: 2024-01-01, in seconds since 1970 and as Ollama and Anthropic write it.
const CREATED: (u64, &str) = (1_704_067_200, "2024-01-01T00:00:00Z");

/// `GET /v1/models`.
pub fn openai_list(entries: &[Entry<'_>]) -> Value {
    let data: Vec<Value> = entries.iter().map(openai_model).collect();
    json!({"object": "list", "data": data})
}

/// `GET /v1/models/{id}`. `max_model_len` is vLLM's addition, which LiteLLM, LangChain and others read.
pub fn openai_model(entry: &Entry<'_>) -> Value {
    json!({
        "id": entry.name, "object": "model", "created": CREATED.0, "owned_by": entry.owner,
        "max_model_len": entry.max_input_tokens,
    })
}

/// `GET /v1/models` of a client that sends `anthropic-version`, in one page.
pub fn anthropic_list(entries: &[Entry<'_>]) -> Value {
    let data: Vec<Value> = entries.iter().map(anthropic_model).collect();
    json!({
        "data": data, "has_more": false,
        "first_id": entries.first().map(|entry| entry.name),
        "last_id": entries.last().map(|entry| entry.name),
    })
}

/// `GET /v1/models/{id}` of a client that sends `anthropic-version`.
pub fn anthropic_model(entry: &Entry<'_>) -> Value {
    json!({
        "type": "model", "id": entry.name, "display_name": entry.name, "created_at": CREATED.1,
        "max_input_tokens": entry.max_input_tokens,
    })
}

/// `GET /api/tags`; `GET /api/ps` is the same of those that are ready.
pub fn ollama_list(entries: &[Entry<'_>]) -> Value {
    let models = entries.iter().map(|entry| {
        json!({
            "name": entry.name, "model": entry.name, "modified_at": CREATED.1,
            "size": 0, "digest": digest(entry.name), "details": ollama_details(entry),
        })
    });
    json!({"models": models.collect::<Vec<_>>()})
}

/// A digest by which clients tell models apart: the SHA-256 of the name.
fn digest(name: &str) -> String {
    let hash = Sha256::digest(name.as_bytes());
    hash.iter().fold(String::with_capacity(64), |mut hex, byte| {
        // A string takes all that is written to it.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

fn ollama_details(entry: &Entry<'_>) -> Value {
    json!({
        "parent_model": "", "format": "gguf", "family": entry.owner, "families": [entry.owner],
        "parameter_size": "unknown", "quantization_level": "unknown",
    })
}

/// `POST /api/show` of a model whose server is not Ollama's.
pub(crate) fn ollama_show(entry: &Entry<'_>) -> Value {
    let architecture = entry.owner;
    json!({
        "modelfile": format!("FROM {}\n", entry.name), "parameters": "", "template": "{{ .Prompt }}",
        "modified_at": CREATED.1, "details": ollama_details(entry),
        "model_info": {
            "general.architecture": architecture,
            "general.basename": entry.name,
            "general.parameter_count": 0,
            format!("{architecture}.context_length"): entry.max_input_tokens,
        },
        "capabilities": ["completion", "tools"],
    })
}

/// Ollama's answer to a request that only loads or unloads a model.
pub(crate) fn ollama_loaded(operation: Operation, load: ModelLoad, model: &str) -> Value {
    let reason = match load {
        ModelLoad::Load => "load",
        ModelLoad::Unload => "unload",
    };
    let mut answer = json!({"model": model, "created_at": jiff::Timestamp::now().to_string()});
    match operation {
        Operation::OllamaChat => answer["message"] = json!({"role": "assistant", "content": ""}),
        _ => answer["response"] = "".into(),
    }
    answer["done_reason"] = reason.into();
    answer["done"] = true.into();
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRIES: [Entry<'static>; 2] = [
        Entry {
            name: "a",
            owner: "openai",
            max_input_tokens: 4096,
        },
        Entry {
            name: "org/b",
            owner: "ollama",
            max_input_tokens: 8192,
        },
    ];

    /// `llm-ollama` takes models of one digest for one model. The digests are `printf a | sha256sum`.
    #[test]
    fn every_model_has_a_digest_of_its_own() {
        let list = ollama_list(&ENTRIES);
        let first = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb";
        assert_eq!(list["models"][0]["digest"], first);
        assert_ne!(list["models"][1]["digest"], first);
        assert_ne!(list["models"][0]["details"]["format"], "");
    }

    /// The fields that VS Code and Open WebUI read of `/api/show`.
    #[test]
    fn a_model_is_described_with_its_architecture_name_and_context() {
        let show = ollama_show(&ENTRIES[1]);
        let architecture = show["model_info"]["general.architecture"].as_str().expect("named");
        assert_eq!(show["model_info"][format!("{architecture}.context_length")], 8192);
        assert_eq!(show["model_info"]["general.basename"], "org/b");
        assert_eq!(show["capabilities"][0], "completion");
    }

    /// <https://docs.anthropic.com/en/api/models-list>
    #[test]
    fn anthropics_clients_get_anthropics_list() {
        let list = anthropic_list(&ENTRIES);
        assert_eq!(list["data"][1]["type"], "model");
        assert_eq!(list["data"][1]["display_name"], "org/b");
        assert_eq!((&list["first_id"], &list["last_id"]), (&json!("a"), &json!("org/b")));
        assert_eq!(list["has_more"], false);
    }

    #[test]
    fn the_version_is_one_that_codex_and_vs_code_accept() {
        let parts: Vec<u32> = OLLAMA_VERSION
            .split('.')
            .map(|part| part.parse().expect("a number"))
            .collect();
        assert!(parts >= vec![0, 13, 4]);
    }
}
