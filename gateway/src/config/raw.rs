//! The configuration as it is written in the files: one struct a mapping, nothing checked but types.
//!
//! What belongs together across files is checked in [`super::checked`].

pub(crate) use super::defaults::Places;
use super::defaults::default;
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
    struct User with quotas {
        /// For people to read.
        name: String,
        /// Who pays for what this user asks.
        project_id: At<String>,
        /// What kind of user; what a `batch` user asks is batch class.
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
    struct Project with quotas {
        /// For people to read.
        name: String,
        /// A plan of `limits.yaml`.
        plan: At<String>,
        /// The band of its requests.
        priority: Band = Band::Normal,
        /// Requests that may run at once; more wait.
        max_concurrent_requests: Option<At<usize>>,
        /// Whether requests are accepted at all.
        enabled: bool = true,
    }

    /// Shares of a quota or budget, 0 to 1, from which something happens; what is left out keeps its
    /// default (alert 0.8, throttle 0.9, block 1.0), `downgrade` instead of `block` where only that is given.
    struct BudgetActions {
        /// Operators are told, once a window.
        alert: Option<At<f64>>,
        /// The project's share of the queue and its concurrency halve.
        throttle: Option<At<f64>>,
        /// Requests go to the model's `smaller_model`; where there is none, they are refused.
        downgrade: Option<At<f64>>,
        /// Requests are refused.
        block: Option<At<f64>>,
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
        /// Informative.
        priority: Band = Band::Normal,
        /// The longest prompt, in tokens.
        max_input_tokens: u64,
        /// The longest answer, in tokens.
        max_output_tokens: At<u64>,
        /// What happens to hints of a request that the protocol of its servers cannot say (docs/api.md lists them).
        unsupported: Hints = Hints::Drop,
        /// Tokens that a picture is estimated to have. Default: by the published formula of the model's family and the
        /// picture's dimensions.
        image_tokens: Option<u64>,
        /// Tokens that a second of audio is estimated to have. Default: 25.
        audio_tokens_per_second: Option<u64>,
        /// Price of a thousand tokens of prompt, in euros.
        input_cost_per_1k_tokens_eur: NanoEuro,
        /// Price of a thousand tokens of prompt that the upstream had in its cache; that of any prompt if left
        /// out.
        cached_input_cost_per_1k_tokens_eur: Option<NanoEuro>,
        /// Price of a thousand tokens of answer, in euros.
        output_cost_per_1k_tokens_eur: NanoEuro,
        /// How many requests it takes at once, or `auto`: found out from how fast it answers. The sum of its
        /// endpoints', or no limit, if left out.
        max_concurrent_requests: Option<At<Places>>,
        /// Where requests go when something has to give way.
        smaller_model: Option<At<String>>,
        /// Of the simulated upstream: how long an answer of any length takes.
        average_latency_seconds: Option<At<Duration>>,
        /// Of the simulated upstream, instead: `20ms/5ms` (to the first token, and to each after it), or an engine's
        /// profile by name or file (see simulated-upstream.md).
        profile: Option<At<String>>,
        /// The model's name at Ollama.
        ollama_model: Option<At<String>>,
        /// Where Ollama is.
        ollama_base_url: Option<At<String>>,
        /// The model's name at the upstream, if it is another.
        upstream_model: Option<String>,
        /// Other names that clients may use.
        aliases: Vec<At<String>>,
        /// Models that answer in its place, in their order, while its servers fail before an answer has begun; each
        /// is decided on anew, under its own limits and prices.
        fallbacks: Vec<At<String>>,
        /// What its servers speak beside what `backend` says; requests in these go through untouched.
        native_apis: Vec<Api>,
        /// Whether the entry stands for every model that all of its servers offer, under the names that they give,
        /// with this entry's limits and prices; asked every 15 s.
        discover: bool = false,
        /// Seconds that a server may take to load the model, beside the deadline for the first token; counts where
        /// Ollama does not say that the model is loaded. 300 for `ollama`, else 0, if left out.
        load_timeout: Option<Duration>,
        /// The servers that have the model; of several, the one that knows the conversation, or the least loaded.
        endpoints: Vec<Endpoint>,
        /// Deadlines of this model, instead of those in `gateway.yaml`.
        timeouts: Option<ModelTimeouts>,
    }

    /// One server of a model.
    struct Endpoint {
        /// The server's root, or ending in `/v1`; `http` or `https`.
        base_url: At<String>,
        /// The environment variable that holds the key for it.
        api_key_env: Option<At<String>>,
        /// Its share of the load, against the others.
        weight: At<u32> = At { value: 1, line: 0 },
        /// Requests it takes at once, or `auto`; more wait.
        max_concurrent_requests: Option<At<Places>>,
        /// With `https`: certificates (PEM) of who signed the server's, instead of the system's.
        ca_file: Option<At<String>>,
        /// With `https`: the name in the server's certificate, if it is another than in `base_url`.
        server_name: Option<At<String>>,
    }

    /// Deadlines of one model, in seconds.
    struct ModelTimeouts {
        /// To reach the upstream.
        connect_seconds: Option<Duration>,
        /// Until the first token of a stream.
        first_token_seconds: Option<Duration>,
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
        /// Beyond the plan's, of single projects.
        project_limits: Option<Named<Rates>>,
        /// Of single users.
        user_limits: Option<Named<Rates>>,
        /// Of single keys, by the id that `sluice keys list` shows; their quotas and budgets too.
        key_limits: Option<Named<KeyLimits>>,
        /// Of all requests for a model together.
        model_limits: Option<Named<Rates>>,
        /// Shares of the bands.
        priority_weights: PriorityWeights,
        /// Places that only a band and those above it may take; a tenth of them is kept for `high` if left out.
        reserved_active_requests: Option<Reserved>,
        /// Who is next.
        scheduling: Scheduling = Scheduling::Weighted,
    }

    /// Places that only a band and those above it may take.
    struct Reserved {
        /// For `high`.
        high: At<usize> = At { value: 0, line: 0 },
        /// For `normal` and `high`.
        normal: At<usize> = At { value: 0, line: 0 },
    }

    /// What may be sent.
    struct Rates with rates {
    }

    /// What may be sent and used with a key.
    struct KeyLimits with rates, quotas {
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
        requests_per_minute: At<u64>,
        /// Tokens a minute.
        tokens_per_minute: At<u64>,
        /// Requests a day.
        requests_per_day: Option<At<u64>>,
        /// Tokens a day.
        tokens_per_day: Option<At<u64>>,
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
        /// The levels, by name, from calm to the worst.
        degradation_levels: Named<Level>,
        /// How levels are left again.
        hysteresis: Hysteresis = Hysteresis::default(),
    }

    /// How a level is left, so that it does not flutter.
    struct Hysteresis {
        /// How far below the threshold pressure must fall.
        margin: At<f64> = Hysteresis::default().margin,
        /// How long it must stay there.
        hold_seconds: Duration = Hysteresis::default().hold_seconds,
    }

    /// One level.
    struct Level {
        /// Its rank, from 0.
        number: At<u32>,
        /// The pressure from which it holds, 0 to 1: the worst of the queue's fill, the oldest wait against its
        /// deadline, and the share of upstreams' answers that said "overloaded".
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
        /// Requests go to the model's `smaller_model`, where it has one.
        route_to_smaller_model: bool = false,
        /// Batch requests wait and are not served.
        pause_batch: bool = false,
        /// Nothing but what has high priority and can run at once.
        emergency: bool = false,
    }

    /// Shorter answers.
    struct ReduceMaxTokens {
        /// What `max_tokens` is multiplied by, above 0 and at most 1.
        factor: At<f64>,
    }

    /// `gateway.yaml`.
    struct GatewayFile {
        /// Where clients come in; port 0 takes a free one.
        listen: At<String> = default("127.0.0.1:8000"); restart,
        /// Where operators come in.
        admin_listen: At<String> = default("127.0.0.1:8001"); restart,
        /// Where the address file and the admin token lie, and with PostgreSQL the journal.
        data_dir: String = "data".to_owned(); restart,
        /// How callers are known.
        identity: IdentityMode = IdentityMode::Open,
        /// Who an unnamed caller is, with `identity: open`.
        default_user: Option<At<String>>,
        /// `sqlite://path`, or `postgres://user:password@host/database`, which several gateways may share.
        database_url: At<String> = default("sqlite://data/usage.db"); restart,
        /// Days that records are kept, 36500 at most. Not set: for ever. Sums are kept in any case.
        retention_days: Option<At<u64>>; restart,
        /// Whether every model is served by the bundled simulated upstream.
        simulated: bool = false,
        /// Whether `/metrics` asks for the admin token too.
        metrics_need_token: bool = false; restart,
        /// Origins of web pages whose scripts may call the proxy listener, such as `https://chat.example.org`; `*` allows
        /// any. Beside these only pages of this machine itself may call, while identity is open.
        cors_origins: Vec<At<String>>,
        /// The version that `GET /api/version` answers. Some Ollama clients refuse servers that are older than a version
        /// of theirs.
        ollama_version: String = protocol::catalogue::OLLAMA_VERSION.to_owned(),
        /// The ledger.
        ledger: LedgerSettings = LedgerSettings::default(),
        /// Sizes.
        bounds: Bounds = Bounds::default(),
        /// Deadlines.
        timeouts: Timeouts = Timeouts::default(),
        /// HTTPS, with HTTP/2, on the proxy listener; plain HTTP if left out.
        tls: Option<Tls>; restart,
        /// How servers are found to be away, and back.
        health: Health = Health::default(),
        /// What is tried again.
        retries: Retries = Retries::default(),
        /// Logs and traces.
        telemetry: Telemetry = Telemetry::default(),
    }

    /// Logs and traces; neither has prompts, answers or keys in it.
    struct Telemetry {
        /// How the log is written.
        log_format: LogFormat = Telemetry::default().log_format; restart,
        /// A line a request, at level `info`.
        log_requests: bool = Telemetry::default().log_requests,
        /// Where traces go: the root of a collector that takes OTLP over HTTP, such as `http://127.0.0.1:4318`; none
        /// if left out.
        otlp_endpoint: Option<At<String>>; restart,
        /// The share of requests that are traced, 0 to 1; a caller's `traceparent` decides for its own.
        sample_ratio: At<f64> = Telemetry::default().sample_ratio; restart,
        /// The gateway's name in traces.
        service_name: String = Telemetry::default().service_name; restart,
    }

    /// The ledger.
    struct LedgerSettings {
        /// When an answer may end, which decides what its record survives: `relaxed` (an orderly stop), `strict`
        /// (`kill -9`) or `synced` (loss of power; waits for the disk).
        durability: Durability = Durability::Strict; restart,
    }

    /// TLS on the proxy listener.
    struct Tls {
        /// The certificate and those that lead to who signed it (PEM).
        cert_file: At<String>,
        /// Its key (PEM).
        key_file: At<String>,
        /// Who signs clients' certificates (PEM); with it, only clients that have one are let in.
        client_ca_file: Option<At<String>>,
    }

    /// How servers are found to be away, and back.
    struct Health {
        /// How often each is asked how it is; 0 for never.
        interval_seconds: Duration = Health::default().interval_seconds,
        /// How long it may take to say.
        timeout_seconds: Duration = Health::default().timeout_seconds,
        /// Failed requests in a row after which a server is left alone for a while.
        failures: At<u32> = Health::default().failures,
        /// How long it is left alone, the first time; then twice as long each time.
        rest_seconds: Duration = Health::default().rest_seconds,
        /// How long at most.
        longest_rest_seconds: Duration = Health::default().longest_rest_seconds,
        /// How long one that comes back takes to its full share of requests.
        slow_start_seconds: Duration = Health::default().slow_start_seconds,
    }

    /// What is tried again: only what has not begun to answer.
    struct Retries {
        /// Servers that one request is sent to, at most.
        attempts: At<u32> = Retries::default().attempts,
        /// Retries for a request, over all of a model's; 50 at once and 2 a second are let through besides; 0 for
        /// none.
        share: At<f64> = Retries::default().share,
    }

    /// Sizes that nothing may pass.
    struct Bounds {
        /// Of a request's body, in bytes.
        max_body_bytes: usize = Bounds::default().max_body_bytes,
        /// Of an answer that is not streamed, in bytes.
        max_response_bytes: usize = Bounds::default().max_response_bytes,
        /// Of all bodies that wait together, in bytes.
        max_buffered_bytes: usize = Bounds::default().max_buffered_bytes,
        /// Of a project's files together, in bytes.
        max_files_bytes: u64 = Bounds::default().max_files_bytes,
        /// Records that may wait for the database before new requests are refused.
        ledger_backlog: usize = Bounds::default().ledger_backlog; restart,
    }

    /// Deadlines, in seconds.
    struct Timeouts {
        /// To send a request's head.
        head_seconds: Duration = Timeouts::default().head_seconds,
        /// To send its body.
        body_seconds: Duration = Timeouts::default().body_seconds,
        /// To reach the upstream.
        connect_seconds: Duration = Timeouts::default().connect_seconds,
        /// Until the first token of a stream.
        first_token_seconds: Duration = Timeouts::default().first_token_seconds,
        /// Between two pieces of an answer.
        gap_seconds: Duration = Timeouts::default().gap_seconds,
        /// Of an idle connection.
        keepalive_seconds: Duration = Timeouts::default().keepalive_seconds,
        /// For what runs when the gateway stops.
        drain_seconds: Duration = Timeouts::default().drain_seconds; restart,
    }
}

choice! {
    /// Who is next when a place becomes free.
    enum Scheduling {
        /// The bands share by weight, projects and users by what they were served.
        Weighted = "weighted",
        /// A higher band always first.
        Strict = "strict",
        /// First in, first out.
        Fifo = "fifo",
    }

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

    /// What happens to hints that cannot be translated.
    enum Hints {
        /// They are left out, and named in the header `x-sluice-dropped`.
        Drop = "drop",
        /// The request is refused.
        Refuse = "refuse",
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

    /// When an answer may end.
    enum Durability {
        /// When the operating system has its record, which survives `kill -9`.
        Strict = "strict",
        /// At once; the record is written within a tenth of a second, and a kill may lose it.
        Relaxed = "relaxed",
        /// When the disk has its record, which survives the loss of power; one sync serves all that wait.
        Synced = "synced",
    }

    /// What a server speaks.
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

    /// How the log is written.
    enum LogFormat {
        /// For people.
        Text = "text",
        /// A JSON object a line.
        Json = "json",
    }

    /// How callers are known.
    enum IdentityMode {
        /// By what they say; for one's own machine.
        Open = "open",
        /// By API key.
        Keys = "keys",
    }
}
