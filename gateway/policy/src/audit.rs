//! A second, slow count of what quotas and budgets hold, compared after every step in debug and test builds.
//!
//! It knows nothing of windows that turn: it keeps the sums of all windows, adds up settlements by the windows that they
//! name, and reservations anew from all tickets each time.

use crate::allowance::{RecordedUsage, SharedAccount, Windows};
use crate::quota::Amounts;
use crate::request::Parties;
use crate::{QuotaWindow, Subject, Time};
use std::collections::HashMap;

/// The sums of what was settled, by subject, window and the window's index.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    pub(crate) used: HashMap<(Subject, QuotaWindow, u64), Amounts>,
    pub(crate) steps: usize,
}

impl Audit {
    /// Adds a settlement.
    pub(crate) fn settled(&mut self, parties: &Parties, windows: Windows, used: Amounts) {
        if cfg!(debug_assertions) {
            for subject in parties.payers() {
                for window in QuotaWindow::ALL {
                    self.sum(subject, window, windows.index(window), |sum| *sum = sum.plus(used));
                }
            }
        }
    }

    /// Raises the sum of the window around a moment to the ledger's.
    pub(crate) fn restored(&mut self, subject: Subject, window: QuotaWindow, usage: RecordedUsage, at: Time) {
        if cfg!(debug_assertions) {
            let recorded = Amounts::new(usage.tokens, usage.requests, usage.cost.0);
            self.sum(subject, window, Windows::at(at).index(window), |sum| {
                *sum = sum.max(recorded);
            });
        }
    }

    /// Sets the sum of a window to what all gateways have used.
    pub(crate) fn shared(&mut self, account: SharedAccount, used: Amounts) {
        if cfg!(debug_assertions) {
            self.sum(account.subject, account.window, account.index, |sum| *sum = used);
        }
    }

    /// Adds a correction.
    pub(crate) fn corrected(&mut self, subject: Subject, tokens: i64, nano_eur: i64, now: Time) {
        if cfg!(debug_assertions) {
            let (more, less) = (
                |amount: i64| u64::try_from(amount).unwrap_or(0),
                |amount: i64| amount.unsigned_abs() * u64::from(amount < 0),
            );
            for window in QuotaWindow::ALL {
                self.sum(subject, window, Windows::at(now).index(window), |sum| {
                    let raised = sum.plus(Amounts::new(more(tokens), 0, more(nano_eur)));
                    *sum = raised.minus(Amounts::new(less(tokens), 0, less(nano_eur)));
                });
            }
        }
    }

    /// Changes the sum of a window.
    fn sum(&mut self, subject: Subject, window: QuotaWindow, index: u64, change: impl FnOnce(&mut Amounts)) {
        change(self.used.entry((subject, window, index)).or_default());
    }
}
