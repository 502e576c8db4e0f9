//! A subject's usage and reservations in its day and its month.

use crate::Time;
use crate::quota::{Amounts, QuotaUnit, QuotaWindow, Reserved};
use crate::time::CalendarWindow;

/// The windows that a request counts for: those in which it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

/// The amounts that one subject has used and holds in one window.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Used {
    /// The index of the window.
    pub(super) window: u64,
    pub(super) used: Amounts,
    pub(super) reserved: Reserved,
    pub(super) alerted: [bool; 3],
}

/// A subject's day and month.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Account {
    pub(super) day: Used,
    pub(super) month: Used,
}

impl Used {
    /// Begins anew if another window has begun.
    pub(super) fn turn(&mut self, window: CalendarWindow) {
        if self.window != window.index {
            *self = Self {
                window: window.index,
                ..Self::default()
            };
        }
    }

    pub(super) fn held(&self, unit: QuotaUnit) -> u64 {
        self.used[unit].saturating_add(self.reserved.get(unit))
    }
}

impl Account {
    pub(super) fn turn(&mut self, now: Time) {
        self.day.turn(now.day());
        self.month.turn(now.month());
    }

    pub(super) fn window(&mut self, window: QuotaWindow) -> &mut Used {
        match window {
            QuotaWindow::Day => &mut self.day,
            QuotaWindow::Month => &mut self.month,
        }
    }
}
