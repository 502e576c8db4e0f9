//! `sluice check`: is the configuration right, and what may be in it.

use super::{ConfigArgs, Failure};
use crate::config;
use crate::config::report::Problem;
use clap::Args;
use serde_json::{Value, json};
use std::process::ExitCode;

/// Arguments of `sluice check`.
#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Print the JSON schemas of all files (or of one) instead of checking.
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "")]
    schema: Option<String>,
    /// Print JSON instead of text.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &CheckArgs) -> Result<ExitCode, Failure> {
    if let Some(file) = &args.schema {
        return schema(file);
    }
    let dir = &args.config.config;
    let config = match config::load(dir, &config::Found::new()) {
        Err(report) if args.json => {
            println!("{}", json!({"result": "wrong", "problems": as_json(&report.0)}));
            return Ok(ExitCode::from(2));
        }
        loaded => loaded?,
    };
    if let Some(tls) = &config.gateway.startup.tls {
        crate::listener::tls::settings(tls).map_err(Failure::usage)?;
    }
    let counts = [
        ("users", config.users.len()),
        ("projects", config.projects.len()),
        ("models", config.models.len()),
        ("plans", config.plans.len()),
        ("degradation levels", config.degradation.levels.len()),
    ];
    if args.json {
        let counts = counts.map(|(what, count)| (what.replace(' ', "_"), Value::from(count)));
        println!(
            "{}",
            json!({
                "result": "right", "counts": serde_json::Map::from_iter(counts), "warnings": as_json(&config.warnings),
            })
        );
    } else {
        for warning in &config.warnings {
            println!("warning: {warning}");
        }
        let counts = counts.map(|(what, count)| format!("{count} {what}"));
        println!("{}: configuration OK: {}", dir.display(), counts.join(", "));
    }
    Ok(ExitCode::SUCCESS)
}

fn as_json(problems: &[Problem]) -> Vec<Value> {
    let one = |problem: &Problem| json!({"file": problem.file, "line": problem.line, "key": problem.key, "message": problem.message});
    problems.iter().map(one).collect()
}

fn schema(file: &str) -> Result<ExitCode, Failure> {
    let schemas = config::schemas();
    let shown = match (file, schemas.get(file)) {
        ("", _) => Value::Object(schemas),
        (_, Some(schema)) => schema.clone(),
        _ => {
            let known: Vec<&str> = schemas.keys().map(String::as_str).collect();
            return Err(Failure::usage(format!(
                "--schema takes {}, not `{file}`",
                known.join(", ")
            )));
        }
    };
    println!("{shown:#}");
    Ok(ExitCode::SUCCESS)
}
