//! `sluice plan`: how many servers and which limits a team needs, by arithmetic. `sluice simulate` answers the same for
//! a trace and a configuration, with priorities and fairness.

mod queue;

use super::Failure;
use super::init::size::{AT_ONCE, REQUESTS_PER_PERSON, round_up};
use super::table::aligned;
use clap::Args;
use queue::Queue;
use serde_json::json;
use std::fmt::Write as _;
use std::process::ExitCode;

/// Rows of the table, at most.
const MOST_ROWS: u32 = 8;

/// Servers that are tried, at most.
const MOST_SERVERS: u32 = 10_000;

/// The share of requests whose wait counts.
const SHARE: f64 = 0.95;

/// Working hours of a day, for what a day uses.
const HOURS: f64 = 8.0;

#[derive(Debug, Args)]
pub(super) struct PlanArgs {
    /// People who use the gateway.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    people: u32,
    /// Requests of one person in the busiest hour. A chat user sends about 10, a coding agent hundreds.
    #[arg(long, default_value_t = 12.0, value_parser = positive)]
    requests_per_hour: f64,
    /// Prompt tokens of a request on average, with the conversation so far.
    #[arg(long, default_value_t = 1_500.0, value_parser = positive)]
    prompt_tokens: f64,
    /// Output tokens of a request on average.
    #[arg(long, default_value_t = 400.0, value_parser = positive)]
    output_tokens: f64,
    /// Requests that one server runs at once: OLLAMA_NUM_PARALLEL, `--parallel`, or what vLLM holds without preemption.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    slots: u32,
    /// Output tokens a second of one request while all slots of its server are in use.
    #[arg(long, default_value_t = 30.0, value_parser = positive)]
    tokens_per_second: f64,
    /// Prompt tokens a second that a server reads.
    #[arg(long, default_value_t = 2_000.0, value_parser = positive)]
    prompt_tokens_per_second: f64,
    /// The wait in the queue that 95 % of the requests are to stay below, in seconds.
    #[arg(long, default_value_t = 2.0, value_parser = positive)]
    wait_seconds: f64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number <= 1e9 => Ok(number),
        _ => Err("must be a number above 0".to_owned()),
    }
}

impl PlanArgs {
    /// Requests a second in the busiest hour.
    fn arrivals(&self) -> f64 {
        f64::from(self.people) * self.requests_per_hour / 3600.0
    }

    /// Seconds of a slot that a request takes.
    fn service_seconds(&self) -> f64 {
        self.prompt_tokens / self.prompt_tokens_per_second + self.output_tokens / self.tokens_per_second
    }

    fn queue(&self, servers: u32) -> Queue {
        Queue {
            arrivals: self.arrivals(),
            service_seconds: self.service_seconds(),
            slots: servers.saturating_mul(self.slots),
        }
    }

    /// The fewest servers with which the wait is as short as it is to be.
    fn servers(&self) -> Option<u32> {
        (1..=MOST_SERVERS).find(|servers| self.queue(*servers).wait_seconds(SHARE) <= self.wait_seconds)
    }

    /// The limits that fit a number of servers, by the rules of `sluice init`.
    fn limits(&self, servers: u32) -> Limits {
        let people = u64::from(self.people);
        // An answer reserves its `max_tokens`, which are more than what comes.
        let reserved = whole(self.prompt_tokens + 4.0 * self.output_tokens);
        let day = self.arrivals() * 3600.0 * HOURS * (self.prompt_tokens + self.output_tokens);
        Limits {
            active: self.queue(servers).slots,
            queued: people.saturating_mul(10).max(100),
            requests_per_minute: round_up(people.saturating_mul(REQUESTS_PER_PERSON).max(60)),
            tokens_per_minute: round_up(people.saturating_mul(AT_ONCE).saturating_mul(reserved)),
            tokens_per_day: round_up(whole(day)),
        }
    }
}

/// Keys of `limits.yaml`, for a project with all these people.
struct Limits {
    active: u32,
    queued: u64,
    requests_per_minute: u64,
    tokens_per_minute: u64,
    /// What eight such hours use.
    tokens_per_day: u64,
}

/// A number of tokens.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn whole(number: f64) -> u64 {
    number.ceil() as u64
}

pub(super) fn run(args: &PlanArgs) -> Result<ExitCode, Failure> {
    let enough = args.servers().ok_or_else(|| {
        let why = format!("more than {MOST_SERVERS} servers would be needed; check the numbers");
        Failure::usage(why)
    })?;
    if args.json {
        println!("{}", as_json(args, enough));
    } else {
        print!("{}", in_words(args, enough));
    }
    Ok(ExitCode::SUCCESS)
}

fn as_json(args: &PlanArgs, enough: u32) -> serde_json::Value {
    let (queue, limits) = (args.queue(enough), args.limits(enough));
    json!({
        "requests_per_second": args.arrivals(),
        "service_seconds": queue.service_seconds,
        "slots_in_use": queue.load(),
        "servers": enough,
        "slots": queue.slots,
        "use": queue.use_of_slots(),
        "waits": queue.waits(),
        "wait_p95_seconds": queue.wait_seconds(SHARE),
        "limits": {
            "max_active_requests": limits.active,
            "max_queue_size": limits.queued,
            "requests_per_minute": limits.requests_per_minute,
            "tokens_per_minute": limits.tokens_per_minute,
            "tokens_per_day": limits.tokens_per_day,
        },
    })
}

fn in_words(args: &PlanArgs, enough: u32) -> String {
    let queue = args.queue(enough);
    let mut text = format!(
        "The busiest hour: {} people send {:.2} requests a second. A request takes a slot for {:.1} s ({} prompt tokens in \
         {:.1} s, {} output tokens in {:.1} s), so {:.1} slots are in use on average.\n\n",
        args.people,
        args.arrivals(),
        queue.service_seconds,
        args.prompt_tokens,
        args.prompt_tokens / args.prompt_tokens_per_second,
        args.output_tokens,
        args.output_tokens / args.tokens_per_second,
        queue.load(),
    );
    let first = enough.saturating_sub(MOST_ROWS / 2 - 1).max(1);
    let mut rows = vec![["servers", "slots", "in use", "wait at all", "95 % wait at most", ""].map(str::to_owned)];
    rows.extend((first..=enough + 1).map(|servers| row(args, servers, servers == enough)));
    text.push_str(&aligned(&rows, 0));
    let limits = args.limits(enough);
    let _ = write!(
        text,
        "\nLimits that fit, for limits.yaml; rates are of a project with all these people, who reach them by accident only:\n\
         global_limits:\n  max_active_requests: {}\n  max_queue_size: {}\n\
         rate_limits:\n  standard:\n    requests_per_minute: {}\n    tokens_per_minute: {}\n\n\
         A day of {HOURS} such hours uses {} tokens: a quota or budget below that refuses ordinary work.\n",
        limits.active, limits.queued, limits.requests_per_minute, limits.tokens_per_minute, limits.tokens_per_day
    );
    text
}

fn row(args: &PlanArgs, servers: u32, is_enough: bool) -> [String; 6] {
    let queue = args.queue(servers);
    let wait = queue.wait_seconds(SHARE);
    let wait = if wait.is_finite() {
        format!("{wait:.1} s")
    } else {
        "grows without end".to_owned()
    };
    [
        servers.to_string(),
        queue.slots.to_string(),
        format!("{:.0} %", queue.use_of_slots() * 100.0),
        format!("{:.1} %", queue.waits() * 100.0),
        wait,
        if is_enough { "enough".to_owned() } else { String::new() },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        plan: PlanArgs,
    }

    fn plan(flags: &str) -> PlanArgs {
        let given = std::iter::once("plan").chain(flags.split(' '));
        Cli::try_parse_from(given).expect("flags").plan
    }

    #[test]
    fn the_servers_are_the_fewest_whose_wait_is_short_enough() {
        for people in [1, 40, 400, 20_000] {
            let args = plan(&format!("--people {people}"));
            let enough = args.servers().expect("enough");
            assert!(args.queue(enough).wait_seconds(SHARE) <= 2.0);
            assert!(enough == 1 || args.queue(enough - 1).wait_seconds(SHARE) > 2.0);
            // Little's law: no fewer slots than are in use on average.
            assert!(f64::from(args.queue(enough).slots) > args.queue(enough).load());
        }
    }

    #[test]
    fn words_and_json_agree_and_absurd_numbers_are_refused() {
        let args = plan("--people 400");
        let (enough, json) = (args.servers().expect("enough"), as_json(&args, 7));
        assert_eq!((enough, &json["servers"]), (7, &json!(7)));
        assert!(in_words(&args, enough).contains("      7     28    67 %        3.2 %              0.0 s  enough"));
        assert!(plan("--people 1000000 --requests-per-hour 1000").servers().is_none());
        for flags in [
            "--people 0",
            "--people 4 --slots 0",
            "--people 4 --wait-seconds -1",
            "--people 4 --output-tokens nan",
        ] {
            assert!(
                Cli::try_parse_from(std::iter::once("plan").chain(flags.split(' '))).is_err(),
                "{flags}"
            );
        }
    }
}
