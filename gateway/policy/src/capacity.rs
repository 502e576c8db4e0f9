//! How many requests a model takes at once: a fixed number, or one that is found out.
//!
//! An LLM server that has more than it can batch keeps the rest in a queue of its own, where nobody can
//! reorder, bound or cancel it; the wait shows in the time to first token, and crowding shows in the gaps
//! between tokens. So the limit grows while both hold, and shrinks when either rises well above the best
//! that was seen, or when the server says 429 or 503 (additive increase, multiplicative decrease, as in
//! TCP; the comparison with the best seen is Vegas's: Brakmo and Peterson, 1995). Waiting then happens
//! here, where it is ordered.

use crate::{Concurrency, Time};
use std::time::Duration;

/// Where `auto` begins.
const START: f64 = 4.0;

/// Answers that make a judgement.
const SAMPLES: u32 = 8;

/// How far above the best seen the time to first token may be.
const FIRST_TOKEN_TOLERANCE: f64 = 2.0;

/// How far above the best seen the gap between tokens may be: batching makes it longer before it hurts.
const GAP_TOLERANCE: f64 = 3.0;

/// What a rise costs.
const SHRINK: f64 = 0.85;

/// What "overloaded" costs.
const BACK_OFF: f64 = 0.7;

/// How fast the best seen is forgotten, a judgement: the server or its load may have changed.
const FORGET: f64 = 1.005;

/// How one answer came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pace {
    /// From the upstream's being asked to the first piece of its answer.
    pub first_token: Option<Duration>,
    /// Between two tokens, on average.
    pub gap: Option<Duration>,
    /// Whether the upstream refused with 429 or 503.
    pub is_overloaded: bool,
}

/// A model's limit.
#[derive(Debug)]
pub(crate) struct Capacity {
    concurrency: Concurrency,
    auto: Auto,
}

#[derive(Debug)]
struct Auto {
    limit: f64,
    first_token: Signal,
    gap: Signal,
    samples: u32,
    /// Whether the limit was reached since the last judgement: if not, it says nothing.
    was_full: bool,
    /// When it backed off last; what was sent before then says nothing new.
    backed_off: Time,
}

/// A duration against the best that was seen.
#[derive(Debug, Default)]
struct Signal {
    sum: f64,
    count: u32,
    best: Option<f64>,
}

impl Capacity {
    pub(crate) fn new(concurrency: Concurrency) -> Self {
        Self {
            concurrency,
            auto: Auto {
                limit: START,
                first_token: Signal::default(),
                gap: Signal::default(),
                samples: 0,
                was_full: false,
                backed_off: Time::default(),
            },
        }
    }

    /// Takes over a changed setting; what `auto` has found out stays.
    pub(crate) fn reconfigure(&mut self, concurrency: Concurrency) {
        self.concurrency = concurrency;
    }

    /// Requests that may be with the model at once.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub(crate) fn limit(&self) -> usize {
        match self.concurrency {
            Concurrency::Unlimited => usize::MAX,
            Concurrency::Fixed(limit) => limit,
            Concurrency::Auto(most) => (self.auto.limit as usize).clamp(1, most.max(1)),
        }
    }

    /// Learns from an answer to a request that was sent at `sent`, while `active` were with the model.
    pub(crate) fn learn(&mut self, pace: &Pace, active: usize, sent: Time, now: Time) {
        let Concurrency::Auto(most) = self.concurrency else {
            return;
        };
        let is_full = active >= self.limit();
        self.auto.learn(pace, is_full, sent, now);
        #[allow(clippy::cast_precision_loss)]
        let most = most.max(1) as f64;
        self.auto.limit = self.auto.limit.clamp(1.0, most);
    }
}

impl Auto {
    fn learn(&mut self, pace: &Pace, is_full: bool, sent: Time, now: Time) {
        if pace.is_overloaded {
            // Of a burst that is refused together, one counts.
            if sent >= self.backed_off {
                self.limit *= BACK_OFF;
                self.backed_off = now;
            }
            return;
        }
        self.was_full |= is_full;
        self.first_token.add(pace.first_token);
        self.gap.add(pace.gap);
        self.samples += 1;
        if self.samples < SAMPLES {
            return;
        }
        let (first_token, gap) = (self.first_token.judge(), self.gap.judge());
        if first_token > FIRST_TOKEN_TOLERANCE || gap > GAP_TOLERANCE {
            self.limit *= SHRINK;
        } else if self.was_full {
            self.limit += 1.0 + self.limit / 16.0;
        }
        (self.samples, self.was_full) = (0, false);
    }
}

impl Signal {
    fn add(&mut self, duration: Option<Duration>) {
        if let Some(duration) = duration {
            self.sum += duration.as_secs_f64();
            self.count += 1;
        }
    }

    /// The mean since the last judgement, as a multiple of the best seen.
    fn judge(&mut self) -> f64 {
        if self.count == 0 {
            return 1.0;
        }
        let mean = (self.sum / f64::from(self.count)).max(1e-6);
        (self.sum, self.count) = (0.0, 0);
        let best = self.best.map_or(mean, |best| (best * FORGET).min(mean));
        self.best = Some(best);
        mean / best
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cmp::Reverse;
    use std::collections::{BinaryHeap, VecDeque};

    /// A server with so many slots and a queue of its own, always offered more than the limit lets through.
    fn settles_at(slots: usize, answers: u32) -> usize {
        let mut capacity = Capacity::new(Concurrency::Auto(512));
        let service = Duration::from_millis(400);
        let first = Duration::from_millis(40);
        let mut now = Time::default();
        let mut queue: VecDeque<Time> = VecDeque::new();
        let mut running: BinaryHeap<Reverse<(Time, Time, Time)>> = BinaryHeap::new();
        for _ in 0..answers {
            while queue.len() + running.len() < capacity.limit() {
                queue.push_back(now);
            }
            while running.len() < slots
                && let Some(sent) = queue.pop_front()
            {
                running.push(Reverse((now + service, sent, now + first)));
            }
            let Some(Reverse((end, sent, first_token))) = running.pop() else {
                break;
            };
            now = end;
            let pace = Pace {
                first_token: Some(first_token - sent),
                gap: Some(Duration::from_millis(20)),
                is_overloaded: false,
            };
            capacity.learn(&pace, queue.len() + running.len() + 1, sent, now);
        }
        capacity.limit()
    }

    #[test]
    fn auto_finds_a_servers_slots_and_leaves_nearly_nobody_in_its_queue() {
        for slots in [4, 16, 64] {
            let found = settles_at(slots, 20_000);
            assert!(found * 10 >= slots * 8, "{found} for {slots}: too few");
            assert!(found * 10 <= slots * 16, "{found} for {slots}: they wait in the server");
        }
    }

    #[test]
    fn auto_backs_off_once_for_a_burst_that_is_refused_together() {
        let mut capacity = Capacity::new(Concurrency::Auto(512));
        capacity.auto.limit = 100.0;
        let overloaded = Pace {
            is_overloaded: true,
            ..Pace::default()
        };
        let sent = Time::after_epoch(Duration::from_secs(1));
        for millis in 0..50 {
            capacity.learn(&overloaded, 100, sent, sent + Duration::from_millis(millis + 1));
        }
        assert_eq!(capacity.limit(), 70);
    }
}
