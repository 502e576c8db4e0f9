//! How a server spends its time: the figures of a profile, and the time of a step by them.

use super::Work;
use serde::Deserialize;
use std::path::Path;
use std::time::Duration;

/// The figures of an engine. The form and where they come from: `docs/simulated-upstream.md`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Milliseconds to read the weights once.
    pub weights_ms: f64,
    /// Milliseconds of computing a token.
    pub token_ms: f64,
    /// Milliseconds a token of context of those who decode.
    pub context_ms: f64,
    /// Milliseconds a pair of tokens of a prompt's chunk.
    pub attention_ms: f64,
    /// Milliseconds a sequence in a step.
    pub sequence_ms: f64,
    /// Milliseconds before a request is in the queue, which keep nobody else waiting.
    pub api_ms: f64,
    /// Milliseconds for which the front end is busy with a request (reading, the template, the tokenizer); one after the
    /// other, so that requests that come together wait for each other.
    #[serde(default)]
    pub front_ms: f64,
    /// Tokens that fit into the memory for keys and values.
    pub kv_tokens: usize,
    /// Requests that are computed at once.
    pub max_sequences: usize,
    /// Tokens of a step.
    pub token_budget: usize,
    /// How much steps vary: the deviation of the logarithm.
    #[serde(default = "noise")]
    pub noise: f64,
    /// Whether the memory of a prompt's beginning is used again.
    #[serde(default = "yes")]
    pub prefix_cache: bool,
    /// Seconds to load the model, where it is loaded when it is asked for.
    #[serde(default)]
    pub load_seconds: f64,
}

fn noise() -> f64 {
    0.03
}

fn yes() -> bool {
    true
}

/// A profile that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// There is no such file, and none of this name in the program.
    #[error("there is no profile `{0}`; there are {1}, or give a file")]
    Unknown(String, String),
    /// The file is not a profile.
    #[error("{0}: {1}")]
    Wrong(String, String),
}

macro_rules! bundled {
    ($($name:literal),*) => {
        /// The profiles in the program, by name.
        const BUNDLED: &[(&str, &str)] = &[$(($name, include_str!(concat!("../../profiles/", $name, ".yaml")))),*];
    };
}
bundled!(
    "vllm-llama3.1-8b-h100",
    "vllm-llama3-8b-a100-80g",
    "vllm-llama3-70b-h100-tp4",
    "ollama-llama3-8b-q4km-4090",
    "vllm-qwen2.5-0.5b-l4",
    "vllm-mistral-7b-4090"
);

impl Profile {
    /// A profile by its name, or from a file.
    ///
    /// # Errors
    /// If there is none, or it is wrong.
    pub fn named(name: &str) -> Result<Self, ProfileError> {
        if let Some((_, text)) = BUNDLED.iter().find(|(known, _)| *known == name) {
            return Self::parse(name, text);
        }
        let is_file = Path::new(name).extension().is_some() || name.contains('/');
        match std::fs::read_to_string(name) {
            Ok(text) => Self::parse(name, &text),
            Err(error) if is_file => Err(ProfileError::Wrong(name.to_owned(), error.to_string())),
            Err(_) => Err(ProfileError::Unknown(name.to_owned(), Self::names().join(", "))),
        }
    }

    /// The names of the profiles in the program.
    pub fn names() -> Vec<&'static str> {
        BUNDLED.iter().map(|(name, _)| *name).collect()
    }

    fn parse(name: &str, text: &str) -> Result<Self, ProfileError> {
        let wrong = |why: String| ProfileError::Wrong(name.to_owned(), why);
        let profile: Self = serde_yaml::from_str(text).map_err(|error| wrong(error.to_string()))?;
        for (key, value, least) in [
            ("weights_ms", profile.weights_ms, 0.0),
            ("token_ms", profile.token_ms, 0.0),
            ("context_ms", profile.context_ms, 0.0),
            ("attention_ms", profile.attention_ms, 0.0),
            ("sequence_ms", profile.sequence_ms, 0.0),
            ("api_ms", profile.api_ms, 0.0),
            ("front_ms", profile.front_ms, 0.0),
            ("noise", profile.noise, 0.0),
            ("load_seconds", profile.load_seconds, 0.0),
        ] {
            if !(value.is_finite() && value >= least) {
                return Err(wrong(format!(
                    "{key} must be a number of at least {least}, not {value}"
                )));
            }
        }
        for (key, value, least) in [
            ("kv_tokens", profile.kv_tokens, 64),
            ("max_sequences", profile.max_sequences, 1),
            ("token_budget", profile.token_budget, 1),
        ] {
            if value < least {
                return Err(wrong(format!("{key} must be at least {least}, not {value}")));
            }
        }
        Ok(profile)
    }

    /// What a request passes before it is in the queue, beside others.
    pub(crate) fn api_time(&self) -> Duration {
        Duration::from_secs_f64(self.api_ms / 1000.0)
    }

    /// For how long a request keeps the front end busy.
    pub(crate) fn front_time(&self) -> Duration {
        Duration::from_secs_f64(self.front_ms / 1000.0)
    }

    /// How long a step takes, in milliseconds, but for noise. Reading the weights and computing overlap, so the longer
    /// of the two counts nearly alone.
    #[allow(clippy::cast_precision_loss)]
    pub(super) fn step_ms(&self, work: &Work) -> f64 {
        let compute = self.token_ms * work.tokens as f64;
        let overlapped = (self.weights_ms.powf(1.5) + compute.powf(1.5)).powf(1.0 / 1.5);
        overlapped
            + self.context_ms * work.context as f64
            + self.attention_ms * work.pairs
            + self.sequence_ms * work.sequences as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_in_the_program_is_right_and_a_wrong_one_is_told() {
        for name in Profile::names() {
            Profile::named(name).expect(name);
        }
        let unknown = Profile::named("nowhere").expect_err("unknown").to_string();
        assert!(unknown.contains("vllm-llama3.1-8b-h100"), "{unknown}");
        assert!(Profile::named("./nowhere.yaml").is_err());
        let text = BUNDLED[0].1;
        assert!(Profile::parse("x", &text.replace("max_sequences: 256", "max_sequences: 0")).is_err());
        assert!(Profile::parse("x", &format!("{text}\nmore: 1\n")).is_err());
        assert!(Profile::parse("x", &text.replace("api_ms: 7.5", "api_ms: -1")).is_err());
    }
}
