//! A profile: the figures of a server's timing, and the time that a step takes by them.

use super::Work;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::Duration;

/// The origin of a profile, for people.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct About {
    /// The engine and its version.
    pub engine: String,
    /// The model, and the format of its weights.
    pub model: String,
    /// The hardware, and how many of it.
    pub hardware: String,
    /// The measurements that the figures were fitted to.
    pub fitted: String,
    /// The measurements that they were compared with, and the errors.
    pub validated: String,
}

/// Speculative decoding: drafts that are checked all at once.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Speculation {
    /// Tokens of a draft.
    pub tokens: usize,
    /// The share of drafted tokens that is accepted, each if those before it were.
    pub acceptance: f64,
    /// Milliseconds to draft a token for everybody.
    #[serde(default)]
    pub draft_ms: f64,
}

/// An attention kernel that is used for decoding at some batch sizes only.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AttentionKernel {
    /// The smallest number of sequences that it is used for.
    pub from: usize,
    /// The largest.
    pub to: usize,
    /// Its time for a token of context, as a share of `context_ms`.
    #[serde(default = "unit")]
    pub factor: f64,
}

/// Which of prompts and answers a step computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// Both in one step, as vLLM (V1) and llama.cpp do.
    #[default]
    Mixed,
    /// Prompts alone while there are any that can be admitted, else answers, as ATOM, SGLang and vLLM (V0) do by
    /// default: the first token comes early, and answers stand still meanwhile.
    PrefillFirst,
}

/// The figures of an engine. The form and where they come from: `docs/simulated-upstream.md`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Its origin.
    #[serde(default)]
    pub about: About,
    /// Milliseconds to read the weights once.
    pub weights_ms: f64,
    /// Milliseconds to read all experts of a mixture-of-experts model once, beside `weights_ms`; a step reads those
    /// that its tokens are routed to.
    #[serde(default)]
    pub experts_ms: f64,
    /// The share of the experts to which one token is routed, such as 4/128.
    #[serde(default)]
    pub expert_share: f64,
    /// The skew of routing: the shape of a gamma distribution of the experts' popularity. Small: a few experts
    /// get most of the tokens, so that rare ones are read by large batches only. 0 if all are equally popular.
    #[serde(default)]
    pub expert_balance: f64,
    /// Milliseconds of computing a token.
    pub token_ms: f64,
    /// Milliseconds a token of context of those who decode.
    pub context_ms: f64,
    /// Another kernel for some batch sizes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attention_kernel: Option<AttentionKernel>,
    /// The least milliseconds of a step with tokens of prompts in it: its kernels are launched one by one, and not as a
    /// recorded graph.
    #[serde(default)]
    pub prefill_ms: f64,
    /// Milliseconds a pair of tokens of a prompt's chunk.
    pub attention_ms: f64,
    /// Tokens of a sequence that attention looks back at, at the most, where it is sparse or a sliding window; 0: all.
    #[serde(default)]
    pub attention_window: usize,
    /// Milliseconds a sequence in a step.
    pub sequence_ms: f64,
    /// Milliseconds before a request is in the queue, spent concurrently with other requests.
    pub api_ms: f64,
    /// Milliseconds for which the front end is busy with a request (reading, the template, the tokenizer); one after
    /// the other, so that requests that come together wait for each other.
    #[serde(default)]
    pub front_ms: f64,
    /// Tokens that fit into the memory for keys and values.
    pub kv_tokens: usize,
    /// Requests that are computed at once.
    pub max_sequences: usize,
    /// Tokens of a step.
    pub token_budget: usize,
    /// Which of prompts and answers a step computes.
    #[serde(default)]
    pub schedule: Schedule,
    /// The variation of steps: the deviation of the logarithm.
    #[serde(default = "noise")]
    pub noise: f64,
    /// True if the memory of a prompt's beginning is used again.
    #[serde(default = "yes")]
    pub prefix_cache: bool,
    /// Speculative decoding, where it is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speculation: Option<Speculation>,
    /// GPUs that share the work (tensor parallelism), where the other figures are those of a single one.
    #[serde(default = "one")]
    pub gpus: usize,
    /// Milliseconds of a step in which the GPUs wait for each other.
    #[serde(default)]
    pub sync_ms: f64,
    /// Seconds to load the model, where it is loaded when it is asked for.
    #[serde(default)]
    pub load_seconds: f64,
}

fn noise() -> f64 {
    0.03
}

fn unit() -> f64 {
    1.0
}

fn one() -> usize {
    1
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
    "vllm-mistral-7b-4090",
    "vllm-gpt-oss-120b-gb10",
    "vllm-laguna-s-2.1-gb10",
    "vllm-gemma-4-26b-a100-80g",
    "vllm-kimi-k3-mi350x-tp8",
    "atom-glm-5.2-mxfp4-mi355x-tp4",
    "atom-deepseek-v4-mi355x-tp8",
    "atom-kimi-k2-mxfp4-mi355x-tp4",
    "atom-minimax-m3-mxfp4-mi355x-tp4",
    "atom-minimax-m3-mxfp4-eagle3-mi355x-tp4",
    "atom-minimax-m3-mxfp8-mi355x-tp4",
    "atom-qwen3-235b-fp8-mi355x-tp8",
    "atom-qwen3-235b-fp8-mi355x-tp4",
    "vllm-qwen2-0.5b-cpu",
    "llama.cpp-random-20m-cpu"
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
        let kernel = profile.attention_kernel.map_or(1.0, |kernel| kernel.factor);
        for (key, value, least) in [
            ("weights_ms", profile.weights_ms, 0.0),
            ("token_ms", profile.token_ms, 0.0),
            ("context_ms", profile.context_ms, 0.0),
            ("attention_ms", profile.attention_ms, 0.0),
            ("sequence_ms", profile.sequence_ms, 0.0),
            ("api_ms", profile.api_ms, 0.0),
            ("front_ms", profile.front_ms, 0.0),
            ("prefill_ms", profile.prefill_ms, 0.0),
            ("attention_kernel.factor", kernel, 0.0),
            ("experts_ms", profile.experts_ms, 0.0),
            ("expert_balance", profile.expert_balance, 0.0),
            ("sync_ms", profile.sync_ms, 0.0),
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
            ("gpus", profile.gpus, 1),
        ] {
            if value < least {
                return Err(wrong(format!("{key} must be at least {least}, not {value}")));
            }
        }
        let acceptance = profile.speculation.as_ref().map_or(0.0, |drafts| drafts.acceptance);
        for (key, value) in [("expert_share", profile.expert_share), ("acceptance", acceptance)] {
            if !(0.0..=1.0).contains(&value) {
                return Err(wrong(format!("{key} must be from 0 to 1, not {value}")));
            }
        }
        Ok(profile)
    }

    /// The time between a request's arrival and its entry into the queue, spent concurrently with others.
    pub(crate) fn api_time(&self) -> Duration {
        Duration::from_secs_f64(self.api_ms / 1000.0)
    }

    /// For how long a request keeps the front end busy.
    pub(crate) fn front_time(&self) -> Duration {
        Duration::from_secs_f64(self.front_ms / 1000.0)
    }

    /// The time that a step takes, in milliseconds, without noise. Reading the weights, computing and launching kernels
    /// overlap, so the longest of them counts nearly alone.
    #[allow(clippy::cast_precision_loss)]
    pub(super) fn step_ms(&self, work: &Work) -> f64 {
        let compute = self.token_ms * work.tokens as f64;
        let reading = self.weights_ms + self.experts_ms * (1.0 - self.unread_experts(work.tokens as f64));
        let launching = if work.prompts > 0 { self.prefill_ms } else { 0.0 };
        let overlapped = [reading, compute, launching]
            .map(|part| part.powf(1.5))
            .iter()
            .sum::<f64>();
        let attention =
            self.context_ms * self.kernel_factor(work) * work.context as f64 + self.attention_ms * work.pairs;
        let shared = overlapped.powf(1.0 / 1.5) + attention;
        let drafting = self
            .speculation
            .as_ref()
            .filter(|_| work.context > 0)
            .map_or(0.0, |drafts| drafts.draft_ms * drafts.tokens as f64);
        shared / self.gpus as f64 + self.sync_ms + self.sequence_ms * work.sequences as f64 + drafting
    }

    /// The time of decoding's attention for a token of context in this step, relative to `context_ms`.
    fn kernel_factor(&self, work: &Work) -> f64 {
        let decoding = work.sequences - work.prompts;
        let kernel = self
            .attention_kernel
            .filter(|kernel| (kernel.from..=kernel.to).contains(&decoding));
        kernel.map_or(1.0, |kernel| kernel.factor)
    }

    /// The share of the experts that none of so many tokens needs. Tokens are routed independently; where experts
    /// differ in popularity, it is the mean over them (the Laplace transform of the gamma distribution).
    fn unread_experts(&self, tokens: f64) -> f64 {
        if self.expert_balance == 0.0 {
            return (1.0 - self.expert_share).powf(tokens);
        }
        let expected = -(1.0 - self.expert_share).ln() * tokens;
        (1.0 + expected / self.expert_balance).powf(-self.expert_balance)
    }

    /// The tokens that a token at this position looks back at.
    pub(super) fn lookback(&self, position: usize) -> usize {
        match self.attention_window {
            0 => position,
            window => position.min(window),
        }
    }

    /// Twice the pairs of tokens that attention computes for a chunk of a prompt after so many tokens.
    #[allow(clippy::cast_precision_loss)]
    pub(super) fn pairs(&self, done: usize, chunk: usize) -> f64 {
        // Positions below the window look back at all before them, the rest at a window each.
        let whole = match self.attention_window {
            0 => chunk,
            window => window.saturating_sub(done).min(chunk),
        };
        let rest = (chunk - whole) * self.attention_window;
        whole as f64 * (2.0 * done as f64 + whole as f64) + 2.0 * rest as f64
    }

    /// The profile as a file.
    ///
    /// # Errors
    /// None that a profile can cause.
    pub fn to_yaml(&self) -> Result<String, String> {
        serde_yaml::to_string(self).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bundled_profile_is_valid_and_an_invalid_one_is_refused() {
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
        assert!(Profile::parse("x", &format!("{text}\nexpert_share: 2\n")).is_err());
        let profile = Profile::named("vllm-llama3.1-8b-h100").expect("a profile");
        let again = Profile::parse("x", &profile.to_yaml().expect("YAML"));
        assert_eq!(again.expect("a profile"), profile);
    }

    fn plain() -> Profile {
        let mut profile = Profile::named("vllm-llama3.1-8b-h100").expect("a profile");
        (profile.weights_ms, profile.token_ms, profile.context_ms) = (8.0, 0.0, 0.0);
        (profile.attention_ms, profile.sequence_ms) = (0.0, 0.0);
        profile
    }

    fn decoding(tokens: usize) -> Work {
        Work {
            tokens,
            sequences: tokens,
            prompts: 0,
            context: 100,
            pairs: 0.0,
        }
    }

    #[test]
    fn experts_are_read_as_far_as_tokens_need_them() {
        let mixture = Profile {
            experts_ms: 100.0,
            expert_share: 0.5,
            ..plain()
        };
        for (tokens, expected) in [(1, 58.0), (2, 83.0), (40, 108.0)] {
            assert!(
                (mixture.step_ms(&decoding(tokens)) - expected).abs() < 1e-6,
                "{tokens} tokens"
            );
        }
    }

    /// Zipf-like loads are modelled by a gamma distribution; of popularity 1 in the mean and shape 1, the mean of
    /// `exp(-n p)` is `1 / (1 + n)`.
    #[test]
    fn rare_experts_are_read_by_large_batches_only() {
        let share = 1.0 - (-1.0f64).exp();
        let skewed = Profile {
            expert_share: share,
            expert_balance: 1.0,
            ..plain()
        };
        for (tokens, unread) in [(1.0, 0.5), (3.0, 0.25), (99.0, 0.01)] {
            assert!((skewed.unread_experts(tokens) - unread).abs() < 1e-9, "{tokens} tokens");
        }
        let even = Profile {
            expert_balance: 1e9,
            ..skewed.clone()
        };
        let equal = Profile {
            expert_balance: 0.0,
            ..skewed
        };
        assert!((even.unread_experts(3.0) - equal.unread_experts(3.0)).abs() < 1e-6);
    }

    #[test]
    fn attention_looks_back_at_a_window_at_most() {
        let windowed = Profile {
            attention_window: 4,
            ..plain()
        };
        for (done, chunk) in [(0, 3), (0, 10), (2, 5), (6, 2)] {
            // Position p looks back at p tokens and half of itself: 2p + 1 halves, as n² is their sum without a window.
            let one_by_one: usize = (done..done + chunk).map(|at| if at < 4 { 2 * at + 1 } else { 8 }).sum();
            #[allow(clippy::cast_precision_loss)]
            let expected = one_by_one as f64;
            assert!(
                (windowed.pairs(done, chunk) - expected).abs() < 1e-9,
                "{chunk} after {done}"
            );
        }
        assert_eq!((windowed.lookback(3), windowed.lookback(9)), (3, 4));
    }

    #[test]
    fn gpus_share_the_work_and_wait_for_each_other_and_drafts_take_their_time() {
        let four = Profile {
            gpus: 4,
            sync_ms: 1.5,
            ..plain()
        };
        assert!((four.step_ms(&decoding(1)) - 3.5).abs() < 1e-9);
        let drafting = Profile {
            speculation: Some(Speculation {
                tokens: 3,
                acceptance: 0.7,
                draft_ms: 0.5,
            }),
            ..plain()
        };
        assert!((drafting.step_ms(&decoding(1)) - 9.5).abs() < 1e-9);
    }
}
