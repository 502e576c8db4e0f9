//! The limit that is found: as many requests as keep a server busy while its own queue stays nearly empty.
//!
//! Two signals bound it; a third, the KV cache, is [`Memory`](super::memory::Memory)'s.
//!
//! - *The server's own queue.* The part of its requests that the server reports as waiting. A server without metrics is
//!   judged by Little's law: the part of their stay that requests spend in its queue is their time to first token beyond
//!   the best of a prompt of their size. A prompt of 30,000 tokens takes its second without having waited.
//! - *The gap between tokens*, against that of a server which is nearly idle. Batching lengthens it before it hurts: in
//!   a batch of n a step takes about `a + b·n`, so n requests yield `n / (a + b·n)` tokens a second, and at a gap of
//!   seven times `a` a server yields six sevenths of what any batch could. Beyond that, each request slows all others
//!   for little.
//!
//! The limit doubles until a signal stops it, then moves by small steps, which become larger again while none stops
//! them. A signal that is worse than its target moves it down in proportion. A step needs evidence from after the step
//! before: a report with the limit in use and some time passed, or answers to requests that were sent since.

use super::ServerLoad;
use super::memory::REPORT_LASTS;
use super::signals::{Answer, BestTimes, IdleGap, Sample, step};
use crate::Time;

/// The limit at first. Below it, a server counts as nearly idle.
const START: f64 = 4.0;

/// The least answers of one judgement. Half of the limit are needed while nothing has stopped growth, then as many as the
/// limit: requests that were sent together wait together, and a part of them says little.
const SAMPLES: f64 = 8.0;

/// The part of a server's requests that may wait in its own queue, as it reports.
const REPORTED_QUEUE: f64 = 0.1;

/// The part of their stay that requests may wait, as their times to first token show. Prompts in the same batch slow each
/// other, so it is larger.
const FELT_QUEUE: f64 = 0.13;

/// The growth that an empty felt queue allows, as a multiple of its distance from the target.
const QUEUE_GAIN: f64 = 10.0;

/// The gap between tokens that is aimed at, as a multiple of a nearly idle server's.
const GAP_TARGET: f64 = 7.0;

/// The growth of one step while nothing has stopped it, and after something has.
const GROWTH: f64 = 2.0;
const CAREFUL_GROWTH: f64 = 1.1;

/// The factor by which steps become larger while nothing stops them.
const ACCELERATION: f64 = 2.0;

/// The furthest fall of one step, and that after 429 or 503.
const FALL: f64 = 0.7;

/// The part of an answer's stay that passes between two steps.
const STEP_APART: f64 = 0.125;

/// The weight of one report in the mean of reports, and of one answer in a mean of answers.
const REPORT_STEP: f64 = 0.3;
const ANSWER_STEP: f64 = 0.1;

/// A limit that is found.
#[derive(Debug)]
pub(super) struct AutoLimit {
    limit: f64,
    most: f64,
    /// The growth of the next step.
    growth: f64,
    /// The limit that was too high last.
    stopped_at: f64,
    /// The time of the last step.
    changed: Time,
    best: BestTimes,
    /// The gap between tokens of a nearly idle server, and the present one, in seconds.
    idle_gap: IdleGap,
    gap: Option<f64>,
    /// The time that an answer takes, in seconds.
    stay: Option<f64>,
    sample: Sample,
    /// The part of the server's requests that waits, by its reports, and the time of the last one.
    reported: Option<(f64, Time)>,
}

impl Default for AutoLimit {
    fn default() -> Self {
        Self {
            limit: START,
            most: f64::MAX,
            growth: GROWTH,
            stopped_at: 0.0,
            changed: Time::default(),
            best: BestTimes::default(),
            idle_gap: IdleGap::default(),
            gap: None,
            stay: None,
            sample: Sample::default(),
            reported: None,
        }
    }
}

impl AutoLimit {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub(super) fn limit(&self) -> usize {
        self.limit as usize
    }

    /// Sets the hard bound.
    #[allow(clippy::cast_precision_loss)]
    pub(super) fn set_most(&mut self, most: usize) {
        self.most = most.max(1) as f64;
        self.limit = self.limit.clamp(1.0, self.most);
    }

    /// Shrinks after 429 or 503. Of a burst that is refused together, one counts.
    pub(super) fn back_off(&mut self, sent: Time, now: Time) {
        if sent >= self.changed {
            self.shrink(FALL, now);
            self.changed = now;
        }
    }

    /// Learns from a report of the server's load, while so many requests are with it by the gateway's own count.
    pub(super) fn observe(&mut self, load: &ServerLoad, running: usize, now: Time) {
        let part = load.waiting_part();
        let queue = step(self.fresh_report(now), part, REPORT_STEP);
        self.reported = Some((queue, now));
        let apart = self.stay.unwrap_or_default() * STEP_APART;
        // With fewer requests than the limit, it says nothing of the limit; with more, the last step down still has to
        // take effect.
        if running != self.limit() || (now - self.changed).as_secs_f64() < apart {
            return;
        }
        if queue > REPORTED_QUEUE {
            self.shrink(1.0 + REPORTED_QUEUE - queue, now);
        } else if part <= REPORTED_QUEUE {
            let room = self.gap.and_then(|gap| self.gap_room(gap));
            self.grow(room.unwrap_or(GROWTH), now);
        }
    }

    fn fresh_report(&self, now: Time) -> Option<f64> {
        let (queue, at) = self.reported?;
        (now - at <= REPORT_LASTS).then_some(queue)
    }

    /// Learns from an answer; `is_full`: the limit was in use.
    pub(super) fn learn(&mut self, answer: &Answer, is_full: bool, now: Time) {
        self.stay = Some(step(self.stay, answer.stay, ANSWER_STEP));
        if let Some(gap) = answer.gap {
            self.gap = Some(step(self.gap, gap, ANSWER_STEP));
            self.idle_gap.add(gap, self.limit <= START);
        }
        let best = self.best.learn(answer, now);
        if answer.sent < self.changed {
            return;
        }
        self.sample.add(answer, best, is_full);
        let round = if self.growth >= GROWTH {
            self.limit / 2.0
        } else {
            self.limit
        };
        if f64::from(self.sample.answers) >= SAMPLES.max(round) {
            self.judge(now);
        }
    }

    /// Takes a step by the answers since the last one. Where the server reports its queue, they only bound the gap.
    fn judge(&mut self, now: Time) {
        let sample = std::mem::take(&mut self.sample);
        let gap = sample.gap().and_then(|gap| self.gap_room(gap)).unwrap_or(GROWTH);
        let reports = self.fresh_report(now).is_some();
        let queue = if reports { GROWTH } else { self.queue_room(&sample) };
        let factor = gap.min(queue);
        if factor < 1.0 {
            self.shrink(factor, now);
        } else if sample.was_full && !reports {
            self.grow(factor, now);
        }
    }

    fn grow(&mut self, room: f64, now: Time) {
        if room <= 1.0 {
            return;
        }
        // Growth that has passed where it was stopped last becomes faster again: the load has changed.
        if room >= self.growth && self.limit > self.stopped_at {
            self.growth = (1.0 + (self.growth - 1.0) * ACCELERATION).min(GROWTH);
        }
        self.change(room.min(self.growth), now);
    }

    fn shrink(&mut self, factor: f64, now: Time) {
        self.growth = CAREFUL_GROWTH;
        self.stopped_at = self.limit;
        self.change(factor.max(FALL), now);
    }

    fn change(&mut self, factor: f64, now: Time) {
        let before = self.limit();
        self.limit = (self.limit * factor).clamp(1.0, self.most);
        if self.limit() != before {
            self.changed = now;
            self.sample = Sample::default();
        }
    }

    /// The factor by which the gap between tokens lets the limit grow, or makes it fall.
    fn gap_room(&self, gap: f64) -> Option<f64> {
        Some(GAP_TARGET * self.idle_gap.get()? / gap.max(1e-9))
    }

    /// The factor by which the felt queue lets the limit grow, or makes it fall.
    fn queue_room(&self, sample: &Sample) -> f64 {
        let felt = self.stay.zip(sample.queue_time());
        let part = felt.map_or(0.0, |(stay, queued)| queued / stay.max(1e-9));
        let room = FELT_QUEUE - part;
        1.0 + if room > 0.0 { QUEUE_GAIN * room } else { room }
    }
}
