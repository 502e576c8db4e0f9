//! The tables of protocols and operations. A new protocol is one folder and one line of the first, a new operation one
//! file and one line of the second: routing, paths, parsing and metering follow from its row.

use crate::dialect::Dialect;
use crate::request::LimitRule;
use crate::{anthropic, generate, ollama, openai, rerank, responses, score};

macro_rules! protocols {
    ($($(#[$doc:meta])* $name:ident = $dialect:expr, $label:literal;)*) => {
        /// The protocol of a client or of a model's server.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Protocol { $($(#[$doc])* $name,)* }

        impl Protocol {
            /// The name in the ledger and the metrics.
            pub fn name(self) -> &'static str {
                match self { $(Protocol::$name => $label,)* }
            }

            /// The content type of its streams.
            pub fn stream_type(self) -> &'static str {
                self.dialect().stream_type()
            }

            pub(crate) fn dialect(self) -> &'static dyn Dialect {
                match self { $(Protocol::$name => &$dialect,)* }
            }
        }
    };
}

protocols! {
    /// OpenAI's chat completions, completions and embeddings, and what vLLM added to them.
    OpenAi = openai::OpenAi, "openai";
    /// OpenAI's responses, whose streams have another shape.
    Responses = responses::Responses, "openai";
    /// Anthropic's messages.
    Anthropic = anthropic::Anthropic, "anthropic";
    /// Ollama's native API.
    Ollama = ollama::Ollama, "ollama";
    /// The original system's own `/generate`.
    Generate = generate::Generate, "generate";
}

/// The kind of work that an operation asks of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Output tokens.
    Generate,
    /// Vectors.
    Embed,
    /// Scores of texts against each other.
    Score,
    /// The number of a prompt's tokens.
    Count,
    /// A description of the model.
    Describe,
}

struct Row {
    protocol: Protocol,
    dialect: &'static dyn Dialect,
    work: Work,
    paths: &'static [&'static str],
    upstream_path: &'static str,
}

macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident = $protocol:ident, $dialect:expr, $work:ident,
       [$($path:literal),+] => $upstream:literal;)*) => {
        /// An operation of a model's API that is limited, metered and recorded.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Operation { $($(#[$doc])* $name,)* }

        impl Operation {
            /// All operations.
            pub const ALL: &'static [Operation] = &[$(Operation::$name),*];

            fn row(self) -> &'static Row {
                match self {
                    $(Operation::$name => &Row {
                        protocol: Protocol::$protocol,
                        dialect: &$dialect,
                        work: Work::$work,
                        paths: &[$($path),+],
                        upstream_path: $upstream,
                    },)*
                }
            }

            /// The operation that is served at a path; all of them are `POST`.
            pub fn at(path: &str) -> Option<Self> {
                match path {
                    $($($path)|+ => Some(Operation::$name),)*
                    _ => None,
                }
            }
        }
    };
}

operations! {
    /// A chat completion.
    ChatCompletions = OpenAi, openai::OpenAi, Generate, ["/v1/chat/completions", "/chat/completions"] => "/v1/chat/completions";
    /// A completion of one or more prompts.
    Completions = OpenAi, openai::OpenAi, Generate, ["/v1/completions"] => "/v1/completions";
    /// Embeddings of one or more inputs.
    Embeddings = OpenAi, openai::OpenAi, Embed, ["/v1/embeddings"] => "/v1/embeddings";
    /// Documents ordered by how well they fit a query.
    Rerank = OpenAi, rerank::Rerank, Score, ["/v1/rerank", "/rerank", "/v2/rerank"] => "/v1/rerank";
    /// Texts scored against each other.
    Score = OpenAi, score::Score, Score, ["/v1/score", "/score"] => "/v1/score";
    /// A response.
    Responses = Responses, responses::Responses, Generate, ["/v1/responses"] => "/v1/responses";
    /// The number of a response's input tokens.
    ResponseInputTokens = Responses, responses::InputTokens, Count, ["/v1/responses/input_tokens"] => "/v1/responses/input_tokens";
    /// A message.
    Messages = Anthropic, anthropic::Anthropic, Generate, ["/v1/messages"] => "/v1/messages";
    /// The number of a message's input tokens.
    CountTokens = Anthropic, anthropic::Anthropic, Count, ["/v1/messages/count_tokens"] => "/v1/messages/count_tokens";
    /// Ollama's chat.
    OllamaChat = Ollama, ollama::Ollama, Generate, ["/api/chat"] => "/api/chat";
    /// Ollama's completion of a prompt.
    OllamaGenerate = Ollama, ollama::Ollama, Generate, ["/api/generate"] => "/api/generate";
    /// Ollama's embeddings of one or more inputs.
    OllamaEmbed = Ollama, ollama::Ollama, Embed, ["/api/embed"] => "/api/embed";
    /// Ollama's older embedding of one prompt.
    OllamaEmbeddings = Ollama, ollama::Ollama, Embed, ["/api/embeddings"] => "/api/embeddings";
    /// Ollama's description of a model.
    OllamaShow = Ollama, ollama::Ollama, Describe, ["/api/show"] => "/api/show";
    /// The original system's request: a prompt in, a whole text out.
    Generate = Generate, generate::Generate, Generate, ["/generate"] => "/v1/chat/completions";
}

impl Operation {
    /// The protocol that it belongs to.
    pub fn protocol(self) -> Protocol {
        self.row().protocol
    }

    pub(crate) fn dialect(self) -> &'static dyn Dialect {
        self.row().dialect
    }

    /// The kind of work that it asks of a model.
    pub fn work(self) -> Work {
        self.row().work
    }

    /// The path at which clients ask for it; the first where there are several.
    pub fn client_path(self) -> &'static str {
        self.row().paths[0]
    }

    /// The path at which a server that speaks this protocol expects it.
    pub fn upstream_path(self) -> &'static str {
        self.row().upstream_path
    }

    /// When a limit is written for a server that is asked this. Ollama generates up to ten contexts where none is given.
    pub fn limit_rule(self, is_lowered: bool) -> LimitRule {
        if self.protocol().dialect().has_no_default_limit() {
            LimitRule::UnderOwnName
        } else if is_lowered {
            LimitRule::Always
        } else {
            LimitRule::WhereGiven
        }
    }

    /// Whether the answer is made of output tokens.
    pub fn generates(self) -> bool {
        self.work() == Work::Generate
    }
}
