//! `sluice-eval`: `HumanEval` and the like through the gateway. Models write programs, which run in a sandbox; reports
//! say how many are right.

mod ask;
mod compare;
mod dataset;
mod evaluate;
mod extract;
mod html;
mod journal;
mod pairs;
mod plan;
mod report;
mod sandbox;
mod score;
mod statistics;
mod table;
mod terminal;

use ask::{Api, Asker, Style};
use clap::{Args, Parser, Subcommand, ValueEnum};
use dataset::Dataset;
use evaluate::Judge;
use plan::{Plan, Source};
use sandbox::{Limits, Sandbox, Trial};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use terminal::Terminal;

/// Evaluates how well models write programs: asks them through the gateway, and tests their replies.
#[derive(Debug, Parser)]
#[command(name = "sluice-eval", version, about, args_conflicts_with_subcommands = true)]
struct Flags {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    ask: AskArgs,
    #[command(flatten)]
    judge: JudgeArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Test replies from a file of JSON lines {"task_id", "completion"}; no gateway is asked.
    Check {
        file: PathBuf,
        #[command(flatten)]
        judge: JudgeArgs,
    },
    /// Test a data set with its own solutions: each must pass, and every input must keep the problem's contract.
    Verify {
        #[command(flatten)]
        judge: JudgeArgs,
    },
    /// Compare the models of several runs, by the directories that they wrote to.
    Compare {
        #[arg(required = true)]
        runs: Vec<PathBuf>,
        /// Where the page goes.
        #[arg(long, default_value = "reports")]
        out: PathBuf,
    },
    /// Print which layers of the sandbox hold on this machine, and try to get out of it.
    Sandbox {
        #[command(flatten)]
        judge: JudgeArgs,
    },
}

#[derive(Debug, Args)]
struct AskArgs {
    /// Address of the gateway.
    #[arg(long, default_value = "http://127.0.0.1:8000")]
    base_url: String,
    /// Model to ask; repeat it to compare several.
    #[arg(long = "model", default_value = "simulated-small")]
    models: Vec<String>,
    #[arg(long, default_value = "user_vip_01")]
    user_id: String,
    #[arg(long, default_value = "vip_project")]
    project_id: String,
    /// API key, instead of the user and the project.
    #[arg(long, env = "SLUICE_KEY", hide_env_values = true)]
    key: Option<String>,
    /// Replies to each problem; more than one gives pass@k.
    #[arg(long, default_value_t = 1)]
    samples: usize,
    /// Requests at a time.
    #[arg(long, default_value_t = 2)]
    concurrency: usize,
    #[arg(long, default_value_t = 1024)]
    max_tokens: u64,
    /// Sampling temperature, with --api chat or completions. Default: the model's own, or 0.8 with several samples.
    #[arg(long)]
    temperature: Option<f64>,
    /// Seconds between polls of a queued request.
    #[arg(long, default_value_t = 0.2)]
    poll_interval: f64,
    /// Seconds that one request may take in all, with its time in the queue and its retries after `retry-after`.
    #[arg(long, default_value_t = 120.0)]
    poll_timeout: f64,
    /// API of the gateway.
    #[arg(long, value_enum, default_value = "generate")]
    api: Api,
    /// Form of the prompt: an instruction, or the beginning of a program. Default: completion for --api completions,
    /// else chat.
    #[arg(long, value_enum)]
    prompt: Option<Style>,
    /// Resume the run whose samples are in --out.
    #[arg(long)]
    resume: bool,
}

#[derive(Debug, Args, Clone)]
struct JudgeArgs {
    /// Data set: a .jsonl(.gz) or .parquet file, or a directory. Default: HumanEval, which is part of the program.
    #[arg(long, global = true)]
    local_dataset: Option<PathBuf>,
    /// Number of problems, from the first, or `all`.
    #[arg(long, default_value = "20", global = true)]
    num_problems: Count,
    /// Seconds that a program may run.
    #[arg(long, default_value_t = 10.0, global = true)]
    code_timeout: f64,
    /// Memory of a program, in MB.
    #[arg(long, default_value_t = 1024, global = true)]
    code_memory_mb: u64,
    /// Python interpreter for programs and their tests.
    #[arg(long, default_value = "python3", global = true)]
    python: String,
    /// Behavior where namespaces are missing: refuse to run programs, or run them with the layers that there are.
    #[arg(long, value_enum, default_value = "require", global = true)]
    sandbox: SandboxPolicy,
    /// Directory for reports.
    #[arg(long, default_value = "reports", global = true)]
    out: PathBuf,
    /// Print nothing but the summary, as JSON.
    #[arg(long, global = true)]
    json: bool,
    /// Print the sandbox's layers, errors of programs, and intervals, too.
    #[arg(short, long, global = true)]
    verbose: bool,
}

impl JudgeArgs {
    fn terminal(&self) -> Terminal {
        Terminal {
            is_quiet: self.json,
            is_verbose: self.verbose,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SandboxPolicy {
    Require,
    BestEffort,
}

/// A count, or all there are.
#[derive(Debug, Clone, Copy)]
struct Count(Option<usize>);

impl std::str::FromStr for Count {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            _ if text == "all" => Ok(Self(None)),
            Ok(count) if count > 0 => Ok(Self(Some(count))),
            _ => Err("a number of problems, 1 or more, or `all`".to_owned()),
        }
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args_os()
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    // The sandbox's processes are this program, too; they must be so before there is a second thread.
    if let Some(code) = sandbox::child(&arguments) {
        return code;
    }
    let flags = Flags::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.to_string()),
    };
    let done = runtime.block_on(async {
        match flags.command {
            Some(Command::Check { file, judge }) => {
                let plan = Plan::of_file(&file, dataset(&judge)?)?;
                evaluate::run(plan, prepare(&judge).await?).await
            }
            Some(Command::Verify { judge }) => {
                let plan = Plan::of_solutions(dataset(&judge)?)?;
                evaluate::run(plan, prepare(&judge).await?).await
            }
            Some(Command::Compare { runs, out }) => {
                terminal::print(&compare::runs(&runs, &out)?);
                Ok(ExitCode::SUCCESS)
            }
            Some(Command::Sandbox { judge }) => {
                print_trial(&try_sandbox(&judge).await?.1);
                Ok(ExitCode::SUCCESS)
            }
            None => ask_models(&flags.ask, &flags.judge).await,
        }
    });
    done.unwrap_or_else(|message| failed(&message))
}

fn failed(message: &str) -> ExitCode {
    terminal::warn(&terminal::visible(message));
    ExitCode::from(2)
}

fn seconds(flag: &str, value: f64) -> Result<Duration, String> {
    Duration::try_from_secs_f64(value)
        .ok()
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| format!("{flag} must be more than 0 seconds"))
}

fn dataset(args: &JudgeArgs) -> Result<Dataset, String> {
    Dataset::load(args.local_dataset.as_deref())?.first(args.num_problems.0)
}

async fn try_sandbox(args: &JudgeArgs) -> Result<(Sandbox, Trial), String> {
    let limits = Limits {
        wall: seconds("--code-timeout", args.code_timeout)?,
        memory_bytes: args.code_memory_mb.max(64) << 20,
    };
    Sandbox::prepare(&args.python, limits, args.sandbox == SandboxPolicy::Require).await
}

/// Tries the sandbox out, and warns of what is missing.
async fn prepare(args: &JudgeArgs) -> Result<Judge, String> {
    let (sandbox, trial) = try_sandbox(args).await?;
    if args.verbose && !args.json {
        print_trial(&trial);
    } else if !trial.layers.missing().is_empty() {
        let count = trial.layers.count();
        terminal::warn(&format!("in the sandbox {count}; `sluice-eval sandbox` lists them"));
    }
    Ok(Judge {
        sandbox,
        trial,
        out: args.out.clone(),
        terminal: args.terminal(),
    })
}

fn print_trial(trial: &Trial) {
    terminal::print(&format!(
        "Sandbox, with Python {}: {}",
        trial.python,
        trial.layers.count()
    ));
    for line in trial.layers.lines() {
        terminal::print(&format!("  {line}"));
    }
    let escaped = match trial.escaped.as_slice() {
        [] => "none of them is one".to_owned(),
        escaped => format!("NOT REFUSED: {}", escaped.join(", ")),
    };
    terminal::print(&format!("  tried          {} ways out: {escaped}", trial.attempts));
}

async fn ask_models(args: &AskArgs, judge: &JudgeArgs) -> Result<ExitCode, String> {
    let style = args.prompt.unwrap_or(match args.api {
        Api::Completions => Style::Completion,
        Api::Generate | Api::Chat => Style::Chat,
    });
    if args.samples == 0 || args.concurrency == 0 || args.max_tokens == 0 {
        return Err("--samples, --concurrency and --max-tokens must be 1 or more".to_owned());
    }
    let mut models = args.models.clone();
    models.dedup();
    let asker = Asker {
        http: reqwest::Client::new(),
        base: args.base_url.trim_end_matches('/').to_owned(),
        api: args.api,
        style,
        user: args.user_id.clone(),
        project: args.project_id.clone(),
        key: args.key.clone(),
        max_tokens: args.max_tokens,
        temperature: args.temperature.or((args.samples > 1).then_some(0.8)),
        poll_interval: seconds("--poll-interval", args.poll_interval)?,
        timeout: seconds("--poll-timeout", args.poll_timeout)?,
    };
    let dataset = dataset(judge)?;
    asker.check_gateway().await?;
    let plan = Plan {
        dataset,
        models,
        samples: args.samples,
        concurrency: args.concurrency,
        source: Source::Gateway(asker),
        resumes: args.resume,
        verifies: false,
    };
    evaluate::run(plan, prepare(judge).await?).await
}
