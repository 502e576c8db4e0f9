//! Allowances that several gateways share: what a request lacks, and what the database says of all of them.

use super::Allowances;
use super::account::{Used, Windows};
use super::check::{Check, limits, part};
use super::credit::{AccountState, Cover, CreditDemand, CreditNeed, CreditReturn, Credits, SharedAccount};
use crate::quota::{Amounts, QuotaUnit, QuotaWindow};
use crate::request::Parties;
use crate::{Refusal, Rules, Subject, Time};

impl Allowances {
    /// From now on, reserves only what is covered by credit.
    pub(crate) fn share(&mut self) {
        self.credits.get_or_insert_default();
    }

    /// The credit that a request lacks; empty where nothing is shared.
    pub(super) fn lacking(
        &mut self,
        rules: &Rules,
        parties: &Parties,
        windows: Windows,
        amounts: Amounts,
        now: Time,
    ) -> Result<Vec<CreditNeed>, Refusal> {
        let mut needs = Vec::new();
        let Some(credits) = &mut self.credits else {
            return Ok(needs);
        };
        for subject in parties.payers() {
            let Some(allowance) = rules.allowance(subject) else {
                continue;
            };
            let account = self.accounts.entry(subject);
            for window in QuotaWindow::ALL {
                let used = *account.window(window);
                if used.window != windows.index(window) || limits(allowance.caps(window)).next().is_none() {
                    continue;
                }
                let shared = SharedAccount {
                    subject,
                    window,
                    index: used.window,
                };
                credits.follow(shared);
                let Some(share) = allowance.actions.block else { continue };
                for (unit, limit) in limits(allowance.caps(window)) {
                    let (limit, wanted) = (part(limit, share), amounts[unit]);
                    let cover = credits.covers(shared, unit, (used.own_held()[unit], wanted), now);
                    match cover {
                        _ if wanted == 0 => {}
                        Cover::Covered => {}
                        Cover::Lacking => needs.push(CreditNeed {
                            account: shared,
                            unit,
                            limit,
                            wanted,
                        }),
                        Cover::Dry(left) => {
                            let check = Check {
                                subject,
                                window,
                                used: &used,
                                allowance,
                                now,
                            };
                            return Err(check.dry(unit, limit, left, wanted));
                        }
                    }
                }
            }
        }
        Ok(needs)
    }

    /// The demands of requests that lack credit.
    pub(crate) fn demands(&mut self, needs: &[CreditNeed], now: Time) -> Vec<CreditDemand> {
        let Self { accounts, credits, .. } = self;
        let Some(credits) = credits else { return Vec::new() };
        let held = |account: SharedAccount| {
            let used = *accounts.entry(account.subject).window(account.window);
            let is_current = used.window == account.index;
            if is_current {
                used.own_held()
            } else {
                Amounts::default()
            }
        };
        credits.demands(needs, held, now)
    }

    /// Notes the results of a draw; to be called before [`Allowances::set_shared`].
    pub(crate) fn drawn(&mut self, demands: &[CreditDemand], states: &[AccountState], now: Time) {
        let Some(credits) = &mut self.credits else { return };
        for demand in demands {
            if let Some(state) = states.iter().find(|state| state.account == demand.account) {
                credits.drawn(demand, state, now);
            }
        }
    }

    /// Takes over what is drawn from an account, and what all gateways have used of it. Returns what counts as used, if the
    /// account's window is the current one.
    pub(crate) fn set_shared(&mut self, rules: &Rules, state: &AccountState, now: Time) -> Option<Amounts> {
        let account = state.account;
        let allowance = rules.allowance(account.subject);
        let most = QuotaUnit::ALL.map(|unit| {
            let limit = allowance?.caps(account.window).get(unit)?;
            Some(part(limit, allowance?.actions.block?))
        });
        self.credits.as_mut()?.set(state, most);
        let used = self.current(account, now)?;
        let pool = |unit: QuotaUnit| &state.pools[unit as usize];
        for unit in QuotaUnit::ALL {
            // Others' records, and one's own that are recorded or on their way.
            let on_their_way = used.own[unit].saturating_sub(pool(unit).settled);
            used.used[unit] = pool(unit).used.saturating_add(on_their_way);
        }
        Some(used.used)
    }

    /// Forgets all credit.
    pub(crate) fn clear_credit(&mut self) {
        if let Some(credits) = &mut self.credits {
            credits.clear();
        }
    }

    /// Takes out credit that the other gateways may have.
    pub(crate) fn surplus(&mut self, now: Time) -> Vec<CreditReturn> {
        let Some(mut credits) = self.credits.take() else {
            return Vec::new();
        };
        let returns = credits.surplus(|account| self.current(account, now).map(|used| used.own_held()), now);
        self.credits = Some(credits);
        returns
    }

    /// Follows the accounts of a subject that has limits, whether or not it uses them here.
    pub(crate) fn follow(&mut self, rules: &Rules, subject: Subject, now: Time) {
        let Some(credits) = &mut self.credits else { return };
        let (Some(allowance), windows) = (rules.allowance(subject), Windows::at(now)) else {
            return;
        };
        for window in QuotaWindow::ALL {
            if limits(allowance.caps(window)).next().is_some() {
                let index = windows.index(window);
                credits.follow(SharedAccount { subject, window, index });
            }
        }
    }

    /// The accounts that are shared.
    pub(crate) fn shared_accounts(&self) -> Vec<SharedAccount> {
        self.credits.as_ref().map(Credits::accounts).unwrap_or_default()
    }

    /// An account's present window, if it is that.
    fn current(&mut self, shared: SharedAccount, now: Time) -> Option<&mut Used> {
        let present = self.windows(now);
        let account = self.accounts.entry(shared.subject);
        account.turn(shared.subject, &self.later, present);
        let used = account.window(shared.window);
        (used.window == shared.index).then_some(used)
    }
}
