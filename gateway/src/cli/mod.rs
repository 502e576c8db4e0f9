//! The command line: flags and environment variables, and what each command does.

mod addresses;
mod check;
mod client;
mod gateways;
mod greeting;
mod init;
mod keys;
mod ledger;
mod limits;
mod log;
mod members;
mod operator;
#[cfg(feature = "parquet")]
mod parquet;
mod permissions;
mod plan;
mod serve;
mod simulate;
mod table;
mod team;
mod tools;
mod upgrade;
mod usage;

use crate::config::address::listen_address;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

/// Sluice: the gateway a team puts in front of its own LLM servers.
#[derive(Debug, Parser)]
#[command(name = "sluice", version, about, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// Without a command: `serve`.
    #[command(flatten)]
    serve: ServeArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the gateway (the default).
    Serve(ServeArgs),
    /// Write a configuration for given servers, people and budget. Asks for what is missing.
    Init(init::InitArgs),
    /// Print how many servers and which limits a team needs.
    Plan(plan::PlanArgs),
    /// Check the configuration and report all errors at once.
    Check(check::CheckArgs),
    /// Create, list, rotate and revoke API keys.
    Keys {
        #[command(subcommand)]
        command: keys::KeysCommand,
    },
    /// Print usage and cost by project, user, key, model or day.
    Usage(usage::UsageArgs),
    /// Print running and queued requests.
    Queue(operator::QueueArgs),
    /// Print what is left of a project's, user's or key's limits.
    Limits(limits::LimitsArgs),
    /// Print the model servers and their health.
    Upstreams(operator::UpstreamsArgs),
    /// Check whether a running gateway is ready; exit code 1 if not.
    Health(operator::HealthArgs),
    /// Show the live state of a running gateway.
    Top(operator::TopArgs),
    /// Print a one-time link to a running gateway's console.
    Console(operator::ConsoleArgs),
    /// List the gateways that share a PostgreSQL database, or retire one that will not return.
    Gateways(gateways::GatewaysArgs),
    /// Verify or export the ledger.
    Ledger {
        #[command(subcommand)]
        command: ledger::LedgerCommand,
    },
    /// Print a shell completion script, such as `sluice completions bash > /etc/bash_completion.d/sluice`.
    Completions { shell: clap_complete::Shell },
    /// Run `sluice-stress`.
    #[command(disable_help_flag = true)]
    Stress(tools::ToolArgs),
    /// Run `sluice-eval`.
    #[command(disable_help_flag = true)]
    Eval(tools::ToolArgs),
    /// Run a trace of requests through the policy in virtual time (`--trace`); else run `simulated-upstream`.
    #[command(disable_help_flag = true)]
    Simulate(tools::ToolArgs),
}

/// Where the configuration lies.
#[derive(Debug, Args)]
struct ConfigArgs {
    /// Configuration directory.
    #[arg(long, env = "SLUICE_CONFIG", default_value = "config")]
    config: PathBuf,
}

/// Where the database is, for commands that read it.
#[derive(Debug, Args)]
struct StoreArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// `sqlite://path` or `postgres://…`. Default: `database_url` in gateway.yaml.
    #[arg(long, env = "SLUICE_DATABASE_URL")]
    database_url: Option<String>,
}

impl StoreArgs {
    /// The flag's or variable's database, else the configuration's.
    pub(super) fn url(&self, config: &crate::config::Config) -> String {
        self.database_url
            .clone()
            .unwrap_or_else(|| config.gateway.startup.database_url.clone())
    }
}

/// Runs a command's asynchronous part.
fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::other(format!("cannot start: {error}")))?;
    runtime.block_on(work)
}

/// Flags of `serve`; each overrides its key in `gateway.yaml`.
#[derive(Debug, Clone, Args)]
struct ServeArgs {
    /// Configuration directory.
    #[arg(long, env = "SLUICE_CONFIG", default_value = "config")]
    config: PathBuf,
    /// Address of the proxy listener; port 0 picks a free port.
    #[arg(long, env = "SLUICE_LISTEN", value_name = "ADDRESS", value_parser = listen_address)]
    listen: Option<SocketAddr>,
    /// Address of the admin listener.
    #[arg(long, env = "SLUICE_ADMIN_LISTEN", value_name = "ADDRESS", value_parser = listen_address)]
    admin_listen: Option<SocketAddr>,
    /// `sqlite://path` or `postgres://…`.
    #[arg(long, env = "SLUICE_DATABASE_URL")]
    database_url: Option<String>,
    /// `redis://…` or `rediss://…`: Valkey or Redis for the rate limits and slots of several gateways.
    #[arg(long, env = "SLUICE_CLUSTER_URL")]
    cluster_url: Option<String>,
    /// Identification of clients.
    #[arg(long, env = "SLUICE_IDENTITY")]
    identity: Option<IdentityArg>,
    /// Serve every model from the bundled simulated upstream.
    #[arg(long, env = "SLUICE_SIMULATED")]
    simulated: bool,
    /// File that both addresses are written to once ready. Default: sluice.addr in the data directory.
    #[arg(long, env = "SLUICE_ADDR_FILE")]
    addr_file: Option<PathBuf>,
    /// Take over from the gateway that runs with this data directory, without losing a request; with `auto`, only if
    /// one runs.
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "required")]
    upgrade: Option<Upgrade>,
}

/// Takeover from a running gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Upgrade {
    /// Fail if no gateway runs.
    Required,
    /// Take over if a gateway runs, else start normally.
    Auto,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum IdentityArg {
    Open,
    Keys,
}

/// Parses the command line and does what it says.
pub(crate) fn run() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        None => serve::run(&cli.serve),
        Some(Command::Serve(args)) => serve::run(&args),
        Some(Command::Init(args)) => init::run(&args),
        Some(Command::Check(args)) => check::run(&args),
        Some(Command::Keys { command }) => keys::run(command),
        Some(Command::Usage(args)) => usage::run(&args),
        Some(Command::Queue(args)) => operator::queue(&args),
        Some(Command::Limits(args)) => limits::run(&args),
        Some(Command::Upstreams(args)) => operator::upstreams(&args),
        Some(Command::Health(args)) => operator::health(&args),
        Some(Command::Top(args)) => operator::top(&args),
        Some(Command::Console(args)) => operator::console(&args),
        Some(Command::Gateways(args)) => gateways::run(&args),
        Some(Command::Plan(args)) => plan::run(&args),
        Some(Command::Completions { shell }) => {
            clap_complete::generate(shell, &mut Cli::command(), "sluice", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
        Some(Command::Ledger { command }) => ledger::run(&command),
        Some(Command::Stress(args)) => tools::run("sluice-stress", &args),
        Some(Command::Eval(args)) => tools::run("sluice-eval", &args),
        Some(Command::Simulate(args)) => simulate::run(&args),
    };
    match done {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("sluice: {}", failure.message);
            ExitCode::from(failure.code)
        }
    }
}

/// An error that ends a command: exit code and message.
#[derive(Debug)]
struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    /// Bad flags or configuration.
    fn usage(message: impl Into<String>) -> Self {
        Self {
            code: 2,
            message: message.into(),
        }
    }

    /// Anything else.
    fn other(message: impl Into<String>) -> Self {
        Self {
            code: 1,
            message: message.into(),
        }
    }
}

impl From<crate::config::report::Report> for Failure {
    fn from(report: crate::config::report::Report) -> Self {
        Failure::usage(format!("invalid configuration\n{report}"))
    }
}

impl From<::ledger::Error> for Failure {
    fn from(error: ::ledger::Error) -> Self {
        Failure::other(error.to_string())
    }
}
