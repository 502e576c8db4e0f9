//! Metadata that a reader of a report needs to repeat the run: command, seed, version, date, machine.

use serde::{Deserialize, Serialize};

/// Command, date and machine of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Metadata {
    /// The command line, with secrets left out.
    pub(crate) command: String,
    pub(crate) version: String,
    pub(crate) seed: u64,
    /// RFC 3339, in UTC.
    pub(crate) started_at: String,
    pub(crate) base_url: String,
    pub(crate) protocol: String,
    pub(crate) is_streaming: bool,
    /// `closed loop of 10 clients`, or the pattern of arrivals.
    pub(crate) load: String,
    /// True if answers are to be as long as `max_tokens` says: lengths of a trace, or `--ignore-eos`.
    pub(crate) has_exact_lengths: bool,
    /// True if the server was asked to go on after the end of an answer.
    #[serde(default)]
    pub(crate) ignores_eos: bool,
    pub(crate) host: String,
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) memory_bytes: u64,
    pub(crate) system: String,
    /// Those of a run by several generators.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) generators: Vec<Generator>,
}

/// One of several generators of a run (`lead`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Generator {
    pub(crate) name: String,
    /// Requests of its part.
    pub(crate) requests: usize,
    /// The offset of its clock from the lead's.
    pub(crate) clock_ahead_seconds: f64,
    /// Of the message that compared the clocks: the difference is known to half of it.
    pub(crate) round_trip_seconds: f64,
    /// The delay of its start after the common one, by the lead's clock.
    pub(crate) started_late_seconds: f64,
    /// The reason why its requests are missing.
    pub(crate) lost: Option<String>,
}

impl Metadata {
    /// Describes this machine and this call of the program.
    pub(crate) fn of_this_run() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            line.split_once(':')
                .map_or(String::new(), |(_, value)| value.trim().to_owned())
        };
        let memory = field(&read("/proc/meminfo"), "MemTotal");
        let kibibytes: u64 = memory
            .split(' ')
            .next()
            .and_then(|number| number.parse().ok())
            .unwrap_or(0);
        Self {
            command: command(std::env::args()),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: jiff::Timestamp::now().to_string(),
            host: nix::unistd::gethostname()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default(),
            processor: field(&read("/proc/cpuinfo"), "model name"),
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            memory_bytes: kibibytes * 1024,
            system: format!("{} {}", std::env::consts::OS, read("/proc/sys/kernel/osrelease").trim()),
            ..Self::default()
        }
    }

    /// The fields that a reader looks at, in words.
    pub(crate) fn rows(&self) -> Vec<(&'static str, String)> {
        let mut rows = vec![
            ("command", self.command.clone()),
            ("started", self.started_at.clone()),
            ("version", self.version.clone()),
            ("seed", self.seed.to_string()),
            (
                "server",
                format!(
                    "{} ({}{})",
                    self.base_url,
                    self.protocol,
                    if self.is_streaming { ", streamed" } else { "" }
                ),
            ),
            ("load", self.load.clone()),
            (
                "machine",
                format!(
                    "{}, {} cores, {}, {}",
                    self.host, self.cores, self.processor, self.system
                ),
            ),
        ];
        rows.extend(
            self.generators
                .iter()
                .map(|generator| ("generator", generator.in_words())),
        );
        rows
    }
}

impl Generator {
    fn in_words(&self) -> String {
        let millis = |seconds: f64| format!("{:.1} ms", seconds * 1e3);
        let fate = match &self.lost {
            Some(why) => format!("lost: {why}"),
            None => format!("started {} late", millis(self.started_late_seconds)),
        };
        let (ahead, trip) = (millis(self.clock_ahead_seconds), millis(self.round_trip_seconds));
        let (name, requests) = (&self.name, self.requests);
        format!("{name}: {requests} requests, clock {ahead} ahead (round trip {trip}), {fate}")
    }
}

/// A command line without secrets: values of keys, tokens and headers are left out.
fn command(args: impl Iterator<Item = String>) -> String {
    let mut shown: Vec<String> = Vec::new();
    let mut hides_next = false;
    for arg in args {
        let (flag, value) = arg
            .split_once('=')
            .map_or((arg.as_str(), None), |(flag, value)| (flag, Some(value)));
        let is_secret = matches!(flag, "--key" | "--token" | "--admin-token" | "--header" | "-H");
        shown.push(match (hides_next, is_secret, value) {
            (true, ..) => hidden(&arg),
            (false, true, Some(value)) => format!("{flag}={}", hidden(value)),
            _ if arg.is_empty() || arg.contains(|sign: char| " '\"$<>|&;*?(){}".contains(sign)) => {
                format!("'{}'", arg.replace('\'', "'\\''"))
            }
            _ => arg.clone(),
        });
        hides_next = !hides_next && is_secret && value.is_none();
    }
    shown.join(" ")
}

/// The name of a header stays.
fn hidden(value: &str) -> String {
    value
        .split_once(':')
        .map_or_else(|| "…".to_owned(), |(name, _)| format!("'{name}: …'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_in_a_report_has_no_secrets() {
        let args = [
            "sluice-stress",
            "--key",
            "sk-1",
            "--key=sk-2",
            "--header",
            "api-key: 3",
            "--fail-if",
            "p99_ttft > 1",
        ];
        let shown = command(args.iter().map(ToString::to_string));
        assert_eq!(
            shown,
            "sluice-stress --key … --key=… --header 'api-key: …' --fail-if 'p99_ttft > 1'"
        );
    }
}
