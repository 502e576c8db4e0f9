//! Leases rate limits and slots that gateways share: reports what was used, and draws credit for what is asked, now and then
//! and when requests lack it. A gateway that is alone uses the whole of every limit and leases nothing.

use super::names::{id_of, id_of_slots, named};
use crate::gate::DrawRequest;
use crate::services::Services;
use ledger::shares::{Outcome, Reports, Shares};
use policy::{LEASE_TTL, Membership, Policy, RateNeed, RateReport, SlotReport};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A gateway that starts waits at most so long until the others know of it and have left it slots.
const ENTER_WITHIN: Duration = Duration::from_secs(2);

/// The only user of the shared limits.
pub(super) struct Leases {
    services: Arc<Services>,
    shares: Box<dyn Shares>,
    /// How often credit is refreshed.
    every: Duration,
    has_failed: bool,
    /// After a failure, other gateways may come back until then: none takes all over.
    others_until: Option<Instant>,
    refreshed: Instant,
    /// True once the store has answered.
    has_entered: bool,
}

impl Leases {
    pub(super) fn new(services: Arc<Services>, shares: Box<dyn Shares>) -> Self {
        Self {
            services,
            every: shares.refresh_every(),
            shares,
            has_failed: false,
            others_until: None,
            refreshed: Instant::now(),
            has_entered: false,
        }
    }

    /// Enters this gateway before it serves its first request.
    pub(super) async fn enter(mut self) {
        let give_up = Instant::now() + ENTER_WITHIN;
        self.services.gate.update(Policy::join);
        while Instant::now() < give_up {
            let is_known = matches!(self.refresh(&[]).await, Ok(true));
            self.has_entered |= is_known;
            if is_known && self.services.gate.with(|policy, _| policy.has_slots()) {
                return;
            }
            tokio::time::sleep(self.every / 5).await;
        }
    }

    /// Refreshes for as long as the process runs.
    pub(super) async fn run(mut self) {
        let services = Arc::clone(&self.services);
        let mut due = Instant::now();
        loop {
            tokio::select! {
                request = services.gate.rates().next() => self.serve(request).await,
                () = services.gate.slots_wanted() => due = due.min(self.refreshed + self.every * 2 / 5),
                () = tokio::time::sleep_until(due) => {
                    let done = self.synchronize().await;
                    self.report(&done);
                    self.refreshed = Instant::now();
                    due = self.refreshed + self.every;
                }
            }
        }
    }

    async fn serve(&mut self, request: DrawRequest<RateNeed>) {
        let done = if self.is_sharing() {
            self.refresh(&request.needs).await
        } else {
            Ok(true)
        };
        self.report(&done);
        self.services.gate.rates().end(request, done.is_ok());
    }

    async fn synchronize(&mut self) -> Result<bool, ledger::Error> {
        if self.is_sharing() {
            return self.refresh(&[]).await;
        }
        let standing = self.shares.greet().await?;
        if standing.is_sole && standing.others == 0 {
            return Ok(true);
        }
        self.services
            .gate
            .update(|policy, now| policy.share(standing.others, now));
        self.refresh(&[]).await
    }

    fn is_sharing(&self) -> bool {
        self.services.gate.update(Policy::is_sharing)
    }

    /// Reports and draws: the rate limits that requests lack, or else all that is in use. Returns false while another gateway
    /// uses the whole of all limits.
    async fn refresh(&mut self, needs: &[RateNeed]) -> Result<bool, ledger::Error> {
        let gate = Arc::clone(&self.services.gate);
        let (sent, rates, slots) = gate.update(|policy, now| {
            let rates = policy.rate_reports(needs, self.every, now);
            let slots = if needs.is_empty() {
                policy.slot_reports(now)
            } else {
                Vec::new()
            };
            (now, rates, slots)
        });
        let current = &self.services.current;
        let reports = Reports {
            is_whole: needs.is_empty(),
            rates: with_ids(rates, |report| id_of(current, report.rate)),
            slots: with_ids(slots, |report| Some(id_of_slots(current, report.slots))),
        };
        let refreshed = self.shares.refresh(&reports, &self.services.peers.live()).await;
        self.services.metrics.cluster.refreshed(refreshed.is_ok());
        let rates: Vec<RateReport> = reports.rates.into_iter().map(|(_, report)| report).collect();
        let slots: Vec<SlotReport> = reports.slots.into_iter().map(|(_, report)| report).collect();
        let refreshed = match refreshed {
            Ok(refreshed) => refreshed,
            Err(error) => {
                gate.update(|policy, now| {
                    policy.keep_rate_reports(&rates, now);
                    if self.has_entered {
                        policy.use_part_after_lapse(now);
                    }
                });
                return Err(error);
            }
        };
        let membership = Membership {
            members: refreshed.members,
            rank: refreshed.rank,
            sent,
        };
        let grants = match refreshed.outcome {
            Outcome::Granted(grants) => grants,
            Outcome::Waits => {
                gate.update(|policy, now| {
                    policy.keep_rate_reports(&rates, now);
                    policy.set_rate_grants(&[], &[], membership, now);
                });
                return Ok(false);
            }
            Outcome::Forgotten => {
                gate.update(|policy, now| {
                    policy.keep_rate_reports(&rates, now);
                    policy.announce_again();
                });
                // The session has begun: this is not forgotten again.
                return Box::pin(self.refresh(&[])).await;
            }
        };
        gate.update(|policy, now| {
            policy.set_rate_grants(&rates, &grants.rates, membership, now);
            policy.set_slot_grants(&slots, &grants.slots);
        });
        if refreshed.members == 1 && needs.is_empty() {
            self.take_over().await?;
        }
        Ok(true)
    }

    /// Uses the whole of every limit from now on, if no other gateway is live.
    async fn take_over(&mut self) -> Result<(), ledger::Error> {
        if self.others_until.is_some_and(|until| Instant::now() < until) {
            return Ok(());
        }
        let Some(levels) = self.shares.take_over(&self.services.peers.live()).await? else {
            return Ok(());
        };
        let current = &self.services.current;
        let levels: Vec<_> = levels
            .into_iter()
            .filter_map(|(id, level)| Some((named(current, &id)?, level)))
            .collect();
        self.services.gate.update(|policy, now| policy.take_over(&levels, now));
        Ok(())
    }

    /// Without leases, uses the part of one of the gateways that the database takes for live, where the store is another server.
    fn use_part(&self) {
        let startup = &self.services.current.get().config.gateway.startup;
        if startup.cluster_url.is_some() {
            let part = self.services.peers.position(self.services.ledger.owner().as_str());
            self.services.gate.update(|policy, now| policy.use_part(part, now));
        }
    }

    fn set_coordinated(&self, is_coordinated: bool) {
        self.services.metrics.cluster.coordinated(is_coordinated);
        self.services.peers.set_coordinated(is_coordinated);
    }

    /// Logs the first failure, and its end.
    fn report(&mut self, done: &Result<bool, ledger::Error>) {
        match done {
            Ok(_) => {
                self.has_entered = true;
                self.set_coordinated(true);
                if std::mem::take(&mut self.has_failed) {
                    self.others_until = Some(Instant::now() + LEASE_TTL);
                    tracing::info!("rate limits and slots hold over all gateways again");
                }
            }
            Err(error) => {
                self.use_part();
                let is_sharing = self.is_sharing();
                self.set_coordinated(is_sharing);
                if !std::mem::replace(&mut self.has_failed, true) {
                    tracing::warn!(
                        %error,
                        "cannot lease shared rate limits and slots: within 3 s, this gateway uses its part of each on its own"
                    );
                }
            }
        }
    }
}

/// Reports with the ids of their accounts; without those whose holder is not known any more.
fn with_ids<R>(reports: Vec<R>, id_of: impl Fn(&R) -> Option<String>) -> Vec<(String, R)> {
    let named = reports.into_iter().filter_map(|report| Some((id_of(&report)?, report)));
    named.collect()
}
