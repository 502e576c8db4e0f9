//! One rate limit: governor decides (GCRA), we own the number.
//!
//! governor can neither refund nor be asked what is left. Its [`StateStore`] and [`Clock`] are public
//! traits, so the one number that a limit needs, the theoretical arrival time of the next request, lives
//! here in a [`Cell`]: it is laid under governor for a decision, and can be read and moved back.
//!
//! A refund must not mint: what was reserved drains away with time as if it had been used, and capacity that
//! came back that way may have been used by others since. Had less been taken at time s, the level L would be
//! lower now by at most min L(τ), s ≤ τ ≤ now (the reflection map of a queue, Skorokhod 1961). So a cell keeps
//! the lowest level since each of its charges, in a stack, since these minima only grow with the charges' age
//! going down; a refund is bounded by that of its charge.

use crate::Time;
use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{NotKeyed, StateStore};
use governor::{Quota, RateLimiter};
use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// The state of a limit for one subject.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cell {
    /// The theoretical arrival time of the next request, in nanoseconds; in the past, or 0, when the whole burst is
    /// free. What it is ahead of now is the level.
    arrival: u64,
    /// The lowest levels since charges, by the charges' numbers; both ascend.
    lows: Vec<Low>,
}

/// The lowest level since the charges from this number on, up to the next entry's.
#[derive(Debug, Clone, Copy)]
struct Low {
    first: u64,
    level: u64,
}

/// Entries after which close ones are merged.
const MANY_LOWS: usize = 512;

/// The level may be so many times the limit: what is owed beyond, after a server used far more than was reserved, is
/// waived, so that one absurd figure neither closes nor, by overflow, opens a limit for good.
const LONGEST_DEBT: u64 = 2;

/// The reason why a limit lets nothing pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shortfall {
    /// It would pass after this time.
    RetryAfter(Duration),
    /// It will never pass: it exceeds the whole burst.
    ExceedsBurst,
}

/// The state of a rate limit, as in the `x-ratelimit-*` headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RateWindow {
    /// The limit; 0 where there is none.
    pub limit: u64,
    /// The amount that may still pass at once.
    pub remaining: u64,
    /// The time until the whole limit is free again.
    pub reset: Duration,
}

impl Cell {
    pub(crate) fn level(&self, now: Time) -> u64 {
        self.arrival.saturating_sub(now.nanos())
    }

    /// Takes into the minima that the level is now so low.
    fn fall_to(&mut self, level: u64) {
        let kept = self.lows.partition_point(|low| low.level < level);
        if let Some(lowered) = self.lows.get(kept).copied() {
            self.lows.truncate(kept);
            if level > 0 {
                self.lows.push(Low { level, ..lowered });
            }
        }
    }

    /// Charges a request with this number, which brings the arrival time to `arrival`.
    pub(crate) fn charge(&mut self, arrival: u64, number: u64, now: Time) {
        self.fall_to(self.level(now));
        self.arrival = arrival;
        self.push_low(number, self.level(now));
    }

    /// Merges entries that differ by little; the lower level stays.
    fn merge_close_lows(&mut self) {
        let span = self.lows.last().map_or(0, |low| low.level) / (MANY_LOWS as u64 / 2);
        let mut kept = 0;
        self.lows.retain(|low| {
            let is_kept = kept == 0 || low.level >= kept + span;
            if is_kept {
                kept = low.level;
            }
            is_kept
        });
    }

    /// Follows the level of a limit that several gateways share, which was so low since it was last followed. Charges from
    /// this number on are new in it.
    pub(crate) fn follow(&mut self, level: u64, lowest: u64, number: u64, now: Time) {
        self.fall_to(lowest.min(level));
        self.arrival = now.nanos().saturating_add(level);
        self.push_low(number, level);
    }

    /// Sets the level, which other gateways may have raised or lowered.
    pub(crate) fn set_level(&mut self, level: u64, now: Time) {
        self.fall_to(level);
        self.arrival = now.nanos().saturating_add(level);
    }

    /// Raises the level by what was used without a charge.
    pub(crate) fn raise(&mut self, nanos: u64, now: Time) {
        self.arrival = now.nanos().saturating_add(self.level(now).saturating_add(nanos));
    }

    fn push_low(&mut self, first: u64, level: u64) {
        if self.lows.last().is_none_or(|low| low.level < level) {
            self.lows.push(Low { first, level });
        }
        if self.lows.len() > MANY_LOWS {
            self.merge_close_lows();
        }
    }

    /// Refunds a part of the charge with this number, as far as the level still holds it. Returns that part.
    pub(crate) fn refund(&mut self, nanos: u64, number: u64, now: Time) -> u64 {
        self.fall_to(self.level(now));
        let Some(at) = self.lows.partition_point(|low| low.first <= number).checked_sub(1) else {
            return 0;
        };
        let refund = nanos.min(self.lows[at].level);
        self.arrival -= refund;
        for low in &mut self.lows[at..] {
            low.level -= refund;
        }
        // For the charges before it, the level was as low, too.
        let Low { level, .. } = self.lows[at];
        let first_lowered = self.lows[..at].partition_point(|low| low.level < level);
        if first_lowered < at {
            self.lows[at].first = self.lows[first_lowered].first;
            self.lows.drain(first_lowered..at);
        }
        if level == 0 {
            let zeros = self.lows.partition_point(|low| low.level == 0);
            self.lows.drain(..zeros);
        }
        refund
    }
}

/// One limit of so many a period, with a burst of the same size.
#[derive(Debug)]
pub(crate) struct Rate {
    pub(crate) limit: u64,
    /// Tokens that are counted as one, where a limit is finer than a nanosecond's clock can divide.
    unit: u64,
    interval: u64,
    burst: u64,
    arrival: Arrival,
    hands: Hands,
    limiter: RateLimiter<NotKeyed, Arrival, Hands, NoOpMiddleware<Nanos>>,
}

/// A unit comes at most each so many nanoseconds, so that rounding costs a limit at most a thousandth.
const FINEST: u64 = 1000;

impl Rate {
    pub(crate) fn per_minute(limit: NonZeroU64) -> Self {
        Self::new(limit, Duration::from_secs(60))
    }

    pub(crate) fn per_day(limit: NonZeroU64) -> Self {
        Self::new(limit, Duration::from_secs(86_400))
    }

    fn new(limit: NonZeroU64, period: Duration) -> Self {
        let limit = limit.get();
        let nanos = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX);
        let most = (nanos / FINEST).min(u64::from(u32::MAX));
        let unit = limit.div_ceil(most);
        let burst = u32::try_from(limit / unit)
            .ok()
            .and_then(NonZeroU32::new)
            .unwrap_or(NonZeroU32::MIN);
        // Rounded up: what passes is never more than the limit, in any window however long.
        let interval = nanos.div_ceil(u64::from(burst.get())).max(1);
        let quota = Quota::with_period(Duration::from_nanos(interval))
            .unwrap_or(Quota::per_second(NonZeroU32::MIN))
            .allow_burst(burst);
        let (arrival, hands) = (Arrival::default(), Hands::default());
        Self {
            limit,
            unit,
            interval,
            burst: u64::from(burst.get()),
            limiter: RateLimiter::new(quota, arrival.clone(), hands.clone()),
            arrival,
            hands,
        }
    }

    /// The time that an amount takes of the limit; `None` if it exceeds the whole burst.
    pub(crate) fn cost(&self, amount: u64) -> Option<u64> {
        let units = amount.div_ceil(self.unit);
        (units <= self.burst).then(|| units * self.interval)
    }

    /// The time that the whole burst takes.
    pub(crate) fn whole(&self) -> u64 {
        self.burst.saturating_mul(self.interval)
    }

    /// The most that can ever pass at once.
    pub(crate) fn burst(&self) -> u64 {
        self.burst.saturating_mul(self.unit)
    }

    /// The arrival time after so many were taken, or when they could be. Nothing changes.
    pub(crate) fn decide(&self, cell: &Cell, amount: u64, now: Time) -> Result<u64, Shortfall> {
        let Some(units) = NonZeroU64::new(amount.div_ceil(self.unit)) else {
            return Ok(cell.arrival);
        };
        let Ok(units) = NonZeroU32::try_from(units) else {
            return Err(Shortfall::ExceedsBurst);
        };
        self.hands.0.store(now.nanos(), Relaxed);
        self.arrival.0.store(cell.arrival, Relaxed);
        match self.limiter.check_n(units) {
            Ok(Ok(())) => Ok(self.arrival.0.load(Relaxed)),
            Ok(Err(not_until)) => {
                let wait = not_until.wait_time_from(Nanos::from(now.nanos()));
                Err(Shortfall::RetryAfter(wait))
            }
            Err(_) => Err(Shortfall::ExceedsBurst),
        }
    }

    /// Corrects what the charge with this number took: less is refunded, as far as the limit still holds it; more is a
    /// debt that is waited for.
    pub(crate) fn correct(&self, cell: &mut Cell, taken: u64, actual: u64, number: u64, now: Time) {
        let (taken, actual) = (taken.div_ceil(self.unit), actual.div_ceil(self.unit));
        if actual < taken {
            cell.refund((taken - actual).saturating_mul(self.interval), number, now);
        } else if actual > taken {
            let debt = (actual - taken).saturating_mul(self.interval);
            let most = self.whole().saturating_mul(LONGEST_DEBT);
            let level = cell.level(now).saturating_add(debt).min(most.max(cell.level(now)));
            cell.arrival = now.nanos().saturating_add(level);
        }
    }

    /// The remaining amount, and the time of the full refill, where so much of the level is not in the cell yet.
    pub(crate) fn window(&self, cell: &Cell, unreported: u64, now: Time) -> RateWindow {
        let owed = cell.level(now).saturating_add(unreported);
        let used = owed.div_ceil(self.interval).saturating_mul(self.unit);
        RateWindow {
            limit: self.limit,
            remaining: self.limit.saturating_sub(used),
            reset: Duration::from_nanos(owed),
        }
    }
}

/// The number that governor reads and writes.
#[derive(Debug, Clone, Default)]
struct Arrival(Arc<AtomicU64>);

impl StateStore for Arrival {
    type Key = NotKeyed;

    fn measure_and_replace<T, F, E>(&self, _: &NotKeyed, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let before = match self.0.load(Relaxed) {
            0 => None,
            nanos => Some(Nanos::from(nanos)),
        };
        let (outcome, after) = decide(before)?;
        self.0.store(after.as_u64(), Relaxed);
        Ok(outcome)
    }
}

/// A clock whose hands are set by the caller of policy.
#[derive(Debug, Clone, Default)]
struct Hands(Arc<AtomicU64>);

impl Clock for Hands {
    type Instant = Nanos;
    fn now(&self) -> Nanos {
        Nanos::from(self.0.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(nanos: u64) -> Time {
        Time::after_epoch(Duration::from_nanos(1_700_000_000_000_000_000 + nanos))
    }

    /// The level of a bucket that drains one nanosecond a nanosecond, filled anew from the start: (when, how much).
    fn replayed(charges: &[(u64, u64)], now: u64) -> u64 {
        let (mut level, mut last) = (0u64, 0);
        for (time, amount) in charges {
            level = level.saturating_sub(time - last) + amount;
            last = *time;
        }
        level.saturating_sub(now - last)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

        /// However requests come and are settled, a refund leaves the limit as if less had been taken from the start:
        /// nothing is minted, and nothing is lost.
        #[test]
        fn a_refund_leaves_the_limit_as_if_less_had_been_taken_from_the_start(
            steps in prop::collection::vec((0..40_000_000_000u64, any::<bool>(), any::<usize>(), 0..=1000u64), 1..150)
        ) {
            let rate = Rate::per_minute(NonZeroU64::new(1000).expect("not zero"));
            let interval = 60_000_000;
            let mut cell = Cell::default();
            // What was taken, as corrected since; and which of them are open, with the amount reserved.
            let mut charges: Vec<(u64, u64)> = Vec::new();
            let mut open: Vec<(usize, u64)> = Vec::new();
            let mut now = 0;
            for (passed, is_offer, which, amount) in steps {
                now += passed;
                if is_offer || open.is_empty() {
                    if let Ok(arrival) = rate.decide(&cell, amount, at(now)) {
                        cell.charge(arrival, charges.len() as u64, at(now));
                        open.push((charges.len(), amount));
                        charges.push((now, amount * interval));
                    }
                } else {
                    let (number, reserved) = open.swap_remove(which % open.len());
                    let actual = amount.min(reserved);
                    rate.correct(&mut cell, reserved, actual, number as u64, at(now));
                    charges[number].1 = actual * interval;
                }
                prop_assert_eq!(cell.level(at(now)), replayed(&charges, now));
            }
        }

        /// Whatever a server reports, a limit is neither closed for longer than two periods nor opened.
        #[test]
        fn one_absurd_figure_never_switches_a_limit_off(figures in prop::collection::vec(any::<u64>(), 1..20)) {
            let rate = Rate::per_day(NonZeroU64::new(100).expect("not zero"));
            let mut cell = Cell::default();
            for (number, figure) in (0..).zip(figures) {
                rate.correct(&mut cell, 10, figure.saturating_add(11), number, at(0));
            }
            rate.correct(&mut cell, 0, u64::MAX, 99, at(0));
            let two_days = 2 * 86_400_000_000_000;
            prop_assert!(matches!(rate.decide(&cell, 1, at(0)), Err(Shortfall::RetryAfter(_))));
            prop_assert!(rate.decide(&cell, 1, at(two_days)).is_ok());
        }
    }

    #[test]
    fn memory_is_bounded_and_merging_refunds_rather_too_little() {
        let rate = Rate::per_day(NonZeroU64::new(1_000_000).expect("not zero"));
        let mut cell = Cell::default();
        for number in 0..100_000 {
            let arrival = rate.decide(&cell, 5, at(number)).expect("it fits");
            cell.charge(arrival, number, at(number));
            assert!(cell.lows.len() <= MANY_LOWS + 1);
        }
        for number in 0..100_000 {
            rate.correct(&mut cell, 5, 0, number, at(100_000));
        }
        let left = rate.window(&cell, 0, at(100_000)).remaining;
        assert!((990_000..=1_000_000).contains(&left), "{left}");
    }
}
