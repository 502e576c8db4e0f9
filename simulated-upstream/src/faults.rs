//! Faults, on request and by rate.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

/// A kind of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It takes five seconds longer to begin.
    Spike,
    /// 429, with `retry-after`.
    TooMany,
    /// 503, with `retry-after`.
    Unavailable,
    /// 500: out of memory.
    OutOfMemory,
    /// The connection closes before there is an answer.
    Reset,
    /// There is never an answer.
    Hang,
    /// After some tokens nothing more comes.
    Stall,
    /// After some tokens the connection closes.
    Truncate,
    /// After some tokens an error is sent within the stream.
    EngineError,
    /// The answer is no JSON.
    Garbage,
    /// Everything that runs is lost, and connections are refused for two seconds.
    Crash,
}

/// The `retry-after` of a refusal, and the duration of a crash.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(2);

/// The delay of a spike.
pub(crate) const SPIKE: Duration = Duration::from_secs(5);

/// Tokens before a stall or an end.
pub(crate) const TOKENS_BEFORE: u64 = 5;

const NAMES: &[(&str, Fault)] = &[
    ("spike", Fault::Spike),
    ("429", Fault::TooMany),
    ("503", Fault::Unavailable),
    ("oom", Fault::OutOfMemory),
    ("reset", Fault::Reset),
    ("hang", Fault::Hang),
    ("stall", Fault::Stall),
    ("truncate", Fault::Truncate),
    ("error", Fault::EngineError),
    ("garbage", Fault::Garbage),
    ("crash", Fault::Crash),
];

impl Fault {
    /// A fault by its name.
    pub fn named(name: &str) -> Option<Self> {
        NAMES.iter().find(|(known, _)| *known == name).map(|(_, fault)| *fault)
    }

    /// The fault that a prompt asks for: `[fault:NAME]` anywhere in it.
    pub(crate) fn asked_for(prompt: &str) -> Option<Self> {
        let (_, after) = prompt.split_once("[fault:")?;
        Self::named(after.split_once(']')?.0)
    }
}

/// The rate at which each fault happens by itself.
#[derive(Debug, Default)]
pub struct Rates {
    rates: Vec<(Fault, f64)>,
    state: Mutex<u64>,
}

impl Rates {
    /// `429=0.01,reset=0.001`: shares of the requests.
    ///
    /// # Errors
    /// A part that is none.
    pub fn parse(text: &str, seed: u64) -> Result<Self, String> {
        let mut rates = Vec::new();
        for part in text.split(',').filter(|part| !part.trim().is_empty()) {
            let names: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
            let (name, share) = part
                .split_once('=')
                .ok_or_else(|| format!("`{part}` is not such as 429=0.01"))?;
            let fault = Fault::named(name.trim())
                .ok_or_else(|| format!("there is no fault `{}`; there are {}", name.trim(), names.join(", ")))?;
            let share: f64 = share.trim().parse().unwrap_or(-1.0);
            if !(0.0..=1.0).contains(&share) {
                return Err(format!("`{part}`: a share is a number from 0 to 1"));
            }
            rates.push((fault, share));
        }
        Ok(Self {
            rates,
            state: Mutex::new(seed | 1),
        })
    }

    /// The fault of the next request, if it has one.
    #[allow(clippy::cast_precision_loss)]
    pub(crate) fn next(&self) -> Option<Fault> {
        if self.rates.is_empty() {
            return None;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        let mut drawn = (*state >> 11) as f64 / (1u64 << 53) as f64;
        for (fault, share) in &self.rates {
            if drawn < *share {
                return Some(*fault);
            }
            drawn -= share;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_come_as_often_as_they_should_and_on_request() {
        let rates = Rates::parse("429=0.1, reset=0.05", 7).expect("rates");
        let drawn: Vec<_> = (0..20_000).map(|_| rates.next()).collect();
        let share = |fault| drawn.iter().filter(|one| **one == Some(fault)).count();
        assert!(
            (1800..2200).contains(&share(Fault::TooMany)),
            "{}",
            share(Fault::TooMany)
        );
        assert!((850..1150).contains(&share(Fault::Reset)), "{}", share(Fault::Reset));
        assert_eq!(Fault::asked_for("please [fault:hang] now"), Some(Fault::Hang));
        assert_eq!(Fault::asked_for("please [fault:nothing] now"), None);
        assert!(Rates::parse("429=2", 0).is_err() && Rates::parse("what=0.1", 0).is_err());
    }
}
