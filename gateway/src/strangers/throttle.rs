//! Failures by client address, in constant memory: a rate limit (GCRA) in each of a fixed number of cells. An address has
//! two of them, chosen by keyed hashes, and is over its limit when both are; so that a stranger's failures count against
//! another address only if that one's two cells are among those that strangers have filled.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// With 1,000 addresses over their limit at once, about one other in 1,000 is taken for one of them.
const CELLS: usize = 1 << 16;

/// A limit's period: so many failures a minute, all of them at once if there were none before.
const PERIOD: u64 = 60_000_000_000;

/// The host part of an IPv6 address, which its user chooses freely.
const HOST: u128 = u64::MAX as u128;

/// Failures by address.
#[derive(Debug)]
pub(super) struct Throttle {
    /// The time at which a cell is empty again, in nanoseconds after the throttle was made.
    cells: Box<[AtomicU64]>,
    hashes: [RandomState; 2],
}

impl Default for Throttle {
    fn default() -> Self {
        Self {
            cells: (0..CELLS).map(|_| AtomicU64::new(0)).collect(),
            hashes: [RandomState::new(), RandomState::new()],
        }
    }
}

impl Throttle {
    /// The time until an address is within its limit again; `None`: it is now. `now` is the time since the throttle was
    /// made.
    pub(super) fn wait(&self, address: IpAddr, per_minute: u32, now: Duration) -> Option<Duration> {
        let full = nanos(now).saturating_add(PERIOD - interval(per_minute));
        let waits = self
            .cells_of(address)
            .map(|cell| cell.load(Relaxed).saturating_sub(full));
        let wait = waits[0].min(waits[1]);
        (wait > 0).then(|| Duration::from_nanos(wait))
    }

    /// Counts a failure of an address.
    pub(super) fn count(&self, address: IpAddr, per_minute: u32, now: Duration) {
        let now = nanos(now);
        let most = now.saturating_add(PERIOD);
        for cell in self.cells_of(address) {
            let count = |empty: u64| Some(empty.max(now).saturating_add(interval(per_minute)).min(most));
            let _ = cell.fetch_update(Relaxed, Relaxed, count);
        }
    }

    fn cells_of(&self, address: IpAddr) -> [&AtomicU64; 2] {
        let network = match address.to_canonical() {
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !HOST)),
            v4 @ IpAddr::V4(_) => v4,
        };
        let cell = |hash: &RandomState| {
            let at = hash.hash_one(network) % self.cells.len() as u64;
            &self.cells[usize::try_from(at).unwrap_or(0)]
        };
        [cell(&self.hashes[0]), cell(&self.hashes[1])]
    }
}

/// The time that one failure counts, in nanoseconds.
fn interval(per_minute: u32) -> u64 {
    PERIOD / u64::from(per_minute.max(1))
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn address(number: u32) -> IpAddr {
        IpAddr::V4(number.into())
    }

    #[test]
    fn after_so_many_failures_an_address_has_to_wait_and_others_need_not() {
        let throttle = Throttle::default();
        let now = Duration::from_secs(5);
        for _ in 0..10 {
            assert_eq!(throttle.wait(address(1), 10, now), None);
            throttle.count(address(1), 10, now);
        }
        assert_eq!(throttle.wait(address(1), 10, now), Some(Duration::from_secs(6)));
        assert_eq!(throttle.wait(address(2), 10, now), None);
        // A tenth of a minute later one more may fail, and a minute later all of them.
        let later = now + Duration::from_secs(6);
        assert_eq!(throttle.wait(address(1), 10, later), None);
        throttle.count(address(1), 10, later);
        assert_eq!(throttle.wait(address(1), 10, later), Some(Duration::from_secs(6)));
    }

    #[test]
    fn a_flood_is_forgotten_a_minute_after_its_end() {
        let throttle = Throttle::default();
        (0..100_000).for_each(|_| throttle.count(address(1), 10, Duration::ZERO));
        assert!(throttle.wait(address(1), 10, Duration::from_secs(5)).is_some());
        let later = Duration::from_secs(61);
        (0..10).for_each(|_| {
            assert_eq!(throttle.wait(address(1), 10, later), None);
            throttle.count(address(1), 10, later);
        });
    }

    #[test]
    fn an_ipv6_network_is_one_address_and_a_mapped_ipv4_address_is_that_address() {
        let throttle = Throttle::default();
        let of = |text: &str| text.parse::<IpAddr>().expect("an address");
        let host = |number: u64| of(&format!("2001:db8:0:7::{number:x}"));
        (0..20).for_each(|number| throttle.count(host(number), 20, Duration::ZERO));
        assert!(throttle.wait(host(4711), 20, Duration::ZERO).is_some());
        assert_eq!(throttle.wait(of("2001:db8:0:8::1"), 20, Duration::ZERO), None);
        (0..20).for_each(|_| throttle.count(of("::ffff:192.0.2.1"), 20, Duration::ZERO));
        assert!(throttle.wait(of("192.0.2.1"), 20, Duration::ZERO).is_some());
    }

    #[test]
    fn a_thousand_hostile_addresses_hardly_touch_others() {
        let throttle = Throttle::default();
        for number in 0..1000 {
            (0..20).for_each(|_| throttle.count(address(number), 20, Duration::ZERO));
        }
        let taken =
            (1_000_000..1_100_000).filter(|number| throttle.wait(address(*number), 20, Duration::ZERO).is_some());
        // (2,000 / 65,536)² of 100,000 are 93, and a standard deviation is 10.
        assert!(taken.count() < 200);
    }

    proptest! {
        /// Against a model that keeps every failure: in any minute an address fails so often that it is refused, or at
        /// most twice its limit (a burst, and what comes back meanwhile).
        #[test]
        fn no_more_failures_pass_than_the_limit_allows(
            per_minute in 1u32..100, gaps in prop::collection::vec(0u64..20_000, 1..300),
        ) {
            let throttle = Throttle::default();
            let (mut now, mut passed) = (Duration::ZERO, Vec::new());
            for gap in gaps {
                now += Duration::from_millis(gap);
                if throttle.wait(address(1), per_minute, now).is_none() {
                    throttle.count(address(1), per_minute, now);
                    passed.push(now);
                }
                let minute = Duration::from_secs(60);
                let lately = passed.iter().filter(|at| **at + minute > now).count();
                prop_assert!(lately <= 2 * per_minute as usize);
                // It never has to wait longer than one failure counts.
                let wait = throttle.wait(address(1), per_minute, now).unwrap_or_default();
                prop_assert!(wait <= minute / per_minute);
            }
        }
    }
}
