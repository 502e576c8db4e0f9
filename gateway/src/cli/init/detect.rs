//! What a model server is and serves: its protocol, its models and their context lengths, its slots.
//!
//! Sources: Ollama's API page (`/api/version`, `/api/tags`, `/api/show`), vLLM's and SGLang's `/v1/models`
//! (`max_model_len`), llama.cpp's server page (`/props`: `total_slots`, `default_generation_settings.n_ctx`).

use crate::web_client;
use reqwest_blocking::StatusCode;
use reqwest_blocking::blocking::{Client, RequestBuilder};
use serde_json::{Value, json};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(5);

/// Ollama's context for a model that sets none, unless the machine has more memory than most.
const OLLAMA_CONTEXT: u64 = 4096;

/// What a server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Ollama,
    OpenAi,
}

/// A server that has answered.
#[derive(Debug)]
pub(super) struct Server {
    /// Without `/v1`.
    pub(super) url: String,
    pub(super) protocol: Protocol,
    software: String,
    pub(super) models: Vec<Offered>,
    /// Requests that it runs at once, if it says so.
    pub(super) slots: Option<usize>,
}

/// A model of a server.
#[derive(Debug)]
pub(super) struct Offered {
    pub(super) name: String,
    /// Tokens of prompt and answer together, if the server says so.
    pub(super) context: Option<u64>,
}

impl Server {
    /// One line for people.
    pub(super) fn describe(&self) -> String {
        let models = self.models.iter().map(|model| match model.context {
            Some(context) => format!("{} ({context} tokens)", model.name),
            None => format!("{} (context unknown)", model.name),
        });
        let slots = self.slots.map_or_else(String::new, |slots| format!(", {slots} slots"));
        format!("{}{slots}: {}", self.software, models.collect::<Vec<_>>().join(", "))
    }
}

/// Asks a server what it is.
///
/// # Errors
/// It cannot be reached, wants a key, or does not list its models.
pub(super) fn server(address: &str, key: Option<&str>) -> Result<Server, String> {
    let server = Asked::new(address, key)?;
    let version = server.get("/api/version");
    if let Ok(version) = &version
        && version["version"].is_string()
        && let Ok(tags) = server.get("/api/tags")
    {
        return Ok(server.ollama(version, &tags));
    }
    server.openai()
}

/// A server while it is asked.
struct Asked<'a> {
    http: Client,
    url: String,
    key: Option<&'a str>,
}

impl<'a> Asked<'a> {
    fn new(address: &str, key: Option<&'a str>) -> Result<Self, String> {
        let url = address.trim().trim_end_matches('/').trim_end_matches("/v1");
        let url = if url.contains("://") {
            url.to_owned()
        } else {
            format!("http://{url}")
        };
        let http = web_client::client(TIMEOUT).map_err(|error| error.to_string())?;
        Ok(Self { http, url, key })
    }

    fn get(&self, path: &str) -> Result<Value, String> {
        self.ask(self.http.get(format!("{}{path}", self.url)), path)
    }

    fn ask(&self, request: RequestBuilder, path: &str) -> Result<Value, String> {
        let request = match self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        };
        let answer = request.send().map_err(|error| {
            let mut cause: &dyn std::error::Error = &error;
            while let Some(inner) = cause.source() {
                cause = inner;
            }
            format!("cannot reach it: {cause}")
        })?;
        match answer.status() {
            status if status.is_success() => answer.json().map_err(|_| format!("{path} did not return JSON")),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if self.key.is_none() => Err(
                "it wants an API key; put it into an environment variable and name that with --api-key-env".to_owned(),
            ),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err("it refuses the API key".to_owned()),
            status => Err(format!("{path} returned status {status}; is it a model server?")),
        }
    }

    fn ollama(&self, version: &Value, tags: &Value) -> Server {
        let models = tags["models"].as_array().into_iter().flatten();
        let names = models.filter_map(|model| model["name"].as_str().or(model["model"].as_str()));
        let models = names.map(|name| Offered {
            name: name.to_owned(),
            context: Some(self.ollama_context(name)),
        });
        Server {
            models: models.collect(),
            url: self.url.clone(),
            protocol: Protocol::Ollama,
            software: format!("Ollama {}", version["version"].as_str().unwrap_or_default()),
            slots: None,
        }
    }

    /// What the model's parameters say (`num_ctx`), else Ollama's default, if the model has that much.
    fn ollama_context(&self, name: &str) -> u64 {
        let request = self
            .http
            .post(format!("{}/api/show", self.url))
            .json(&json!({"model": name}));
        let shown = self.ask(request, "/api/show").unwrap_or_default();
        let set = shown["parameters"]
            .as_str()
            .into_iter()
            .flat_map(str::lines)
            .find_map(|line| {
                let (name, value) = line.trim().split_once(char::is_whitespace)?;
                (name == "num_ctx").then(|| value.trim().parse::<u64>().ok())?
            });
        let trained = shown["model_info"].as_object().into_iter().flatten();
        let trained = trained
            .filter(|(key, _)| key.ends_with(".context_length"))
            .find_map(|(_, value)| value.as_u64());
        set.unwrap_or_else(|| trained.unwrap_or(OLLAMA_CONTEXT).min(OLLAMA_CONTEXT))
    }

    fn openai(&self) -> Result<Server, String> {
        let list = self.get("/v1/models")?;
        let listed = list["data"]
            .as_array()
            .ok_or("/v1/models lists no models; is it a model server?")?;
        let props = self.get("/props").unwrap_or_default();
        let per_slot = props["default_generation_settings"]["n_ctx"].as_u64();
        let slots = props["total_slots"]
            .as_u64()
            .and_then(|slots| usize::try_from(slots).ok());
        let models = listed.iter().filter_map(|model| {
            Some(Offered {
                name: model["id"].as_str()?.to_owned(),
                context: per_slot.or_else(|| context_of(model)).filter(|context| *context > 0),
            })
        });
        let owner = listed
            .first()
            .and_then(|model| model["owned_by"].as_str())
            .unwrap_or_default();
        Ok(Server {
            models: models.collect(),
            url: self.url.clone(),
            protocol: Protocol::OpenAi,
            software: match owner {
                "llamacpp" => "llama.cpp".to_owned(),
                "vllm" => "vLLM".to_owned(),
                "sglang" => "SGLang".to_owned(),
                _ => "OpenAI-compatible".to_owned(),
            },
            slots,
        })
    }
}

/// The context length in an entry of `/v1/models`, by the names that servers give it.
fn context_of(model: &Value) -> Option<u64> {
    let names = [
        "max_model_len",
        "context_length",
        "max_context_length",
        "context_window",
    ];
    let direct = names.iter().find_map(|name| model[*name].as_u64());
    direct.or_else(|| model["meta"]["n_ctx_train"].as_u64())
}
