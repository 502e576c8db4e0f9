//! A subject's usage and reservations in its day and its month.

use crate::quota::{Amounts, QuotaUnit, QuotaWindow, Reserved};
use crate::{Subject, Time};
use std::collections::HashMap;

/// The windows that a request counts for: those in which it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Windows {
    day: u64,
    month: u64,
}

impl Windows {
    pub(crate) fn at(now: Time) -> Self {
        Self {
            day: now.day().index,
            month: now.month().index,
        }
    }

    pub(crate) fn index(self, window: QuotaWindow) -> u64 {
        match window {
            QuotaWindow::Day => self.day,
            QuotaWindow::Month => self.month,
        }
    }
}

/// The present windows, which are found anew when a day has ended.
#[derive(Debug, Default)]
pub(super) struct Calendar {
    present: Windows,
    /// The day, by the wall clock.
    begins: u64,
    ends: u64,
}

impl Calendar {
    pub(super) fn windows(&mut self, now: Time) -> Windows {
        if !(self.begins..self.ends).contains(&now.nanos()) {
            *self = Self {
                present: Windows::at(now),
                begins: now.day_start().nanos(),
                ends: now.day_end().nanos(),
            };
        }
        self.present
    }
}

/// The amounts that one subject has used and holds in one window.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Used {
    /// The index of the window.
    pub(super) window: u64,
    pub(super) used: Amounts,
    /// The part of it that this process has settled.
    pub(super) own: Amounts,
    pub(super) reserved: Reserved,
    pub(super) alerted: [bool; 3],
}

/// A subject's day and month.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Account {
    pub(super) day: Used,
    pub(super) month: Used,
}

/// The use that the ledger has recorded of days and months that are still to come.
#[derive(Debug, Default)]
pub(super) struct LaterUsage(HashMap<(Subject, QuotaWindow, u64), Amounts>);

impl LaterUsage {
    pub(super) fn raise(&mut self, subject: Subject, window: QuotaWindow, index: u64, recorded: Amounts) {
        let amounts = self.0.entry((subject, window, index)).or_default();
        *amounts = amounts.max(recorded);
    }

    fn of(&self, subject: Subject, window: QuotaWindow, index: u64) -> Amounts {
        self.0.get(&(subject, window, index)).copied().unwrap_or_default()
    }
}

impl Used {
    /// Begins anew if another window has begun, with what is recorded of it.
    fn turn(&mut self, window: u64, recorded: impl FnOnce(u64) -> Amounts) {
        // Of two moments around midnight, the later one may come first.
        if self.window < window {
            *self = Self {
                window,
                used: recorded(window),
                ..Self::default()
            };
        }
    }

    pub(super) fn held(&self, unit: QuotaUnit) -> u64 {
        self.used[unit].saturating_add(self.reserved.get(unit))
    }

    /// What this process has used and reserved.
    pub(super) fn own_held(&self) -> Amounts {
        let reserved = QuotaUnit::ALL.map(|unit| self.reserved.get(unit));
        self.own.plus(Amounts::new(reserved[0], reserved[1], reserved[2]))
    }
}

impl Account {
    pub(super) fn turn(&mut self, subject: Subject, later: &LaterUsage, present: Windows) {
        let recorded = |window: QuotaWindow| move |index: u64| later.of(subject, window, index);
        self.day.turn(present.day, recorded(QuotaWindow::Day));
        self.month.turn(present.month, recorded(QuotaWindow::Month));
    }

    pub(super) fn window(&mut self, window: QuotaWindow) -> &mut Used {
        match window {
            QuotaWindow::Day => &mut self.day,
            QuotaWindow::Month => &mut self.month,
        }
    }
}
