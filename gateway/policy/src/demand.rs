//! The measured demand of a class, and how many of its requests may come within an interval.

use crate::{ByClass, Time};

/// The time constant of the measured rate, in seconds: a class that has fallen silent is forgotten within minutes.
const MEMORY: f64 = 60.0;

/// The part of the intervals in which more requests may come than slots are held back.
const EXCEEDED: f64 = 0.01;

/// The measured rate of a class's requests.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Rate {
    per_second: f64,
    at: Time,
}

impl Rate {
    /// The rate now.
    pub(crate) fn now(&self, now: Time) -> f64 {
        self.per_second * (-(now - self.at).as_secs_f64() / MEMORY).exp()
    }

    /// Counts a request.
    pub(crate) fn count(&mut self, now: Time) {
        *self = Self {
            per_second: self.now(now) + 1.0 / MEMORY,
            at: now,
        };
    }
}

/// The rates of the classes that slots are reserved for.
pub(crate) type Rates = ByClass<Rate>;

/// The smallest number, at most so much, that a Poisson variable of this mean exceeds in at most one case of a hundred.
pub(crate) fn exceeded_by(mean: f64, most: usize) -> usize {
    let mut probability = (-mean).exp();
    let mut left = 1.0 - probability;
    let mut number = 0;
    while left > EXCEEDED && number < most {
        number += 1;
        #[allow(clippy::cast_precision_loss)]
        let factor = mean / number as f64;
        probability *= factor;
        left -= probability;
    }
    number
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn as_many_are_held_back_as_tables_of_the_poisson_distribution_say() {
        // The 99th percentiles of Poisson variables.
        for (mean, number) in [
            (0.0, 0),
            (0.01, 0),
            (0.1, 1),
            (0.5, 3),
            (1.0, 4),
            (2.0, 6),
            (5.0, 11),
            (10.0, 18),
        ] {
            assert_eq!(exceeded_by(mean, 100), number, "{mean}");
            assert_eq!(exceeded_by(mean, 3), number.min(3), "{mean}");
        }
        assert_eq!(exceeded_by(1e6, 5), 5);
    }

    #[test]
    fn the_rate_is_that_of_the_last_minutes() {
        let at = |seconds: u64| Time::after_epoch(Duration::from_secs(seconds));
        let mut rate = Rate::default();
        for second in 0..600 {
            rate.count(at(second));
        }
        assert!((rate.now(at(600)) - 1.0).abs() < 0.02, "{}", rate.now(at(600)));
        assert!(rate.now(at(900)) < 0.01, "{}", rate.now(at(900)));
    }
}
