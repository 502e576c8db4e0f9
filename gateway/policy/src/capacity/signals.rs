//! The signals from which the limit is derived: the server's queue, first-token times, gaps between tokens and KV cache use.

use super::{Occupation, Pace};
use crate::Time;
use std::time::Duration;

/// Classes of prompts, by the binary logarithm of their uncached tokens.
const CLASSES: usize = 32;

/// Prompts of up to so many tokens (as a binary logarithm) are one class: they take the same time.
const SMALLEST_CLASS: usize = 6;

/// Tokens from which on the time of an answer that came in one piece says something about the gap between its tokens.
const MEASURABLE_OUTPUT: u64 = 16;

/// The length of a window of best times.
const BEST_LASTS: Duration = Duration::from_secs(300);

/// Answers from which the gap of an idle server is taken.
const IDLE_ANSWERS: u32 = 8;

/// The weight of a later gap of an idle server in the mean.
const IDLE_STEP: f64 = 0.1;

/// An answer. Times are seconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer {
    pub(super) sent: Time,
    /// The class of its prompt.
    pub(super) class: usize,
    pub(super) first_token: Option<f64>,
    pub(super) gap: Option<f64>,
    pub(super) stay: f64,
}

impl Answer {
    #[allow(clippy::cast_precision_loss)]
    pub(super) fn new(ended: &Occupation, pace: &Pace, now: Time) -> Self {
        let stay = (now - ended.sent).as_secs_f64();
        let has_no_first_token = pace.first_token.is_none() && ended.output >= MEASURABLE_OUTPUT;
        let mean_gap = has_no_first_token.then(|| stay / ended.output as f64);
        Self {
            sent: ended.sent,
            class: (ended.uncached.max(1).ilog2() as usize).clamp(SMALLEST_CLASS, CLASSES - 1),
            first_token: pace.first_token.map(|first| first.as_secs_f64()),
            gap: pace.gap.map(|gap| gap.as_secs_f64()).or(mean_gap),
            stay,
        }
    }
}

/// The best times to first token, in seconds, by class of prompt: of the last two windows, since a server may become
/// slower for good.
#[derive(Debug, Default)]
pub(super) struct BestTimes {
    begun: Time,
    now: [Option<f64>; CLASSES],
    before: [Option<f64>; CLASSES],
}

impl BestTimes {
    /// Adds an answer; the best of its class.
    pub(super) fn learn(&mut self, answer: &Answer, now: Time) -> Option<f64> {
        if now - self.begun >= BEST_LASTS {
            self.before = std::mem::take(&mut self.now);
            self.begun = now;
        }
        let best = &mut self.now[answer.class];
        *best = least(*best, answer.first_token);
        least(*best, self.before[answer.class])
    }
}

fn least(one: Option<f64>, other: Option<f64>) -> Option<f64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// The gap between tokens of a nearly idle server, in seconds: the least that was seen of the second shortest of some
/// answers, which a single odd answer does not set.
#[derive(Debug, Default)]
pub(super) struct IdleGap {
    gap: Option<f64>,
    answers: u32,
    shortest: [f64; 2],
}

impl IdleGap {
    pub(super) fn get(&self) -> Option<f64> {
        self.gap
    }

    /// Adds an answer. A server that is idle shows its own gap, be it longer than it was.
    pub(super) fn add(&mut self, gap: f64, is_idle: bool) {
        let [shortest, second] = match self.answers {
            0 => [f64::INFINITY; 2],
            _ => self.shortest,
        };
        self.shortest = if gap < shortest {
            [gap, shortest]
        } else {
            [shortest, second.min(gap)]
        };
        self.answers += 1;
        if self.answers < IDLE_ANSWERS {
            return;
        }
        let short = self.shortest[1];
        let least = self.gap.map_or(short, |idle| idle.min(short));
        self.gap = Some(if is_idle {
            step(self.gap, short, IDLE_STEP).max(least)
        } else {
            least
        });
        self.answers = 0;
    }
}

/// The answers since the last judgement.
#[derive(Debug, Default)]
pub(super) struct Sample {
    pub(super) answers: u32,
    /// Seconds of their times to first token beyond the best of their classes, and the number of answers.
    queued: f64,
    first_tokens: u32,
    /// Seconds of their gaps, and the number of answers.
    gaps: f64,
    gap_count: u32,
    /// True if the limit was reached: if not, the answers say nothing about it.
    pub(super) was_full: bool,
}

impl Sample {
    /// Adds an answer; `best` is the best time to first token of its class, `is_full`: the limit was in use.
    pub(super) fn add(&mut self, answer: &Answer, best: Option<f64>, is_full: bool) {
        self.answers += 1;
        self.was_full |= is_full;
        if let (Some(first), Some(best)) = (answer.first_token, best) {
            self.queued += first - best;
            self.first_tokens += 1;
        }
        if let Some(gap) = answer.gap {
            self.gaps += gap;
            self.gap_count += 1;
        }
    }

    /// The mean gap.
    pub(super) fn gap(&self) -> Option<f64> {
        (self.gap_count > 0).then(|| self.gaps / f64::from(self.gap_count))
    }

    /// The mean time to first token beyond the best.
    pub(super) fn queue_time(&self) -> Option<f64> {
        (self.first_tokens > 0).then(|| self.queued / f64::from(self.first_tokens))
    }
}

/// A mean after one more value, which has this weight.
pub(super) fn step(mean: Option<f64>, value: f64, weight: f64) -> f64 {
    mean.map_or(value, |mean| mean + weight * (value - mean))
}
