//! The APIs that are spoken: where a request goes, its body, and what is read of the answer.

pub(crate) mod answer;
mod chunk;
pub(crate) mod request;
mod sse;
pub(crate) mod stream;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// An API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Protocol {
    /// The gateway's own `/generate`, where a request may be queued and is polled.
    Generate,
    /// `/v1/chat/completions`.
    Openai,
    /// `/v1/completions`.
    Completions,
    /// `/v1/embeddings`.
    Embeddings,
    /// `/api/chat`.
    Ollama,
    /// `/api/generate`.
    OllamaGenerate,
    /// `/v1/messages`.
    Anthropic,
}

impl Protocol {
    /// Its name on the command line.
    pub(crate) fn name(self) -> String {
        let value = clap::ValueEnum::to_possible_value(&self);
        value.map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

impl Protocol {
    /// The path that requests go to.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Protocol::Generate => "/generate",
            Protocol::Openai => "/v1/chat/completions",
            Protocol::Completions => "/v1/completions",
            Protocol::Embeddings => "/v1/embeddings",
            Protocol::Ollama => "/api/chat",
            Protocol::OllamaGenerate => "/api/generate",
            Protocol::Anthropic => "/v1/messages",
        }
    }

    /// Returns whether an answer can be streamed.
    pub(crate) fn has_streams(self) -> bool {
        !matches!(self, Protocol::Generate | Protocol::Embeddings)
    }

    /// Returns whether the API of vLLM and others has `ignore_eos` in it.
    pub(crate) fn has_ignore_eos(self) -> bool {
        matches!(self, Protocol::Openai | Protocol::Completions)
    }
}
