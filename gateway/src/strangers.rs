//! Bounds the ledger records of requests without a valid API key, so that a stranger cannot fill the database.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// Such requests that get a record, a minute. More than a client with a wrong key makes while its owner looks for the
/// mistake, and at most 86,400 a day.
const RECORDS_A_MINUTE: u64 = 60;

/// Counts requests without a valid API key.
#[derive(Debug)]
pub(crate) struct Strangers {
    since: Instant,
    /// The minute since then in the upper half, the requests in it in the lower.
    window: AtomicU64,
}

impl Default for Strangers {
    fn default() -> Self {
        Self {
            since: Instant::now(),
            window: AtomicU64::new(0),
        }
    }
}

impl Strangers {
    /// Counts one more request; whether it gets a record.
    pub(crate) fn may_record(&self) -> bool {
        let seen = self.count(self.since.elapsed().as_secs() / 60);
        if seen == RECORDS_A_MINUTE + 1 {
            tracing::warn!(
                "more than {RECORDS_A_MINUTE} requests without a valid API key in a minute; further ones are only counted \
                 in sluice_refusals_total"
            );
        }
        seen <= RECORDS_A_MINUTE
    }

    /// Counts one more request in a minute; how many there were in it.
    fn count(&self, minute: u64) -> u64 {
        let next = |window: u64| {
            let is_same = window >> 32 == minute;
            Some(if is_same {
                window.saturating_add(1)
            } else {
                minute << 32 | 1
            })
        };
        let before = self.window.fetch_update(Relaxed, Relaxed, next).unwrap_or_default();
        next(before).unwrap_or_default() & u64::from(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_a_minute_get_a_record_and_the_next_minute_begins_anew() {
        let strangers = Strangers::default();
        for minute in [0, 1, 7] {
            let recorded = (0..1000)
                .filter(|_| strangers.count(minute) <= RECORDS_A_MINUTE)
                .count();
            assert_eq!(recorded, 60, "minute {minute}");
        }
        assert_eq!((0..61).filter(|_| Strangers::default().may_record()).count(), 61);
        assert_eq!((0..100).filter(|_| strangers.may_record()).count(), 60);
    }
}
