//! Times as the database keeps them.

use jiff::Timestamp;
use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The clock of the process. It is handed in, so that a record is dated by the clock that quotas are counted by.
pub type Clock = fn() -> SystemTime;

/// UTC with microseconds, so that text order is time order. A time that no calendar has is 1970.
pub(crate) fn iso(time: SystemTime) -> String {
    let mut text = String::with_capacity(27);
    let timestamp = Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH);
    let _ = write!(text, "{timestamp:.6}");
    text
}

/// The UTC day of a moment after 1970, as rollups have it.
pub fn day_of(after_epoch: Duration) -> String {
    let time = UNIX_EPOCH.checked_add(after_epoch).unwrap_or(UNIX_EPOCH);
    let mut day = iso(time);
    day.truncate(10);
    day
}
