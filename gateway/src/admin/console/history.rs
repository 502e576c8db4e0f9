//! The last minutes as the console draws them: a sample every two seconds, from the metrics.

use crate::services::Services;
use crate::telemetry::Totals;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Between two samples.
pub(super) const EVERY: Duration = Duration::from_secs(2);
/// Samples kept: five minutes.
pub(super) const KEPT: usize = 150;

/// Counts of one interval.
#[derive(Debug, Clone, Default)]
pub(super) struct Sample {
    /// A second.
    pub(super) completed: f64,
    pub(super) refused: f64,
    pub(super) failed: f64,
    pub(super) input_tokens: f64,
    pub(super) output_tokens: f64,
    /// Seconds; `None` where nothing has ended.
    pub(super) p50: Option<f64>,
    pub(super) p95: Option<f64>,
    pub(super) running: f64,
    pub(super) waiting: f64,
}

/// The samples, oldest first.
#[derive(Debug, Default)]
pub(crate) struct History(Mutex<VecDeque<Sample>>);

impl History {
    pub(super) fn samples(&self) -> Vec<Sample> {
        self.0.lock().iter().cloned().collect()
    }

    pub(super) fn last(&self) -> Option<Sample> {
        self.0.lock().back().cloned()
    }

    fn push(&self, sample: Sample) {
        let mut samples = self.0.lock();
        if samples.len() == KEPT {
            samples.pop_front();
        }
        samples.push_back(sample);
    }
}

/// Takes samples for as long as the process runs.
pub(crate) async fn keep(services: Arc<Services>, history: Arc<History>) {
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut before = (Instant::now(), services.metrics.totals());
    loop {
        tick.tick().await;
        let now = (Instant::now(), services.metrics.totals());
        let elapsed = (now.0 - before.0).as_secs_f64();
        if elapsed > 0.1 {
            let occupancy = services.gate.occupancy(0);
            let mut sample = between(&before.1, &now.1, elapsed);
            sample.running = real(occupancy.active as u64);
            sample.waiting = real(occupancy.waiting as u64);
            history.push(sample);
        }
        before = now;
    }
}

fn between(before: &Totals, now: &Totals, seconds: f64) -> Sample {
    let a_second = |from: u64, to: u64| real(to.saturating_sub(from)) / seconds;
    let counts: Vec<(f64, u64)> = now
        .latencies
        .iter()
        .enumerate()
        .map(|(at, (bound, count))| {
            let old = before.latencies.get(at).map_or(0, |(_, count)| *count);
            (*bound, count.saturating_sub(old))
        })
        .collect();
    Sample {
        completed: a_second(before.completed, now.completed),
        refused: a_second(before.refused, now.refused),
        failed: a_second(before.failed, now.failed),
        input_tokens: a_second(before.input_tokens, now.input_tokens),
        output_tokens: a_second(before.output_tokens, now.output_tokens),
        p50: quantile(&counts, 0.5),
        p95: quantile(&counts, 0.95),
        running: 0.0,
        waiting: 0.0,
    }
}

#[allow(clippy::cast_precision_loss)]
fn real(count: u64) -> f64 {
    count as f64
}

/// A quantile of cumulative buckets, within one by a straight line, as Prometheus has it.
fn quantile(buckets: &[(f64, u64)], part: f64) -> Option<f64> {
    let all = buckets.last()?.1;
    if all == 0 {
        return None;
    }
    let rank = part * real(all);
    let at = buckets.iter().position(|(_, count)| real(*count) >= rank)?;
    let (upper, count) = buckets[at];
    let (lower, below) = if at == 0 { (0.0, 0) } else { buckets[at - 1] };
    if upper.is_infinite() {
        return Some(lower);
    }
    let share = (rank - real(below)) / real(count - below).max(1.0);
    Some(lower + (upper - lower) * share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_within_their_bucket() {
        let buckets = [(0.1, 0), (0.5, 50), (1.0, 100), (f64::INFINITY, 100)];
        assert_eq!(quantile(&buckets, 0.5), Some(0.5));
        assert_eq!(quantile(&buckets, 0.95), Some(0.95));
        assert_eq!(quantile(&[(0.1, 0), (f64::INFINITY, 4)], 0.5), Some(0.1));
        assert_eq!(quantile(&[(0.1, 0), (f64::INFINITY, 0)], 0.5), None);
    }
}
