//! The configuration as it is written in the files: one struct a mapping, nothing checked but types.
//!
//! What belongs together across files is checked in [`super::checked`].

use super::read::{At, FromNode, Named, Reader, choice, scalar, section};
use marked_yaml::Node;
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
        /// Tokens a day (UTC).
        daily_token_quota: Option<u64>,
        /// Tokens a calendar month (UTC).
        monthly_token_quota: Option<u64>,
        /// Requests a day.
        daily_request_quota: Option<u64>,
        /// Requests a month.
        monthly_request_quota: Option<u64>,
        /// Euros a day.
        daily_budget_eur: Option<NanoEuro>,
        /// Euros a month.
        monthly_budget_eur: Option<NanoEuro>,
        /// What happens as a quota or budget nears its end.
        budget_actions: Option<BudgetActions>,
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
        /// Tokens a day (UTC).
        daily_token_quota: Option<u64>,
        /// Tokens a calendar month (UTC).
        monthly_token_quota: Option<u64>,
        /// Requests a day.
        daily_request_quota: Option<u64>,
        /// Requests a month.
        monthly_request_quota: Option<u64>,
        /// Euros a day.
        daily_budget_eur: Option<NanoEuro>,
        /// Euros a month.
        monthly_budget_eur: Option<NanoEuro>,
        /// What happens as a quota or budget nears its end.
        budget_actions: Option<BudgetActions>,
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
        /// The model's rank among models; informative.
        priority: Band = Band::Normal,
        /// The longest prompt, in tokens.
        max_input_tokens: u64,
        /// The longest answer, in tokens.
        max_output_tokens: At<u64>,
        /// Price of a thousand tokens of prompt, in euros.
        input_cost_per_1k_tokens_eur: NanoEuro,
        /// Price of a thousand tokens of prompt that the upstream had in its cache; that of any prompt if left
        /// out.
        cached_input_cost_per_1k_tokens_eur: Option<NanoEuro>,
        /// Price of a thousand tokens of answer, in euros.
        output_cost_per_1k_tokens_eur: NanoEuro,
        /// How many requests it takes at once, or `auto`: found out from how fast it answers.
        max_concurrent_requests: Option<At<Places>>,
        /// The model that requests are routed to when something has to give way.
        smaller_model: Option<At<String>>,
        /// How long the simulated upstream takes, on average.
        average_latency_seconds: Option<At<Duration>>,
        /// How the simulated upstream spends its time: a profile's name or file, or `20ms/5ms` to the first token and to
        /// each after it.
        profile: Option<At<String>>,
        /// The model's name at Ollama.
        ollama_model: Option<At<String>>,
        /// Where Ollama is.
        ollama_base_url: Option<At<String>>,
        /// The model's name at the upstream, if it is another.
        upstream_model: Option<String>,
        /// Other names that clients may use.
        aliases: Vec<At<String>>,
        /// Models that answer in its place while its servers do not, in their order.
        fallbacks: Vec<At<String>>,
        /// What its servers speak beside what `backend` says; requests in these go through untouched.
        native_apis: Vec<Api>,
        /// Whether this entry stands for every model that its servers offer, under the names that they give.
        discover: bool = false,
        /// How long a server may take to load the model, beside the deadline for the first token.
        load_timeout: Option<Duration>,
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
        /// Places that only a band and those above it may take; left out, a tenth is kept for `high`.
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
    struct Rates {
        /// Requests a minute.
        requests_per_minute: Option<At<u64>>,
        /// Tokens a minute.
        tokens_per_minute: Option<At<u64>>,
        /// Requests a day.
        requests_per_day: Option<At<u64>>,
        /// Tokens a day.
        tokens_per_day: Option<At<u64>>,
    }

    /// What may be sent and used with a key.
    struct KeyLimits {
        /// Requests a minute.
        requests_per_minute: Option<At<u64>>,
        /// Tokens a minute.
        tokens_per_minute: Option<At<u64>>,
        /// Requests a day.
        requests_per_day: Option<At<u64>>,
        /// Tokens a day.
        tokens_per_day: Option<At<u64>>,
        /// Tokens a day (UTC).
        daily_token_quota: Option<u64>,
        /// Tokens a calendar month (UTC).
        monthly_token_quota: Option<u64>,
        /// Requests a day.
        daily_request_quota: Option<u64>,
        /// Requests a month.
        monthly_request_quota: Option<u64>,
        /// Euros a day.
        daily_budget_eur: Option<NanoEuro>,
        /// Euros a month.
        monthly_budget_eur: Option<NanoEuro>,
        /// What happens as a quota or budget nears its end.
        budget_actions: Option<BudgetActions>,
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
        /// `sqlite://path`, or `postgres://…` for several gateways.
        database_url: At<String> = default("sqlite://data/usage.db"),
        /// How many days records are kept; for ever if left out. Their sums stay.
        retention_days: Option<At<u64>>,
        /// Whether every model is served by the bundled simulated upstream.
        simulated: bool = false,
        /// Whether `/metrics` asks for the admin token too.
        metrics_need_token: bool = false,
        /// The ledger.
        ledger: LedgerSettings = LedgerSettings::default(),
        /// Sizes.
        bounds: Bounds = Bounds::default(),
        /// Deadlines.
        timeouts: Timeouts = Timeouts::default(),
        /// TLS on the proxy listener; without it, plain HTTP.
        tls: Option<Tls>,
        /// How servers are found to be away, and back.
        health: Health = Health::default(),
        /// What is tried again.
        retries: Retries = Retries::default(),
    }

    /// The ledger.
    struct LedgerSettings {
        /// When a record is safe.
        durability: Durability = Durability::Strict,
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
        /// Failed requests in a row after which it is left alone for a while.
        failures: At<u32> = Health::default().failures,
        /// How long, the first time; then twice as long each time.
        rest_seconds: Duration = Health::default().rest_seconds,
        /// The longest.
        longest_rest_seconds: Duration = Health::default().longest_rest_seconds,
        /// How long one that comes back takes to its full share.
        slow_start_seconds: Duration = Health::default().slow_start_seconds,
    }

    /// What is tried again: only what has not begun to answer.
    struct Retries {
        /// Servers that one request is sent to, at most.
        attempts: At<u32> = Retries::default().attempts,
        /// Retries for a request, over all of a model's; 0 for none.
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
        ledger_backlog: usize = Bounds::default().ledger_backlog,
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
        drain_seconds: Duration = Timeouts::default().drain_seconds,
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

    /// What serves a model.
    enum Backend {
        /// The bundled simulated upstream.
        Simulated = "simulated",
        /// Ollama.
        Ollama = "ollama",
        /// Any OpenAI-compatible server.
        Openai = "openai",
    }

    /// When a record is safe.
    enum Durability {
        /// Before its answer ends.
        Strict = "strict",
        /// Within a moment; a kill may lose the records of that moment.
        Relaxed = "relaxed",
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

/// How many requests run at once: a number, or `auto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Places {
    /// So many.
    Fixed(usize),
    /// Found out.
    Auto,
}

impl FromNode for Places {
    fn placeholder() -> Self {
        Places::Auto
    }
    fn from_node(node: &Node, reader: &mut Reader) -> Option<Self> {
        scalar(node, reader, "a whole number of at least 1, or auto", |text| {
            if text.as_str() == "auto" {
                return Some(Places::Auto);
            }
            text.as_usize().filter(|count| *count > 0).map(Places::Fixed)
        })
    }
}

impl Default for Hysteresis {
    fn default() -> Self {
        Self {
            margin: At { value: 0.05, line: 0 },
            hold_seconds: Duration::from_secs(2),
        }
    }
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            max_body_bytes: 32 << 20,
            max_response_bytes: 64 << 20,
            max_buffered_bytes: 1 << 30,
            max_files_bytes: 1 << 30,
            ledger_backlog: 100_000,
        }
    }
}

impl Default for LedgerSettings {
    fn default() -> Self {
        Self {
            durability: Durability::Strict,
        }
    }
}

impl Default for Health {
    fn default() -> Self {
        Self {
            interval_seconds: Duration::from_secs(5),
            timeout_seconds: Duration::from_secs(2),
            failures: At { value: 5, line: 0 },
            rest_seconds: Duration::from_secs(1),
            longest_rest_seconds: Duration::from_secs(30),
            slow_start_seconds: Duration::from_secs(10),
        }
    }
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            attempts: At { value: 3, line: 0 },
            share: At { value: 0.2, line: 0 },
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            head_seconds: Duration::from_secs(10),
            body_seconds: Duration::from_secs(60),
            connect_seconds: Duration::from_secs(5),
            first_token_seconds: Duration::from_secs(120),
            gap_seconds: Duration::from_secs(60),
            keepalive_seconds: Duration::from_secs(60),
            drain_seconds: Duration::from_secs(30),
        }
    }
}
