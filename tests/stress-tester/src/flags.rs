//! The command line.

mod generators;

pub(crate) use generators::{FollowArgs, LeadArgs};

use crate::protocol::Protocol;
use crate::scenario::Scenario;
use crate::summary::FailIf;
use crate::workload::arrivals::Arrivals;
use clap::{ArgAction, Args, Parser, Subcommand};
use serde_json::{Map, Value};
use simulated_upstream::report::Slo;
use std::path::PathBuf;

/// Load tests for LLM gateways and servers, and reports. Without a command it runs a scenario.
#[derive(Debug, Parser)]
#[command(name = "sluice-stress", version, about, args_conflicts_with_subcommands = true)]
pub(crate) struct Flags {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the built-in scenarios; with a name, print its YAML, to be copied and changed.
    Scenarios { name: Option<String> },
    /// Compare two runs: directories of reports, or their latest_run.json.
    Compare { one: PathBuf, other: PathBuf },
    /// Join the reports of several generators of one workload (--shard).
    Merge {
        /// Directory for the joined reports.
        #[arg(long, default_value = "reports")]
        out: PathBuf,
        /// Directories of reports, or their latest_run.json.
        #[arg(required = true)]
        runs: Vec<PathBuf>,
    },
    /// Run one workload on several generators: give each `follow` its part, start them together, and join their
    /// reports.
    Lead(LeadArgs),
    /// Be one of the generators of a `lead`.
    Follow(FollowArgs),
}

#[allow(clippy::struct_excessive_bools)]
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Address of the gateway or server.
    #[arg(long, default_value = "http://127.0.0.1:8000")]
    pub(crate) base_url: String,
    /// Built-in scenario (see `scenarios`), or a YAML file.
    #[arg(long, default_value = "normal_load")]
    pub(crate) scenario: String,
    /// Poll queued requests until they have a final status.
    #[arg(long, default_value_t = true, action = ArgAction::Set)]
    pub(crate) poll_queued: bool,
    /// Seconds between two polls.
    #[arg(long, default_value_t = 0.2)]
    pub(crate) poll_interval: f64,
    /// Seconds of polling until a request counts as timed out.
    #[arg(long, default_value_t = 30.0)]
    pub(crate) poll_timeout: f64,
    /// Seconds from sending a request to the last byte of its answer, until it counts as timed out; 0 for no limit.
    #[arg(long, visible_alias = "timeout", default_value_t = 300.0)]
    pub(crate) request_timeout: f64,
    /// API to use.
    #[arg(long, value_enum, default_value = "generate")]
    pub(crate) protocol: Protocol,
    /// Stream answers, and measure their tokens.
    #[arg(long)]
    pub(crate) stream: bool,
    /// API key; several take turns.
    #[arg(long = "key", env = "SLUICE_KEY", hide_env_values = true)]
    pub(crate) keys: Vec<String>,
    /// Header of every request, `NAME: VALUE`; may be repeated.
    #[arg(long = "header", short = 'H', value_parser = header)]
    pub(crate) headers: Vec<(String, String)>,
    /// JSON object whose fields are added to every body.
    #[arg(long, value_parser = object)]
    pub(crate) extra_body: Option<Map<String, Value>>,
    /// Ask for exactly `max_tokens` tokens (`ignore_eos` of vLLM, SGLang, llama.cpp).
    #[arg(long)]
    pub(crate) ignore_eos: bool,
    /// Number of the scenario's users that take part. Default: all.
    #[arg(long)]
    pub(crate) users: Option<usize>,
    /// Requests in all. Default: the scenario's.
    #[arg(long)]
    pub(crate) requests: Option<usize>,
    /// Clients of the closed loop. Default: the scenario's.
    #[arg(long)]
    pub(crate) concurrency: Option<usize>,
    /// Seconds between an answer and the client's next request. Default: the scenario's.
    #[arg(long)]
    pub(crate) gap: Option<f64>,
    /// Model; several take turns. Default: the scenario's.
    #[arg(long = "model")]
    pub(crate) models: Vec<String>,
    /// Maximum tokens of an answer. Default: of a trace or data set its own lengths, else 128.
    #[arg(long)]
    pub(crate) max_tokens: Option<u64>,
    /// Tokens of every prompt. Default: the scenario's mix of 12, 120 and 900.
    #[arg(long)]
    pub(crate) prompt_tokens: Option<usize>,
    /// Tokens at the beginning of prompts that are the same in all.
    #[arg(long)]
    pub(crate) shared_prefix: Option<usize>,
    /// A tokenizer.json, or the directory of a model: prompts and answers are counted with it.
    #[arg(long)]
    pub(crate) tokenizer: Option<PathBuf>,
    /// Turns of a conversation; each waits for the answer before it and carries it.
    #[arg(long)]
    pub(crate) turns: Option<usize>,
    /// Seconds between an answer and the next turn.
    #[arg(long)]
    pub(crate) think_time: Option<f64>,
    /// Prompts or conversations from a file: ShareGPT, OpenAI messages, or JSON lines with `prompt`.
    #[arg(long)]
    pub(crate) dataset: Option<String>,
    /// Open loop: when requests are sent, whether those before were answered or not: constant, poisson, ramp:FROM..TO,
    /// steps:A,B,…, burst:SIZE, or trace:FILE (Azure, BurstGPT, Mooncake).
    #[arg(long)]
    pub(crate) arrivals: Option<Arrivals>,
    /// Requests (or conversations) a second, with --arrivals. Default: 10; of a trace, how many times as fast it is
    /// played: 1.
    #[arg(long)]
    pub(crate) rate: Option<f64>,
    /// Seconds in which requests are sent, with --arrivals.
    #[arg(long)]
    pub(crate) duration: Option<f64>,
    /// Requests under way at once, with --arrivals; those beyond it wait, and the wait counts as latency.
    #[arg(long, default_value_t = 20_000)]
    pub(crate) max_in_flight: usize,
    /// Times that a refused request is retried, after the `retry-after` of the refusal.
    #[arg(long, default_value_t = 0)]
    pub(crate) retries: u32,
    /// Seconds at the beginning that figures leave out; or `auto`: until latencies are steady.
    #[arg(long, default_value = "0")]
    pub(crate) warm_up: WarmUp,
    /// Seconds before the last request was sent that figures leave out.
    #[arg(long, default_value_t = 0.0)]
    pub(crate) cool_down: f64,
    /// Objectives for goodput: ttft=500ms,tpot=50ms,e2e=10s.
    #[arg(long)]
    pub(crate) slo: Option<Slo>,
    /// Exit with 1 if a condition holds or its figure was not measured: 'p99_ttft > 0.8', or `invalid`; may be
    /// repeated.
    #[arg(long)]
    pub(crate) fail_if: Vec<FailIf>,
    /// Find the highest rate at which 99 % of requests meet --slo; each try lasts --duration (10 s).
    #[arg(long)]
    pub(crate) find_capacity: bool,
    /// Run once for each of these rates: 1,2,4,8.
    #[arg(long, value_delimiter = ',', conflicts_with_all = ["find_capacity", "sweep_concurrency"])]
    pub(crate) sweep_rate: Vec<f64>,
    /// Run once for each of these numbers of clients: 1,2,4,8.
    #[arg(long, value_delimiter = ',', conflicts_with_all = ["find_capacity", "arrivals"])]
    pub(crate) sweep_concurrency: Vec<usize>,
    /// Send part I of N of the workload: I/N; or job/N, the part of a Kubernetes job's pod (JOB_COMPLETION_INDEX).
    #[arg(long, value_parser = shard)]
    pub(crate) shard: Option<(usize, usize)>,
    /// Directory for reports.
    #[arg(long, default_value = "reports")]
    pub(crate) out: PathBuf,
    /// Address of the gateway's admin listener, for queue and degradation level in the report.
    #[arg(long, default_value = "http://127.0.0.1:8001")]
    pub(crate) admin_url: String,
    /// Admin token. Default: the contents of data/admin.token.
    #[arg(long, env = "SLUICE_ADMIN_TOKEN", hide_env_values = true)]
    pub(crate) admin_token: Option<String>,
    /// Seed of prompts and times: equal seeds make equal workloads.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Print the summary as JSON, and nothing else, on standard output.
    #[arg(long)]
    pub(crate) json: bool,
    /// Threads that send. Default: one for each processor.
    #[arg(long)]
    pub(crate) threads: Option<usize>,
}

/// The beginning of a run that is not measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum WarmUp {
    Seconds(f64),
    /// As long as latencies are not steady.
    Auto,
}

impl std::str::FromStr for WarmUp {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(WarmUp::Auto),
            seconds => seconds
                .parse()
                .map(WarmUp::Seconds)
                .map_err(|_| format!("`{text}` is neither seconds nor `auto`")),
        }
    }
}

impl RunArgs {
    /// Checks numbers that clap cannot.
    ///
    /// # Errors
    /// The first flag that is out of its bounds.
    pub(crate) fn check(&self) -> Result<(), String> {
        let seconds = [
            ("--poll-timeout", self.poll_timeout),
            ("--request-timeout", self.request_timeout),
            (
                "--warm-up",
                if let WarmUp::Seconds(seconds) = self.warm_up {
                    seconds
                } else {
                    0.0
                },
            ),
            ("--cool-down", self.cool_down),
            ("--gap", self.gap.unwrap_or(0.0)),
            ("--think-time", self.think_time.unwrap_or(0.0)),
            ("--duration", self.duration.unwrap_or(0.0)),
        ];
        for (flag, seconds) in seconds {
            if !(0.0..1e9).contains(&seconds) {
                return Err(format!("{flag} is {seconds}; it must be 0 or more"));
            }
        }
        let rates = self.sweep_rate.iter().chain(&self.rate).map(|rate| ("a rate", *rate));
        for (what, number) in rates.chain([("--poll-interval", self.poll_interval)]) {
            if !(number.is_finite() && number > 0.0) {
                return Err(format!("{what} is {number}; it must be more than 0"));
            }
        }
        let counts = [
            ("--requests", self.requests),
            ("--concurrency", self.concurrency),
            ("--turns", self.turns),
            ("--users", self.users),
            ("--threads", self.threads),
            ("--max-in-flight", Some(self.max_in_flight)),
            ("--sweep-concurrency", self.sweep_concurrency.iter().min().copied()),
        ];
        if let Some((flag, _)) = counts.into_iter().find(|(_, count)| *count == Some(0)) {
            return Err(format!("{flag} is 0; it must be at least 1"));
        }
        if self.ignore_eos && !self.protocol.has_ignore_eos() {
            return Err(
                "--ignore-eos is for --protocol openai and completions; other APIs have no such field".to_owned(),
            );
        }
        Ok(())
    }

    /// The pattern of arrivals: the flag's, else the scenario's.
    pub(crate) fn arrivals_of(&self, scenario: &Scenario) -> Result<Option<Arrivals>, String> {
        match (&self.arrivals, &scenario.arrivals) {
            (Some(arrivals), _) => Ok(Some(arrivals.clone())),
            (None, Some(text)) => text.parse().map(Some),
            (None, None) => Ok(None),
        }
    }

    /// Overrides the scenario's values by those of flags.
    pub(crate) fn apply(&self, scenario: &mut Scenario) {
        if matches!(self.arrivals, Some(Arrivals::Trace(_))) {
            // A trace is played to its end unless a flag limits it.
            scenario.requests = None;
        }
        scenario.requests = self.requests.or(scenario.requests);
        scenario.concurrency = self.concurrency.unwrap_or(scenario.concurrency);
        scenario.max_tokens = self.max_tokens.or(scenario.max_tokens);
        scenario.prompt_tokens = self.prompt_tokens.or(scenario.prompt_tokens);
        scenario.shared_prefix_tokens = self.shared_prefix.unwrap_or(scenario.shared_prefix_tokens);
        scenario.gap_seconds = self.gap.unwrap_or(scenario.gap_seconds);
        scenario.turns = self.turns.or(scenario.turns);
        scenario.think_time_seconds = self.think_time.unwrap_or(scenario.think_time_seconds);
        scenario.rate = self.rate.or(scenario.rate);
        scenario.duration_seconds = self.duration.unwrap_or(scenario.duration_seconds);
        if let Some(dataset) = &self.dataset {
            scenario.dataset = Some(dataset.clone());
        }
        if !self.models.is_empty() {
            scenario.models.clone_from(&self.models);
        }
    }
}

fn header(text: &str) -> Result<(String, String), String> {
    let pair = text
        .split_once(':')
        .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()));
    pair.filter(|(name, value)| {
        hyper::header::HeaderName::from_bytes(name.as_bytes()).is_ok()
            && hyper::header::HeaderValue::from_str(value).is_ok()
    })
    .ok_or_else(|| format!("`{text}` is no header such as `x-team: search`"))
}

fn object(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(text).map_err(|error| format!("it is no JSON object such as {{\"temperature\": 0}}: {error}"))
}

fn shard(text: &str) -> Result<(usize, usize), String> {
    // A pod of a Kubernetes job has its number, from 0, in a variable.
    let of_job = || {
        std::env::var("JOB_COMPLETION_INDEX")
            .ok()?
            .parse::<usize>()
            .ok()?
            .checked_add(1)
    };
    let number = |number: &str| if number == "job" { of_job() } else { number.parse().ok() };
    let parts = text
        .split_once('/')
        .and_then(|(part, of)| Some((number(part)?, of.parse().ok()?)));
    match parts {
        Some((number, of)) if (1..=of).contains(&number) => Ok((number, of)),
        _ => Err(format!(
            "`{text}` is no part such as 2/8, or job/8 in a Kubernetes job with indices"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_page_has_every_flag_and_no_other() {
        let page = include_str!("../../../docs/stress-tester.md");
        let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| `--")).collect();
        let flags: Vec<String> = Flags::command()
            .get_arguments()
            .filter_map(|arg| arg.get_long().map(|long| format!("`--{long}`")))
            .filter(|flag| !matches!(flag.as_str(), "`--help`" | "`--version`"))
            .collect();
        for flag in &flags {
            assert!(
                rows.iter().any(|row| row.starts_with(&format!("| {flag}"))),
                "{flag} is not in docs/stress-tester.md"
            );
        }
        assert_eq!(
            rows.len(),
            flags.len(),
            "docs/stress-tester.md has flags that the program has not"
        );
    }

    #[test]
    fn wrong_numbers_are_refused_with_the_name_of_their_flag() {
        for (flag, value) in [
            ("--requests", "0"),
            ("--request-timeout", "-1"),
            ("--rate", "0"),
            ("--sweep-concurrency", "1,0"),
        ] {
            let flags = Flags::try_parse_from(["sluice-stress", &format!("{flag}={value}")]).expect("flags");
            let why = flags.run.check().expect_err(flag);
            assert!(why.contains(flag) || why.contains("rate"), "{why}");
        }
        assert!(Flags::try_parse_from(["sluice-stress", "--extra-body", "[]"]).is_err());
        assert!(Flags::try_parse_from(["sluice-stress", "--header", "none"]).is_err());
    }
}
