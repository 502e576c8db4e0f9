//! Quotas and budgets that several gateways share: the draws that cover their requests.

use super::Policy;
use crate::{AccountState, CreditDemand, CreditNeed, CreditReturn, SharedAccount, Subject, Time};

impl Policy {
    /// From now on, admits only requests whose quotas and budgets are covered by credit, and asks for it by
    /// [`Decision::NeedsCredit`](crate::Decision::NeedsCredit).
    pub fn share_allowances(&mut self) {
        self.allowances.share();
    }

    /// The draws that some requests need, an account each.
    pub fn credit_demands(&mut self, needs: &[CreditNeed], now: Time) -> Vec<CreditDemand> {
        self.allowances.demands(needs, now)
    }

    /// Takes over the accounts as they are after draws, or as they were read; `demands` are those that were drawn. Draws,
    /// returns and reads of a gateway must be made one after the other.
    pub fn set_credit(&mut self, states: &[AccountState], demands: &[CreditDemand], now: Time) {
        self.allowances.drawn(demands, states, now);
        for state in states {
            if let Some(used) = self.allowances.set_shared(&self.rules, state, now) {
                self.audit.shared(state.account, used);
            }
        }
    }

    /// Takes over all credit anew, after a draw or return whose result is unknown: what `states` do not name is gone.
    pub fn replace_credit(&mut self, states: &[AccountState], now: Time) {
        self.allowances.clear_credit();
        self.set_credit(states, &[], now);
    }

    /// Takes out credit that the other gateways may have; it must then be returned to them.
    pub fn surplus_credit(&mut self, now: Time) -> Vec<CreditReturn> {
        self.allowances.surplus(now)
    }

    /// Has the shared accounts of a subject read from now on, of which this gateway may have used nothing.
    pub fn follow_shared(&mut self, subject: Subject, now: Time) {
        self.allowances.follow(&self.rules, subject, now);
    }

    /// The accounts of the present windows that this gateway uses or was asked about.
    pub fn shared_accounts(&self) -> Vec<SharedAccount> {
        self.allowances.shared_accounts()
    }
}
