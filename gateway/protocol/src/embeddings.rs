//! Embeddings between OpenAI's API and Ollama's two.

use super::Operation;
use super::hub::{Chat, Fields, bad, not_an_answer};
use super::meter::Usage;
use super::openai::client::usage as openai_usage;
use super::refuse::RequestError;
use base64::Engine;
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// How a client wants them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    Openai {
        base64: bool,
    },
    Ollama,
    /// By Ollama's older call, one at a time.
    One,
}

/// Reads a client's request: what is to be embedded, as both name it.
pub(crate) fn request(call: Operation, body: &[u8]) -> Result<(Chat, Wanted), RequestError> {
    let mut fields = Fields::read(body)?;
    let mut to = Map::new();
    fields.ignore(&["model", "user"]);
    let wanted = match call {
        Operation::Embeddings => {
            fields.pass(&["input", "dimensions"], &mut to);
            let format = fields.text("encoding_format")?;
            Wanted::Openai {
                base64: match format.as_deref() {
                    None | Some("float") => false,
                    Some("base64") => true,
                    Some(_) => return Err(bad("encoding_format", "must be float or base64")),
                },
            }
        }
        Operation::OllamaEmbed => {
            fields.pass(&["input", "dimensions"], &mut to);
            // Both cut what is too long, or say that it is.
            fields.ignore(&["truncate", "keep_alive"]);
            Wanted::Ollama
        }
        _ => {
            fields.rename("prompt", "input", &mut to);
            fields.ignore(&["keep_alive"]);
            Wanted::One
        }
    };
    let options = fields.take("options");
    if options.is_some_and(|options| options != json!({})) {
        return Err(bad(
            "options",
            "cannot be given for embeddings with this model's server",
        ));
    }
    let is_text = |value: &Value| value.is_string();
    let input = to.get("input").cloned().unwrap_or_default();
    if !is_text(&input) && !input.as_array().is_some_and(|texts| texts.iter().all(is_text)) {
        return Err(bad(
            "input",
            "must be a text or a list of texts for this model's server",
        ));
    }
    fields.nothing_else()?;
    Ok((to, wanted))
}

/// What OpenAI's servers and Ollama's say.
#[derive(Deserialize)]
struct Said {
    data: Option<Vec<One>>,
    embeddings: Option<Vec<Vec<f64>>>,
    prompt_eval_count: Option<u64>,
    usage: Option<Tokens>,
}

#[derive(Deserialize)]
struct One {
    embedding: Vec<f64>,
}

#[derive(Deserialize)]
struct Tokens {
    #[serde(default)]
    prompt_tokens: u64,
}

/// Makes the client's answer of the server's.
pub(crate) fn answer(body: &[u8], wanted: Wanted, model: &str) -> Result<Value, RequestError> {
    let said: Said = serde_json::from_slice(body).map_err(|_| not_an_answer())?;
    let listed = said
        .data
        .map(|data| data.into_iter().map(|one| one.embedding).collect());
    let vectors: Vec<Vec<f64>> = said.embeddings.or(listed).ok_or_else(not_an_answer)?;
    let tokens = said.usage.map_or(0, |usage| usage.prompt_tokens);
    let tokens = said.prompt_eval_count.unwrap_or(tokens);
    Ok(match wanted {
        Wanted::One => json!({"embedding": vectors.first().ok_or_else(not_an_answer)?}),
        Wanted::Ollama => json!({"model": model, "embeddings": vectors,
            "total_duration": 0, "load_duration": 0, "prompt_eval_count": tokens}),
        Wanted::Openai { base64 } => {
            let data = vectors.iter().enumerate().map(|(index, vector)| {
                let embedding = if base64 { packed(vector).into() } else { json!(vector) };
                json!({"object": "embedding", "index": index, "embedding": embedding})
            });
            let data: Vec<Value> = data.collect();
            let mut usage = openai_usage(Usage {
                input_tokens: tokens,
                ..Usage::default()
            });
            if let Value::Object(usage) = &mut usage {
                usage.retain(|key, _| key == "prompt_tokens" || key == "total_tokens");
            }
            json!({"object": "list", "data": data, "model": model, "usage": usage})
        }
    })
}

/// Numbers of 32 bits, the lowest byte first, in base64.
#[allow(clippy::cast_possible_truncation)]
fn packed(vector: &[f64]) -> String {
    let bytes: Vec<u8> = vector
        .iter()
        .flat_map(|number| (*number as f32).to_le_bytes())
        .collect();
    base64::engine::general_purpose::STANDARD.encode(&bytes)
}
