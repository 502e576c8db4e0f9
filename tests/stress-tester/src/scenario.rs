//! Scenarios: what is asked, of which models, by which users, how often. A YAML file, built in or a user's own.

use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

/// A scenario. A field that is left out has the value of the default.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Scenario {
    /// Requests in all. Default: 100; a trace is played to its end.
    pub(crate) requests: Option<usize>,
    /// Clients of a closed loop: sessions under way at once.
    pub(crate) concurrency: usize,
    /// Users in whose name requests are sent, in turn.
    pub(crate) users: Vec<User>,
    /// Models that are asked, in turn.
    pub(crate) models: Vec<String>,
    /// Shares of `interactive` and `batch`.
    pub(crate) kinds: BTreeMap<String, f64>,
    /// Shares of short, medium and long prompts.
    pub(crate) prompts: Sizes,
    /// Pause of a client between two requests, in seconds.
    pub(crate) gap_seconds: f64,
    /// Maximum tokens of an answer. Default: 128, or the length that a trace or data set has.
    pub(crate) max_tokens: Option<u64>,
    /// Tokens of every prompt, in the place of the three sizes.
    pub(crate) prompt_tokens: Option<usize>,
    /// The number of them that are the same in all prompts.
    pub(crate) shared_prefix_tokens: usize,
    /// Turns of a conversation, each of which carries all before it. Default: 1; a data set has its own.
    pub(crate) turns: Option<usize>,
    /// Pause between an answer and the next turn, in seconds.
    pub(crate) think_time_seconds: f64,
    /// A file of prompts or conversations.
    pub(crate) dataset: Option<String>,
    /// When sessions begin, in the place of a closed loop: see `--arrivals`.
    pub(crate) arrivals: Option<String>,
    /// Sessions a second, with `arrivals`. Default: 10; of a trace, its speed-up (1).
    pub(crate) rate: Option<f64>,
    /// The seconds in which sessions begin, with `arrivals`; 0: until there are `requests`.
    pub(crate) duration_seconds: f64,
}

/// A user, and the project whose requests they are, where that is known.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(from = "UserEntry")]
pub(crate) struct User {
    pub(crate) id: String,
    pub(crate) project: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum UserEntry {
    Id(String),
    InProject { id: String, project: String },
}

impl From<UserEntry> for User {
    fn from(entry: UserEntry) -> Self {
        match entry {
            UserEntry::Id(id) => Self { id, project: None },
            UserEntry::InProject { id, project } => Self {
                id,
                project: Some(project),
            },
        }
    }
}

/// Shares of the sizes of prompts.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sizes {
    pub(crate) short: f64,
    pub(crate) medium: f64,
    pub(crate) long: f64,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            requests: None,
            concurrency: 10,
            users: vec![User {
                id: "user_standard_01".to_owned(),
                project: None,
            }],
            models: vec!["simulated-small".to_owned()],
            kinds: BTreeMap::from([("interactive".to_owned(), 1.0)]),
            prompts: Sizes {
                short: 1.0,
                medium: 0.0,
                long: 0.0,
            },
            gap_seconds: 0.0,
            max_tokens: None,
            prompt_tokens: None,
            shared_prefix_tokens: 0,
            turns: None,
            think_time_seconds: 0.0,
            dataset: None,
            arrivals: None,
            rate: None,
            duration_seconds: 0.0,
        }
    }
}

macro_rules! bundled {
    ($($name:literal),*) => {
        /// Built-in scenarios, by name.
        const BUNDLED: &[(&str, &str)] = &[$(($name, include_str!(concat!("../scenarios/", $name, ".yaml")))),*];
    };
}
bundled!(
    "normal_load",
    "burst_load",
    "vip_protection",
    "abusive_user",
    "mixed_load",
    "ollama_normal_load",
    "ollama_burst_load",
    "ollama_vip_protection",
    "ollama_long_prompt"
);

/// Names of the built-in scenarios, each with its description.
pub(crate) fn listed() -> impl Iterator<Item = (&'static str, &'static str)> {
    BUNDLED.iter().map(|(name, text)| {
        let first = text.lines().next().unwrap_or_default();
        (*name, first.split_once(": ").map_or("", |(_, what)| what))
    })
}

/// The YAML of a built-in scenario.
pub(crate) fn text(name: &str) -> Option<&'static str> {
    BUNDLED.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

impl Scenario {
    /// Maximum tokens of an answer, if nothing else is given.
    pub(crate) const MAX_TOKENS: u64 = 128;

    /// Sessions a second, if nothing else is given.
    pub(crate) const RATE: f64 = 10.0;

    /// Requests in all.
    pub(crate) fn requests(&self) -> usize {
        self.requests.unwrap_or(100)
    }

    /// Loads a built-in scenario by its name, or a file.
    pub(crate) fn load(name: &str) -> Result<Self, String> {
        let read;
        let text = match text(name) {
            Some(text) => text,
            None if Path::new(name).extension().is_some() => {
                read = std::fs::read_to_string(name).map_err(|error| format!("cannot read {name}: {error}"))?;
                &read
            }
            None => {
                let names: Vec<&str> = BUNDLED.iter().map(|(name, _)| *name).collect();
                return Err(format!(
                    "there is no scenario `{name}`; there are {}, or give a .yaml file",
                    names.join(", ")
                ));
            }
        };
        let scenario: Self = serde_yaml::from_str(text).map_err(|error| format!("{name}: {error}"))?;
        scenario.check().map_err(|why| format!("{name}: {why}"))?;
        Ok(scenario)
    }

    /// Checks the bounds of all fields.
    ///
    /// # Errors
    /// The first field that is out of its bounds.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.requests == Some(0) || self.concurrency == 0 {
            return Err("`requests` and `concurrency` must be at least 1".to_owned());
        }
        if self.users.is_empty() || self.models.is_empty() {
            return Err("`users` and `models` must not be empty".to_owned());
        }
        if let Some(kind) = self
            .kinds
            .keys()
            .find(|kind| !matches!(kind.as_str(), "interactive" | "batch"))
        {
            return Err(format!("`kinds` takes interactive and batch, not `{kind}`"));
        }
        let sizes = [self.prompts.short, self.prompts.medium, self.prompts.long];
        let shares = sizes.iter().chain(self.kinds.values());
        if shares.clone().any(|share| !(0.0..=1.0).contains(share)) || sizes.iter().sum::<f64>() <= 0.0 {
            return Err("shares are numbers from 0 to 1, and not all 0".to_owned());
        }
        let pauses = [
            ("gap_seconds", self.gap_seconds),
            ("think_time_seconds", self.think_time_seconds),
        ];
        for (name, seconds) in pauses.into_iter().chain([("duration_seconds", self.duration_seconds)]) {
            if !(0.0..1e9).contains(&seconds) {
                return Err(format!("`{name}` is {seconds}; it must be 0 or more"));
            }
        }
        if self.rate.is_some_and(|rate| !(rate.is_finite() && rate > 0.0)) {
            return Err("`rate` must be more than 0".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_original_nine_scenarios_are_bundled_and_an_invalid_one_is_refused() {
        assert_eq!(listed().count(), 9);
        for (name, _) in listed() {
            Scenario::load(name).expect(name);
        }
        let mixed = Scenario::load("mixed_load").expect("a scenario");
        assert_eq!(
            (
                mixed.requests(),
                mixed.concurrency,
                mixed.users.len(),
                mixed.models.len()
            ),
            (250, 40, 3, 2)
        );
        assert!((mixed.kinds["batch"] - 0.3).abs() < 1e-9 && (mixed.prompts.long - 0.15).abs() < 1e-9);
        assert!(Scenario::load("nothing").expect_err("unknown").contains("mixed_load"));
    }
}
