//! The program: a simulated LLM server, and questions about capacity in virtual time.

use clap::{Args, Parser, Subcommand};
use serde::Deserialize;
use simulated_upstream::engine::Profile;
use simulated_upstream::report::{self, Slo};
use simulated_upstream::{Behavior, Dialect, Known, Model, Rates, Recording, Server, Timing, dialect, plan};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// A simulated LLM server: OpenAI's, Anthropic's and Ollama's APIs without a GPU.
#[derive(Debug, Parser)]
#[command(version, about, args_conflicts_with_subcommands = true)]
struct Flags {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve (the default).
    Serve(ServeArgs),
    /// Answer a question about capacity in virtual time: what a trace of requests would find.
    Plan(PlanArgs),
    /// Name the profiles in the program.
    Profiles,
    /// Name the dialects and quirks.
    Dialects,
}

#[derive(Debug, Args)]
struct ServeArgs {
    /// Where to listen; port 0 takes a free one, which is printed.
    #[arg(long, default_value = "127.0.0.1:8100")]
    listen: SocketAddr,
    /// A models.yaml, whose models are all simulated.
    #[arg(long)]
    models: Option<PathBuf>,
    /// A model and its timing: seconds for a whole answer (small=0.5), to the first token and to each after it
    /// (small=20ms/5ms), or a profile (small=vllm-llama3.1-8b-h100, or a file). An adapter: small:adapter=… May be given
    /// again.
    #[arg(long = "model", value_parser = named_model)]
    named: Vec<Model>,
    /// Answers by prompt: JSON lines {"prompt", "answer", "wrong"?}.
    #[arg(long)]
    answers: Option<PathBuf>,
    /// The share of those that is answered right, exactly.
    #[arg(long, default_value_t = 1.0)]
    answers_correct: f64,
    /// Whatever has no given answer is answered with itself.
    #[arg(long)]
    echo: bool,
    /// How the server speaks: vllm (the default), vllm-0.11, vllm-0.6, llama.cpp, llama-cpp-python, sglang, ollama,
    /// lmstudio, localai, mlx-lm, tgi; then quirks to add or, with a minus, to take away: sglang,crlf,-usage-null. See
    /// `dialects`.
    #[arg(long, default_value = "vllm", value_parser = Dialect::parse)]
    dialect: Dialect,
    /// Answer POST requests with what is recorded in a JSON file: a list of {"status"?, "headers"?, "path"?, "body" or
    /// "chunks"}, the n-th for the n-th request, the last for all after it.
    #[arg(long)]
    replay: Option<PathBuf>,
    /// Faults that happen by themselves, such as 429=0.01,reset=0.001; there are spike, 429, 503, oom, reset, hang,
    /// stall, truncate, error, garbage and crash. A prompt with [fault:NAME] in it asks for one.
    #[arg(long, default_value = "")]
    faults: String,
    /// Varies the answers and the noise.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

#[derive(Debug, Args)]
struct PlanArgs {
    /// A profile by name (see `profiles`), or a file.
    #[arg(long)]
    profile: String,
    /// Requests: a CSV file (or .gz) with time, prompt tokens and answer tokens.
    #[arg(long)]
    trace: PathBuf,
    /// Servers.
    #[arg(long, default_value_t = 1)]
    replicas: usize,
    /// How much faster the requests come than in the trace.
    #[arg(long, default_value_t = 1.0)]
    speed: f64,
    /// What counts as good.
    #[arg(long, default_value = "ttft=1s,tpot=100ms")]
    slo: Slo,
    /// Where to draw a picture (SVG).
    #[arg(long)]
    plot: Option<PathBuf>,
    /// Varies the noise.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

#[derive(Deserialize)]
struct ModelsFile {
    models: BTreeMap<String, ModelEntry>,
}

#[derive(Deserialize)]
struct ModelEntry {
    average_latency_seconds: Option<f64>,
    /// An engine's profile, instead.
    profile: Option<String>,
    max_input_tokens: u64,
    max_output_tokens: u64,
    upstream_model: Option<String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let flags = Flags::parse();
    let done = match flags.command {
        None => serve(flags.serve).await,
        Some(Command::Serve(args)) => serve(args).await,
        Some(Command::Plan(args)) => plan(&args),
        Some(Command::Dialects) => {
            print!("{}", dialect::list());
            Ok(())
        }
        Some(Command::Profiles) => {
            println!("{}", Profile::names().join("\n"));
            Ok(())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("simulated-upstream: {message}");
            ExitCode::from(2)
        }
    }
}

async fn serve(args: ServeArgs) -> Result<(), String> {
    let mut models = args.named;
    if let Some(path) = &args.models {
        models.extend(read_models(path)?);
    }
    if models.is_empty() {
        models.push(named_model("simulated-small=0.5")?);
    }
    let known = match &args.answers {
        Some(path) => Known::read(&plan::read_file(path)?, args.answers_correct)
            .map_err(|error| format!("{}: {error}", path.display()))?,
        None => Known::default(),
    };
    let recording = match &args.replay {
        Some(path) => {
            Recording::parse(&plan::read_file(path)?).map_err(|error| format!("{}: {error}", path.display()))?
        }
        None => Recording::default(),
    };
    let behavior = Behavior {
        seed: args.seed,
        known: if args.echo { known.echoing() } else { known },
        faults: Rates::parse(&args.faults, args.seed)?,
        dialect: args.dialect,
        recording,
    };
    let listener = tokio::net::TcpListener::bind(args.listen)
        .await
        .map_err(|error| format!("cannot listen on {}: {error}", args.listen))?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    let names: Vec<&str> = models.iter().map(|model| model.name.as_str()).collect();
    println!("simulated-upstream on http://{address} with {}", names.join(", "));
    Server::with(models, behavior)
        .serve(listener)
        .await
        .map_err(|error| error.to_string())
}

fn plan(args: &PlanArgs) -> Result<(), String> {
    let profile = Profile::named(&args.profile).map_err(|error| error.to_string())?;
    if !(args.speed.is_finite() && args.speed > 0.0) {
        return Err(format!("--speed must be more than 0, not {}", args.speed));
    }
    let text = plan::read_file(&args.trace)?;
    let mut arrivals = plan::read_trace(&text).map_err(|error| format!("{}: {error}", args.trace.display()))?;
    for arrival in &mut arrivals {
        arrival.at = arrival.at.div_f64(args.speed);
    }
    let began = std::time::Instant::now();
    let run = plan::open_loop(&profile, args.seed, args.replicas, &arrivals);
    println!(
        "{} on {} server(s), {} requests in {:.0} s (simulated in {:.1} s)\n",
        args.profile,
        args.replicas,
        arrivals.len(),
        arrivals.last().map_or(Duration::ZERO, |last| last.at).as_secs_f64(),
        began.elapsed().as_secs_f64(),
    );
    print!("{}", report::table(&run, args.slo));
    if let Some(path) = &args.plot {
        let title = format!("{} on {} server(s)", args.profile, args.replicas);
        std::fs::write(path, report::plot(&run, &title)).map_err(|error| format!("{}: {error}", path.display()))?;
        println!("\ndrawn into {}", path.display());
    }
    Ok(())
}

fn read_models(path: &Path) -> Result<Vec<Model>, String> {
    let file: ModelsFile =
        serde_yaml::from_str(&plan::read_file(path)?).map_err(|error| format!("{}: {error}", path.display()))?;
    let models = file.models.into_iter().map(|(name, entry)| {
        let timing = match (&entry.profile, entry.average_latency_seconds) {
            (Some(profile), _) => Timing::parse(profile),
            (None, seconds) => Timing::parse(&seconds.unwrap_or(0.0).to_string()),
        };
        Ok(Model {
            timing: timing.map_err(|error| format!("{name}: {error}"))?,
            name: entry.upstream_model.unwrap_or(name),
            max_input_tokens: entry.max_input_tokens,
            max_output_tokens: entry.max_output_tokens,
            adapter_of: None,
        })
    });
    models.collect()
}

fn named_model(text: &str) -> Result<Model, String> {
    let (name, timing) = text.split_once('=').unwrap_or((text, "0"));
    let timing = Timing::parse(timing)?;
    Ok(match name.split_once(':') {
        Some((base, adapter)) => Model {
            adapter_of: Some(base.to_owned()),
            ..Model::new(adapter, timing)
        },
        None => Model::new(name, timing),
    })
}
