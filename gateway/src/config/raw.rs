//! The configuration as it is written in the files: one struct a mapping, nothing checked but types.
//!
//! References between files are checked in [`super::checked`].

pub(crate) use super::choices::{
    Api, Backend, Band, EvictFor, Hints, LogFormat, Role, Scheduling, TokenizerFamily, UserOrder,
};
pub(crate) use super::issuer::IdentityMode;
use super::issuer::{JwtSettings, OidcSettings};
use super::kept::{FileSettings, LedgerSettings, StoredResponseSettings};
use super::read::{At, Named, section};
use super::values::default;
pub(crate) use super::values::{Slots, TokenCount};
use policy::NanoEuro;
use std::time::Duration;

section! {
    /// `users.yaml`.
    struct UsersFile {
        /// All users, by id.
        users: Named<User>,
    }

    /// A user.
    struct User with quotas {
        /// Display name.
        name: String,
        /// Project that is billed for this user's requests.
        project_id: At<String>,
        /// Kind of user. Requests of a `batch` user have batch class.
        role: Role = Role::User,
        /// `false` refuses all its requests.
        enabled: bool = true,
    }

    /// `projects.yaml`.
    struct ProjectsFile {
        /// All projects, by id.
        projects: Named<Project>,
    }

    /// A project: the unit of billing, limits and priority.
    struct Project with quotas {
        /// Display name.
        name: String,
        /// Plan (of `limits.yaml`) that sets its rate limits.
        plan: At<String>,
        /// Priority of its requests.
        priority: Band = Band::Normal,
        /// Requests of the project that may run at once; more are queued. Default: no limit.
        max_concurrent_requests: Option<At<usize>>,
        /// How soon the answers to its interactive requests are wanted. A request that cannot be answered in time is refused.
        slo: Option<Slo>,
        /// `false` refuses all its requests.
        enabled: bool = true,
    }

    /// How soon answers are wanted. Default: no objective.
    struct Slo {
        /// Time to the first token, in seconds, including the time in the queue.
        first_token_seconds: Option<At<Duration>>,
        /// Time to the end of the answer, in seconds, including the time in the queue.
        total_seconds: Option<At<Duration>>,
    }

    /// Thresholds of a quota or budget, as the used share (0 to 1). Defaults: alert 0.8, throttle 0.9, block 1.0; if
    /// only `downgrade` is set, `block` is off.
    struct BudgetActions {
        /// Used share at which an alert is logged and counted, once per window. Default: 0.8.
        alert: Option<At<f64>>,
        /// Used share at which the project's share of capacity and its concurrency are halved. Default: 0.9.
        throttle: Option<At<f64>>,
        /// Used share at which requests go to the model's `smaller_model`, or are refused if none. Default: off.
        downgrade: Option<At<f64>>,
        /// Used share at which requests are refused. Default: 1.0, or off if only `downgrade` is set.
        block: Option<At<f64>>,
    }

    /// `models.yaml`.
    struct ModelsFile {
        /// All models, by the name that clients use.
        models: Named<Model>,
    }

    /// A model.
    struct Model {
        /// Server type.
        backend: At<Backend>,
        /// `false` refuses requests for the model.
        enabled: bool = true,
        /// For information only; has no effect.
        priority: Band = Band::Normal,
        /// Maximum prompt length, in tokens.
        max_input_tokens: u64,
        /// Maximum answer length, in tokens.
        max_output_tokens: At<u64>,
        /// Handling of hints that the server's protocol cannot express (listed in docs/api.md): `drop` them and name
        /// them in `x-sluice-dropped`, or `refuse` the request.
        unsupported: Hints = Hints::Drop,
        /// Family of the model's tokenizer, by which tokens are estimated until the server counts them. Default: by the
        /// name at the server.
        tokenizer: Option<TokenizerFamily>,
        /// Estimated tokens per image. Default: by the published formula of the model's family and its dimensions.
        image_tokens: Option<u64>,
        /// Estimated tokens per second of audio. Default: 25.
        audio_tokens_per_second: Option<u64>,
        /// Price of 1,000 input tokens, in euros.
        input_cost_per_1k_tokens_eur: NanoEuro,
        /// Price of 1,000 input tokens read from the server's prefix cache, in euros. Default: as other input.
        cached_input_cost_per_1k_tokens_eur: Option<NanoEuro>,
        /// Price of 1,000 output tokens, in euros.
        output_cost_per_1k_tokens_eur: NanoEuro,
        /// Price of a minute of audio that is transcribed or translated, in euros, besides that of its tokens.
        price_per_minute_eur: NanoEuro = NanoEuro(0),
        /// Price of an image that is made, in euros.
        price_per_image_eur: NanoEuro = NanoEuro(0),
        /// Price of a request of a pass-through path, in euros.
        price_per_request_eur: NanoEuro = NanoEuro(0),
        /// Other paths of its servers that clients may use, such as `/pooling`, or `/v1/voices/*` for all paths below
        /// one. See docs/api.md. Default: none.
        passthrough: Vec<At<String>>,
        /// Slots: requests that may run at once, or `auto` to find the number from the servers' own queues, the time to
        /// first token and the time between tokens. Default: the sum of its endpoints' limits, or no limit.
        max_concurrent_requests: Option<At<Slots>>,
        /// Tokens in flight at once: uncached prompts and the usual length of their answers. `auto` keeps the KV cache
        /// that the servers report below 80 %. Default: `auto` if `max_concurrent_requests` is `auto`, else no limit.
        max_concurrent_tokens: Option<At<TokenCount>>,
        /// Model that requests are routed to under degradation or a `downgrade` threshold.
        smaller_model: Option<At<String>>,
        /// Simulated upstream only: latency of an answer of any length.
        average_latency_seconds: Option<At<Duration>>,
        /// Simulated upstream only, instead of `average_latency_seconds`: `20ms/5ms` (time to first token/time per
        /// further token), or the name or file of an engine profile (see simulated-upstream.md).
        profile: Option<At<String>>,
        /// The model's name in Ollama.
        ollama_model: Option<At<String>>,
        /// Ollama's base URL.
        ollama_base_url: Option<At<String>>,
        /// The model's name on the server. Default: the same name.
        upstream_model: Option<String>,
        /// Other names that clients may use for the model.
        aliases: Vec<At<String>>,
        /// Models to try, in order, while no server of this model can answer and no byte of an answer was sent. Each is
        /// admitted anew, under its own limits and prices.
        fallbacks: Vec<At<String>>,
        /// APIs that its servers support besides that of `backend`; requests in these are passed through unchanged.
        native_apis: Vec<Api>,
        /// Publish every model that all listed servers offer, under its own name, with this entry's limits and prices.
        /// The list is refreshed every 15 s.
        discover: bool = false,
        /// Extra seconds for loading a model that Ollama does not report as loaded. Default: 300 for `ollama`, else 0.
        load_timeout: Option<Duration>,
        /// Its servers. A conversation stays on the server that has it cached; new ones go to the least loaded.
        endpoints: Vec<Endpoint>,
        /// Timeouts of this model; override those in `gateway.yaml`.
        timeouts: Option<ModelTimeouts>,
    }

    /// A server of a model.
    struct Endpoint {
        /// The server's base URL (`http` or `https`), with or without `/v1`.
        base_url: At<String>,
        /// Environment variable that holds the API key sent to the server.
        api_key_env: Option<At<String>>,
        /// Relative share of the load.
        weight: At<u32> = At { value: 1, line: 0 },
        /// Requests that the server runs at once, or `auto`; more are queued.
        max_concurrent_requests: Option<At<Slots>>,
        /// CA certificates (PEM) that verify the server's certificate, instead of the system's.
        ca_file: Option<At<String>>,
        /// Name expected in the server's certificate, if it differs from the host in `base_url`.
        server_name: Option<At<String>>,
    }

    /// Timeouts of one model, in seconds.
    struct ModelTimeouts {
        /// Connecting to the server.
        connect_seconds: Option<Duration>,
        /// Time to the first token of a stream.
        first_token_seconds: Option<Duration>,
        /// Time between two chunks of an answer.
        gap_seconds: Option<Duration>,
        /// The whole request.
        total_seconds: Option<Duration>,
    }

    /// `limits.yaml`.
    struct LimitsFile {
        /// Limits of all requests together.
        global_limits: GlobalLimits,
        /// Rate limits of each project, by plan.
        rate_limits: Named<PlanLimits>,
        /// Further rate limits of single projects, in addition to their plan's.
        project_limits: Option<Named<Rates>>,
        /// Rate limits of single users.
        user_limits: Option<Named<Rates>>,
        /// Rate limits, quotas and budgets of single API keys, by the id that `sluice keys list` prints.
        key_limits: Option<Named<KeyLimits>>,
        /// Rate limits of single models, over all projects.
        model_limits: Option<Named<Rates>>,
        /// Capacity shares of the priorities, used by `scheduling: weighted`.
        priority_weights: PriorityWeights,
        /// Slots that only a priority and higher ones may use. Default: a tenth of `max_active_requests` for `high`.
        reserved_active_requests: Option<Reserved>,
        /// Order in which queued requests are admitted.
        scheduling: Scheduling = Scheduling::Weighted,
        /// Order of one user's queued requests for a model; with `scheduling: fifo` that of arrival.
        user_order: UserOrder = UserOrder::LeastWork,
        /// Lowest priority for whose waiting requests running lines of batches and background responses of lower classes are
        /// aborted and run again later.
        evict_batch_for: EvictFor = EvictFor::High,
        /// Weights of tokens against an uncached input token, which counts 1.
        token_weights: TokenWeights = TokenWeights::default(),
    }

    /// Weights of tokens against an uncached input token, which counts 1.
    struct TokenWeights {
        /// An input token that the server read from its prefix cache, 0 to 1; in fairness and in token rate limits.
        cached_input: At<f64> = TokenWeights::default().cached_input,
        /// An output token, 0 to 1000; in fairness.
        output: At<f64> = TokenWeights::default().output,
    }

    /// Slots that only a priority and higher ones may use.
    struct Reserved {
        /// Slots reserved for `high`.
        high: At<usize> = At { value: 0, line: 0 },
        /// Slots reserved for `normal` and `high`.
        normal: At<usize> = At { value: 0, line: 0 },
        /// `true` holds back only as many of them as the requests of the priority need that come until the next slot is
        /// free; none while the priority is silent.
        graded: bool = false,
    }

    /// Rate limits.
    struct Rates with rates {
    }

    /// Rate limits, quotas and budgets of an API key.
    struct KeyLimits with rates, quotas {
    }

    /// Limits of all requests together.
    struct GlobalLimits {
        /// Slots: requests that may be running on the model servers at once.
        max_active_requests: At<usize>,
        /// Requests that may be queued.
        max_queue_size: At<usize>,
        /// Longest time in the queue, in seconds. A request that would wait longer is refused immediately.
        max_queue_wait_seconds: At<Duration>,
        /// Timeout of a request, including its time in the queue, in seconds.
        request_timeout_seconds: At<Duration>,
    }

    /// Rate limits of each project on a plan.
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

    /// Capacity shares of the priorities.
    struct PriorityWeights {
        /// Weight of `high`.
        high: At<u32>,
        /// Weight of `normal`.
        normal: At<u32>,
        /// Weight of `low`.
        low: At<u32>,
    }

    /// `gateway.yaml`.
    struct GatewayFile {
        /// Address of the proxy listener, for clients. Port 0 picks a free port.
        listen: At<String> = default("127.0.0.1:8000"); restart,
        /// Address of the admin listener, for operators and Prometheus.
        admin_listen: At<String> = default("127.0.0.1:8001"); restart,
        /// Directory of the address file, the admin token and, with PostgreSQL, the journal.
        data_dir: String = "data".to_owned(); restart,
        /// Identification of clients.
        identity: At<IdentityMode> = At { value: IdentityMode::Open, line: 0 },
        /// User of requests that name none, with `identity: open`.
        default_user: Option<At<String>>,
        /// `sqlite://path`, or `postgres://user:password@host/database`, which several gateways may share.
        database_url: At<String> = default("sqlite://data/usage.db"); restart,
        /// `redis://user:password@host:port/database` or `rediss://…` (TLS): Valkey or Redis for the rate limits and slots
        /// that several gateways share. Default: none, they lie in PostgreSQL.
        cluster_url: Option<At<String>>; restart,
        /// OpenID Connect provider whose tokens clients may send in the place of API keys. Default: none.
        jwt: Option<JwtSettings>,
        /// OpenID Connect provider at which people log in to the console. Default: none.
        oidc: Option<OidcSettings>,
        /// Days that records are kept, at most 36500. Default: forever. Their sums are always kept.
        retention_days: Option<At<u64>>; restart,
        /// Serve every model from the bundled simulated upstream.
        simulated: bool = false,
        /// Require the admin token for `/metrics`.
        metrics_need_token: bool = false; restart,
        /// Origins of web pages whose scripts may call the proxy listener, such as `https://chat.example.org`; `*`
        /// allows any. Default: none, except pages of this machine while identity is open.
        cors_origins: Vec<At<String>>,
        /// Host names by which the admin listener may be called on loopback, beside `localhost` and addresses, such as
        /// that of a reverse proxy. Requests with another `Host` or `Origin` are refused (DNS rebinding).
        admin_hosts: Vec<At<String>>,
        /// Version that `GET /api/version` returns. Some Ollama clients refuse servers below a minimum version.
        ollama_version: String = protocol::catalogue::OLLAMA_VERSION.to_owned(),
        /// Ledger settings.
        ledger: LedgerSettings = LedgerSettings::default(),
        /// Responses that clients ask to store with `store: true`, for `previous_response_id`.
        stored_responses: StoredResponseSettings = StoredResponseSettings::default(),
        /// Files and batches.
        files: FileSettings = FileSettings { keep_days: None },
        /// Size limits.
        bounds: Bounds = Bounds::default(),
        /// Timeouts.
        timeouts: Timeouts = Timeouts::default(),
        /// HTTPS (with HTTP/2) on the proxy listener. Default: plain HTTP.
        tls: Option<Tls>; restart,
        /// Health checks and circuit breakers of the model servers.
        health: Health = Health::default(),
        /// Retries on other servers, before an answer has begun.
        retries: Retries = Retries::default(),
        /// Logs and traces.
        telemetry: Telemetry = Telemetry::default(),
    }

    /// Logs and traces. Neither contains prompts, answers or keys.
    struct Telemetry {
        /// Format of the log.
        log_format: LogFormat = Telemetry::default().log_format; restart,
        /// Write one log line per request, at level `info`.
        log_requests: bool = Telemetry::default().log_requests,
        /// Base URL of a collector that accepts OTLP over HTTP, such as `http://127.0.0.1:4318`. Default: no traces.
        otlp_endpoint: Option<At<String>>; restart,
        /// Share of requests that are traced, 0 to 1. A caller's `traceparent` header takes precedence.
        sample_ratio: At<f64> = Telemetry::default().sample_ratio; restart,
        /// Service name in traces.
        service_name: String = Telemetry::default().service_name; restart,
    }

    /// TLS on the proxy listener.
    struct Tls {
        /// Certificate chain (PEM).
        cert_file: At<String>,
        /// Private key (PEM).
        key_file: At<String>,
        /// CA certificates (PEM) for client certificates; if set, clients must present one.
        client_ca_file: Option<At<String>>,
    }

    /// Health checks and circuit breakers.
    struct Health {
        /// Interval between health checks of each server; 0 disables them.
        interval_seconds: Duration = Health::default().interval_seconds,
        /// Timeout of a health check.
        timeout_seconds: Duration = Health::default().timeout_seconds,
        /// Consecutive failures that open the circuit breaker.
        failures: At<u32> = Health::default().failures,
        /// Time that an open breaker denies requests before it allows a probe; doubles each time it opens again.
        rest_seconds: Duration = Health::default().rest_seconds,
        /// Upper bound of `rest_seconds` after doubling.
        longest_rest_seconds: Duration = Health::default().longest_rest_seconds,
        /// Time over which a recovered server ramps up to its full share.
        slow_start_seconds: Duration = Health::default().slow_start_seconds,
    }

    /// Retries of requests whose answer has not begun.
    struct Retries {
        /// Maximum number of servers that one request is sent to.
        attempts: At<u32> = Retries::default().attempts,
        /// Retry budget: retries may be at most this share of a model's requests, plus a burst of 50 and 2 a second. 0
        /// disables retries.
        share: At<f64> = Retries::default().share,
    }

    /// Size limits.
    struct Bounds {
        /// Request body, in bytes (after decompression).
        max_body_bytes: usize = Bounds::default().max_body_bytes,
        /// Answer that is not streamed, in bytes.
        max_response_bytes: usize = Bounds::default().max_response_bytes,
        /// All buffered request bodies together, in bytes.
        max_buffered_bytes: usize = Bounds::default().max_buffered_bytes,
        /// Client connections of the proxy listener at once; further ones get 503 `too_many_connections`. Never more
        /// than the process's descriptors allow.
        max_connections: At<usize> = Bounds::default().max_connections,
        /// The same for each client address. All clients behind a reverse proxy have one address.
        max_connections_per_address: At<usize> = Bounds::default().max_connections_per_address,
        /// Control frames of HTTP/2 (PING, SETTINGS, WINDOW_UPDATE, PRIORITY, RST_STREAM) of one connection beyond ten for each
        /// request and each piece of an answer; a tenth of the bound may be used anew each second. The connection is closed
        /// with `ENHANCE_YOUR_CALM` beyond.
        max_http2_control_frames: At<u32> = Bounds::default().max_http2_control_frames,
        /// Wrong API keys, admin tokens or login links (each counts apart) that one client address may send a minute;
        /// further ones get 429. Valid API keys and links still work, the right admin token only after the wait.
        wrong_credentials_per_minute: At<u32> = Bounds::default().wrong_credentials_per_minute,
        /// File descriptors that clients may not take: for the journal, the database and the admin listener.
        reserved_descriptors: usize = Bounds::default().reserved_descriptors,
        /// All files of a project together, in bytes. Output of batches counts, and is never refused.
        max_files_bytes: u64 = Bounds::default().max_files_bytes,
        /// Files of a project, output of batches included.
        max_files: At<u32> = Bounds::default().max_files,
        /// Batches of a project that have not ended; further ones get 429.
        max_unfinished_batches: At<u32> = Bounds::default().max_unfinished_batches,
        /// Ended batches of a project that are kept: of more, the oldest are forgotten, but not their files.
        max_ended_batches: At<u32> = Bounds::default().max_ended_batches,
        /// Records that may wait for the database before new requests are refused.
        ledger_backlog: usize = Bounds::default().ledger_backlog; restart,
    }

    /// Timeouts, in seconds.
    struct Timeouts {
        /// From accepting a connection to its first whole request head, TLS handshake and HTTP/2 preface included. Later
        /// heads may take this long after `keepalive_seconds`.
        head_seconds: Duration = Timeouts::default().head_seconds,
        /// Receiving the request body.
        body_seconds: Duration = Timeouts::default().body_seconds,
        /// Connecting to a server.
        connect_seconds: Duration = Timeouts::default().connect_seconds,
        /// Time to the first token of a stream.
        first_token_seconds: Duration = Timeouts::default().first_token_seconds,
        /// Time between two chunks of an answer.
        gap_seconds: Duration = Timeouts::default().gap_seconds,
        /// Time that an idle client connection is kept open.
        keepalive_seconds: Duration = Timeouts::default().keepalive_seconds,
        /// Time that running requests get to finish when the gateway stops; then they are ended and recorded.
        drain_seconds: Duration = Timeouts::default().drain_seconds; restart,
    }
}
