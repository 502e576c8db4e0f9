//! Quotas and budgets: what a project, a user and a key may use in a day and in a calendar month (UTC), in
//! tokens, requests and money.
//!
//! The law: the worst case is reserved before a request runs, at every level or at none, and the actual
//! replaces it when the request is settled. So requests that run together cannot exceed a limit together;
//! a sum exceeds it by at most what upstreams used beyond what was reserved, and that is reported. A
//! reservation belongs to the windows in which it was made: one that is settled after midnight counts for
//! the day on which it began, as its ledger record does.

use crate::ids::BySubject;
use crate::quota::{Amounts, QuotaUnit, QuotaWindow};
use crate::refusal::LimitKind;
use crate::time::CalendarWindow;
use crate::{AdmissionRequest, Allowance, Caps, NanoEuro, Refusal, Rules, Subject, Time};
use std::time::Duration;

/// When trying again makes sense if only what others have reserved is in the way.
const SOON: Duration = Duration::from_secs(1);

/// The windows that a request counts for: those in which it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Windows {
    day: u64,
    month: u64,
}

/// The amounts held for one request until it is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AllowanceReservation {
    pub(crate) windows: Windows,
    pub(crate) amounts: Amounts,
}

/// A request's wish for a reservation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    /// The worst case.
    pub(crate) amounts: Amounts,
    /// The worst case by all that is certain; one that exceeds a limit by its estimate alone reserves all of it.
    pub(crate) least: Amounts,
    pub(crate) windows: Windows,
    /// Whether it may be asked to go to the smaller model.
    pub(crate) may_downgrade: bool,
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

/// Whether a request fits into what is left.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fit {
    /// It does, and is reserved.
    Reserved(AllowanceReservation),
    /// It would if it went to the smaller model. Nothing is reserved.
    Downgrade(Refusal),
}

/// An allowance that has reached the share at which operators are alerted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alert {
    /// The holder of the allowance.
    pub subject: Subject,
    /// Its window.
    pub window: QuotaWindow,
    /// Its unit.
    pub unit: QuotaUnit,
    /// The amount used.
    pub used: u64,
    /// The limit.
    pub limit: u64,
}

/// The state of an allowance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Balance {
    /// Its window.
    pub window: QuotaWindow,
    /// Its unit.
    pub unit: QuotaUnit,
    /// The limit; `None` where there is none.
    pub limit: Option<u64>,
    /// The amount used and settled.
    pub used: u64,
    /// The amount reserved by running and waiting requests.
    pub reserved: u64,
    /// The end of the window.
    pub resets: Time,
}

/// Usage before this process began, as summed up by the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RecordedUsage {
    /// Tokens of prompts and answers.
    pub tokens: u64,
    /// Requests.
    pub requests: u64,
    /// Money.
    pub cost: NanoEuro,
}

/// The amounts that one subject has used and holds in one window.
#[derive(Debug, Clone, Copy, Default)]
struct Used {
    /// The index of the window.
    window: u64,
    used: Amounts,
    reserved: Amounts,
    alerted: [bool; 3],
}

/// A subject's day and month.
#[derive(Debug, Clone, Copy, Default)]
struct Account {
    day: Used,
    month: Used,
}

/// The accounts of all subjects that have used something.
#[derive(Debug, Default)]
pub(crate) struct Allowances {
    accounts: BySubject<Account>,
}

impl Used {
    /// Begins anew if another window has begun.
    fn turn(&mut self, window: CalendarWindow) {
        if self.window != window.index {
            *self = Self {
                window: window.index,
                ..Self::default()
            };
        }
    }

    fn held(&self, unit: QuotaUnit) -> u64 {
        self.used[unit].saturating_add(self.reserved[unit])
    }
}

impl Account {
    fn turn(&mut self, now: Time) {
        self.day.turn(now.day());
        self.month.turn(now.month());
    }

    fn window(&mut self, window: QuotaWindow) -> &mut Used {
        match window {
            QuotaWindow::Day => &mut self.day,
            QuotaWindow::Month => &mut self.month,
        }
    }
}

impl Allowances {
    /// Reserves the worst case at every level, or nothing.
    pub(crate) fn reserve(
        &mut self,
        rules: &Rules,
        ask: &AdmissionRequest,
        wanted: &Wanted,
        now: Time,
    ) -> Result<Fit, Refusal> {
        let mut downgrade = None;
        let mut amounts = wanted.amounts;
        for subject in ask.payers() {
            let allowance = rules.allowance(subject);
            let account = self.accounts.entry(subject);
            account.turn(now);
            for window in QuotaWindow::ALL {
                let used = *account.window(window);
                if used.window != wanted.windows.index(window) {
                    // It is counted in a window that has ended since it was made.
                    continue;
                }
                let check = Check {
                    subject,
                    window,
                    used: &used,
                    allowance: &allowance,
                    now,
                };
                for (unit, limit) in limits(allowance.caps(window)) {
                    amounts[unit] = check.blocked(unit, limit, amounts[unit], wanted.least[unit])?;
                    downgrade = downgrade.or_else(|| check.downgraded(unit, limit, amounts[unit]));
                }
            }
        }
        if let Some(refusal) = downgrade.filter(|_| wanted.may_downgrade) {
            return Ok(Fit::Downgrade(refusal));
        }
        let reservation = AllowanceReservation {
            windows: wanted.windows,
            amounts,
        };
        self.each(ask, &reservation, |used| used.reserved = used.reserved.plus(amounts));
        Ok(Fit::Reserved(reservation))
    }

    /// Refunds what was reserved; nothing was used.
    pub(crate) fn refund(&mut self, ask: &AdmissionRequest, reservation: &AllowanceReservation) {
        self.each(ask, reservation, |used| {
            used.reserved = used.reserved.minus(reservation.amounts);
        });
    }

    /// Replaces what was reserved by the actual. Returns the allowances that now deserve an alert.
    pub(crate) fn settle(
        &mut self,
        rules: &Rules,
        ask: &AdmissionRequest,
        reservation: &AllowanceReservation,
        actual: Amounts,
    ) -> Vec<Alert> {
        self.each(ask, reservation, |used| {
            used.reserved = used.reserved.minus(reservation.amounts);
            used.used = used.used.plus(actual);
        });
        let mut alerts = Vec::new();
        for subject in ask.payers() {
            let allowance = rules.allowance(subject);
            let Some(share) = allowance.actions.alert else { continue };
            let account = self.accounts.entry(subject);
            for window in QuotaWindow::ALL {
                let used = account.window(window);
                for (unit, limit) in limits(allowance.caps(window)) {
                    if !used.alerted[unit as usize] && used.used[unit] >= part(limit, share) {
                        used.alerted[unit as usize] = true;
                        alerts.push(Alert {
                            subject,
                            window,
                            unit,
                            used: used.used[unit],
                            limit,
                        });
                    }
                }
            }
        }
        alerts
    }

    /// Raises what is counted as used to what the ledger has recorded.
    pub(crate) fn restore_usage(&mut self, subject: Subject, window: QuotaWindow, usage: RecordedUsage, now: Time) {
        let account = self.accounts.entry(subject);
        account.turn(now);
        let used = account.window(window);
        used.used = used.used.max(Amounts::new(usage.tokens, usage.requests, usage.cost.0));
    }

    /// Corrects what is counted as used, today and this month, by tokens and nano-euros, more or less.
    pub(crate) fn correct(&mut self, subject: Subject, tokens: i64, nano_eur: i64, now: Time) {
        let amounts = |is_counted: fn(i64) -> bool| {
            let of = |amount: i64| if is_counted(amount) { amount.unsigned_abs() } else { 0 };
            Amounts::new(of(tokens), 0, of(nano_eur))
        };
        let account = self.accounts.entry(subject);
        account.turn(now);
        for window in QuotaWindow::ALL {
            let used = account.window(window);
            used.used = used
                .used
                .plus(amounts(i64::is_positive))
                .minus(amounts(i64::is_negative));
        }
    }

    /// Whether a subject has used so much of an allowance that it is throttled.
    pub(crate) fn is_throttled(&self, rules: &Rules, subject: Subject, now: Time) -> bool {
        let allowance = rules.allowance(subject);
        let (Some(share), Some(account)) = (allowance.actions.throttle, self.accounts.get(subject)) else {
            return false;
        };
        let windows = [
            (&account.day, &allowance.day, now.day()),
            (&account.month, &allowance.month, now.month()),
        ];
        windows.into_iter().any(|(used, caps, window)| {
            used.window == window.index && limits(caps).any(|(unit, limit)| used.used[unit] >= part(limit, share))
        })
    }

    /// The amounts used and reserved by a subject in a window.
    pub(crate) fn counted(&self, subject: Subject, window: QuotaWindow, now: Time) -> (Amounts, Amounts) {
        let mut account = self.accounts.get(subject).copied().unwrap_or_default();
        account.turn(now);
        let used = account.window(window);
        (used.used, used.reserved)
    }

    /// The state of all of a subject's counters.
    pub(crate) fn balances(&self, rules: &Rules, subject: Subject, now: Time) -> Vec<Balance> {
        let allowance = rules.allowance(subject);
        let mut account = self.accounts.get(subject).copied().unwrap_or_default();
        account.turn(now);
        let mut balances = Vec::with_capacity(6);
        for (window, ends) in [
            (QuotaWindow::Day, now.day().ends),
            (QuotaWindow::Month, now.month().ends),
        ] {
            let used = account.window(window);
            for unit in QuotaUnit::ALL {
                balances.push(Balance {
                    window,
                    unit,
                    limit: allowance.caps(window).get(unit),
                    used: used.used[unit],
                    reserved: used.reserved[unit],
                    resets: ends,
                });
            }
        }
        balances
    }

    /// Changes the windows in which a reservation was made, where they are still the current ones.
    fn each(&mut self, ask: &AdmissionRequest, reservation: &AllowanceReservation, mut change: impl FnMut(&mut Used)) {
        for subject in ask.payers() {
            let account = self.accounts.entry(subject);
            for window in QuotaWindow::ALL {
                let used = account.window(window);
                if used.window == reservation.windows.index(window) {
                    change(used);
                }
            }
        }
    }
}

/// One window of one subject against its limits.
struct Check<'a> {
    subject: Subject,
    window: QuotaWindow,
    used: &'a Used,
    allowance: &'a Allowance,
    now: Time,
}

impl Check<'_> {
    /// The amount to reserve.
    fn blocked(&self, unit: QuotaUnit, limit: u64, wanted: u64, least: u64) -> Result<u64, Refusal> {
        let Some(share) = self.allowance.actions.block else {
            return Ok(wanted);
        };
        let most = part(limit, share);
        let wanted = if least <= most { wanted.min(most) } else { wanted };
        if wanted > most {
            return Err(Refusal::ExceedsLimit {
                subject: self.subject,
                kind: LimitKind::Quota(unit, self.window),
                limit: most,
                wanted,
            });
        }
        if self.used.held(unit).saturating_add(wanted) <= most {
            return Ok(wanted);
        }
        Err(self.exceeded(unit, most, wanted))
    }

    fn downgraded(&self, unit: QuotaUnit, limit: u64, wanted: u64) -> Option<Refusal> {
        let most = part(limit, self.allowance.actions.downgrade?);
        (self.used.held(unit).saturating_add(wanted) > most).then(|| self.exceeded(unit, most, wanted))
    }

    fn exceeded(&self, unit: QuotaUnit, most: u64, wanted: u64) -> Refusal {
        let fits_once_settled = self.used.used[unit].saturating_add(wanted) <= most;
        let ends = match self.window {
            QuotaWindow::Day => self.now.day().ends,
            QuotaWindow::Month => self.now.month().ends,
        };
        Refusal::QuotaExceeded {
            subject: self.subject,
            window: self.window,
            unit,
            limit: most,
            left: most.saturating_sub(self.used.held(unit)),
            wanted,
            resets: (!fits_once_settled).then_some(ends),
            retry_after: if fits_once_settled { SOON } else { ends - self.now },
        }
    }
}

/// The limits that are set, with their units.
fn limits(caps: &Caps) -> impl Iterator<Item = (QuotaUnit, u64)> + '_ {
    QuotaUnit::ALL
        .into_iter()
        .filter_map(|unit| Some((unit, caps.get(unit)?)))
}

/// So many thousandths of a limit.
fn part(limit: u64, thousandths: u32) -> u64 {
    let exact = u128::from(limit) * u128::from(thousandths) / 1000;
    u64::try_from(exact).unwrap_or(u64::MAX)
}
