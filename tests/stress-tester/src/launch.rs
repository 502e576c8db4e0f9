//! Makes a run out of flags and a scenario.

use crate::client::{Http, json_headers};
use crate::distribution::histogram;
use crate::flags::{RunArgs, WarmUp};
use crate::gateway::{self, Admin};
use crate::live::Live;
use crate::metadata::Metadata;
use crate::protocol::Protocol;
use crate::run::{self, Settings};
use crate::scenario::{Scenario, User};
use crate::summary::{RunRecord, Window, steady};
use crate::terminal::note;
use crate::workload;
use crate::workload::Session;
use crate::workload::arrivals::Arrivals;
use crate::workload::text::TextMaker;
use crate::workload::tokenizer::Tokenizer;
use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue};
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A year: no request lasts so long.
const NO_LIMIT: Duration = Duration::from_secs(31_536_000);

/// A workload that only has to be sent.
#[derive(Debug)]
pub(crate) struct Prepared {
    sessions: Vec<Session>,
    settings: Arc<Settings>,
    metadata: Metadata,
}

impl Prepared {
    /// Requests of the workload, or of this generator's part.
    pub(crate) fn requests(&self) -> usize {
        self.sessions.iter().map(|session| session.turns.len()).sum()
    }
}

/// Runs scenarios against one server.
#[derive(Debug)]
pub(crate) struct Launcher<'a> {
    args: &'a RunArgs,
    http: Http,
    admin: Option<Admin>,
    tokenizer: Option<Tokenizer>,
    text: TextMaker,
}

impl<'a> Launcher<'a> {
    /// Connects to the admin listener, and loads what all runs need.
    ///
    /// # Errors
    /// Invalid flags or files.
    pub(crate) async fn new(args: &'a RunArgs) -> Result<Self, String> {
        args.check()?;
        let tokenizer = args.tokenizer.as_deref().map(Tokenizer::load).transpose()?;
        let read = || std::fs::read_to_string("data/admin.token").ok();
        let token = args.admin_token.clone().or_else(read);
        let admin = Admin::find(&args.admin_url, token.as_deref().map(str::trim)).await;
        if let Err(why) = &admin
            && !args.json
            && args.protocol == Protocol::Generate
        {
            note(&format!(
                "reports go without queue and degradation level: admin listener {}: {why}",
                args.admin_url
            ));
        }
        if args.stream && !args.protocol.has_streams() {
            note("--stream has no effect: this API has no streams; choose --protocol openai, for example");
        }
        Ok(Self {
            args,
            http: Http::new(&args.base_url)?,
            admin: admin.ok(),
            text: TextMaker::new(tokenizer.as_ref(), args.seed)?,
            tokenizer,
        })
    }

    /// Runs a scenario; the record is settled.
    ///
    /// # Errors
    /// An invalid scenario, trace or data set, or a run without a single request.
    pub(crate) async fn run(&self, scenario: &Scenario, arrivals: Option<&Arrivals>) -> Result<RunRecord, String> {
        self.run_prepared(self.prepare(scenario, arrivals).await?).await
    }

    /// Makes the requests of a scenario.
    ///
    /// # Errors
    /// An invalid scenario, trace or data set.
    pub(crate) async fn prepare(&self, scenario: &Scenario, arrivals: Option<&Arrivals>) -> Result<Prepared, String> {
        scenario.check()?;
        let args = self.args;
        let users = self.users(scenario)?;
        let count = users.len();
        let scenario = &Scenario {
            users,
            ..scenario.clone()
        };
        let mut sessions = workload::sessions(scenario, arrivals, count, args.seed, self.tokenizer.as_ref())?;
        if let Some(part) = args.shard {
            sessions = workload::shard(sessions, part);
        }
        Ok(Prepared {
            sessions,
            settings: Arc::new(self.settings(scenario).await?),
            metadata: self.metadata(scenario, arrivals),
        })
    }

    /// Sends what was prepared.
    ///
    /// # Errors
    /// A run without a single request.
    pub(crate) async fn run_prepared(&self, prepared: Prepared) -> Result<RunRecord, String> {
        let args = self.args;
        let live = Live::start(prepared.requests(), args.json);
        let watch = self.admin.clone().map(Admin::watch);
        let mut observed = run::run(&self.http, prepared.sessions, prepared.settings, live).await;
        observed.samples.sort_by_key(|sample| sample.request_index);
        if observed.samples.is_empty() {
            return Err("no request was sent".to_owned());
        }
        let warm_up = match args.warm_up {
            WarmUp::Seconds(seconds) => seconds,
            WarmUp::Auto => steady::begins(&observed.samples),
        };
        let mut record = RunRecord {
            name: name(&args.scenario),
            samples: observed.samples,
            gaps: histogram(),
            lasted: observed.lasted,
            not_sent: observed.not_sent,
            slo: args.slo,
            window: Window {
                warm_up,
                cool_down: args.cool_down,
            },
            watched: watch.map(gateway::Watch::end).unwrap_or_default(),
            client: observed.client,
            metadata: prepared.metadata,
        };
        record.settle();
        Ok(record)
    }

    /// The users that take part: the holders of keys, else the scenario's, with their projects as far as they are known.
    fn users(&self, scenario: &Scenario) -> Result<Vec<User>, String> {
        let keys = &self.args.keys;
        if !keys.is_empty() {
            let holders = (1..=keys.len()).map(|number| User {
                id: format!("key-{number}"),
                project: None,
            });
            return Ok(holders.collect());
        }
        let count = self.args.users.unwrap_or(scenario.users.len());
        if count > scenario.users.len() {
            return Err(format!(
                "--users is {count}, but the scenario has only {}",
                scenario.users.len()
            ));
        }
        Ok(scenario.users[..count].to_vec())
    }

    async fn settings(&self, scenario: &Scenario) -> Result<Settings, String> {
        let args = self.args;
        let headers = self.headers(&scenario.users)?;
        let (projects, backends) = match &self.admin {
            Some(admin) => admin.known().await,
            None => (
                HashMap::new(),
                gateway::published_backends(&self.http, &headers[0]).await,
            ),
        };
        let users = scenario.users.iter().map(|user| User {
            id: user.id.clone(),
            project: projects.get(&user.id).cloned().or_else(|| user.project.clone()),
        });
        Ok(Settings {
            protocol: args.protocol,
            uri: self.http.uri(args.protocol.path())?,
            is_streaming: args.stream && args.protocol.has_streams(),
            polls: args.poll_queued,
            poll_interval: Duration::from_secs_f64(args.poll_interval),
            poll_timeout: Duration::from_secs_f64(args.poll_timeout),
            request_timeout: if args.request_timeout > 0.0 {
                Duration::from_secs_f64(args.request_timeout)
            } else {
                NO_LIMIT
            },
            users: users.collect(),
            headers,
            projects_are_known: !projects.is_empty(),
            backends,
            concurrency: args
                .shard
                .map_or(scenario.concurrency, |(_, of)| scenario.concurrency.div_ceil(of)),
            gap: Duration::from_secs_f64(scenario.gap_seconds),
            think_time: Duration::from_secs_f64(scenario.think_time_seconds),
            retries: args.retries,
            max_in_flight: args.max_in_flight,
            extra_body: self.extra_body(),
            text: self.text.clone(),
            tokenizer: self.tokenizer.clone(),
            threads: args
                .threads
                .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get)),
        })
    }

    /// Headers by user. Those of --header come last, and take the place of others.
    fn headers(&self, users: &[User]) -> Result<Vec<HeaderMap>, String> {
        let args = self.args;
        let value =
            |text: &str| HeaderValue::from_str(text).map_err(|error| format!("invalid key or user `{text}`: {error}"));
        let mut all = Vec::new();
        for (number, user) in users.iter().enumerate() {
            let mut headers = json_headers();
            match (args.keys.get(number), args.protocol) {
                (None, _) => headers.insert("x-sluice-user", value(&user.id)?),
                (Some(key), Protocol::Anthropic) => headers.insert("x-api-key", value(key)?),
                (Some(key), _) => headers.insert(AUTHORIZATION, value(&format!("Bearer {key}"))?),
            };
            if args.protocol == Protocol::Anthropic {
                headers.insert("anthropic-version", HeaderValue::from_static("2023-06-01"));
            }
            for (name, text) in &args.headers {
                let name: HeaderName = name
                    .parse()
                    .map_err(|error| format!("invalid header {name}: {error}"))?;
                headers.insert(name, value(text)?);
            }
            all.push(headers);
        }
        Ok(all)
    }

    fn extra_body(&self) -> Map<String, Value> {
        let mut extra = self.args.extra_body.clone().unwrap_or_default();
        if self.args.ignore_eos {
            extra.insert("ignore_eos".to_owned(), true.into());
        }
        extra
    }

    fn metadata(&self, scenario: &Scenario, arrivals: Option<&Arrivals>) -> Metadata {
        let args = self.args;
        let load = match arrivals {
            None => format!("closed loop of {} clients", scenario.concurrency),
            Some(Arrivals::Trace(file)) => format!(
                "open loop: trace {file}, played at {} times its speed",
                scenario.rate.unwrap_or(1.0)
            ),
            Some(arrivals) => format!(
                "open loop: {arrivals:?}, {} a second",
                scenario.rate.unwrap_or(Scenario::RATE)
            ),
        };
        Metadata {
            seed: args.seed,
            base_url: args.base_url.clone(),
            protocol: args.protocol.name(),
            is_streaming: args.stream,
            load,
            ignores_eos: args.ignore_eos,
            has_exact_lengths: args.ignore_eos || matches!(arrivals, Some(Arrivals::Trace(_))),
            ..Metadata::of_this_run()
        }
    }
}

/// The name of a scenario, without its directory and ending.
fn name(scenario: &str) -> String {
    let stem = Path::new(scenario).file_stem();
    stem.map_or_else(|| scenario.to_owned(), |stem| stem.to_string_lossy().into_owned())
}
