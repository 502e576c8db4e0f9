//! One rate limit: governor decides (GCRA), we own the number.
//!
//! governor can neither give back nor be asked what is left. Its [`StateStore`] and [`Clock`] are public
//! traits, so the one number that a limit needs, the theoretical arrival time of the next request, lives
//! here as a [`Cell`]: it is laid under governor for a decision, and can be read and moved back.

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

/// What a limit has counted for one subject: the theoretical arrival time of its next request, in
/// nanoseconds; in the past, or 0, when the whole burst is free.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Cell(u64);

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

/// One limit of so many a period, with a burst of the same size.
#[derive(Debug)]
pub(crate) struct Rate {
    limit: u64,
    /// Tokens that are counted as one, where a limit is finer than a nanosecond's clock can divide.
    unit: u64,
    interval: u64,
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
        let interval = (nanos / u64::from(burst.get())).max(1);
        let quota = Quota::with_period(Duration::from_nanos(interval))
            .unwrap_or(Quota::per_second(NonZeroU32::MIN))
            .allow_burst(burst);
        let (arrival, hands) = (Arrival::default(), Hands::default());
        Self {
            limit,
            unit,
            interval,
            limiter: RateLimiter::new(quota, arrival.clone(), hands.clone()),
            arrival,
            hands,
        }
    }

    /// Takes so many, or says when they could be had.
    pub(crate) fn take(&self, cell: &mut Cell, amount: u64, now: Time) -> Result<(), Shortfall> {
        let Some(units) = NonZeroU64::new(amount.div_ceil(self.unit)) else {
            return Ok(());
        };
        let Ok(units) = NonZeroU32::try_from(units) else {
            return Err(Shortfall::ExceedsBurst);
        };
        self.hands.0.store(now.nanos(), Relaxed);
        self.arrival.0.store(cell.0, Relaxed);
        let decided = self.limiter.check_n(units);
        cell.0 = self.arrival.0.load(Relaxed);
        match decided {
            Ok(Ok(())) => Ok(()),
            Ok(Err(not_until)) => Err(Shortfall::RetryAfter(
                not_until.wait_time_from(Nanos::from(now.nanos())),
            )),
            Err(_) => Err(Shortfall::ExceedsBurst),
        }
    }

    /// Corrects what was taken: less goes back, more is a debt that is waited for.
    pub(crate) fn correct(&self, cell: &mut Cell, taken: u64, actual: u64, now: Time) {
        let (taken, actual) = (taken.div_ceil(self.unit), actual.div_ceil(self.unit));
        cell.0 = if actual < taken {
            cell.0.saturating_sub((taken - actual).saturating_mul(self.interval))
        } else {
            let debt = (actual - taken).saturating_mul(self.interval);
            let from = if debt > 0 { cell.0.max(now.nanos()) } else { cell.0 };
            from.saturating_add(debt)
        };
    }

    /// What may pass now, and when all may again.
    pub(crate) fn window(&self, cell: Cell, now: Time) -> RateWindow {
        let owed = cell.0.saturating_sub(now.nanos());
        let used = owed.div_ceil(self.interval).saturating_mul(self.unit);
        RateWindow {
            limit: self.limit,
            remaining: self.limit.saturating_sub(used),
            reset: Duration::from_nanos(owed),
        }
    }
}

/// Where governor finds the number.
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
