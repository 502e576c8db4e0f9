//! What is asked, of whom, by whom, how often: a YAML file, one of those in the program or a user's own.

use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

/// A scenario. What is left out has the value that stands here.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Scenario {
    /// Requests in all.
    pub(crate) requests: usize,
    /// Of those under way at once, in a closed loop.
    pub(crate) concurrency: usize,
    /// Users in whose name they are made, in turn.
    pub(crate) users: Vec<String>,
    /// Models that are asked, in turn.
    pub(crate) models: Vec<String>,
    /// Shares of `interactive` and `batch`.
    pub(crate) kinds: BTreeMap<String, f64>,
    /// Shares of the sizes of prompts.
    pub(crate) prompts: Sizes,
    /// Between two requests of one client, in seconds.
    pub(crate) gap_seconds: f64,
    /// Tokens of an answer, at most.
    pub(crate) max_tokens: u64,
    /// Instead of the three sizes: tokens of every prompt.
    pub(crate) prompt_tokens: Option<usize>,
    /// Of those, how many are the same in all.
    pub(crate) shared_prefix_tokens: usize,
    /// Questions of one conversation, each of which repeats all before it.
    pub(crate) turns: usize,
    /// A file of prompts: JSON lines with `prompt`.
    pub(crate) dataset: Option<String>,
    /// When requests are sent, instead of a closed loop: see `--arrivals`.
    pub(crate) arrivals: Option<String>,
    /// How many a second, with `arrivals`.
    pub(crate) rate: f64,
    /// How long, with `arrivals`, in seconds; 0: until `requests` were sent.
    pub(crate) duration_seconds: f64,
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
            requests: 100,
            concurrency: 10,
            users: vec!["user_standard_01".to_owned()],
            models: vec!["simulated-small".to_owned()],
            kinds: BTreeMap::from([("interactive".to_owned(), 1.0)]),
            prompts: Sizes {
                short: 1.0,
                medium: 0.0,
                long: 0.0,
            },
            gap_seconds: 0.0,
            max_tokens: 128,
            prompt_tokens: None,
            shared_prefix_tokens: 0,
            turns: 1,
            dataset: None,
            arrivals: None,
            rate: 10.0,
            duration_seconds: 0.0,
        }
    }
}

macro_rules! bundled {
    ($($name:literal),*) => {
        /// The scenarios in the program, by name.
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

/// Their names, each with its first line.
pub(crate) fn listed() -> impl Iterator<Item = (&'static str, &'static str)> {
    BUNDLED.iter().map(|(name, text)| {
        let first = text.lines().next().unwrap_or_default();
        (*name, first.split_once(": ").map_or("", |(_, what)| what))
    })
}

/// The text of a scenario, to be copied and changed.
pub(crate) fn text(name: &str) -> Option<&'static str> {
    BUNDLED.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

impl Scenario {
    /// A scenario by its name, or from a file.
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

    fn check(&self) -> Result<(), String> {
        if self.requests == 0 || self.concurrency == 0 {
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
        let is_right =
            self.gap_seconds.is_finite() && self.gap_seconds >= 0.0 && self.rate.is_finite() && self.rate > 0.0;
        if !is_right {
            return Err("`gap_seconds` must be 0 or more, `rate` more than 0".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_originals_nine_are_there_with_its_numbers_and_a_wrong_one_is_told() {
        assert_eq!(listed().count(), 9);
        for (name, _) in listed() {
            Scenario::load(name).expect(name);
        }
        let mixed = Scenario::load("mixed_load").expect("a scenario");
        assert_eq!(
            (mixed.requests, mixed.concurrency, mixed.users.len(), mixed.models.len()),
            (250, 40, 3, 2)
        );
        assert!((mixed.kinds["batch"] - 0.3).abs() < 1e-9 && (mixed.prompts.long - 0.15).abs() < 1e-9);
        assert!(Scenario::load("nothing").expect_err("unknown").contains("mixed_load"));
    }
}
