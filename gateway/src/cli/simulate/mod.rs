//! `sluice simulate`: the policy of a configuration on a trace of requests, in virtual time.

mod figures;
mod report;
mod server;
mod trace;
mod workload;
mod world;

#[cfg(test)]
mod tests;

use super::tools::{self, ToolArgs};
use super::{ConfigArgs, Failure};
use crate::config::{self, Backend, Config};
use clap::{Parser, ValueEnum};
use figures::Figures;
use policy::{Concurrency, ModelId, Rules};
use report::Report;
use server::Pool;
use simulated_upstream::{Timing, plan};
use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::ExitCode;
use workload::Workload;

/// Run a trace of requests through the policy of a configuration, in virtual time: who would wait how long, what would be
/// refused, which objectives would be met, with how many servers. Without `--trace`, runs `simulated-upstream` with the
/// given arguments.
#[derive(Debug, Parser)]
#[command(name = "sluice simulate")]
pub(super) struct SimulateArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Requests: Azure's CSV, Mooncake's JSON lines or the output of `sluice ledger export` (CSV or --json); may end in .gz.
    #[arg(long, value_name = "FILE")]
    trace: PathBuf,
    /// Speed of a server: a profile of the simulated upstream (`sluice simulate profiles`), `20ms/5ms` to the first token and
    /// to each after it, or seconds of a whole answer. Default: the durations in the ledger's records; for a simulated model,
    /// its `timing`.
    #[arg(long, value_name = "TIMING")]
    server: Option<String>,
    /// Servers of each model; several numbers are compared. Default: as configured. Slots grow with them.
    #[arg(long, value_delimiter = ',', value_name = "N,…")]
    servers: Vec<usize>,
    /// Model of a trace without models. Default: the first that is enabled.
    #[arg(long)]
    model: Option<String>,
    /// User whose requests those of a trace without users are, with a share. May be repeated. Default: all, equally.
    #[arg(long, value_name = "ID[=SHARE]")]
    user: Vec<String>,
    /// `max_tokens` of the requests of a trace without it. Default: the model's `max_output_tokens`.
    #[arg(long, value_name = "TOKENS")]
    max_tokens: Option<u64>,
    /// Objective for the first token of interactive requests, beside the projects' `slo`.
    #[arg(long, value_name = "SECONDS", value_parser = positive)]
    first_token: Option<f64>,
    /// Objective for the whole answer of interactive requests.
    #[arg(long, value_name = "SECONDS", value_parser = positive)]
    total: Option<f64>,
    /// Share of the objectives that is to be met, 0 to 1.
    #[arg(long, default_value_t = 0.95, value_parser = share)]
    good: f64,
    /// Factor by which the requests come faster than in the trace.
    #[arg(long, default_value_t = 1.0, value_parser = positive)]
    speed: f64,
    /// Seed of everything random: the same one gives the same figures.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Form of the report.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Tables.
    Text,
    /// One JSON object.
    Json,
    /// A page with pictures, in one file.
    Html,
}

fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| (1e-6..=1e6).contains(number));
    number.ok_or_else(|| format!("`{text}` is no number from 0.000001 to 1000000"))
}

fn share(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| (0.0..=1.0).contains(number));
    number.ok_or_else(|| format!("`{text}` is no number from 0 to 1"))
}

/// Simulates a trace, or runs the simulated upstream where none is given.
pub(super) fn run(args: &ToolArgs) -> Result<ExitCode, Failure> {
    let is = |given: &OsStr, flag: &str| {
        let given = given.to_string_lossy();
        given == flag || given.starts_with(&format!("{flag}="))
    };
    let begins_with_flag = args
        .args
        .first()
        .is_some_and(|first| first.to_string_lossy().starts_with('-'));
    let is_ours = |given: &std::ffi::OsString| ["--trace", "--help", "-h"].iter().any(|flag| is(given, flag));
    if !(begins_with_flag && args.args.iter().any(is_ours)) {
        return tools::run("simulated-upstream", args);
    }
    let name = std::ffi::OsString::from("sluice simulate");
    let args = SimulateArgs::parse_from(std::iter::once(&name).chain(&args.args));
    let report = simulate(&args)?;
    match args.format {
        Format::Text => print!("{}", report.text()),
        Format::Json => println!("{:#}", report.json()),
        Format::Html => println!("{}", report.page().into_string()),
    }
    Ok(ExitCode::SUCCESS)
}

fn simulate(args: &SimulateArgs) -> Result<Report, Failure> {
    let config = config::load(&args.config.config, &config::Found::new())?;
    let name = args.trace.display();
    let text = plan::read_file(&args.trace).map_err(Failure::usage)?;
    let items = trace::read(&text).map_err(|error| Failure::usage(format!("{name}: {error}")))?;
    let workload =
        workload::workload(&config, args, items).map_err(|error| Failure::usage(format!("{name}: {error}")))?;
    let given = args.server.as_deref().map(Timing::parse).transpose();
    let given = given.map_err(|error| Failure::usage(format!("--server: {error}")))?;
    let configured = servers_of(&config, &workload);
    let tried = if args.servers.is_empty() {
        vec![configured]
    } else {
        args.servers.clone()
    };
    if tried.contains(&0) {
        return Err(Failure::usage("--servers: a model needs at least one server"));
    }
    let mut figures = Vec::new();
    for servers in tried {
        let (rules, slots) = scaled(&config, &workload, servers);
        let pools = pools(&config, &workload, given.as_ref(), (servers, args.seed))?;
        let run = world::run(&rules, pools, &workload);
        figures.push(Figures::of(&config, &workload.requests, servers, slots, run));
    }
    Ok(Report {
        about: about(args, &workload),
        figures,
        good: args.good,
        seed: args.seed,
    })
}

fn about(args: &SimulateArgs, workload: &Workload) -> Vec<String> {
    let requests = &workload.requests;
    let seconds = requests.last().map_or(0.0, |last| last.at.as_secs_f64());
    let mut about = vec![format!(
        "{} requests of {} in {seconds:.0} s, through the policy of {}/, seed {}.",
        requests.len(),
        args.trace.display(),
        args.config.config.display(),
        args.seed
    )];
    if workload.left_out > 0 {
        let count = workload.left_out;
        about.push(format!(
            "{count} requests of users or models that the configuration does not have are left out."
        ));
    }
    about
}

/// The models that the workload uses, and those that degradation may route it to.
fn models(workload: &Workload) -> BTreeSet<ModelId> {
    let each = workload.requests.iter().map(|request| request.ask);
    each.flat_map(|ask| [Some(ask.model), ask.smaller]).flatten().collect()
}

/// The configured servers of the model that has the most.
fn servers_of(config: &Config, workload: &Workload) -> usize {
    let all = models(workload).into_iter();
    all.map(|model| config.model(model).endpoints.len())
        .max()
        .unwrap_or(1)
        .max(1)
}

/// The rules, with as many slots as these servers have; and the number of the slots, if there is one.
fn scaled(config: &Config, workload: &Workload, servers: usize) -> (Rules, Option<usize>) {
    let mut rules = config.rules(&HashMap::new());
    let configured = servers_of(config, workload);
    let scale = |slots: usize, of: usize| (slots * servers).div_ceil(of.max(1)).max(1);
    rules.global.max_active_requests = scale(rules.global.max_active_requests, configured);
    let mut all = Some(0usize);
    for model in models(workload) {
        let of = config.model(model).endpoints.len();
        let concurrency = &mut rules.models[model.0 as usize].concurrency;
        *concurrency = match *concurrency {
            Concurrency::Fixed(slots) => Concurrency::Fixed(scale(slots, of)),
            Concurrency::Auto(most) => Concurrency::Auto(scale(most, of)),
            Concurrency::Unlimited => Concurrency::Unlimited,
        };
        all = match *concurrency {
            Concurrency::Fixed(slots) => all.map(|all| all + slots),
            Concurrency::Auto(_) | Concurrency::Unlimited => None,
        };
    }
    let most = rules.global.max_active_requests;
    (rules, Some(all.map_or(most, |all| all.min(most))))
}

/// The servers of each model.
fn pools(
    config: &Config,
    workload: &Workload,
    given: Option<&Timing>,
    (servers, seed): (usize, u64),
) -> Result<HashMap<ModelId, Pool>, Failure> {
    let is_measured = workload.requests.iter().all(|request| request.measured.is_some());
    let each = models(workload).into_iter().map(|id| {
        let model = config.model(id);
        let timing = match given {
            Some(timing) => Some(timing.clone()),
            None if is_measured => None,
            None if model.backend == Backend::Simulated => Some(model.timing.clone()),
            None => {
                let message = format!(
                    "how fast model `{}` is served is not known: give --server, such as a profile of `sluice simulate profiles`",
                    model.name
                );
                return Err(Failure::usage(message));
            }
        };
        Ok((id, Pool::new(timing, servers, seed)))
    });
    each.collect()
}
