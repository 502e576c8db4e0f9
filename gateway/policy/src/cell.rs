//! One rate limit's state: governor decides (GCRA), we own the number.
//!
//! governor can neither give back nor be asked what is left. Its [`StateStore`] and [`Clock`] are
//! public traits, so the theoretical arrival time lives here, where it can be read and moved back.

use crate::Time;
use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{NotKeyed, StateStore};
use governor::{Quota, RateLimiter};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// The theoretical arrival time of the next request, in nanoseconds since the origin; 0 is "never
/// used".
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

/// A clock whose hands are set by whoever calls policy.
#[derive(Debug, Clone, Default)]
struct Hands(Arc<AtomicU64>);

impl Clock for Hands {
    type Instant = Nanos;
    fn now(&self) -> Nanos {
        Nanos::from(self.0.load(Relaxed))
    }
}

/// One limit of so many requests a minute, with a burst of the same size.
#[derive(Debug)]
pub(crate) struct Cell {
    arrival: Arrival,
    hands: Hands,
    interval: Duration,
    burst: u32,
    limiter: RateLimiter<NotKeyed, Arrival, Hands, NoOpMiddleware<Nanos>>,
}

impl Cell {
    pub(crate) fn per_minute(count: NonZeroU32) -> Self {
        let quota = Quota::per_minute(count);
        let (arrival, hands) = (Arrival::default(), Hands::default());
        Self {
            limiter: RateLimiter::new(quota, arrival.clone(), hands.clone()),
            interval: quota.replenish_interval(),
            burst: count.get(),
            arrival,
            hands,
        }
    }

    /// Takes one, or says after how long one would be free.
    pub(crate) fn take(&self, now: Time) -> Result<(), Duration> {
        self.hands.0.store(now.nanos(), Relaxed);
        self.limiter
            .check()
            .map_err(|not_until| not_until.wait_time_from(Nanos::from(now.nanos())))
    }

    /// Gives one back that did no work.
    pub(crate) fn give_back(&self) {
        let interval = Time::after_origin(self.interval).nanos();
        let moved = self.arrival.0.load(Relaxed).saturating_sub(interval);
        self.arrival.0.store(moved, Relaxed);
    }

    /// How many may pass at once, and when all may again.
    pub(crate) fn left(&self, now: Time) -> (u32, Duration) {
        let owed = self.arrival.0.load(Relaxed).saturating_sub(now.nanos());
        let interval = Time::after_origin(self.interval).nanos().max(1);
        let used = u32::try_from(owed.div_ceil(interval)).unwrap_or(u32::MAX);
        (self.burst.saturating_sub(used), Duration::from_nanos(owed))
    }
}
