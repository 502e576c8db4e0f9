//! `sluice ledger`: are the sums right, and all records as a file.

use super::{Failure, StoreArgs};
use crate::config;
use crate::csv;
use clap::Subcommand;
use jiff::civil::Date;
use ledger::records::{self, FIELDS, Page};
use ledger::{self, Store};
use serde_json::{Value, json};
use std::io::{self, Write};
use std::process::ExitCode;

#[derive(Debug, Subcommand)]
pub(super) enum LedgerCommand {
    /// Recompute all sums from the records and report every difference.
    Verify {
        /// Print JSON instead of text.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Export records, oldest first, as CSV, JSON lines or Parquet.
    Export {
        /// First day (UTC), such as 2026-11-01.
        #[arg(long)]
        from: Option<Date>,
        /// Last day (UTC), inclusive.
        #[arg(long)]
        to: Option<Date>,
        /// Print one JSON object per line instead of CSV.
        #[arg(long)]
        json: bool,
        /// Print a Parquet file instead of CSV.
        #[cfg(feature = "parquet")]
        #[arg(long, conflicts_with = "json")]
        parquet: bool,
        #[command(flatten)]
        store: StoreArgs,
    },
}

pub(super) fn run(command: &LedgerCommand) -> Result<ExitCode, Failure> {
    let (LedgerCommand::Verify { store, .. } | LedgerCommand::Export { store, .. }) = command;
    super::block_on(async {
        let url = store.url(&config::load(&store.config.config, &config::Found::new())?);
        let pool = ledger::connect(&url).await?;
        match command {
            LedgerCommand::Verify { json, .. } => verify(&pool, *json).await,
            LedgerCommand::Export {
                from,
                to,
                json,
                #[cfg(feature = "parquet")]
                parquet,
                ..
            } => {
                let mut page = page(*from, *to)?;
                #[cfg(feature = "parquet")]
                if *parquet {
                    return super::parquet::export(&pool, &mut page).await;
                }
                export(&pool, &mut page, *json).await
            }
        }
    })
}

async fn verify(pool: &Store, as_json: bool) -> Result<ExitCode, Failure> {
    let found = ledger::verify(pool).await?;
    if as_json {
        let (records, since) = (found.records, found.since);
        println!(
            "{}",
            json!({"records": records, "since": since, "disagreements": found.disagreements})
        );
        return Ok(if found.disagreements.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        });
    }
    if found.disagreements.is_empty() {
        println!(
            "{} records from {} on: the stored sums agree",
            found.records, found.since
        );
        return Ok(ExitCode::SUCCESS);
    }
    for line in &found.disagreements {
        println!("{line}");
    }
    let count = found.disagreements.len();
    Err(Failure::other(format!(
        "{count} stored sums disagree with the records from {} on",
        found.since
    )))
}

fn page(from: Option<Date>, to: Option<Date>) -> Result<Page, Failure> {
    Ok(Page {
        after: 0,
        from: from.map(|day| day.to_string()).unwrap_or_default(),
        before: match to.map(Date::tomorrow) {
            None => "9999-99-99".to_owned(),
            Some(Ok(day)) => day.to_string(),
            Some(Err(error)) => return Err(Failure::usage(format!("--to: {error}"))),
        },
    })
}

/// Page by page, so that memory does not grow with the ledger. The reader may close the pipe early.
async fn export(pool: &Store, page: &mut Page, as_json: bool) -> Result<ExitCode, Failure> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let head = if as_json {
        String::new()
    } else {
        csv::line(FIELDS.iter().map(|name| (*name).into()))
    };
    let mut written = out.write_all(head.as_bytes());
    while written.is_ok() {
        let records = records::page(pool, page).await?;
        if records.is_empty() {
            written = out.flush();
            break;
        }
        written = records.into_iter().try_for_each(|record| {
            let line = if as_json {
                format!("{record}\n")
            } else {
                csv::line(
                    FIELDS
                        .iter()
                        .map(|name| record.get(name).cloned().unwrap_or(Value::Null)),
                )
            };
            out.write_all(line.as_bytes())
        });
    }
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::other(format!("cannot write the records: {error}")))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}
