//! Gives generators their parts of a workload and a common start, and joins what they observed.

use super::wire::{FromFollower, FromLead, Link, SILENCE, unix_seconds};
use crate::flags::{Flags, LeadArgs, RunArgs, WarmUp};
use crate::metadata::{Generator, Metadata};
use crate::report;
use crate::summary::RunRecord;
use crate::terminal::note;
use clap::Parser;
use futures_util::future::{join_all, try_join_all};
use std::time::{Duration, Instant};
use subtle::ConstantTimeEq as _;
use tokio::net::{TcpListener, TcpStream};

/// The time within which a new connection must introduce itself.
const HELLO: Duration = Duration::from_secs(5);

/// The time that a generator may take to load data sets and to make prompts.
const PREPARATION: Duration = Duration::from_secs(600);

/// From the decision to start until the start: longer than a message takes.
const NOTICE: Duration = Duration::from_millis(500);

/// Questions after a follower's clock; the quickest answer counts.
const CLOCK_QUESTIONS: usize = 8;

/// A generator that is connected.
#[derive(Debug)]
struct Follower {
    link: Link,
    about: Generator,
}

/// Runs a workload on several generators.
///
/// # Errors
/// Invalid flags, a generator that cannot prepare its part, or not one that finished.
pub(crate) async fn lead(args: &LeadArgs) -> Result<(RunArgs, RunRecord), String> {
    let run = run_args(&args.flags)?;
    let mut followers = gather(args).await?;
    for follower in &mut followers {
        follower.compare_clocks().await.map_err(|why| follower.lost(&why))?;
    }
    let of = followers.len();
    let prepared = followers
        .iter_mut()
        .zip(1..)
        .map(|(follower, part)| follower.prepare(&args.flags, part, of));
    try_join_all(prepared).await?;
    note(&format!("all {of} generators are ready"));
    let start = Instant::now() + NOTICE;
    let start_unix = unix_seconds() + NOTICE.as_secs_f64();
    let finished = join_all(followers.into_iter().map(|follower| follower.run(start, start_unix))).await;
    Ok((run, joined(finished)?))
}

/// The flags of the run, checked as far as a lead can.
fn run_args(flags: &[String]) -> Result<RunArgs, String> {
    let line = std::iter::once(&"sluice-stress".to_owned())
        .chain(flags)
        .cloned()
        .collect::<Vec<_>>();
    let flags = Flags::try_parse_from(line).map_err(|error| error.to_string())?;
    let run = flags.run;
    run.check()?;
    let unfit = [
        (flags.command.is_some(), "a command"),
        (run.shard.is_some(), "--shard (the lead gives each generator its part)"),
        (run.find_capacity, "--find-capacity"),
        (!run.sweep_rate.is_empty(), "--sweep-rate"),
        (!run.sweep_concurrency.is_empty(), "--sweep-concurrency"),
        (
            matches!(run.warm_up, WarmUp::Auto),
            "--warm-up auto (each generator would decide for itself; give seconds)",
        ),
    ];
    match unfit.iter().find(|(is_given, _)| *is_given) {
        Some((_, what)) => Err(format!("a lead cannot be used with {what}")),
        None => Ok(run),
    }
}

/// Waits until all generators are there.
async fn gather(args: &LeadArgs) -> Result<Vec<Follower>, String> {
    let token = args.token.clone().map_or_else(random_token, Ok)?;
    let listener = TcpListener::bind(args.listen)
        .await
        .map_err(|error| format!("cannot listen on {}: {error}", args.listen))?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    let secret = if args.token.is_some() { "…" } else { &token };
    note(&format!(
        "waiting for {} generators: sluice-stress follow {address} --token {secret}",
        args.followers
    ));
    let mut followers: Vec<Follower> = Vec::new();
    while followers.len() < usize::from(args.followers) {
        let (stream, from) = listener.accept().await.map_err(|error| error.to_string())?;
        match welcome(stream, &token).await {
            Ok(follower) => {
                note(&format!("{} ({from}) is connected", follower.about.name));
                followers.push(follower);
            }
            Err(why) => note(&format!("{from} was refused: {why}")),
        }
    }
    Ok(followers)
}

/// Admits a generator that presents the token and is of this version.
async fn welcome(stream: TcpStream, token: &str) -> Result<Follower, String> {
    let mut link = Link::new(stream);
    let hello = link.receive(HELLO).await?;
    let FromFollower::Hello {
        token: theirs,
        version,
        name,
    } = hello
    else {
        return Err("its first message is no hello".to_owned());
    };
    let own = env!("CARGO_PKG_VERSION");
    let why = if !bool::from(theirs.as_bytes().ct_eq(token.as_bytes())) {
        "invalid token".to_owned()
    } else if version != own {
        format!("its version is {version}, the lead's {own}")
    } else {
        let about = Generator {
            name,
            ..Generator::default()
        };
        return Ok(Follower { link, about });
    };
    let _ = link.send(&FromLead::Refused { why: why.clone() }).await;
    Err(why)
}

fn random_token() -> Result<String, String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| format!("cannot make a token: {error}"))?;
    Ok(hex::encode(bytes))
}

impl Follower {
    fn lost(&self, why: &str) -> String {
        format!("generator {}: {why}", self.about.name)
    }

    /// The offset of its clock, from the answer that took the least time (as in NTP).
    async fn compare_clocks(&mut self) -> Result<(), String> {
        let mut quickest = f64::INFINITY;
        for _ in 0..CLOCK_QUESTIONS {
            let (asked, begun) = (unix_seconds(), Instant::now());
            self.link.send(&FromLead::Clock).await?;
            let FromFollower::Clock { unix_seconds: theirs } = self.link.receive(SILENCE).await? else {
                return Err("it did not answer with its clock".to_owned());
            };
            let took = begun.elapsed().as_secs_f64();
            if took < quickest {
                quickest = took;
                self.about.clock_ahead_seconds = theirs - (asked + took / 2.0);
            }
        }
        self.about.round_trip_seconds = quickest;
        Ok(())
    }

    async fn prepare(&mut self, flags: &[String], part: usize, of: usize) -> Result<(), String> {
        let prepare = FromLead::Prepare {
            flags: flags.to_vec(),
            part,
            of,
        };
        let sent = self.link.send(&prepare).await;
        let answer = match sent {
            Ok(()) => self.link.receive(PREPARATION).await,
            Err(why) => Err(why),
        };
        match answer {
            Ok(FromFollower::Ready { requests }) => {
                self.about.requests = requests;
                Ok(())
            }
            Ok(FromFollower::Failed { why }) | Err(why) => Err(self.lost(&why)),
            Ok(_) => Err(self.lost("it did not say whether it is ready")),
        }
    }

    /// Starts it, and waits for its run; without one it is lost.
    async fn run(mut self, start: Instant, start_unix: f64) -> (Generator, Option<RunRecord>) {
        match self.observed(start, start_unix).await {
            Ok(record) => (self.about, Some(record)),
            Err(why) => {
                note(&self.lost(&format!("lost: {why}")));
                self.about.lost = Some(why);
                (self.about, None)
            }
        }
    }

    async fn observed(&mut self, start: Instant, start_unix: f64) -> Result<RunRecord, String> {
        // The message is on its way for half of a round trip.
        let left = start.saturating_duration_since(Instant::now()).as_secs_f64();
        let after_seconds = left - self.about.round_trip_seconds / 2.0;
        self.link.send(&FromLead::Start { after_seconds }).await?;
        loop {
            match self.link.receive(SILENCE).await? {
                FromFollower::Running => {}
                FromFollower::Finished {
                    started_unix_seconds,
                    bytes,
                } => {
                    self.about.started_late_seconds =
                        started_unix_seconds - self.about.clock_ahead_seconds - start_unix;
                    return report::parse(&self.link.receive_bytes(bytes).await?);
                }
                FromFollower::Failed { why } => return Err(why),
                _ => return Err("it sent something else than its run".to_owned()),
            }
        }
    }
}

/// One run of those of all generators, on the lead's clock.
fn joined(finished: Vec<(Generator, Option<RunRecord>)>) -> Result<RunRecord, String> {
    let mut generators = Vec::new();
    let mut runs = Vec::new();
    for (about, run) in finished {
        if let Some(mut run) = run {
            run.delay(about.started_late_seconds);
            runs.push(run);
        }
        generators.push(about);
    }
    if runs.is_empty() {
        return Err("every generator was lost".to_owned());
    }
    let mut record = report::merge(runs)?;
    let missing = generators.iter().filter(|generator| generator.lost.is_some());
    record.not_sent += missing.map(|generator| generator.requests).sum::<usize>();
    record.metadata.command = Metadata::of_this_run().command;
    record.metadata.generators = generators;
    Ok(record)
}
