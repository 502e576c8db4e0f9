//! Time as policy sees it: a number handed in, never read from a clock; and the days and months of the
//! calendar (UTC), in which allowances are counted.

use std::ops::{Add, Sub};
use std::time::Duration;

/// A moment by two clocks: a monotonic one, by which waits and rests are measured, and the wall clock, by which days,
/// months and rates are counted. They differ once the machine was suspended or its clock was set. Both are handed in
/// so that neither ever goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Time {
    /// Nanoseconds since 1970-01-01 UTC, as if the wall clock had never been set; until the year 2554.
    monotonic: u64,
    /// Nanoseconds by which the wall clock is ahead of that.
    ahead: u64,
}

/// A day or a month, in which an allowance is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CalendarWindow {
    /// Counts days, or months, since 1970.
    pub(crate) index: u64,
    /// When the next one begins.
    pub(crate) ends: Time,
}

const NANOS: u64 = 1_000_000_000;
const DAY: u64 = 86_400;

impl Time {
    /// So long after 1970-01-01 UTC, by both clocks.
    pub fn after_epoch(elapsed: Duration) -> Self {
        Self {
            monotonic: nanos(elapsed),
            ahead: 0,
        }
    }

    /// So long after 1970-01-01 UTC, with the wall clock so far ahead of the monotonic one.
    pub fn new(monotonic: Duration, ahead: Duration) -> Self {
        Self {
            monotonic: nanos(monotonic),
            ahead: nanos(ahead),
        }
    }

    /// Nanoseconds since 1970-01-01 UTC by the wall clock.
    pub fn nanos(self) -> u64 {
        self.monotonic.saturating_add(self.ahead)
    }

    /// The moment with so many nanoseconds by the wall clock.
    fn at(self, wall: u64) -> Time {
        Time {
            monotonic: wall.saturating_sub(self.ahead),
            ahead: self.ahead,
        }
    }

    /// The date (UTC), as in `2026-11-25`.
    pub fn date(self) -> String {
        let day = self.nanos() / NANOS / DAY;
        let (year, month) = year_and_month(day);
        format!("{year:04}-{month:02}-{:02}", day - first_day(year, month) + 1)
    }

    /// The day (UTC) that this moment is in.
    pub(crate) fn day(self) -> CalendarWindow {
        let index = self.nanos() / NANOS / DAY;
        CalendarWindow {
            index,
            ends: self.at(day_start(index + 1)),
        }
    }

    /// The calendar month (UTC) that this moment is in.
    pub(crate) fn month(self) -> CalendarWindow {
        let (year, month) = year_and_month(self.nanos() / NANOS / DAY);
        let (next_year, next_month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
        CalendarWindow {
            index: (year - 1970) * 12 + month - 1,
            ends: self.at(day_start(first_day(next_year, next_month))),
        }
    }

    /// When the month (UTC) that this moment is in began.
    pub fn month_start(self) -> Time {
        let (year, month) = year_and_month(self.nanos() / NANOS / DAY);
        self.at(day_start(first_day(year, month)))
    }

    /// When the month (UTC) after the one that this moment is in begins.
    pub fn month_end(self) -> Time {
        self.month().ends
    }

    /// When the day (UTC) after the one that this moment is in begins.
    pub fn day_end(self) -> Time {
        self.day().ends
    }

    /// When the day (UTC) that this moment is in began.
    pub fn day_start(self) -> Time {
        self.at(day_start(self.nanos() / NANOS / DAY))
    }
}

/// The nanosecond at which a day since 1970 begins.
fn day_start(day: u64) -> u64 {
    day.saturating_mul(DAY * NANOS)
}

/// Year and month (1 to 12) of a day since 1970, in the proleptic Gregorian calendar.
///
/// The algorithm counts years from 1 March of year 0, so that the leap day is the last of a year
/// (Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`).
fn year_and_month(day: u64) -> (u64, u64) {
    let shifted = day + 719_468;
    let era = shifted / 146_097;
    let of_era = shifted % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day_of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    (year_of_era + era * 400 + u64::from(month <= 2), month)
}

/// The day since 1970 on which a month begins; the inverse of [`year_and_month`].
fn first_day(year: u64, month: u64) -> u64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month_from_march = if month > 2 { month - 3 } else { month + 9 };
    let year_of_era = year % 400;
    let day_of_year = (153 * month_from_march + 2) / 5;
    let of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    year / 400 * 146_097 + of_era - 719_468
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Add<Duration> for Time {
    type Output = Time;
    fn add(self, later: Duration) -> Time {
        Time {
            monotonic: self.monotonic.saturating_add(nanos(later)),
            ahead: self.ahead,
        }
    }
}

impl Sub for Time {
    type Output = Duration;
    fn sub(self, earlier: Time) -> Duration {
        Duration::from_nanos(self.monotonic.saturating_sub(earlier.monotonic))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(day: u64) -> Time {
        at_day(day) + Duration::from_secs(12 * 3600)
    }

    fn at_day(day: u64) -> Time {
        Time::after_epoch(Duration::from_secs(day * DAY))
    }

    #[test]
    fn months_begin_where_the_calendar_says() {
        for (year, month, day) in [
            (1970, 1, 0),
            (2000, 3, 11_017),
            (2024, 2, 19_754),
            (2026, 11, 20_758),
            (2100, 3, 47_541),
        ] {
            assert_eq!(first_day(year, month), day, "{year}-{month}");
            assert_eq!(year_and_month(day), (year, month));
        }
    }

    #[test]
    fn windows_follow_the_wall_clock_and_waits_the_monotonic_one() {
        let day = Duration::from_secs(DAY);
        let before = Time::new(day * 20_000, Duration::ZERO);
        let after = Time::new(day * 20_000 + Duration::from_secs(1), day * 2);
        assert_eq!(after - before, Duration::from_secs(1));
        assert_eq!(after.day().index, before.day().index + 2);
        assert_eq!(after.day().ends - after, Duration::from_secs(DAY - 1));
        assert_eq!(after.date(), "2024-10-06");
    }

    #[test]
    fn months_follow_each_other_without_gap_for_four_centuries() {
        let (mut index, mut start) = (0, 0);
        for day in 0..146_097 {
            let month = at(day).month();
            if month.index != index {
                assert_eq!(month.index, index + 1, "day {day}");
                assert_eq!(at(day).month_start(), at_day(day));
                assert_eq!(at(start).month().ends, at_day(day));
                assert!((28..=31).contains(&(day - start)));
                (index, start) = (month.index, day);
            }
        }
        assert_eq!(index, 400 * 12 - 1);
    }
}
