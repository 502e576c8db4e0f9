//! `sluice-stress`: load through the gateway that tells the truth, and reports that people read.

mod arrivals;
mod client;
mod compare;
mod gateway;
mod live;
mod plan;
mod protocol;
mod report;
mod run;
mod sample;
mod scenario;
mod summary;

use arrivals::Arrivals;
use clap::{ArgAction, Args, Parser, Subcommand};
use client::Http;
use gateway::Admin;
use live::Live;
use protocol::Protocol;
use run::Settings;
use scenario::Scenario;
use simulated_upstream::report::Slo;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use summary::{FailIf, Whole};

/// Load through the gateway, and reports. Without a command it runs a scenario.
#[derive(Debug, Parser)]
#[command(name = "sluice-stress", version, about, args_conflicts_with_subcommands = true)]
struct Flags {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Name the scenarios in the program; with a name, print it, to be copied and changed.
    Scenarios { name: Option<String> },
    /// Compare two runs: directories of reports, or their latest_run.json.
    Compare { one: PathBuf, other: PathBuf },
    /// Join what several generators have seen of one plan (--shard) into one report.
    Merge {
        /// Where the joined reports go.
        #[arg(long, default_value = "reports")]
        out: PathBuf,
        /// Directories of reports, or their latest_run.json.
        #[arg(required = true)]
        runs: Vec<PathBuf>,
    },
}

#[allow(clippy::struct_excessive_bools)]
#[derive(Debug, Args)]
struct RunArgs {
    /// Where the gateway is.
    #[arg(long, default_value = "http://127.0.0.1:8000")]
    base_url: String,
    /// A scenario by name (see `scenarios`), or a YAML file.
    #[arg(long, default_value = "normal_load")]
    scenario: String,
    /// Whether queued requests are asked after until they have ended.
    #[arg(long, default_value_t = true, action = ArgAction::Set)]
    poll_queued: bool,
    /// How often, in seconds.
    #[arg(long, default_value_t = 0.2)]
    poll_interval: f64,
    /// How long, in seconds.
    #[arg(long, default_value_t = 30.0)]
    poll_timeout: f64,
    /// The API that is spoken.
    #[arg(long, value_enum, default_value = "generate")]
    protocol: Protocol,
    /// Stream answers, and see their tokens come.
    #[arg(long)]
    stream: bool,
    /// A key; given again, they take turns.
    #[arg(long = "key", env = "SLUICE_KEY")]
    keys: Vec<String>,
    /// So many users of the scenario's; all of them if left out.
    #[arg(long)]
    users: Option<usize>,
    /// Instead of the scenario's.
    #[arg(long)]
    requests: Option<usize>,
    /// Instead of the scenario's.
    #[arg(long)]
    concurrency: Option<usize>,
    /// Seconds between two requests of one client, instead of the scenario's.
    #[arg(long)]
    gap: Option<f64>,
    /// Instead of the scenario's; given again, they take turns.
    #[arg(long = "model")]
    models: Vec<String>,
    /// Tokens of an answer, at most.
    #[arg(long)]
    max_tokens: Option<u64>,
    /// Tokens of every prompt.
    #[arg(long)]
    prompt_tokens: Option<usize>,
    /// Tokens at the beginning that are the same in every prompt.
    #[arg(long)]
    shared_prefix: Option<usize>,
    /// Questions of one conversation.
    #[arg(long)]
    turns: Option<usize>,
    /// Prompts from a file: JSON lines with `prompt`.
    #[arg(long)]
    dataset: Option<String>,
    /// Send at times, whether those before were answered or not: constant, poisson, ramp:FROM..TO, steps:A,B,…,
    /// burst:SIZE, or trace:FILE. Latency counts from the time at which a request was to be sent.
    #[arg(long)]
    arrivals: Option<Arrivals>,
    /// Requests a second with --arrivals; with a trace, how much faster it is.
    #[arg(long)]
    rate: Option<f64>,
    /// Seconds, with --arrivals.
    #[arg(long)]
    duration: Option<f64>,
    /// Try a refusal again so often, when it says.
    #[arg(long, default_value_t = 0)]
    retries: u32,
    /// What counts as good: ttft=500ms,tpot=50ms,e2e=10s.
    #[arg(long)]
    slo: Option<Slo>,
    /// Exit with 1 if a condition holds, such as 'p99_ttft > 0.8'; may be given again.
    #[arg(long)]
    fail_if: Vec<FailIf>,
    /// Find the highest rate at which 99 of 100 requests are good (--slo); each try lasts --duration (10 s).
    #[arg(long)]
    find_capacity: bool,
    /// Make part I of N of the plan: I/N; or job/N, the part of a Kubernetes job's pod (JOB_COMPLETION_INDEX).
    #[arg(long, value_parser = shard)]
    shard: Option<(usize, usize)>,
    /// Where reports go.
    #[arg(long, default_value = "reports")]
    out: PathBuf,
    /// Where the admin listener is, for the queue in the report.
    #[arg(long, default_value = "http://127.0.0.1:8001")]
    admin_url: String,
    /// Its token; else it is read from data/admin.token.
    #[arg(long, env = "SLUICE_ADMIN_TOKEN")]
    admin_token: Option<String>,
    /// Varies prompts and times.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Print the summary alone, as JSON.
    #[arg(long)]
    json: bool,
    /// Threads.
    #[arg(long)]
    threads: Option<usize>,
}

fn shard(text: &str) -> Result<(usize, usize), String> {
    // A pod of a Kubernetes job has its number, from 0, in a variable.
    let of_job = || {
        std::env::var("JOB_COMPLETION_INDEX")
            .ok()?
            .parse::<usize>()
            .ok()?
            .checked_add(1)
    };
    let number = |number: &str| if number == "job" { of_job() } else { number.parse().ok() };
    let parts = text
        .split_once('/')
        .and_then(|(part, of)| Some((number(part)?, of.parse().ok()?)));
    match parts {
        Some((number, of)) if (1..=of).contains(&number) => Ok((number, of)),
        _ => Err(format!(
            "`{text}` is not such as 2/8, or job/8 in a Kubernetes job with indices"
        )),
    }
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    let done = match flags.command {
        Some(Command::Scenarios { name }) => scenarios(name.as_deref()),
        Some(Command::Compare { one, other }) => compare(&one, &other),
        Some(Command::Merge { out, runs }) => merge(&out, &runs),
        None => in_runtime(&flags.run),
    };
    match done {
        Ok(code) => code,
        Err(message) => {
            eprintln!("sluice-stress: {message}");
            ExitCode::from(2)
        }
    }
}

fn scenarios(name: Option<&str>) -> Result<ExitCode, String> {
    let Some(name) = name else {
        for (name, what) in scenario::listed() {
            println!("{name:<22} {what}");
        }
        return Ok(ExitCode::SUCCESS);
    };
    let text = scenario::text(name).ok_or_else(|| format!("there is no scenario `{name}`; `scenarios` lists them"))?;
    print!("{text}");
    Ok(ExitCode::SUCCESS)
}

fn compare(one: &Path, other: &Path) -> Result<ExitCode, String> {
    print!("{}", compare::table(&report::read(one)?, &report::read(other)?));
    Ok(ExitCode::SUCCESS)
}

fn merge(out: &Path, runs: &[PathBuf]) -> Result<ExitCode, String> {
    let runs = runs
        .iter()
        .map(|run| report::read(run))
        .collect::<Result<Vec<_>, _>>()?;
    let whole = report::merge(runs)?;
    tell(&whole, out, false)?;
    Ok(ExitCode::SUCCESS)
}

fn in_runtime(args: &RunArgs) -> Result<ExitCode, String> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = args.threads {
        runtime.worker_threads(threads.max(1));
    }
    let runtime = runtime.enable_all().build().map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let mut scenario = Scenario::load(&args.scenario)?;
        overrule(&mut scenario, args);
        if args.find_capacity {
            find_capacity(&scenario, args).await
        } else {
            one_run(&scenario, args).await
        }
    })
}

/// Flags go before the scenario.
fn overrule(scenario: &mut Scenario, args: &RunArgs) {
    scenario.requests = args.requests.unwrap_or(scenario.requests).max(1);
    scenario.concurrency = args.concurrency.unwrap_or(scenario.concurrency).max(1);
    scenario.max_tokens = args.max_tokens.unwrap_or(scenario.max_tokens).max(1);
    scenario.prompt_tokens = args.prompt_tokens.or(scenario.prompt_tokens);
    scenario.shared_prefix_tokens = args.shared_prefix.unwrap_or(scenario.shared_prefix_tokens);
    scenario.gap_seconds = args
        .gap
        .filter(|gap| *gap >= 0.0 && gap.is_finite())
        .unwrap_or(scenario.gap_seconds);
    scenario.turns = args.turns.unwrap_or(scenario.turns);
    scenario.rate = args.rate.unwrap_or(scenario.rate);
    scenario.duration_seconds = args.duration.unwrap_or(scenario.duration_seconds);
    if let Some(dataset) = &args.dataset {
        scenario.dataset = Some(dataset.clone());
    }
    if !args.models.is_empty() {
        scenario.models.clone_from(&args.models);
    }
}

async fn one_run(scenario: &Scenario, args: &RunArgs) -> Result<ExitCode, String> {
    let whole = seen(scenario, args, arrivals(scenario, args)?.as_ref(), &args.scenario).await?;
    let summary = tell(&whole, &args.out, args.json)?;
    let failed: Vec<String> = args
        .fail_if
        .iter()
        .filter_map(|condition| condition.failed(&summary))
        .collect();
    for why in &failed {
        eprintln!("sluice-stress: failed: {why}");
    }
    Ok(if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn arrivals(scenario: &Scenario, args: &RunArgs) -> Result<Option<Arrivals>, String> {
    match (&args.arrivals, &scenario.arrivals) {
        (Some(arrivals), _) => Ok(Some(arrivals.clone())),
        (None, Some(text)) => text.parse().map(Some),
        (None, None) => Ok(None),
    }
}

/// Makes the requests, and sees what becomes of them.
async fn seen(scenario: &Scenario, args: &RunArgs, arrivals: Option<&Arrivals>, name: &str) -> Result<Whole, String> {
    if !(args.poll_interval.is_finite()
        && args.poll_interval > 0.0
        && args.poll_timeout.is_finite()
        && args.poll_timeout >= 0.0)
    {
        return Err("--poll-interval must be more than 0, --poll-timeout 0 or more".to_owned());
    }
    if arrivals.is_some() && scenario.rate <= 0.0 {
        return Err("--rate must be more than 0".to_owned());
    }
    let http = Http::new(&args.base_url)?;
    let users = args.users.unwrap_or(scenario.users.len());
    let mut plan = plan::make(scenario, arrivals, users, args.seed)?;
    if let Some(part) = args.shard {
        plan = plan::shard(plan, part);
    }
    let live = Live::start(plan.len(), args.json);
    let token = args
        .admin_token
        .clone()
        .or_else(|| std::fs::read_to_string("data/admin.token").ok());
    let admin = Admin::find(&args.admin_url, token.map(|token| token.trim().to_owned())).await;
    if let Err(why) = &admin
        && !args.json
    {
        live.say(&format!("the admin listener at {} is left out: {why}", args.admin_url));
    }
    let admin = admin.ok();
    let (projects, backends) = match &admin {
        Some(admin) => admin.known().await,
        None => Default::default(),
    };
    let settings = Settings {
        protocol: args.protocol,
        is_streaming: args.stream,
        polls: args.poll_queued,
        poll_interval: Duration::from_secs_f64(args.poll_interval),
        poll_timeout: Duration::from_secs_f64(args.poll_timeout),
        keys: args.keys.clone(),
        projects,
        backends,
        concurrency: args
            .shard
            .map_or(scenario.concurrency, |(_, of)| scenario.concurrency.div_ceil(of)),
        gap: Duration::from_secs_f64(scenario.gap_seconds),
        retries: args.retries,
        most_open: 20_000,
    };
    let watch = admin.map(Admin::watch);
    let mut seen = run::run(&http, plan, &settings, live).await;
    seen.samples.sort_by_key(|sample| sample.request_index);
    if seen.samples.is_empty() {
        return Err("no request came to an end".to_owned());
    }
    if let Some(sample) = seen.samples.iter().find(|sample| sample.http_status == 0)
        && seen.samples.iter().all(|sample| sample.http_status == 0)
    {
        return Err(format!("nobody answers at {}: {}", args.base_url, sample.error));
    }
    Ok(Whole {
        name: Path::new(name)
            .file_stem()
            .map_or_else(|| name.to_owned(), |stem| stem.to_string_lossy().into_owned()),
        samples: seen.samples,
        gaps: seen.gaps,
        lasted: seen.lasted,
        slo: args.slo.unwrap_or_default(),
        watched: watch.map(gateway::Watch::end).unwrap_or_default(),
    })
}

/// Writes the reports, and says what is in them.
fn tell(whole: &Whole, out: &Path, as_json: bool) -> Result<serde_json::Value, String> {
    let summary = whole.summary();
    let written = report::write(whole, out)?;
    if as_json {
        println!(
            "{}",
            serde_json::to_string_pretty(&summary).map_err(|error| error.to_string())?
        );
        return Ok(summary);
    }
    let figure = |name: &str| summary::figure(&summary, name).unwrap_or(0.0);
    println!(
        "{}: {} requests in {:.1} s, {:.1} a second",
        whole.name,
        summary["total_requests"],
        figure("duration_seconds"),
        figure("rate")
    );
    println!(
        "  completed {}, refused {}, failed {}, timed out {}; queued at first {}",
        summary["completed_final"],
        summary["rejected"],
        summary["failed_final"],
        summary["timed_out_final"],
        summary["queued_initial"]
    );
    println!(
        "  end to end ms: p50 {:.0}, p95 {:.0}, p99 {:.0}; first answer p99 {:.0}",
        figure("p50_e2e") * 1e3,
        figure("p95_e2e") * 1e3,
        figure("p99_e2e") * 1e3,
        figure("p99_latency") * 1e3
    );
    if summary["time_to_first_token_seconds"]["count"].as_u64().unwrap_or(0) > 0 {
        println!(
            "  first token ms: p50 {:.0}, p99 {:.0}; between tokens p99 {:.1}",
            figure("p50_ttft") * 1e3,
            figure("p99_ttft") * 1e3,
            figure("p99_itl") * 1e3
        );
    }
    println!(
        "  {:.0} tokens a second, goodput {:.1} requests a second, Jain index {:.3}",
        figure("output_tokens_per_second"),
        figure("goodput"),
        figure("jain")
    );
    let dir = written.first().and_then(|path| path.parent()).unwrap_or(out);
    println!("  reports in {}: {}", dir.display(), names(&written));
    Ok(summary)
}

fn names(paths: &[PathBuf]) -> String {
    let names = paths
        .iter()
        .filter_map(|path| path.file_name())
        .map(|name| name.to_string_lossy());
    names.collect::<Vec<_>>().join(", ")
}

/// Doubles the rate until it is too much, then halves the distance.
async fn find_capacity(scenario: &Scenario, args: &RunArgs) -> Result<ExitCode, String> {
    if args.slo.is_none() {
        return Err("--find-capacity needs an --slo, such as ttft=500ms".to_owned());
    }
    let mut scenario = scenario.clone();
    if scenario.duration_seconds <= 0.0 {
        scenario.duration_seconds = 10.0;
    }
    let (mut good, mut bad) = (0.0, f64::INFINITY);
    let mut rate = scenario.rate;
    let mut best = None;
    for _ in 0..16 {
        scenario.rate = rate;
        let whole = seen(&scenario, args, Some(&Arrivals::Poisson), &args.scenario).await?;
        let summary = whole.summary();
        let share = summary["goodput_share"].as_f64().unwrap_or(0.0);
        eprintln!("  {rate:>9.2} requests a second: {:.1} % good", share * 100.0);
        if share >= 0.99 {
            good = rate;
            best = Some(whole);
        } else {
            bad = rate;
        }
        rate = if bad.is_infinite() {
            rate * 2.0
        } else {
            f64::midpoint(good, bad)
        };
        if bad - good < good * 0.05 {
            break;
        }
    }
    println!("capacity: {good:.2} requests a second with 99 of 100 good");
    if let Some(whole) = best {
        tell(&whole, &args.out, args.json)?;
    }
    Ok(ExitCode::SUCCESS)
}
