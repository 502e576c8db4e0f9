//! `sluice-eval`: HumanEval and its like through the gateway. What models write is run in a sandbox that holds, and told
//! in reports that people read.

mod ask;
mod dataset;
mod evaluate;
mod extract;
mod journal;
mod report;
mod sandbox;
mod score;

use ask::{Api, Asker, Style};
use clap::{Args, Parser, Subcommand, ValueEnum};
use dataset::Dataset;
use evaluate::{Judge, Plan};
use sandbox::{Limits, Sandbox, Trial};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Asks models to write programs, through the gateway, and tests what they wrote. Without a command it asks.
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
    /// Test answers that are there already: JSON lines {"task_id", "completion"}; no gateway is asked.
    Check {
        file: PathBuf,
        #[command(flatten)]
        judge: JudgeArgs,
    },
    /// Say which layers of the sandbox hold here, and try to get out of it.
    Sandbox {
        #[command(flatten)]
        judge: JudgeArgs,
    },
}

#[derive(Debug, Args)]
struct AskArgs {
    /// Where the gateway is.
    #[arg(long, default_value = "http://127.0.0.1:8000")]
    base_url: String,
    /// The model; given again, each is asked, and they are compared.
    #[arg(long = "model", default_value = "simulated-small")]
    models: Vec<String>,
    #[arg(long, default_value = "user_vip_01")]
    user_id: String,
    #[arg(long, default_value = "vip_project")]
    project_id: String,
    /// A key, instead of the user and the project.
    #[arg(long, env = "SLUICE_KEY", hide_env_values = true)]
    key: Option<String>,
    /// How many replies to each problem; more than one gives pass@k.
    #[arg(long, default_value_t = 1)]
    samples: usize,
    /// Questions at a time.
    #[arg(long, default_value_t = 2)]
    concurrency: usize,
    #[arg(long, default_value_t = 1024)]
    max_tokens: u64,
    /// With --api chat or completions; 0.8 with several samples if left out.
    #[arg(long)]
    temperature: Option<f64>,
    /// How often a queued request is asked after, in seconds.
    #[arg(long, default_value_t = 0.2)]
    poll_interval: f64,
    /// How long one question may take in all, in seconds: its queueing, and refusals that say when to come back.
    #[arg(long, default_value_t = 120.0)]
    poll_timeout: f64,
    /// The API that is spoken.
    #[arg(long, value_enum, default_value = "generate")]
    api: Api,
    /// How a problem is put; for --api completions as the beginning of a program, else in words.
    #[arg(long, value_enum)]
    prompt: Option<Style>,
    /// Go on with the run whose samples are in --out.
    #[arg(long)]
    resume: bool,
}

#[derive(Debug, Args, Clone)]
struct JudgeArgs {
    /// Problems: a .jsonl(.gz) or .parquet file, or a directory; HumanEval, which is in the program, if left out.
    #[arg(long, global = true)]
    local_dataset: Option<PathBuf>,
    /// The first so many problems, or `all`.
    #[arg(long, default_value = "20", global = true)]
    num_problems: Count,
    /// How long a program may run, in seconds.
    #[arg(long, default_value_t = 10.0, global = true)]
    code_timeout: f64,
    /// The memory that a program may have, in MB.
    #[arg(long, default_value_t = 1024, global = true)]
    code_memory_mb: u64,
    /// Python, for programs and their tests.
    #[arg(long, default_value = "python3", global = true)]
    python: String,
    /// Whether to run programs where the sandbox does not hold: without namespaces, and without landlock and seccomp.
    #[arg(long, value_enum, default_value = "require", global = true)]
    sandbox: Hold,
    /// Where reports go.
    #[arg(long, default_value = "reports", global = true)]
    out: PathBuf,
    /// Print the summary alone, as JSON.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Hold {
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
                let (judge, trial) = judge_of(&judge, judge.json).await?;
                evaluate::run(plan, judge, &trial).await
            }
            Some(Command::Sandbox { judge }) => judge_of(&judge, false).await.map(|_| ExitCode::SUCCESS),
            None => asked(&flags.ask, &flags.judge).await,
        }
    });
    done.unwrap_or_else(|message| failed(&message))
}

fn failed(message: &str) -> ExitCode {
    eprintln!("sluice-eval: {message}");
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

/// The sandbox, tried out; what it found is told.
async fn judge_of(args: &JudgeArgs, is_quiet: bool) -> Result<(Judge, Trial), String> {
    let limits = Limits {
        wall: seconds("--code-timeout", args.code_timeout)?,
        memory_bytes: args.code_memory_mb.max(64) << 20,
    };
    let (sandbox, trial) = Sandbox::prepare(&args.python, limits, args.sandbox == Hold::Require).await?;
    if !is_quiet {
        println!("Sandbox, with Python {}:", trial.python);
        for line in trial.layers.lines() {
            println!("  {line}");
        }
        println!(
            "  holds          wall clock: ends all that a program has begun after {} s",
            args.code_timeout
        );
        println!("  holds          private directory: its own, removed after");
        println!(
            "  tried          {} ways out: {}",
            trial.attempts,
            match trial.escaped.as_slice() {
                [] => "none of them is one".to_owned(),
                escaped => format!("NOT REFUSED: {}", escaped.join(", ")),
            }
        );
    }
    let judge = Judge {
        sandbox,
        out: args.out.clone(),
        is_quiet: args.json,
    };
    Ok((judge, trial))
}

async fn asked(args: &AskArgs, judge: &JudgeArgs) -> Result<ExitCode, String> {
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
    asker.greet().await?;
    let plan = Plan::of_models(dataset, models, args.samples, args.concurrency, asker, args.resume);
    let (judge, trial) = judge_of(judge, judge.json).await?;
    evaluate::run(plan, judge, &trial).await
}
