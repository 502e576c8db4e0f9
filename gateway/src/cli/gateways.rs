//! `sluice gateways`: the gateways that share a database, and the end of one that does not return. Reads the database, so
//! that it works while no gateway runs.

use super::table::aligned;
use super::{Failure, StoreArgs};
use crate::config;
use clap::{Args, Subcommand};
use ledger::Store;
use ledger::members::{self, Member, Retirement, Unfinished};
use serde_json::{Value, json};
use std::process::ExitCode;
use std::time::Duration;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct GatewaysArgs {
    #[command(subcommand)]
    command: Option<GatewaysCommand>,
    /// Without a command: `list`.
    #[command(flatten)]
    list: ListArgs,
}

#[derive(Debug, Subcommand)]
enum GatewaysCommand {
    /// List the gateways, and since when silent ones have been silent (the default).
    List(ListArgs),
    /// Remove a silent gateway that will not return, because its machine or its data directory is gone.
    Retire {
        /// Id of the gateway, as printed by `sluice gateways`.
        id: String,
        #[command(flatten)]
        store: StoreArgs,
    },
}

#[derive(Debug, Args)]
struct ListArgs {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreArgs,
}

pub(super) fn run(args: &GatewaysArgs) -> Result<ExitCode, Failure> {
    super::block_on(async {
        match &args.command {
            None => list(&args.list).await,
            Some(GatewaysCommand::List(args)) => list(args).await,
            Some(GatewaysCommand::Retire { id, store }) => retire(&open(store).await?, id).await,
        }
    })
}

async fn open(args: &StoreArgs) -> Result<Store, Failure> {
    let url = args.url(&config::load(&args.config.config, &config::Found::new())?);
    Ok(ledger::connect(&url).await?)
}

async fn list(args: &ListArgs) -> Result<ExitCode, Failure> {
    let store = open(&args.store).await?;
    if !store.is_shared() {
        if args.json {
            println!("{}", json!({"database": "sqlite", "gateways": []}));
        } else {
            println!("The database is a SQLite file, which serves one gateway. Several gateways share PostgreSQL.");
        }
        return Ok(ExitCode::SUCCESS);
    }
    let members = members::list(&store).await?;
    let unfinished = members::unfinished(&store).await?;
    let work = |member: &Member| unfinished.get(&*member.id).copied().unwrap_or_default();
    if args.json {
        let gateways = members.members.iter().map(|member| as_json(member, work(member)));
        let gateways: Vec<Value> = gateways.collect();
        println!("{}", json!({"database": "postgres", "gateways": gateways}));
    } else if members.members.is_empty() {
        println!("No gateway has joined this database.");
    } else {
        print!("{}", table(&members.members, members.server_ms, work));
    }
    Ok(ExitCode::SUCCESS)
}

async fn retire(store: &Store, id: &str) -> Result<ExitCode, Failure> {
    if !store.is_shared() {
        return Err(Failure::usage(
            "the database is a SQLite file, which serves one gateway; there is none to retire",
        ));
    }
    match members::retire(store, id).await? {
        Retirement::Retired(member) => {
            println!("retired gateway {} ({})", member.id, member.introduction.name);
            Ok(ExitCode::SUCCESS)
        }
        Retirement::Live(member) => Err(Failure::other(format!(
            "gateway {} ({} at {}) is live: its last heartbeat was {} ms ago; stop it first, it then leaves by itself",
            member.id,
            member.introduction.name,
            member.introduction.address,
            member.silent_for.as_millis()
        ))),
        Retirement::Unknown => Err(Failure::usage(format!(
            "unknown gateway {id:?}; `sluice gateways` lists them"
        ))),
    }
}

fn as_json(member: &Member, work: Unfinished) -> Value {
    json!({
        "id": member.id.as_str(),
        "state": state(member),
        "name": member.introduction.name,
        "address": member.introduction.address,
        "version": member.introduction.version,
        "started_at_ms": member.started_at,
        "unfinished_batches": work.batches,
        "unfinished_jobs": work.jobs,
        "silent_ms": u64::try_from(member.silent_for.as_millis()).unwrap_or(u64::MAX),
    })
}

fn state(member: &Member) -> &'static str {
    if member.is_live() { "live" } else { "silent" }
}

fn table(members: &[Member], server_ms: i64, work: impl Fn(&Member) -> Unfinished) -> String {
    let head = [
        "GATEWAY", "STATE", "NAME", "ADDRESS", "VERSION", "UPTIME", "BATCHES", "JOBS",
    ]
    .map(str::to_owned);
    let rows = members.iter().map(|member| {
        let state = if member.is_live() {
            "live".to_owned()
        } else {
            format!("silent for {}", span(member.silent_for))
        };
        let lived_ms = u64::try_from(server_ms - member.started_at).unwrap_or(0);
        let lived = Duration::from_millis(lived_ms).saturating_sub(member.silent_for);
        let introduction = &member.introduction;
        [
            member.id.to_string(),
            state,
            introduction.name.clone(),
            introduction.address.clone(),
            introduction.version.clone(),
            span(lived),
            work(member).batches.to_string(),
            work(member).jobs.to_string(),
        ]
    });
    aligned(&[head].into_iter().chain(rows).collect::<Vec<_>>(), 6)
}

/// A span of time in its largest unit.
fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ledger::members::Introduction;

    #[test]
    fn the_table_says_who_is_live_and_who_has_been_silent_for_how_long() {
        let member = |id: &str, silent_ms: u64| Member {
            id: id.into(),
            introduction: Introduction {
                name: "host".to_owned(),
                address: "10.0.0.1:8000".to_owned(),
                version: "1.2.3".to_owned(),
            },
            started_at: 0,
            silent_for: Duration::from_millis(silent_ms),
            is_coordinated: true,
            figures: String::new(),
        };
        let work = |member: &Member| Unfinished {
            batches: i64::from(member.is_live()) * 2,
            jobs: i64::from(member.is_live()) * 13,
        };
        let text = table(&[member("a", 4999), member("b", 61_000)], 7_261_000, work);
        assert_eq!(
            text,
            "GATEWAY  STATE             NAME  ADDRESS        VERSION  UPTIME  BATCHES  JOBS\n\
             a        live              host  10.0.0.1:8000  1.2.3    2 h           2    13\n\
             b        silent for 1 min  host  10.0.0.1:8000  1.2.3    2 h           0     0\n"
        );
    }
}
