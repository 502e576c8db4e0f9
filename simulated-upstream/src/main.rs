//! The simulated LLM server as a program of its own.

use clap::Parser;
use serde::Deserialize;
use simulated_upstream::{Model, Server};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// A simulated LLM server: OpenAI's and Ollama's APIs without a GPU.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Flags {
    /// Where to listen; port 0 takes a free one, which is printed.
    #[arg(long, default_value = "127.0.0.1:8100")]
    listen: SocketAddr,
    /// A models.yaml, whose models are all simulated.
    #[arg(long)]
    models: Option<PathBuf>,
    /// A model and its latency in seconds, such as small=0.5; may be given again.
    #[arg(long = "model", value_parser = named_model)]
    named: Vec<Model>,
    /// Varies the answers.
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
    max_input_tokens: u64,
    max_output_tokens: u64,
    upstream_model: Option<String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Flags::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("simulated-upstream: {message}");
            ExitCode::from(2)
        }
    }
}

async fn run(flags: Flags) -> Result<(), String> {
    let mut models = flags.named;
    if let Some(path) = &flags.models {
        models.extend(read_models(path)?);
    }
    if models.is_empty() {
        models.push(named_model("simulated-small=0.5")?);
    }
    let listener = tokio::net::TcpListener::bind(flags.listen)
        .await
        .map_err(|error| format!("cannot listen on {}: {error}", flags.listen))?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    let names: Vec<&str> = models.iter().map(|model| model.name.as_str()).collect();
    println!("simulated-upstream on http://{address} with {}", names.join(", "));
    Server::new(models, flags.seed)
        .serve(listener)
        .await
        .map_err(|error| error.to_string())
}

fn read_models(path: &PathBuf) -> Result<Vec<Model>, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let file: ModelsFile = serde_yaml::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
    file.models
        .into_iter()
        .map(|(name, entry)| {
            let latency = Duration::try_from_secs_f64(entry.average_latency_seconds.unwrap_or(0.0));
            Ok(Model {
                average_latency: latency.map_err(|error| format!("{name}: average_latency_seconds: {error}"))?,
                name: entry.upstream_model.unwrap_or(name),
                max_input_tokens: entry.max_input_tokens,
                max_output_tokens: entry.max_output_tokens,
            })
        })
        .collect()
}

fn named_model(text: &str) -> Result<Model, String> {
    let (name, seconds) = text.split_once('=').unwrap_or((text, "0"));
    let seconds: f64 = seconds
        .parse()
        .map_err(|_| format!("`{seconds}` is not a number of seconds"))?;
    Ok(Model {
        name: name.to_owned(),
        average_latency: Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())?,
        max_input_tokens: 1 << 20,
        max_output_tokens: 1 << 16,
    })
}
