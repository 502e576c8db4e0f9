//! `sluice-stress`: a load tester for LLM gateways and servers.

mod client;
mod compare;
mod distribution;
mod flags;
mod gateway;
mod generators;
mod launch;
mod live;
mod metadata;
mod protocol;
mod report;
mod run;
mod sample;
mod scenario;
mod summary;
mod sweep;
mod terminal;
mod workload;

use clap::Parser;
use flags::{Command, Flags, LeadArgs, RunArgs};
use launch::Launcher;
use scenario::Scenario;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use summary::{RunRecord, Verdict};
use terminal::{note, print};

fn main() -> ExitCode {
    let flags = Flags::parse();
    let done = match flags.command {
        Some(Command::Scenarios { name }) => scenarios(name.as_deref()),
        Some(Command::Compare { one, other }) => compare(&one, &other),
        Some(Command::Merge { out, runs }) => merge(&out, &runs),
        Some(Command::Lead(args)) => in_runtime(None, lead(&args)),
        Some(Command::Follow(args)) => in_runtime(None, generators::follow(&args)),
        None => in_runtime(flags.run.threads, run(&flags.run)),
    };
    done.unwrap_or_else(|message| {
        note(&message);
        ExitCode::from(2)
    })
}

fn scenarios(name: Option<&str>) -> Result<ExitCode, String> {
    match name {
        None => {
            let lines = scenario::listed().map(|(name, what)| format!("{name:<22} {what}\n"));
            print(&lines.collect::<Vec<_>>().concat());
        }
        Some(name) => {
            print(scenario::text(name).ok_or_else(|| format!("unknown scenario `{name}`; `scenarios` lists them"))?);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn compare(one: &Path, other: &Path) -> Result<ExitCode, String> {
    print(&compare::table(&report::read(one)?, &report::read(other)?));
    Ok(ExitCode::SUCCESS)
}

fn merge(out: &Path, runs: &[PathBuf]) -> Result<ExitCode, String> {
    let runs = runs
        .iter()
        .map(|run| report::read(run))
        .collect::<Result<Vec<_>, _>>()?;
    let record = report::merge(runs)?;
    report::publish(&record, out, false)?;
    Ok(ExitCode::SUCCESS)
}

fn in_runtime(
    threads: Option<usize>,
    work: impl Future<Output = Result<ExitCode, String>>,
) -> Result<ExitCode, String> {
    raise_file_limit();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = threads {
        runtime.worker_threads(threads.max(1));
    }
    let runtime = runtime
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start threads: {error}"))?;
    let done = runtime.block_on(work);
    // Connections and a thread that waits for its time are not worth waiting for.
    runtime.shutdown_background();
    done
}

async fn run(args: &RunArgs) -> Result<ExitCode, String> {
    let mut scenario = Scenario::load(&args.scenario)?;
    args.apply(&mut scenario);
    let launcher = Launcher::new(args).await?;
    if args.find_capacity {
        sweep::find_capacity(&launcher, &scenario, args).await
    } else if args.sweep_rate.is_empty() && args.sweep_concurrency.is_empty() {
        one_run(&launcher, &scenario, args).await
    } else {
        sweep::sweep(&launcher, &scenario, args).await
    }
}

async fn lead(args: &LeadArgs) -> Result<ExitCode, String> {
    let (run, record) = generators::lead(args).await?;
    conclude(&record, &run)
}

/// Each request under way has a connection; the soft limit on open files is often 1,024.
fn raise_file_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // A run that exceeds the limit reports it.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
}

async fn one_run(launcher: &Launcher<'_>, scenario: &Scenario, args: &RunArgs) -> Result<ExitCode, String> {
    let arrivals = args.arrivals_of(scenario)?;
    conclude(&launcher.run(scenario, arrivals.as_ref()).await?, args)
}

/// Writes the reports of a run, and judges it.
fn conclude(record: &RunRecord, args: &RunArgs) -> Result<ExitCode, String> {
    let summary = report::publish(record, &args.out, args.json)?;
    let mut failed = Verdict::of(record).hopeless;
    failed.extend(args.fail_if.iter().filter_map(|condition| condition.failed(&summary)));
    for why in &failed {
        note(&format!("failed: {why}"));
    }
    Ok(if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
