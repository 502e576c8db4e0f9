//! Values of the files that are one of some words.

use super::read::choice;

choice! {
    /// Order in which queued requests are admitted.
    enum Scheduling {
        /// Priorities share capacity by weight; projects and users by tokens already served.
        Weighted = "weighted",
        /// A higher priority always goes first.
        Strict = "strict",
        /// First in, first out.
        Fifo = "fifo",
    }

    /// Order of one user's queued requests.
    enum UserOrder {
        /// The least predicted work first; a request that has waited is not overtaken for ever.
        LeastWork = "least_work",
        /// First in, first out.
        Arrival = "arrival",
    }

    /// Priorities for whose requests running batch lines and background responses give up their slots.
    enum EvictFor {
        /// None: what runs is never aborted.
        None = "none",
        /// `high` alone.
        High = "high",
        /// `high` and `normal`.
        Normal = "normal",
        /// All interactive requests.
        Low = "low",
    }

    /// Kind of user.
    enum Role {
        /// An interactive user.
        User = "user",
        /// A program that works in the background.
        Batch = "batch",
        /// An operator.
        Admin = "admin",
    }

    /// Priority.
    enum Band {
        /// Degraded last.
        High = "high",
        /// The default.
        Normal = "normal",
        /// Background.
        Low = "low",
    }

    /// Handling of hints that cannot be translated.
    enum Hints {
        /// Left out, and named in the response header `x-sluice-dropped`.
        Drop = "drop",
        /// The request is refused.
        Refuse = "refuse",
    }

    /// Family of tokenizers.
    enum TokenizerFamily {
        /// GPT-4o and later, gpt-oss.
        O200k = "o200k",
        /// Llama 3 and 4, GPT-4.
        Llama = "llama",
        /// Qwen 2 to 3.
        Qwen = "qwen",
        /// `DeepSeek` V3 and R1.
        Deepseek = "deepseek",
        /// Gemma 2 and 3.
        Gemma = "gemma",
        /// Mistral Nemo and later.
        Mistral = "mistral",
    }

    /// Server type.
    enum Backend {
        /// The bundled simulated upstream.
        Simulated = "simulated",
        /// Ollama.
        Ollama = "ollama",
        /// Any OpenAI-compatible server.
        Openai = "openai",
    }

    /// API of a server.
    enum Api {
        /// OpenAI's chat completions, completions, embeddings.
        Openai = "openai",
        /// OpenAI's responses.
        Responses = "responses",
        /// Anthropic's messages.
        Anthropic = "anthropic",
        /// Ollama's native API.
        Ollama = "ollama",
    }

    /// Format of the log.
    enum LogFormat {
        /// Readable text.
        Text = "text",
        /// One JSON object per line.
        Json = "json",
    }
}
