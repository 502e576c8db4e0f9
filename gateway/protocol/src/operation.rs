//! The tables of protocols and operations. A new protocol is one folder and one line of the first, a new operation one
//! file and one line of the second: routing, paths, parsing and metering follow from its row. What stands in a row for its
//! dialect is read in [`crate::registry`], so that the dialects may know the operations.

/// Below this path a pass-through request names its model.
pub(crate) const PASSTHROUGH_PREFIX: &str = "/passthrough";

/// Gives the table of protocols to a macro: name, dialect, label in the ledger and the metrics.
macro_rules! with_protocols {
    ($then:ident) => {
        $then! {
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
    };
}
pub(crate) use with_protocols;

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
        }
    };
}

with_protocols!(protocols);

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
    /// The text of a sound.
    Transcribe,
    /// The sound of a text.
    Speak,
    /// Images.
    Draw,
    /// Whatever the server makes of it.
    Relay,
}

struct Row {
    protocol: Protocol,
    work: Work,
    paths: &'static [&'static str],
    upstream_path: &'static str,
}

/// Gives the table of operations to a macro: name, protocol, dialect, work, paths of clients, path of servers.
macro_rules! with_operations {
    ($then:ident) => {
        $then! {
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
    /// The text of a sound, in its language.
    Transcriptions = OpenAi, transcriptions::Transcriptions, Transcribe, ["/v1/audio/transcriptions"] => "/v1/audio/transcriptions";
    /// The text of a sound, in English.
    Translations = OpenAi, transcriptions::Transcriptions, Transcribe, ["/v1/audio/translations"] => "/v1/audio/translations";
    /// The sound of a text.
    Speech = OpenAi, speech::Speech, Speak, ["/v1/audio/speech"] => "/v1/audio/speech";
    /// Images made from a text.
    ImageGenerations = OpenAi, images::Images, Draw, ["/v1/images/generations"] => "/v1/images/generations";
    /// Images made from images and a text.
    ImageEdits = OpenAi, images::Images, Draw, ["/v1/images/edits"] => "/v1/images/edits";
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
    /// A request of a path that the configuration opens, passed on as it is.
    Passthrough = OpenAi, passthrough::Passthrough, Relay, [] => "";
        }
    };
}
pub(crate) use with_operations;

macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident = $protocol:ident, $dialect:expr, $work:ident,
       [$($path:literal),*] => $upstream:literal;)*) => {
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
                        work: Work::$work,
                        paths: &[$($path),*],
                        upstream_path: $upstream,
                    },)*
                }
            }

            /// The operation that is served at a path; all of them are `POST`.
            pub fn at(path: &str) -> Option<Self> {
                match path {
                    $($($path => Some(Operation::$name),)*)*
                    _ => None,
                }
            }
        }
    };
}

with_operations!(operations);

impl Operation {
    /// The protocol that it belongs to.
    pub fn protocol(self) -> Protocol {
        self.row().protocol
    }

    /// The kind of work that it asks of a model.
    pub fn work(self) -> Work {
        self.row().work
    }

    /// The path at which clients ask for it; the first where there are several.
    pub fn client_path(self) -> &'static str {
        self.row().paths.first().copied().unwrap_or(PASSTHROUGH_PREFIX)
    }

    /// The path at which a server that speaks this protocol expects it.
    pub fn upstream_path(self) -> &'static str {
        self.row().upstream_path
    }

    /// Returns whether the answer is made of output tokens.
    pub fn generates(self) -> bool {
        self.work() == Work::Generate
    }

    /// Returns whether its requests are forms, which are sent on with their own content type.
    pub fn takes_forms(self) -> bool {
        self.work() == Work::Transcribe || self == Operation::ImageEdits
    }

    /// Returns whether the answer is passed on without being read, unless it is an error.
    pub fn is_relayed(self) -> bool {
        matches!(self.work(), Work::Speak | Work::Relay)
    }

    /// Returns whether the answer is text whose tokens count as output.
    pub fn writes_text(self) -> bool {
        matches!(self.work(), Work::Generate | Work::Transcribe)
    }
}
