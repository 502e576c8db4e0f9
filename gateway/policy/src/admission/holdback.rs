//! Graded holdback: as many of the reserved slots are held back from lower classes as the demand of the higher one needs.
//!
//! A slot is held back so that a request of the higher class finds it free. While one runs out of the n slots in use, each
//! of which takes s seconds, another becomes free every s / n seconds, so only those that come within that time need one.
//! At a rate of λ they are Poisson distributed with the mean λ · s / n. The smallest number is held back that they exceed
//! in one case of a hundred, beside those that the class has taken, and never more than is configured.

use super::state::Scheduler;
use crate::demand::exceeded_by;
use crate::{QueueClass, Rules, Time};

impl Scheduler {
    /// Counts a request of a class that slots may be reserved for.
    pub(super) fn count_demand(&mut self, rules: &Rules, class: QueueClass, now: Time) {
        if rules.scheduling.is_graded && class < QueueClass::Low {
            self.rates[class].count(now);
        }
    }

    /// The slots that are kept for a class now, taken or free, of so many that are reserved for it.
    pub(super) fn held_back(&self, rules: &Rules, class: QueueClass, reserved: usize) -> usize {
        if !rules.scheduling.is_graded || reserved == 0 {
            return reserved;
        }
        let seconds = self.service.0.unwrap_or(1.0);
        #[allow(clippy::cast_precision_loss)]
        let slots = self.running.max(1) as f64;
        let free = exceeded_by(self.rates[class].now(self.now) * seconds / slots, reserved);
        reserved.min(self.running_by_class[class] + free)
    }
}
