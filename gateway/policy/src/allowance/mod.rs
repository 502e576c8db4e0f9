//! Quotas and budgets: what a project, a user and a key may use in a day and in a calendar month (UTC), in
//! tokens, requests and money.
//!
//! The law: the worst case is reserved before a request runs, at every level or at none, and the actual
//! replaces it when the request is settled. So requests that run together cannot exceed a limit together;
//! a sum exceeds it by at most what upstreams used beyond what was reserved, and that is reported. A
//! reservation belongs to the windows in which it was made: one that is settled after midnight counts for
//! the day on which it began, as its ledger record does.

mod account;
mod check;
mod credit;
mod shared;

pub(crate) use account::Windows;
pub use credit::{AccountState, CreditDemand, CreditNeed, CreditReturn, Pool, SharedAccount, UnitDemand};

use crate::ids::BySubject;
use crate::quota::{Amounts, QuotaUnit, QuotaWindow, Reserved};
use crate::request::Parties;
use crate::{NanoEuro, Refusal, Rules, Subject, Time};
use account::{Account, Calendar, LaterUsage, Used};
use check::{Check, limits, part};
use credit::Credits;

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
    /// True if it may be asked to go to the smaller model.
    pub(crate) may_downgrade: bool,
}

/// The result of checking a request against an allowance.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fit {
    /// It does, and is reserved.
    Reserved(AllowanceReservation),
    /// It would if it went to the smaller model. Nothing is reserved.
    Downgrade(Refusal),
    /// It would if so much credit were drawn. Nothing is reserved.
    Lacks(Vec<CreditNeed>),
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
    /// The account that gateways share, where they share limits.
    pub account: SharedAccount,
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

/// The accounts of all subjects that have used something.
#[derive(Debug, Default)]
pub(crate) struct Allowances {
    calendar: Calendar,
    accounts: BySubject<Account>,
    later: LaterUsage,
    /// `None` where this gateway alone uses the limits.
    credits: Option<Credits>,
}

impl Allowances {
    /// The present windows.
    pub(crate) fn windows(&mut self, now: Time) -> Windows {
        self.calendar.windows(now)
    }

    /// Reserves the worst case at every level, or nothing.
    pub(crate) fn reserve(
        &mut self,
        rules: &Rules,
        parties: &Parties,
        wanted: &Wanted,
        now: Time,
    ) -> Result<Fit, Refusal> {
        let mut downgrade = None;
        let mut amounts = wanted.amounts;
        let present = self.windows(now);
        for subject in parties.payers() {
            let account = self.accounts.entry(subject);
            account.turn(subject, &self.later, present);
            let Some(allowance) = rules.allowance(subject) else {
                continue;
            };
            for window in QuotaWindow::ALL {
                let used = &*account.window(window);
                if used.window != wanted.windows.index(window) {
                    // It is counted in a window that has ended since it was made.
                    continue;
                }
                let check = Check {
                    subject,
                    window,
                    used,
                    allowance,
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
        let needs = self.lacking(rules, parties, wanted.windows, amounts, now)?;
        if !needs.is_empty() {
            return Ok(Fit::Lacks(needs));
        }
        let reservation = AllowanceReservation {
            windows: wanted.windows,
            amounts,
        };
        self.each(parties, &reservation, |used| {
            used.reserved = used.reserved.plus(amounts);
        });
        Ok(Fit::Reserved(reservation))
    }

    /// Refunds what was reserved; nothing was used.
    pub(crate) fn refund(&mut self, parties: &Parties, reservation: &AllowanceReservation) {
        self.each(parties, reservation, |used| {
            used.reserved = used.reserved.minus(reservation.amounts);
        });
    }

    /// Replaces what was reserved by the actual. Returns the allowances that now deserve an alert.
    pub(crate) fn settle(
        &mut self,
        rules: &Rules,
        parties: &Parties,
        reservation: &AllowanceReservation,
        actual: Amounts,
    ) -> Vec<Alert> {
        self.each(parties, reservation, |used| {
            used.reserved = used.reserved.minus(reservation.amounts);
            used.used = used.used.plus(actual);
            used.own = used.own.plus(actual);
        });
        let mut alerts = Vec::new();
        for subject in parties.payers() {
            let Some(allowance) = rules.allowance(subject) else {
                continue;
            };
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
        let present = self.windows(now);
        let account = self.accounts.entry(subject);
        account.turn(subject, &self.later, present);
        let used = account.window(window);
        used.used = used.used.max(Amounts::new(usage.tokens, usage.requests, usage.cost.0));
    }

    /// Notes what the ledger has recorded of the window around a later moment; false if that is no later window.
    pub(crate) fn restore_later_usage(
        &mut self,
        subject: Subject,
        window: QuotaWindow,
        usage: RecordedUsage,
        (at, now): (Time, Time),
    ) -> bool {
        let index = Windows::at(at).index(window);
        let is_later = index > Windows::at(now).index(window);
        if is_later {
            let recorded = Amounts::new(usage.tokens, usage.requests, usage.cost.0);
            self.later.raise(subject, window, index, recorded);
        }
        is_later
    }

    /// Corrects what is counted as used, today and this month, by tokens and nano-euros, more or less.
    pub(crate) fn correct(&mut self, subject: Subject, tokens: i64, nano_eur: i64, now: Time) {
        let amounts = |is_counted: fn(i64) -> bool| {
            let of = |amount: i64| if is_counted(amount) { amount.unsigned_abs() } else { 0 };
            Amounts::new(of(tokens), 0, of(nano_eur))
        };
        let present = self.windows(now);
        let account = self.accounts.entry(subject);
        account.turn(subject, &self.later, present);
        for window in QuotaWindow::ALL {
            let used = account.window(window);
            used.used = used
                .used
                .plus(amounts(i64::is_positive))
                .minus(amounts(i64::is_negative));
        }
    }

    /// Returns whether a subject has used so much of an allowance that it is throttled.
    pub(crate) fn is_throttled(&mut self, rules: &Rules, subject: Subject, now: Time) -> bool {
        let Some(allowance) = rules.allowance(subject) else {
            return false;
        };
        let present = self.windows(now);
        let (Some(share), Some(account)) = (allowance.actions.throttle, self.accounts.get(subject)) else {
            return false;
        };
        [(QuotaWindow::Day, &account.day), (QuotaWindow::Month, &account.month)]
            .into_iter()
            .filter(|(window, used)| used.window == present.index(*window))
            .any(|(window, used)| {
                limits(allowance.caps(window)).any(|(unit, limit)| used.used[unit] >= part(limit, share))
            })
    }

    /// The amounts used and reserved by a subject in a window.
    pub(crate) fn counted(&self, subject: Subject, window: QuotaWindow, now: Time) -> (Amounts, Reserved) {
        let mut account = self.accounts.get(subject).copied().unwrap_or_default();
        account.turn(subject, &self.later, Windows::at(now));
        let used = account.window(window);
        (used.used, used.reserved)
    }

    /// The state of all of a subject's counters.
    pub(crate) fn balances(&self, rules: &Rules, subject: Subject, now: Time) -> Vec<Balance> {
        let allowance = rules.allowance(subject);
        let mut account = self.accounts.get(subject).copied().unwrap_or_default();
        let windows = Windows::at(now);
        account.turn(subject, &self.later, windows);
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
                    limit: allowance.and_then(|allowance| allowance.caps(window).get(unit)),
                    used: used.used[unit],
                    reserved: used.reserved.get(unit),
                    resets: ends,
                    account: SharedAccount {
                        subject,
                        window,
                        index: windows.index(window),
                    },
                });
            }
        }
        balances
    }

    /// Changes the windows in which a reservation was made, where they are still the current ones.
    fn each(&mut self, parties: &Parties, reservation: &AllowanceReservation, mut change: impl FnMut(&mut Used)) {
        for subject in parties.payers() {
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
