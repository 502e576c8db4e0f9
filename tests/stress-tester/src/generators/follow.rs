//! A generator that gets its part of a workload, and its start, from a lead.

use super::wire::{FromFollower, FromLead, HEARTBEAT, Link, unix_seconds};
use crate::flags::{Flags, FollowArgs, RunArgs};
use crate::launch::{Launcher, Prepared};
use crate::report;
use crate::scenario::Scenario;
use crate::terminal::note;
use clap::Parser;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// The time that a lead may take for steps that involve all generators.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Sends one part of a workload, and gives the lead what was observed.
///
/// # Errors
/// No lead, one that refuses this generator or is lost, or a part that cannot be sent.
pub(crate) async fn follow(args: &FollowArgs) -> Result<ExitCode, String> {
    let mut link = Link::new(connect(args).await?);
    let hello = FromFollower::Hello {
        token: args.token.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        name: args.name.clone().unwrap_or_else(own_name),
    };
    link.send(&hello).await?;
    let (flags, part) = loop {
        match link.receive(PATIENCE).await? {
            FromLead::Clock => {
                let unix_seconds = unix_seconds();
                link.send(&FromFollower::Clock { unix_seconds }).await?;
            }
            FromLead::Prepare { flags, part, of } => break (flags, (part, of)),
            FromLead::Refused { why } => return Err(format!("the lead refused this generator: {why}")),
            FromLead::Start { .. } => return Err("the lead started a run before sending its flags".to_owned()),
        }
    };
    match run_part(&mut link, flags, part).await {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(why) => {
            let _ = link.send(&FromFollower::Failed { why: why.clone() }).await;
            Err(why)
        }
    }
}

async fn run_part(link: &mut Link, flags: Vec<String>, part: (usize, usize)) -> Result<(), String> {
    let flags = std::iter::once("sluice-stress".to_owned()).chain(flags);
    let mut args: RunArgs = Flags::try_parse_from(flags).map_err(|error| error.to_string())?.run;
    args.shard = Some(part);
    // Threads are started already, and only the lead prints a summary.
    (args.threads, args.json) = (None, true);
    let mut scenario = Scenario::load(&args.scenario)?;
    args.apply(&mut scenario);
    let launcher = Launcher::new(&args).await?;
    let arrivals = args.arrivals_of(&scenario)?;
    let prepared = launcher.prepare(&scenario, arrivals.as_ref()).await?;
    let requests = prepared.requests();
    link.send(&FromFollower::Ready { requests }).await?;
    let FromLead::Start { after_seconds } = link.receive(PATIENCE).await? else {
        return Err("the lead did not start the run".to_owned());
    };
    let start = Instant::now() + Duration::try_from_secs_f64(after_seconds.max(0.0)).unwrap_or_default();
    tokio::time::sleep_until(start.into()).await;
    note(&format!("part {} of {}: {requests} requests", part.0, part.1));
    send_part(link, &launcher, prepared).await
}

/// Runs, and shows the lead all the while that it is alive. Without a lead the load ends.
async fn send_part(link: &mut Link, launcher: &Launcher<'_>, prepared: Prepared) -> Result<(), String> {
    let started_unix_seconds = unix_seconds();
    let run = launcher.run_prepared(prepared);
    tokio::pin!(run);
    let record = loop {
        tokio::select! {
            record = &mut run => break record?,
            () = tokio::time::sleep(HEARTBEAT) => link.send(&FromFollower::Running).await?,
        }
    };
    let bytes = report::stored(&record)?;
    let finished = FromFollower::Finished {
        started_unix_seconds,
        bytes: bytes.len(),
    };
    link.send(&finished).await?;
    link.send_bytes(&bytes).await
}

async fn connect(args: &FollowArgs) -> Result<TcpStream, String> {
    let until = Instant::now() + Duration::try_from_secs_f64(args.wait).unwrap_or_default();
    loop {
        match TcpStream::connect(&args.lead).await {
            Ok(stream) => return Ok(stream),
            Err(_) if Instant::now() < until => tokio::time::sleep(Duration::from_millis(200)).await,
            Err(error) => return Err(format!("cannot connect to the lead at {}: {error}", args.lead)),
        }
    }
}

fn own_name() -> String {
    let host = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned());
    format!("{}/{}", host.unwrap_or_default(), std::process::id())
}
