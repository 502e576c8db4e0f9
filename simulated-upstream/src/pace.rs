//! When the tokens of an answer come: by the simplest profile, evenly; or from an engine.

use crate::clock;
use crate::runner::{Runner, Token};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// The timing of a model.
#[derive(Debug, Clone, PartialEq)]
pub enum Timing {
    /// From the request to the end of an answer of any length: a fifth of it passes before the first token, the rest is
    /// shared evenly.
    Whole(Duration),
    /// To the first token, and to each one after it.
    Steady(Duration, Duration),
    /// An engine's.
    Engine(Box<crate::engine::Profile>),
}

impl Timing {
    /// Seconds for a whole answer, such as `0.5`; `20ms/5ms`, to the first token and to each after it; or the name or
    /// file of an engine's profile.
    ///
    /// # Errors
    /// If it is none of them.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Ok(seconds) = text.parse::<f64>() {
            let whole = Duration::try_from_secs_f64(seconds).map_err(|error| format!("`{text}`: {error}"))?;
            return Ok(Timing::Whole(whole));
        }
        let millis = |text: &str| {
            let number: f64 = text.strip_suffix("ms")?.parse().ok()?;
            Duration::try_from_secs_f64(number / 1000.0).ok()
        };
        if let Some((first, each)) = text.split_once('/')
            && let (Some(first), Some(each)) = (millis(first), millis(each))
        {
            return Ok(Timing::Steady(first, each));
        }
        let profile = crate::engine::Profile::named(text).map_err(|error| error.to_string())?;
        Ok(Timing::Engine(Box::new(profile)))
    }
}

/// The tokens of one answer, as they come.
#[derive(Debug)]
pub(crate) enum Tokens {
    Even {
        began: Instant,
        first: Duration,
        each: Duration,
        index: u32,
    },
    Engine {
        tokens: mpsc::UnboundedReceiver<Token>,
        id: u64,
        runner: Runner,
    },
}

impl Tokens {
    pub(crate) fn even(timing: &Timing, count: u64) -> Self {
        let (first, each) = match timing {
            Timing::Whole(whole) => {
                let first = *whole / 5;
                let steps = u32::try_from(count.saturating_sub(1)).unwrap_or(u32::MAX).max(1);
                // An answer of one token takes as long as any other.
                let first = if count <= 1 { *whole } else { first };
                (first, whole.saturating_sub(first) / steps)
            }
            Timing::Steady(first, each) => (*first, *each),
            Timing::Engine(_) => (Duration::ZERO, Duration::ZERO),
        };
        Tokens::Even {
            began: clock::now(),
            first,
            each,
            index: 0,
        }
    }

    /// Waits for the next token. `None` if the engine has lost the request.
    pub(crate) async fn next(&mut self) -> Option<Token> {
        match self {
            Tokens::Even {
                began,
                first,
                each,
                index,
            } => {
                let due = *first + *each * *index;
                *index += 1;
                if !due.is_zero() {
                    clock::until(*began + due).await;
                }
                Some(Token {
                    cached: 0,
                    scheduled: *began,
                })
            }
            Tokens::Engine { tokens, .. } => tokens.recv().await,
        }
    }
}

impl Drop for Tokens {
    fn drop(&mut self) {
        if let Tokens::Engine { id, runner, .. } = self {
            runner.cancel(*id);
        }
    }
}
