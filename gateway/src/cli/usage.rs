//! `sluice usage`: usage by subject as a table, from the ledger.

use super::table::aligned;
use super::{Failure, StoreArgs};
use crate::config;
use clap::Args;
use ledger::report::{self, Dimension, FIGURES, Filter, Line};
use serde_json::{Value, json};
use std::process::ExitCode;

/// Which sums to print.
#[derive(Debug, Args)]
pub(super) struct UsageArgs {
    /// Group by any of project, user, key, model, backend, status, day.
    #[arg(long, default_value = "project", value_delimiter = ',')]
    by: Vec<String>,
    /// First day (UTC), such as 2026-11-01.
    #[arg(long)]
    from: Option<jiff::civil::Date>,
    /// Last day (UTC), inclusive.
    #[arg(long)]
    to: Option<jiff::civil::Date>,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreArgs,
}

pub(super) fn run(args: &UsageArgs) -> Result<ExitCode, Failure> {
    let dimensions = args.by.iter().map(|name| {
        name.parse::<Dimension>().map_err(|_| {
            let known = Dimension::ALL.map(Dimension::name).join(", ");
            Failure::usage(format!("invalid --by: unknown group `{name}`; use {known}"))
        })
    });
    let dimensions = dimensions.collect::<Result<Vec<_>, _>>()?;
    let filter = Filter {
        from: args.from.map(|day| day.to_string()),
        to: args.to.map(|day| day.to_string()),
        only: None,
    };
    let lines = super::block_on(async {
        let url = args
            .store
            .url(&config::load(&args.store.config.config, &config::Found::new())?);
        let pool = ledger::connect(&url).await?;
        Ok(report::lines(&pool, &dimensions, &filter).await?)
    })?;
    if args.json {
        let rows: Vec<Value> = lines.iter().map(|line| as_json(&args.by, line)).collect();
        println!("{}", Value::from(rows));
    } else {
        print!("{}", table(&args.by, &lines));
    }
    Ok(ExitCode::SUCCESS)
}

fn as_json(by: &[String], line: &Line) -> Value {
    let mut object = json!({});
    for (name, value) in by.iter().zip(&line.groups) {
        object[name] = value.as_str().into();
    }
    for (name, figure) in FIGURES.iter().zip(line.figures()) {
        object[*name] = figure;
    }
    object
}

/// Names to the left, figures to the right, each column as wide as it must be.
fn table(by: &[String], lines: &[Line]) -> String {
    let head = by.iter().cloned().chain(FIGURES.iter().map(|name| (*name).to_owned()));
    let mut rows = vec![head.collect::<Vec<String>>()];
    for line in lines {
        let groups = line.groups.iter().map(|value| {
            if value.is_empty() {
                "–".to_owned()
            } else {
                value.clone()
            }
        });
        let figures = line.figures().into_iter().map(|figure| match figure.as_f64() {
            Some(euros) if figure.is_f64() => format!("{euros:.6}"),
            _ => figure.to_string(),
        });
        rows.push(groups.chain(figures).collect());
    }
    aligned(&rows, by.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_lines_up() {
        let line = |name: &str, requests| Line {
            groups: vec![name.to_owned()],
            requests,
            input_tokens: 10,
            output_tokens: 5,
            cached_input_tokens: 0,
            cost_nano_eur: 1_500_000,
            objectives: 4,
            objectives_met: 3,
        };
        let text = table(&["project".to_owned()], &[line("vip_project", 3), line("", 12_000)]);
        insta::assert_snapshot!(text, @r"
        project      requests  input_tokens  output_tokens  total_tokens  cached_input_tokens  cost_eur  objectives  objectives_met
        vip_project         3            10              5            15                    0  0.001500           4               3
        –               12000            10              5            15                    0  0.001500           4               3
        ");
    }
}
