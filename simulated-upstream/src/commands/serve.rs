//! `serve`: the server.

use clap::Args;
use serde::Deserialize;
use simulated_upstream::{Behavior, Dialect, Known, Model, Rates, Recording, Server, Timing, plan};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Where to listen; port 0 takes a free one, which is printed.
    #[arg(long, default_value = "127.0.0.1:8100")]
    listen: SocketAddr,
    /// A models.yaml, whose models are all simulated.
    #[arg(long)]
    models: Option<PathBuf>,
    /// A model and its timing: seconds for a whole answer (small=0.5), to the first token and to each after it
    /// (small=20ms/5ms), or a profile (small=vllm-llama3.1-8b-h100, or a file). An adapter: small:adapter=… May be
    /// given again.
    #[arg(long = "model", value_parser = named_model)]
    named: Vec<Model>,
    /// Answers by prompt: JSON lines {"prompt", "answer", "wrong"?}.
    #[arg(long)]
    answers: Option<PathBuf>,
    /// The share of those that is answered right, exactly.
    #[arg(long, default_value_t = 1.0)]
    answers_correct: f64,
    /// Answer prompts without a known answer with the prompt itself.
    #[arg(long)]
    echo: bool,
    /// Dialect of the server: vllm (the default), vllm-0.11, vllm-0.6, llama.cpp, llama-cpp-python, sglang, ollama,
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

pub(crate) async fn serve(args: ServeArgs) -> Result<(), String> {
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
