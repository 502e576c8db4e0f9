//! The configuration as it is written in the files: one struct a mapping, nothing checked but types.
//!
//! What belongs together across files is checked in [`super::checked`].

use super::read::{At, Named, choice, section};
use policy::NanoEuro;
use std::time::Duration;

section! {
    /// `users.yaml`.
    struct UsersFile {
        /// All users, by id.
        users: Named<User>,
    }

    /// Someone who asks.
    struct User {
        /// For people to read.
        name: String,
        /// Who pays for what this user asks.
        project_id: At<String>,
        /// What kind of user.
        role: Role = Role::User,
        /// Whether requests are accepted at all.
        enabled: bool = true,
    }

    /// `projects.yaml`.
    struct ProjectsFile {
        /// All projects, by id.
        projects: Named<Project>,
    }

    /// Someone who pays.
    struct Project {
        /// For people to read.
        name: String,
        /// A plan of `limits.yaml`.
        plan: At<String>,
        /// The band of its requests.
        priority: Band = Band::Normal,
        /// Tokens a calendar month.
        monthly_token_quota: Option<u64>,
        /// Euros a calendar month.
        monthly_budget_eur: Option<NanoEuro>,
        /// Requests that may run at once.
        max_concurrent_requests: Option<u32>,
        /// Whether requests are accepted at all.
        enabled: bool = true,
    }

    /// `models.yaml`.
    struct ModelsFile {
        /// All models, by the name that clients use.
        models: Named<Model>,
    }

    /// Something that answers.
    struct Model {
        /// What serves it.
        backend: At<Backend>,
        /// Whether requests are accepted at all.
        enabled: bool = true,
        /// The model's rank among models; informative.
        priority: Band = Band::Normal,
        /// The longest prompt, in tokens.
        max_input_tokens: u64,
        /// The longest answer, in tokens.
        max_output_tokens: At<u64>,
        /// Price of a thousand tokens of prompt, in euros.
        input_cost_per_1k_tokens_eur: NanoEuro,
        /// Price of a thousand tokens of answer, in euros.
        output_cost_per_1k_tokens_eur: NanoEuro,
        /// How long the simulated upstream takes, on average.
        average_latency_seconds: Option<At<Duration>>,
        /// The model's name at Ollama.
        ollama_model: Option<At<String>>,
        /// Where Ollama is.
        ollama_base_url: Option<At<String>>,
        /// The model's name at the upstream, if it is another.
        upstream_model: Option<String>,
        /// Other names that clients may use.
        aliases: Vec<At<String>>,
        /// The servers that have the model.
        endpoints: Vec<Endpoint>,
        /// Deadlines of this model, instead of those in `gateway.yaml`.
        timeouts: Option<ModelTimeouts>,
    }

    /// One server of a model.
    struct Endpoint {
        /// The server's root, or ending in `/v1`.
        base_url: At<String>,
        /// The environment variable that holds the key for it.
        api_key_env: Option<At<String>>,
        /// Its share of the load, against the others.
        weight: At<u32> = At { value: 1, line: 0 },
        /// Requests it takes at once; more wait.
        max_concurrent_requests: Option<At<usize>>,
    }

    /// Deadlines of one model, in seconds.
    struct ModelTimeouts {
        /// To reach the upstream.
        connect_seconds: Option<Duration>,
        /// Until it begins to answer.
        first_byte_seconds: Option<Duration>,
        /// Between two pieces of an answer.
        gap_seconds: Option<Duration>,
        /// For the whole request.
        total_seconds: Option<Duration>,
    }

    /// `limits.yaml`.
    struct LimitsFile {
        /// For all requests together.
        global_limits: GlobalLimits,
        /// For each project, by plan.
        rate_limits: Named<PlanLimits>,
        /// Shares of the bands.
        priority_weights: PriorityWeights,
    }

    /// Limits over all requests.
    struct GlobalLimits {
        /// Requests with the upstreams at once.
        max_active_requests: At<usize>,
        /// Requests that may wait.
        max_queue_size: At<usize>,
        /// The longest wait.
        max_queue_wait_seconds: Duration,
        /// The longest that a request may take in all.
        request_timeout_seconds: At<Duration>,
    }

    /// What each project on a plan may send.
    struct PlanLimits {
        /// Requests a minute.
        requests_per_minute: At<u32>,
        /// Tokens a minute.
        tokens_per_minute: At<u64>,
    }

    /// Shares of the bands.
    struct PriorityWeights {
        /// Of `high`.
        high: At<u32>,
        /// Of `normal`.
        normal: At<u32>,
        /// Of `low`.
        low: At<u32>,
    }

    /// `degradation.yaml`.
    struct DegradationFile {
        /// The levels, by name.
        degradation_levels: Named<Level>,
    }

    /// One level.
    struct Level {
        /// Its rank, from 0.
        number: At<u32>,
        /// The queue usage from which it holds, 0 to 1.
        threshold: At<f64>,
        /// What gives way.
        actions: Option<Actions>,
    }

    /// What gives way at a level.
    struct Actions {
        /// Shorter answers.
        reduce_max_tokens: Option<ReduceMaxTokens>,
        /// No batch requests.
        reject_batch: bool = false,
        /// No requests of the normal band.
        reject_standard: bool = false,
        /// Only this band and higher ones.
        allow_only_priority: Option<Band>,
    }

    /// Shorter answers.
    struct ReduceMaxTokens {
        /// What `max_tokens` is multiplied by, above 0 and at most 1.
        factor: At<f64>,
    }

    /// `gateway.yaml`.
    struct GatewayFile {
        /// Where clients come in.
        listen: At<String> = default("127.0.0.1:8000"),
        /// Where operators come in.
        admin_listen: At<String> = default("127.0.0.1:8001"),
        /// Where the address file and the admin token lie.
        data_dir: String = "data".to_owned(),
        /// How callers are known.
        identity: IdentityMode = IdentityMode::Open,
        /// Who an unnamed caller is, with `identity: open`.
        default_user: Option<At<String>>,
        /// `sqlite://path`.
        database_url: At<String> = default("sqlite://data/usage.db"),
        /// Whether every model is served by the bundled simulated upstream.
        simulated: bool = false,
        /// Whether `/metrics` asks for the admin token too.
        metrics_need_token: bool = false,
        /// Sizes.
        bounds: Bounds = Bounds::default(),
        /// Deadlines.
        timeouts: Timeouts = Timeouts::default(),
    }

    /// Sizes that nothing may pass.
    struct Bounds {
        /// Of a request's body, in bytes.
        max_body_bytes: usize = Bounds::default().max_body_bytes,
        /// Of an answer that is not streamed, in bytes.
        max_response_bytes: usize = Bounds::default().max_response_bytes,
    }

    /// Deadlines, in seconds.
    struct Timeouts {
        /// To send a request's head.
        head_seconds: Duration = Timeouts::default().head_seconds,
        /// To send its body.
        body_seconds: Duration = Timeouts::default().body_seconds,
        /// To reach the upstream.
        connect_seconds: Duration = Timeouts::default().connect_seconds,
        /// Until it begins to answer.
        first_byte_seconds: Duration = Timeouts::default().first_byte_seconds,
        /// Between two pieces of an answer.
        gap_seconds: Duration = Timeouts::default().gap_seconds,
        /// Of an idle connection.
        keepalive_seconds: Duration = Timeouts::default().keepalive_seconds,
        /// For what runs when the gateway stops.
        drain_seconds: Duration = Timeouts::default().drain_seconds,
    }
}

choice! {
    /// What kind of user.
    enum Role {
        /// Someone who waits for answers.
        User = "user",
        /// A program that works in the background.
        Batch = "batch",
        /// Someone who runs the gateway.
        Admin = "admin",
    }

    /// A priority band.
    enum Band {
        /// Kept to the last.
        High = "high",
        /// The usual one.
        Normal = "normal",
        /// Background.
        Low = "low",
    }

    /// What serves a model.
    enum Backend {
        /// The bundled simulated upstream.
        Simulated = "simulated",
        /// Ollama.
        Ollama = "ollama",
        /// Any OpenAI-compatible server.
        Openai = "openai",
    }

    /// How callers are known.
    enum IdentityMode {
        /// By what they say; for one's own machine.
        Open = "open",
        /// By API key.
        Keys = "keys",
    }
}

fn default(text: &str) -> At<String> {
    At {
        value: text.to_owned(),
        line: 0,
    }
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            max_body_bytes: 32 << 20,
            max_response_bytes: 64 << 20,
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            head_seconds: Duration::from_secs(10),
            body_seconds: Duration::from_secs(60),
            connect_seconds: Duration::from_secs(5),
            first_byte_seconds: Duration::from_secs(120),
            gap_seconds: Duration::from_secs(60),
            keepalive_seconds: Duration::from_secs(60),
            drain_seconds: Duration::from_secs(30),
        }
    }
}
