//! Draws credit from the quotas and budgets that gateways share, and returns what is not needed: one operation after the
//! other, so that what policy takes for drawn is what the database has.

use super::names::key_of;
use crate::gate::DrawRequest;
use crate::services::Services;
use ledger::escrow::{Accounts, Escrow, EscrowKey};
use policy::{AccountState, CreditDemand, CreditNeed, Policy, SharedAccount};
use std::sync::Arc;
use std::time::Duration;

/// How often surplus is returned, and what all gateways have used is read.
const SYNCHRONIZE_EVERY: Duration = Duration::from_secs(1);

/// The accounts that are read at once.
const READ_AT_ONCE: usize = 1000;

/// The only user of the shared accounts.
pub(super) struct Banker {
    services: Arc<Services>,
    escrow: Escrow,
    /// The accounts before this one were read lately.
    next: usize,
    has_failed: bool,
}

impl Banker {
    pub(super) fn new(services: Arc<Services>, escrow: Escrow) -> Self {
        Self {
            services,
            escrow,
            next: 0,
            has_failed: false,
        }
    }

    /// Draws whenever requests lack credit, for as long as the process runs.
    pub(super) async fn run(mut self) {
        let mut tick = tokio::time::interval(SYNCHRONIZE_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let services = Arc::clone(&self.services);
        loop {
            tokio::select! {
                request = services.gate.credit().next() => self.serve(request).await,
                _ = tick.tick() => {
                    let done = self.synchronize().await;
                    self.report(&done);
                }
            }
        }
    }

    async fn serve(&mut self, request: DrawRequest<CreditNeed>) {
        let drawn = self.draw(&request).await;
        self.services.metrics.cluster.drawn(drawn.is_ok());
        self.report(&drawn);
        self.services.gate.credit().end(request, drawn.is_ok());
    }

    async fn draw(&mut self, request: &DrawRequest<CreditNeed>) -> Result<(), ledger::Error> {
        self.end_doubt().await?;
        let gate = &self.services.gate;
        let demands = gate.with(|policy, now| policy.credit_demands(&request.needs, now));
        let mut demands: Vec<(EscrowKey, CreditDemand)> = demands
            .into_iter()
            .filter_map(|demand| Some((self.key(demand.account)?, demand)))
            .collect();
        demands.sort_by(|(one, _), (other, _)| one.cmp(other));
        let (keys, demands): (Vec<_>, Vec<_>) = demands.into_iter().unzip();
        let units: Vec<_> = demands.iter().map(|demand| demand.units).collect();
        let accounts = self.escrow.draw(&keys, &units).await?;
        let states = states(demands.iter().map(|demand| demand.account), &accounts);
        gate.with(|policy, now| policy.set_credit(&states, &demands, now));
        Ok(())
    }

    /// Returns surplus, and reads what all gateways have used.
    async fn synchronize(&mut self) -> Result<(), ledger::Error> {
        self.end_doubt().await?;
        let gate = &self.services.gate;
        let returned = gate.with(Policy::surplus_credit);
        let returned: Vec<_> = returned
            .into_iter()
            .filter_map(|one| Some((self.key(one.account)?, one.amounts)))
            .collect();
        let mut known = self.known();
        if self.next >= known.len() {
            self.next = 0;
        }
        let known: Vec<_> = known.drain(self.next..).take(READ_AT_ONCE).collect();
        self.next += known.len();
        if returned.is_empty() && known.is_empty() {
            return Ok(());
        }
        let (keys, accounts): (Vec<_>, Vec<_>) = known.into_iter().unzip();
        let read = self.escrow.give_back(&returned, &keys).await?;
        let states = states(accounts.into_iter(), &read);
        gate.with(|policy, now| policy.set_credit(&states, &[], now));
        Ok(())
    }

    /// Reads all that is drawn, where the result of the last operation is unknown. It must be known before anything else is
    /// drawn or returned.
    async fn end_doubt(&mut self) -> Result<(), ledger::Error> {
        if self.escrow.is_certain() {
            return Ok(());
        }
        let (keys, accounts): (Vec<_>, Vec<_>) = self.known().into_iter().unzip();
        let read = self.escrow.begin(&keys).await?;
        let states = states(accounts.into_iter(), &read);
        self.services
            .gate
            .with(|policy, now| policy.replace_credit(&states, now));
        Ok(())
    }

    /// The accounts that this gateway uses, in the order of their keys.
    fn known(&self) -> Vec<(EscrowKey, SharedAccount)> {
        let accounts = self.services.gate.with(|policy, _| policy.shared_accounts());
        let mut known: Vec<_> = accounts
            .into_iter()
            .filter_map(|account| Some((self.key(account)?, account)))
            .collect();
        known.sort_by(|(one, _), (other, _)| one.cmp(other));
        known
    }

    fn key(&self, account: SharedAccount) -> Option<EscrowKey> {
        key_of(&self.services.current, account)
    }

    /// Logs the first failure, and its end.
    fn report(&mut self, done: &Result<(), ledger::Error>) {
        match done {
            Ok(()) if std::mem::take(&mut self.has_failed) => {
                tracing::info!("shared quotas and budgets can be drawn from again");
            }
            Err(error) if !std::mem::replace(&mut self.has_failed, true) => {
                tracing::warn!(
                    %error,
                    "cannot draw from shared quotas and budgets: what is drawn is spent, then requests get 503"
                );
            }
            _ => {}
        }
    }
}

/// Accounts as policy takes them.
fn states(accounts: impl Iterator<Item = SharedAccount>, read: &Accounts) -> Vec<AccountState> {
    let states = accounts.zip(&read.pools).map(|(account, pools)| AccountState {
        account,
        pools: *pools,
        members: read.members,
    });
    states.collect()
}
