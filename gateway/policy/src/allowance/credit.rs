//! Credit: where several gateways share quotas and budgets, each draws parts of them in advance from what is left of all,
//! and admits only what its credit covers. So all gateways together cannot exceed a limit, however many they are and
//! whichever of them ends.
//!
//! Drawn and settled amounts are sums since a gateway's start. What it has drawn and not settled is its lease: its own
//! requests that run, and those whose records are on their way.

use crate::quota::{Amounts, QuotaUnit, QuotaWindow};
use crate::{Subject, Time};
use std::collections::HashMap;
use std::time::Duration;

/// A draw is to last for so long at the present use.
const DRAW_FOR: Duration = Duration::from_secs(10);

/// Credit of an account from which nothing was drawn for so long is returned.
const IDLE_AFTER: Duration = Duration::from_secs(30);

/// After a draw that did not suffice, the next one waits for so long.
const DRY_FOR: Duration = Duration::from_millis(200);

/// One subject's use of one window, which several gateways share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SharedAccount {
    /// The holder of the limits.
    pub subject: Subject,
    /// The kind of window.
    pub window: QuotaWindow,
    /// Days, or months, since 1970.
    pub index: u64,
}

impl SharedAccount {
    /// The window's date, such as `2026-11-25` or `2026-11`.
    pub fn period(self) -> String {
        match self.window {
            QuotaWindow::Day => Time::after_epoch(Duration::from_secs(self.index.saturating_mul(86_400))).date(),
            QuotaWindow::Month => format!("{:04}-{:02}", 1970 + self.index / 12, self.index % 12 + 1),
        }
    }
}

/// The credit that a request lacks: nothing is held for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CreditNeed {
    /// The account.
    pub account: SharedAccount,
    /// The unit.
    pub unit: QuotaUnit,
    /// The limit of all gateways together.
    pub limit: u64,
    /// The request's worst case.
    pub wanted: u64,
}

/// The credit that is to be drawn from an account, by unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CreditDemand {
    /// The account.
    pub account: SharedAccount,
    /// `None` where enough is drawn.
    pub units: [Option<UnitDemand>; 3],
}

/// The credit that is to be drawn in one unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnitDemand {
    /// The limit of all gateways together.
    pub limit: u64,
    /// What this gateway has used since its start, and what it has reserved.
    pub held: u64,
    /// The smallest worst case of the requests that wait for the draw.
    pub least: u64,
    /// The largest of them.
    pub most: u64,
    /// Their sum.
    pub total: u64,
    /// The use of about ten seconds.
    pub piece: u64,
}

/// One unit of an account as all gateways share it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pool {
    /// Used, as recorded by all gateways.
    pub used: u64,
    /// Drawn and not settled by all gateways.
    pub leased: u64,
    /// Drawn by this gateway since its start.
    pub drawn: u64,
    /// Recorded by this gateway since its start.
    pub settled: u64,
}

/// An account as all gateways share it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccountState {
    /// The account.
    pub account: SharedAccount,
    /// By unit, in the order of [`QuotaUnit::ALL`].
    pub pools: [Pool; 3],
    /// The gateways that are live.
    pub members: u64,
}

/// Credit that is returned to the other gateways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CreditReturn {
    /// The account.
    pub account: SharedAccount,
    /// By unit, in the order of [`QuotaUnit::ALL`].
    pub amounts: [u64; 3],
}

impl UnitDemand {
    /// What this gateway has drawn after the draw, at least what it had: enough for the requests that wait if so much is
    /// left, and beyond that at most what is left / (2 · members), so that pieces shrink as a limit comes near. A gateway
    /// that is alone draws as much, however little it uses: it can then do without the database for long.
    pub fn drawn_after(&self, pool: &Pool, members: u64) -> u64 {
        // What was used without credit, before there was a limit, counts as used already.
        let base = pool.drawn.max(pool.settled);
        let left = self.limit.saturating_sub(pool.used.saturating_add(pool.leased));
        let lacking = |wanted: u64| self.held.saturating_add(wanted).saturating_sub(base);
        let (least, most) = (lacking(self.least), lacking(self.most));
        if least > left {
            return base;
        }
        let enough = if most <= left { most } else { least };
        let is_alone = members <= 1;
        let piece = if is_alone {
            left
        } else {
            lacking(self.total).max(self.piece)
        };
        base.saturating_add(enough.max(piece.min(left / members.max(1).saturating_mul(2))))
    }

    fn add(&mut self, wanted: u64) {
        self.least = self.least.min(wanted);
        self.most = self.most.max(wanted);
        self.total = self.total.saturating_add(wanted);
    }
}

/// The credit of one unit of an account.
#[derive(Debug, Clone, Copy, Default)]
struct Credit {
    /// Drawn since the start, less what was returned.
    drawn: u64,
    /// The latest draw's amount.
    piece: u64,
    /// The largest worst case for which was drawn lately.
    request: u64,
    /// The time of the latest draw.
    drawn_at: Option<Time>,
    /// A draw did not suffice: the next is made after this.
    dry_until: Option<Time>,
    /// The most that may be held in advance: what was left, with what this gateway had leased, / (2 · members).
    most_ahead: u64,
    /// No other gateway lives.
    is_alone: bool,
}

impl Credit {
    /// What may be held in advance. A part of a request is of no use here, and may be what another gateway lacks.
    fn ahead(&self, now: Time) -> u64 {
        let is_idle = self.drawn_at.is_none_or(|at| now - at >= IDLE_AFTER);
        if self.is_alone {
            return u64::MAX;
        }
        let ahead = self.piece.min(self.most_ahead);
        if is_idle || ahead < self.request { 0 } else { ahead }
    }

    /// The use of about ten seconds, by how long the latest draw lasted.
    fn next_piece(&self, now: Time) -> u64 {
        let Some(drawn_at) = self.drawn_at else { return 0 };
        let lasted = (now - drawn_at).as_millis().max(1);
        let exact = u128::from(self.piece) * DRAW_FOR.as_millis() / lasted;
        u64::try_from(exact)
            .unwrap_or(u64::MAX)
            .clamp(self.piece / 4, self.piece.saturating_mul(4))
    }
}

/// The accounts that are shared, and the credit that is drawn from them.
#[derive(Debug, Default)]
pub(super) struct Credits(HashMap<SharedAccount, [Credit; 3]>);

/// The answer to whether an amount is covered.
pub(super) enum Cover {
    Covered,
    /// A draw may help.
    Lacking,
    /// A draw has just not helped; so much is drawn and not held.
    Dry(u64),
}

impl Credits {
    /// Follows an account from now on.
    pub(super) fn follow(&mut self, account: SharedAccount) {
        self.0.entry(account).or_default();
    }

    /// Returns whether the credit covers what is held and wanted.
    pub(super) fn covers(
        &self,
        account: SharedAccount,
        unit: QuotaUnit,
        (held, wanted): (u64, u64),
        now: Time,
    ) -> Cover {
        let credit = self.unit(account, unit);
        if held.saturating_add(wanted) <= credit.drawn {
            Cover::Covered
        } else if credit.dry_until.is_some_and(|until| now < until) {
            Cover::Dry(credit.drawn.saturating_sub(held))
        } else {
            Cover::Lacking
        }
    }

    /// The demands of requests that wait; `held` gives what is used and reserved of an account.
    pub(super) fn demands(
        &self,
        needs: &[CreditNeed],
        mut held: impl FnMut(SharedAccount) -> Amounts,
        now: Time,
    ) -> Vec<CreditDemand> {
        let mut demands: HashMap<SharedAccount, CreditDemand> = HashMap::new();
        for need in needs {
            let account = need.account;
            let demand = demands.entry(account).or_insert(CreditDemand {
                account,
                units: [None; 3],
            });
            let unit = demand.units[need.unit as usize].get_or_insert_with(|| UnitDemand {
                limit: need.limit,
                held: held(account)[need.unit],
                least: u64::MAX,
                most: 0,
                total: 0,
                piece: self.unit(account, need.unit).next_piece(now),
            });
            unit.limit = unit.limit.min(need.limit);
            unit.add(need.wanted);
        }
        demands.into_values().collect()
    }

    /// Takes over what is drawn from an account.
    pub(super) fn set(&mut self, state: &AccountState, limits: [Option<u64>; 3]) {
        let credits = self.0.entry(state.account).or_default();
        for ((credit, pool), limit) in credits.iter_mut().zip(&state.pools).zip(limits) {
            credit.drawn = pool.drawn;
            let left = limit.map_or(0, |limit| limit.saturating_sub(pool.used.saturating_add(pool.leased)));
            let own = pool.drawn.saturating_sub(pool.settled);
            credit.most_ahead = left.saturating_add(own) / state.members.max(1).saturating_mul(2);
            credit.is_alone = state.members <= 1;
        }
    }

    /// Notes the amounts of a draw, and where it did not suffice. To be called before [`Credits::set`].
    pub(super) fn drawn(&mut self, demand: &CreditDemand, state: &AccountState, now: Time) {
        let credits = self.0.entry(demand.account).or_default();
        for ((credit, unit), pool) in credits.iter_mut().zip(&demand.units).zip(&state.pools) {
            let Some(unit) = unit else { continue };
            let suffices = unit.held.saturating_add(unit.least) <= pool.drawn;
            credit.dry_until = (!suffices).then(|| now + DRY_FOR);
            if suffices {
                credit.piece = pool.drawn.saturating_sub(credit.drawn);
                credit.request = unit.most;
                credit.drawn_at = Some(now);
            }
        }
    }

    /// Forgets what is drawn.
    pub(super) fn clear(&mut self) {
        for credit in self.0.values_mut().flatten() {
            credit.drawn = 0;
        }
    }

    /// Takes out what is held too far in advance, and what idle accounts hold; forgets accounts of windows that have ended.
    pub(super) fn surplus(
        &mut self,
        mut held: impl FnMut(SharedAccount) -> Option<Amounts>,
        now: Time,
    ) -> Vec<CreditReturn> {
        let mut returns = Vec::new();
        self.0.retain(|account, credits| {
            let Some(held) = held(*account) else { return false };
            let mut amounts = [0; 3];
            for (unit, amount) in QuotaUnit::ALL.into_iter().zip(&mut amounts) {
                let credit = &mut credits[unit as usize];
                *amount = credit
                    .drawn
                    .saturating_sub(held[unit].saturating_add(credit.ahead(now)));
                credit.drawn -= *amount;
            }
            if amounts != [0; 3] {
                returns.push(CreditReturn {
                    account: *account,
                    amounts,
                });
            }
            true
        });
        returns
    }

    /// The accounts that are followed.
    pub(super) fn accounts(&self) -> Vec<SharedAccount> {
        self.0.keys().copied().collect()
    }

    fn unit(&self, account: SharedAccount, unit: QuotaUnit) -> Credit {
        self.0
            .get(&account)
            .map_or_else(Credit::default, |credits| credits[unit as usize])
    }
}
