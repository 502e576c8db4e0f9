//! Quotas and budgets: what a project, a user and a key may use in a day and in a calendar month (UTC), in
//! tokens, requests and money.
//!
//! The law: the worst case is reserved before a request runs, at every level or at none, and the actual
//! replaces it when the request is settled. So requests that run together cannot pass a limit together;
//! a sum passes it by at most what upstreams used beyond what was reserved, and that is reported. A
//! reservation belongs to the windows in which it was made: one that is settled after midnight counts for
//! the day on which it began, as its ledger record does.

use crate::decision::{Measure, Period};
use crate::limits::{IdHasher, Scope};
use crate::time::Window;
use crate::{AdmissionRequest, Allowance, Caps, Estimate, NanoEuro, Refusal, Rules, Time, Usage};
use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::time::Duration;

/// Amounts of the three measures: tokens, requests, nano-euros.
type Amounts = [u64; 3];

const MEASURES: [Measure; 3] = [Measure::Tokens, Measure::Requests, Measure::Cost];

/// When trying again makes sense if only what others have reserved is in the way.
const SOON: Duration = Duration::from_secs(1);

/// What is held for one request until it is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct AllowanceReservation {
    day: u64,
    month: u64,
    amounts: Amounts,
}

/// Whether a request fits into what is left.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fit {
    /// It does, and is reserved.
    Reserved(AllowanceReservation),
    /// It would if it went to the smaller model. Nothing is reserved.
    Downgrade(Refusal),
}

/// Something that operators want to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alert {
    /// Whose allowance.
    pub scope: Scope,
    /// The project's, user's or key's number.
    pub id: u32,
    /// In which window.
    pub period: Period,
    /// Of what.
    pub measure: Measure,
    /// What is used.
    pub used: u64,
    /// Of how much.
    pub limit: u64,
}

/// Where an allowance stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Balance {
    /// In which window.
    pub period: Period,
    /// Of what.
    pub measure: Measure,
    /// How much there is; `None` where there is no limit.
    pub limit: Option<u64>,
    /// What is used and settled.
    pub used: u64,
    /// What running and waiting requests hold.
    pub reserved: u64,
    /// When the window ends.
    pub resets: Time,
}

/// What one subject has used and holds in one window.
#[derive(Debug, Clone, Copy, Default)]
struct Used {
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

/// The accounts of all who have used something.
#[derive(Debug, Default)]
pub(crate) struct Allowances {
    accounts: HashMap<(Scope, u32), Account, BuildHasherDefault<IdHasher>>,
}

impl Used {
    /// Begins anew if another window has begun.
    fn turn(&mut self, window: Window) {
        if self.window != window.index {
            *self = Self {
                window: window.index,
                ..Self::default()
            };
        }
    }

    fn held(&self, measure: usize) -> u64 {
        self.used[measure].saturating_add(self.reserved[measure])
    }
}

impl Allowances {
    /// Reserves the worst case at every level, or nothing.
    pub(crate) fn reserve(
        &mut self,
        rules: &Rules,
        ask: &AdmissionRequest,
        estimate: &Estimate,
        may_downgrade: bool,
        now: Time,
    ) -> Result<Fit, Refusal> {
        let wanted = [estimate.tokens(), 1, estimate.cost.0];
        let (day, month) = (now.day(), now.month());
        let mut downgrade = None;
        for (scope, id, allowance) in subjects(rules, ask) {
            let account = self.accounts.entry((scope, id)).or_default();
            account.day.turn(day);
            account.month.turn(month);
            for (period, used, caps, window) in [
                (Period::Day, &account.day, &allowance.day, day),
                (Period::Month, &account.month, &allowance.month, month),
            ] {
                let check = Check {
                    scope,
                    period,
                    used,
                    allowance: &allowance,
                    ends_in: window.ends - now,
                };
                for (measure, limit) in caps_of(caps) {
                    check.blocked(measure, limit, wanted[measure])?;
                    downgrade = downgrade.or_else(|| check.downgraded(measure, limit, wanted[measure]));
                }
            }
        }
        if let Some(refusal) = downgrade.filter(|_| may_downgrade) {
            return Ok(Fit::Downgrade(refusal));
        }
        for (scope, id, _) in subjects(rules, ask) {
            let account = self.accounts.entry((scope, id)).or_default();
            for used in [&mut account.day, &mut account.month] {
                add(&mut used.reserved, wanted);
            }
        }
        Ok(Fit::Reserved(AllowanceReservation {
            day: day.index,
            month: month.index,
            amounts: wanted,
        }))
    }

    /// Shrinks a reservation to a smaller worst case.
    pub(crate) fn shrink(
        &mut self,
        rules: &Rules,
        ask: &AdmissionRequest,
        reservation: &mut AllowanceReservation,
        to: &Estimate,
    ) {
        let smaller = [to.tokens(), 1, to.cost.0];
        let back = std::array::from_fn(|at| reservation.amounts[at].saturating_sub(smaller[at]));
        self.each(rules, ask, reservation, |used| subtract(&mut used.reserved, back));
        subtract(&mut reservation.amounts, back);
    }

    /// Gives back what was reserved; nothing was used.
    pub(crate) fn give_back(&mut self, rules: &Rules, ask: &AdmissionRequest, reservation: &AllowanceReservation) {
        self.each(rules, ask, reservation, |used| {
            subtract(&mut used.reserved, reservation.amounts);
        });
    }

    /// Puts the actual in the place of what was reserved. Returns what now deserves an alert.
    pub(crate) fn settle(
        &mut self,
        rules: &Rules,
        ask: &AdmissionRequest,
        reservation: &AllowanceReservation,
        usage: &Usage,
    ) -> Vec<Alert> {
        let actual = [usage.tokens(), 1, usage.cost.0];
        self.each(rules, ask, reservation, |used| {
            subtract(&mut used.reserved, reservation.amounts);
            add(&mut used.used, actual);
        });
        let mut alerts = Vec::new();
        for (scope, id, allowance) in subjects(rules, ask) {
            let Some(account) = self.accounts.get_mut(&(scope, id)) else {
                continue;
            };
            for (period, used, caps) in [
                (Period::Day, &mut account.day, &allowance.day),
                (Period::Month, &mut account.month, &allowance.month),
            ] {
                for (measure, limit) in caps_of(caps) {
                    let Some(share) = allowance.actions.alert else { continue };
                    if !used.alerted[measure] && used.used[measure] >= part(limit, share) {
                        used.alerted[measure] = true;
                        alerts.push(Alert {
                            scope,
                            id,
                            period,
                            measure: MEASURES[measure],
                            used: used.used[measure],
                            limit,
                        });
                    }
                }
            }
        }
        alerts
    }

    /// At least so much has been used, whoever counted it: what is in the ledger.
    pub(crate) fn restore_usage(&mut self, scope: Scope, id: u32, period: Period, usage: RecordedUsage, now: Time) {
        let account = self.accounts.entry((scope, id)).or_default();
        account.day.turn(now.day());
        account.month.turn(now.month());
        let used = match period {
            Period::Day => &mut account.day,
            Period::Month => &mut account.month,
        };
        for (counted, known) in used.used.iter_mut().zip([usage.tokens, usage.requests, usage.cost.0]) {
            *counted = known.max(*counted);
        }
    }

    /// Corrects what is counted as used, today and this month: tokens and nano-euros, more or less.
    pub(crate) fn correct(&mut self, scope: Scope, id: u32, tokens: i64, nano_eur: i64, now: Time) {
        let account = self.accounts.entry((scope, id)).or_default();
        account.day.turn(now.day());
        account.month.turn(now.month());
        let amounts = [tokens.unsigned_abs(), 0, nano_eur.unsigned_abs()];
        for used in [&mut account.day, &mut account.month] {
            let [more_tokens, _, more_cost] = amounts;
            let of = |is_more: bool| {
                [
                    if (tokens >= 0) == is_more { more_tokens } else { 0 },
                    0,
                    if (nano_eur >= 0) == is_more { more_cost } else { 0 },
                ]
            };
            add(&mut used.used, of(true));
            subtract(&mut used.used, of(false));
        }
    }

    /// Whether a subject has used so much of an allowance that it is throttled.
    pub(crate) fn is_throttled(&self, scope: Scope, id: u32, allowance: &Allowance, now: Time) -> bool {
        let Some(share) = allowance.actions.throttle else {
            return false;
        };
        let Some(account) = self.accounts.get(&(scope, id)) else {
            return false;
        };
        let windows = [
            (&account.day, &allowance.day, now.day()),
            (&account.month, &allowance.month, now.month()),
        ];
        windows.into_iter().any(|(used, caps, window)| {
            used.window == window.index
                && caps_of(caps).any(|(measure, limit)| used.used[measure] >= part(limit, share))
        })
    }

    /// Where a subject stands with everything that is counted.
    pub(crate) fn balances(&self, scope: Scope, id: u32, allowance: &Allowance, now: Time) -> Vec<Balance> {
        let account = self.accounts.get(&(scope, id)).copied().unwrap_or_default();
        let windows = [
            (Period::Day, account.day, allowance.day, now.day()),
            (Period::Month, account.month, allowance.month, now.month()),
        ];
        let mut balances = Vec::with_capacity(6);
        for (period, mut used, caps, window) in windows {
            used.turn(window);
            let limits = [caps.tokens, caps.requests, caps.cost.map(|cost| cost.0)];
            for (at, limit) in limits.into_iter().enumerate() {
                balances.push(Balance {
                    period,
                    measure: MEASURES[at],
                    limit,
                    used: used.used[at],
                    reserved: used.reserved[at],
                    resets: window.ends,
                });
            }
        }
        balances
    }

    /// Changes the windows in which a reservation was made, where they are still the current ones.
    fn each(
        &mut self,
        rules: &Rules,
        ask: &AdmissionRequest,
        reservation: &AllowanceReservation,
        mut change: impl FnMut(&mut Used),
    ) {
        for (scope, id, _) in subjects(rules, ask) {
            let Some(account) = self.accounts.get_mut(&(scope, id)) else {
                continue;
            };
            for (used, window) in [
                (&mut account.day, reservation.day),
                (&mut account.month, reservation.month),
            ] {
                if used.window == window {
                    change(used);
                }
            }
        }
    }
}

/// What had been used before: sums of the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RecordedUsage {
    /// Tokens of prompts and answers.
    pub tokens: u64,
    /// Requests.
    pub requests: u64,
    /// Money.
    pub cost: NanoEuro,
}

/// One window of one subject against its limits.
struct Check<'a> {
    scope: Scope,
    period: Period,
    used: &'a Used,
    allowance: &'a Allowance,
    ends_in: Duration,
}

impl Check<'_> {
    fn blocked(&self, measure: usize, limit: u64, wanted: u64) -> Result<(), Refusal> {
        let Some(share) = self.allowance.actions.block else {
            return Ok(());
        };
        let most = part(limit, share);
        if wanted > most {
            return Err(Refusal::ExceedsLimit {
                what: format!(
                    "{} a {} for {}",
                    word(MEASURES[measure]),
                    self.period.word(),
                    self.scope.word()
                ),
                limit: most,
                wanted,
            });
        }
        if self.used.held(measure).saturating_add(wanted) <= most {
            return Ok(());
        }
        Err(self.used_up(measure, most, wanted))
    }

    fn downgraded(&self, measure: usize, limit: u64, wanted: u64) -> Option<Refusal> {
        let most = part(limit, self.allowance.actions.downgrade?);
        (self.used.held(measure).saturating_add(wanted) > most).then(|| self.used_up(measure, most, wanted))
    }

    fn used_up(&self, measure: usize, most: u64, wanted: u64) -> Refusal {
        let fits_once_settled = self.used.used[measure].saturating_add(wanted) <= most;
        Refusal::AllowanceUsedUp {
            scope: self.scope,
            period: self.period,
            measure: MEASURES[measure],
            left: most.saturating_sub(self.used.held(measure)),
            wanted,
            retry_after: if fits_once_settled { SOON } else { self.ends_in },
        }
    }
}

/// Whose allowances a request uses, from the narrowest to the widest.
fn subjects(rules: &Rules, ask: &AdmissionRequest) -> impl Iterator<Item = (Scope, u32, Allowance)> {
    let key = ask.key.map(|key| (Scope::Key, key.0, rules.key(key).allowance));
    let user = (Scope::User, ask.user.0, rules.user(ask.user).allowance);
    let project = (
        Scope::Project,
        ask.project.0,
        rules.project(ask.project).limits.allowance,
    );
    key.into_iter().chain([user, project])
}

/// The limits of a window that are set, by the index of their measure.
fn caps_of(caps: &Caps) -> impl Iterator<Item = (usize, u64)> + use<> {
    let limits = [caps.tokens, caps.requests, caps.cost.map(|cost| cost.0)];
    limits
        .into_iter()
        .enumerate()
        .filter_map(|(at, limit)| Some((at, limit?)))
}

fn word(measure: Measure) -> &'static str {
    match measure {
        Measure::Tokens => "tokens",
        Measure::Requests => "requests",
        Measure::Cost => "billionths of a euro",
    }
}

/// So many thousandths of a limit.
fn part(limit: u64, thousandths: u32) -> u64 {
    let exact = u128::from(limit) * u128::from(thousandths) / 1000;
    u64::try_from(exact).unwrap_or(u64::MAX)
}

fn add(amounts: &mut Amounts, more: Amounts) {
    for (amount, more) in amounts.iter_mut().zip(more) {
        *amount = amount.saturating_add(more);
    }
}

fn subtract(amounts: &mut Amounts, less: Amounts) {
    for (amount, less) in amounts.iter_mut().zip(less) {
        *amount = amount.saturating_sub(less);
    }
}
