//! A model of the database that gateways share: what is used, and what each has drawn. Its draws are decided by policy.

use policy::{AccountState, CreditDemand, CreditReturn, Pool, SharedAccount};
use std::collections::HashMap;

/// Amounts of each unit.
pub(crate) type Amounts = [u64; 3];

#[derive(Debug, Default, Clone, Copy)]
struct Lease {
    drawn: Amounts,
    settled: Amounts,
}

/// An operation that a gateway sends. It is of the session in which it was sent.
#[derive(Debug, Clone)]
pub(crate) enum Operation {
    Draw(Vec<CreditDemand>),
    Return(Vec<CreditReturn>),
}

#[derive(Debug, Default)]
pub(crate) struct Store {
    used: HashMap<SharedAccount, [i64; 3]>,
    leases: HashMap<(usize, SharedAccount), Lease>,
    sessions: HashMap<usize, u64>,
    last_session: u64,
    pub(crate) draws: u64,
}

impl Store {
    /// A gateway that starts: its records are moved, so what it had leased is free.
    pub(crate) fn join(&mut self, gateway: usize) -> u64 {
        self.leases.retain(|(owner, _), _| *owner != gateway);
        self.begin_session(gateway)
    }

    /// Ends the session before, whatever of it is on its way.
    pub(crate) fn begin_session(&mut self, gateway: usize) -> u64 {
        self.last_session += 1;
        self.sessions.insert(gateway, self.last_session);
        self.last_session
    }

    /// An operation; false if its session has ended.
    pub(crate) fn run(&mut self, gateway: usize, session: u64, operation: &Operation) -> bool {
        if self.sessions.get(&gateway) != Some(&session) {
            return false;
        }
        match operation {
            Operation::Draw(demands) => {
                self.draws += 1;
                for demand in demands {
                    self.draw(gateway, demand);
                }
            }
            Operation::Return(returns) => {
                for back in returns {
                    let lease = self.leases.entry((gateway, back.account)).or_default();
                    for (drawn, amount) in lease.drawn.iter_mut().zip(back.amounts) {
                        *drawn -= amount;
                    }
                }
            }
        }
        true
    }

    fn draw(&mut self, gateway: usize, demand: &CreditDemand) {
        let state = self.state(gateway, demand.account);
        let lease = self.leases.entry((gateway, demand.account)).or_default();
        for (at, unit) in demand.units.iter().enumerate() {
            if let Some(unit) = unit {
                lease.drawn[at] = unit.drawn_after(&state.pools[at], state.members);
            }
        }
    }

    /// An account as a gateway reads it.
    pub(crate) fn state(&self, gateway: usize, account: SharedAccount) -> AccountState {
        let used = self.used.get(&account).copied().unwrap_or_default();
        let own = self.leases.get(&(gateway, account)).copied().unwrap_or_default();
        let of_all = self.leases.iter().filter(|((_, of), _)| *of == account);
        let leased = of_all.fold([0; 3], |mut sum: Amounts, (_, lease)| {
            for (at, sum) in sum.iter_mut().enumerate() {
                *sum += lease.drawn[at].saturating_sub(lease.settled[at]);
            }
            sum
        });
        AccountState {
            account,
            pools: std::array::from_fn(|at| Pool {
                used: used[at].max(0).unsigned_abs(),
                leased: leased[at],
                drawn: own.drawn[at],
                settled: own.settled[at],
            }),
            members: self.sessions.len() as u64,
        }
    }

    /// All accounts of which a gateway has drawn something.
    pub(crate) fn leases_of(&self, gateway: usize) -> Vec<AccountState> {
        let own = self.leases.keys().filter(|(owner, _)| *owner == gateway);
        own.map(|(_, account)| self.state(gateway, *account)).collect()
    }

    /// A record that is moved from a gateway's journal.
    pub(crate) fn settle(&mut self, gateway: usize, account: SharedAccount, amounts: Amounts) {
        let used = self.used.entry(account).or_default();
        let lease = self.leases.entry((gateway, account)).or_default();
        for at in 0..3 {
            used[at] += i64::try_from(amounts[at]).unwrap();
            lease.settled[at] += amounts[at];
        }
    }

    /// An operator's correction, in tokens.
    pub(crate) fn correct(&mut self, account: SharedAccount, tokens: i64) {
        self.used.entry(account).or_default()[0] += tokens;
    }

    pub(crate) fn used(&self, account: SharedAccount) -> [i64; 3] {
        self.used.get(&account).copied().unwrap_or_default()
    }
}
