//! A queue before servers with a number of slots together: the formulas of A. K. Erlang (1917), which assume that
//! requests come independently of each other and that their times vary as an exponential distribution does.

/// Requests a second, seconds of a slot that one takes, and slots.
#[derive(Debug, Clone, Copy)]
pub(super) struct Queue {
    pub(super) arrivals: f64,
    pub(super) service_seconds: f64,
    pub(super) slots: u32,
}

impl Queue {
    /// Slots in use on average, if all requests are served.
    pub(super) fn load(&self) -> f64 {
        self.arrivals * self.service_seconds
    }

    /// The share of the slots in use; 1 and above: the queue grows without end.
    pub(super) fn use_of_slots(&self) -> f64 {
        self.load() / f64::from(self.slots)
    }

    /// The probability that a request has to wait (Erlang C).
    pub(super) fn waits(&self) -> f64 {
        let use_of_slots = self.use_of_slots();
        if use_of_slots >= 1.0 {
            return 1.0;
        }
        // Erlang B by recursion, which does not overflow; then C from it.
        let load = self.load();
        let blocked = (1..=self.slots).fold(1.0, |blocked, slot| load * blocked / (f64::from(slot) + load * blocked));
        blocked / (1.0 - use_of_slots * (1.0 - blocked))
    }

    /// The time within which this share of the requests begins; infinite where the queue grows without end.
    pub(super) fn wait_seconds(&self, share: f64) -> f64 {
        let (waits, free) = (self.waits(), f64::from(self.slots) - self.load());
        if free <= 0.0 {
            return f64::INFINITY;
        }
        (self.service_seconds / free * (waits / (1.0 - share)).ln()).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(value: f64, expected: f64) {
        assert!(
            (value - expected).abs() <= expected.abs() * 0.002,
            "{value} instead of {expected}"
        );
    }

    #[test]
    fn one_slot_is_the_queue_of_the_textbooks() {
        // M/M/1: a request waits with the probability of a busy slot, and P(W > t) = ρ e^(-(1-ρ) t / s).
        let queue = Queue {
            arrivals: 0.5,
            service_seconds: 1.6,
            slots: 1,
        };
        near(queue.waits(), 0.8);
        near(0.8 * (-0.2 * queue.wait_seconds(0.95) / 1.6_f64).exp(), 0.05);
    }

    #[test]
    fn many_slots_agree_with_erlangs_sum() {
        // C = A^n/n! · n/(n-A) over the sum of A^k/k! for k < n and that term.
        for (load, slots) in [(0.5, 1_u32), (2.0, 3), (8.0, 10), (27.0, 30), (90.0, 100)] {
            let queue = Queue {
                arrivals: load,
                service_seconds: 1.0,
                slots,
            };
            let (mut term, mut sum) = (1.0, 0.0);
            for k in 1..=slots {
                sum += term;
                term *= load / f64::from(k);
            }
            let last = term * f64::from(slots) / (f64::from(slots) - load);
            near(queue.waits(), last / (sum + last));
        }
    }

    #[test]
    fn beyond_the_capacity_everybody_waits_without_end() {
        let queue = Queue {
            arrivals: 2.0,
            service_seconds: 1.0,
            slots: 2,
        };
        assert!((queue.waits() - 1.0).abs() < 1e-12 && queue.wait_seconds(0.95).is_infinite());
    }
}
