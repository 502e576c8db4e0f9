//! The time: one clock for policy, the ledger and everything else that is kept over restarts.
//!
//! It follows the wall clock forward, also over a suspend, and never goes back: while the wall clock is behind, after
//! it was set back, time passes by the monotonic clock. So the day for which policy counts a request is the day under
//! which the ledger records it.

use crate::fault;
use policy::Time;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    i64::try_from(now().nanos() / 1_000_000).unwrap_or(i64::MAX)
}

/// The same as the standard library has it, for the ledger.
pub(crate) fn system_time() -> SystemTime {
    system_time_of(now())
}

/// A moment as the standard library has it.
pub(crate) fn system_time_of(time: Time) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(time.nanos())
}

/// The time of this process.
pub(crate) fn now() -> Time {
    static CLOCK: LazyLock<Clock<System>> = LazyLock::new(|| Clock::new(System(Instant::now())));
    CLOCK.now()
}

/// The two clocks of a machine.
pub(crate) trait Source {
    /// The time since 1970 by the wall clock, which may be set.
    fn wall(&self) -> Duration;
    /// The time since any moment by a clock that is never set, and may stand still while the machine is suspended.
    fn monotonic(&self) -> Duration;
}

/// This machine's clocks.
struct System(Instant);

impl Source for System {
    fn wall(&self) -> Duration {
        fault::shifted(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}

/// A clock made of both.
pub(crate) struct Clock<S> {
    source: S,
    started_wall: Duration,
    started_monotonic: Duration,
    /// The nanoseconds by which the wall clock has run ahead of the monotonic one since the start, at most.
    ahead: AtomicU64,
}

impl<S: Source> Clock<S> {
    pub(crate) fn new(source: S) -> Self {
        Self {
            started_wall: source.wall(),
            started_monotonic: source.monotonic(),
            ahead: AtomicU64::new(0),
            source,
        }
    }

    pub(crate) fn now(&self) -> Time {
        // In this order: a pause between the two makes the wall clock seem behind, which changes nothing.
        let wall = self.source.wall();
        let monotonic = self.started_wall + self.source.monotonic().saturating_sub(self.started_monotonic);
        let ahead = u64::try_from(wall.saturating_sub(monotonic).as_nanos()).unwrap_or(u64::MAX);
        let ahead = self.ahead.fetch_max(ahead, Relaxed).max(ahead);
        Time::new(monotonic, Duration::from_nanos(ahead))
    }
}

/// The UTC date of a moment, such as `2026-11-25`. `ms` is milliseconds since 1970.
pub(crate) fn date(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms)
        .map(|moment| moment.to_zoned(jiff::tz::TimeZone::UTC).date().to_string())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cell::Cell;

    #[derive(Default)]
    struct Hands {
        wall: Cell<Duration>,
        monotonic: Cell<Duration>,
    }

    impl Source for &Hands {
        fn wall(&self) -> Duration {
            self.wall.get()
        }

        fn monotonic(&self) -> Duration {
            self.monotonic.get()
        }
    }

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_suspend_moves_the_day_on_and_a_clock_that_is_set_back_does_not() {
        let hands = Hands::default();
        hands.wall.set(HOUR * 24 * 20_000);
        let clock = Clock::new(&hands);
        let started = clock.now();
        hands.wall.set(hands.wall.get() + HOUR * 26);
        let woken = clock.now();
        assert_eq!(
            (woken.date(), started.date()),
            ("2024-10-05".into(), "2024-10-04".into())
        );
        assert_eq!(
            woken - started,
            Duration::ZERO,
            "waits are measured by the monotonic clock"
        );
        hands.wall.set(hands.wall.get().saturating_sub(HOUR * 29));
        hands.monotonic.set(HOUR);
        assert_eq!(
            clock.now().nanos() - woken.nanos(),
            3_600_000_000_000,
            "time passes all the same"
        );
    }

    proptest! {
        #[test]
        fn time_never_goes_back_and_is_never_behind_the_wall_clock(
            steps in prop::collection::vec((0..10_000i64, -20_000..20_000i64), 1..100)
        ) {
            let hands = Hands::default();
            hands.wall.set(HOUR * 24 * 20_000);
            let clock = Clock::new(&hands);
            let mut before = clock.now();
            for (passed, set) in steps {
                hands.monotonic.set(hands.monotonic.get() + Duration::from_secs(passed.unsigned_abs()));
                let wall = i64::try_from(hands.wall.get().as_secs()).expect("small") + passed + set;
                hands.wall.set(Duration::from_secs(wall.unsigned_abs()));
                let now = clock.now();
                prop_assert!(now.nanos() >= before.nanos() && now >= before);
                prop_assert!(u128::from(now.nanos()) >= hands.wall.get().as_nanos());
                before = now;
            }
        }
    }
}
