//! `calibrate`: a profile of a real server, from a few sweeps over it.

use super::fit::finish;
use clap::Args;
use simulated_upstream::calibrate::{Load, Meter, Target};
use simulated_upstream::engine::{About, Schedule};
use simulated_upstream::fit::{Statistic, Table};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct CalibrateArgs {
    /// The server's root, such as http://127.0.0.1:8000. Nothing else should use it meanwhile.
    #[arg(long)]
    url: String,
    /// The model to ask.
    #[arg(long)]
    model: String,
    /// The server's API key, if it requires one.
    #[arg(long, env = "OPENAI_API_KEY", hide_env_values = true)]
    key: Option<String>,
    /// Where to write the profile; printed if left out.
    #[arg(long)]
    write: Option<PathBuf>,
    /// Where to write the measurements (YAML), for `fit`.
    #[arg(long)]
    table: Option<PathBuf>,
    /// Requests that the server computes at once; asked of the server (llama.cpp) or 256 if left out.
    #[arg(long)]
    max_sequences: Option<usize>,
    /// Tokens that fit into its memory for keys and values; asked of the server (vLLM, llama.cpp) if left out.
    #[arg(long)]
    kv_tokens: Option<usize>,
    /// Tokens of a step: vLLM's --max-num-batched-tokens, llama.cpp's batch size.
    #[arg(long, default_value_t = 2048)]
    token_budget: usize,
    /// The most clients at once.
    #[arg(long, default_value_t = 16)]
    concurrency: usize,
    /// The longest prompt, in words.
    #[arg(long, default_value_t = 1024)]
    prompt: usize,
    /// Tokens of an answer.
    #[arg(long, default_value_t = 128)]
    output: usize,
    /// Requests of each client.
    #[arg(long, default_value_t = 4)]
    each: usize,
    /// The engine and its version, for the profile.
    #[arg(long, default_value = "")]
    engine: String,
    /// The hardware, for the profile.
    #[arg(long, default_value = "")]
    hardware: String,
}

pub(crate) async fn calibrate(args: &CalibrateArgs) -> Result<(), String> {
    let target = Target {
        url: args.url.clone(),
        model: args.model.clone(),
        key: args.key.clone(),
    };
    let meter = Meter::new(target)?;
    let limits = meter.limits().await;
    let mut table = Table {
        about: About {
            engine: args.engine.clone(),
            model: args.model.clone(),
            hardware: args.hardware.clone(),
            ..About::default()
        },
        source: format!("simulated-upstream calibrate, {}", jiff::Zoned::now().date()),
        statistic: Statistic::Mean,
        kv_tokens: args.kv_tokens.or(limits.kv_tokens).unwrap_or(1 << 20),
        max_sequences: args.max_sequences.or(limits.max_sequences).unwrap_or(256),
        token_budget: args.token_budget,
        schedule: Schedule::Mixed,
        expert_share: 0.0,
        expert_balance: 0.0,
        attention_window: 0,
        attention_kernel: None,
        base: None,
        drafted: 0,
        rows: Vec::new(),
    };
    eprintln!(
        "{} requests at once, {} tokens in memory, {} a step",
        table.max_sequences, table.kv_tokens, table.token_budget
    );
    let loads = loads(args);
    // The first requests of a server are not those that it will go on with.
    meter.measure(loads[0].0).await?;
    for (number, (load, held)) in loads.iter().enumerate() {
        let mut row = meter.measure(*load).await?;
        row.held = *held;
        eprintln!(
            "{}/{}: {} client(s), {} tokens in, {} out: {:.1} tokens/s, first {:.1} ms, then {:.2} ms",
            number + 1,
            loads.len(),
            row.concurrency,
            row.prompt,
            row.output,
            row.tokens_per_second.unwrap_or_default(),
            row.first_token_ms.unwrap_or_default(),
            row.per_token_ms.unwrap_or_default(),
        );
        table.rows.push(row);
    }
    if let Some(path) = &args.table {
        std::fs::write(path, table.to_yaml()?).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    finish(&table, args.write.as_ref())
}

/// Loads to measure, and whether a load is held back from the fit, to judge it: short and long prompts at every power of
/// two of clients, and sizes between them.
fn loads(args: &CalibrateArgs) -> Vec<(Load, bool)> {
    let load = |prompt: usize, output: usize, concurrency: usize| Load {
        prompt: prompt.max(1),
        output: output.max(2),
        concurrency,
        each: args.each.max(1),
    };
    let mut loads = Vec::new();
    let mut concurrency = 1;
    while concurrency <= args.concurrency {
        for prompt in [args.prompt / 16, args.prompt] {
            loads.push((load(prompt, args.output, concurrency), false));
        }
        concurrency *= 2;
    }
    let between = (args.concurrency * 3 / 4).max(1);
    loads.push((load(args.prompt / 4, args.output, between), true));
    loads.push((load(args.prompt / 2, args.output / 2, args.concurrency), true));
    loads.push((load(args.prompt / 4, args.output * 2, 1), true));
    loads
}
