//! Embeddings between OpenAI's API and Ollama's two.

use super::Operation;
use super::error::{RequestError, failed_in_answer, reports_failure};
use super::hub::{Chat, Fields, bad, not_an_answer};
use super::openai::client::usage as openai_usage;
use super::unsupported::Dropped;
use super::usage::Usage;
use super::wire::lenient::{self, Count, Each, Object};
use base64::Engine;
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// The form of embeddings that the client expects.
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
pub(crate) fn request(call: Operation, body: &[u8], dropped: &mut Dropped) -> Result<(Chat, Wanted), RequestError> {
    let mut fields = Fields::read(body)?;
    let mut to = Map::new();
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
    if let Some(options) = fields.take("options") {
        Fields::of("options.", options)?.leave_rest(dropped)?;
    }
    let is_text = |value: &Value| value.is_string();
    let input = to.get("input").cloned().unwrap_or_default();
    if !is_text(&input) && !input.as_array().is_some_and(|texts| texts.iter().all(is_text)) {
        return Err(bad(
            "input",
            "must be a text or a list of texts for this model's server",
        ));
    }
    fields.leave_rest(dropped)?;
    Ok((to, wanted))
}

/// The answer of OpenAI's servers and of Ollama's.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Answer {
    data: Option<Each<Vec<One>>>,
    embeddings: Option<Vec<Vec<f64>>>,
    prompt_eval_count: Count,
    usage: Object<Tokens>,
    error: Value,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct One {
    index: Count,
    embedding: Numbers,
}

/// A vector; some servers pack it whatever was asked for.
#[derive(Deserialize)]
#[serde(untagged)]
enum Numbers {
    Plain(Vec<f64>),
    Packed(String),
}

impl Default for Numbers {
    fn default() -> Self {
        Numbers::Plain(Vec::new())
    }
}

impl Numbers {
    fn plain(self) -> Option<Vec<f64>> {
        match self {
            Numbers::Plain(numbers) => Some(numbers).filter(|numbers| !numbers.is_empty()),
            Numbers::Packed(text) => unpacked(&text),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Tokens {
    prompt_tokens: Count,
    total_tokens: Count,
}

/// Makes the client's answer of the server's.
pub(crate) fn answer(body: &[u8], wanted: Wanted, model: &str) -> Result<Value, RequestError> {
    let answer: Answer = lenient::parse(body).ok_or_else(not_an_answer)?;
    if reports_failure(&answer.error) {
        return Err(failed_in_answer(answer.error.to_string().as_bytes()));
    }
    let vectors = match (answer.embeddings, answer.data) {
        (Some(vectors), _) => vectors,
        (None, Some(Each(mut data))) => {
            // They belong to the texts by their index, in whatever order they come.
            data.sort_by_key(|one| one.index.0);
            let vectors: Option<Vec<Vec<f64>>> = data.into_iter().map(|one| one.embedding.plain()).collect();
            vectors.ok_or_else(not_an_answer)?
        }
        (None, None) => return Err(not_an_answer()),
    };
    let usage = answer.usage.0;
    let tokens = answer
        .prompt_eval_count
        .0
        .or(usage.prompt_tokens.0)
        .or(usage.total_tokens.0)
        .unwrap_or(0);
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

/// The numbers in a base64 text, as [`packed`] writes them.
fn unpacked(text: &str) -> Option<Vec<f64>> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).ok()?;
    let numbers = bytes
        .chunks_exact(4)
        .map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]]).into());
    (bytes.len() % 4 == 0 && !bytes.is_empty()).then(|| numbers.collect())
}
