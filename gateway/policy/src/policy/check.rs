//! Comparison of the counters with the [`Audit`](crate::audit::Audit), in debug and test builds.

use super::Policy;
use crate::allowance::Windows;
use crate::quota::Reserved;
use crate::request::Parties;
use crate::{QuotaWindow, Time};

/// Up to so many tickets are counted anew in every step; more in some steps only, so that the effort stays bounded.
const TICKETS_EACH_STEP: usize = 64;

impl Policy {
    /// Compares the counters of the subjects that a request is billed to with the second count. Does nothing in release builds.
    ///
    /// # Panics
    ///
    /// Panics if they differ: the accounting is broken.
    pub(crate) fn check(&mut self, parties: &Parties, now: Time) {
        if !cfg!(debug_assertions) {
            return;
        }
        self.audit.steps += 1;
        let tickets = self.held.len() / TICKETS_EACH_STEP;
        if !self.audit.steps.is_multiple_of(1 + tickets * tickets) {
            return;
        }
        self.scheduler.check();
        let windows = Windows::at(now);
        for subject in parties.payers() {
            for window in QuotaWindow::ALL {
                let index = windows.index(window);
                let (used, reserved) = self.allowances.counted(subject, window, now);
                let known = self.audit.used.get(&(subject, window, index));
                let expected = known.copied().unwrap_or_default();
                assert_eq!(used, expected, "used by {subject:?} in its {window:?}");
                let held = self.held.iter().flatten();
                let expected = held
                    .filter(|held| {
                        let is_payer = held.parties.payers().any(|payer| payer == subject);
                        is_payer && held.allowance.windows.index(window) == index
                    })
                    .fold(Reserved::default(), |sum, held| sum.plus(held.allowance.amounts));
                assert_eq!(reserved, expected, "reserved by {subject:?} in its {window:?}");
            }
        }
    }
}
