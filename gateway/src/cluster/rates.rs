//! Leases rate limits that gateways share: reports what was used, and draws credit for what is asked, now and then and when
//! requests lack it. A gateway that is alone uses the whole of every limit and leases nothing.

use super::names::{id_of, named};
use crate::gate::DrawRequest;
use crate::services::Services;
use ledger::shares::{Refreshed, Shares};
use policy::{LEASE_TTL, Policy, RateNeed, RateReport};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often credit is refreshed.
const REFRESH_EVERY: Duration = Duration::from_millis(250);

/// A gateway that starts waits at most so long until the others know of it.
const ENTER_WITHIN: Duration = Duration::from_secs(2);

/// The only user of the shared rate limits.
pub(super) struct RateLeases {
    services: Arc<Services>,
    shares: Shares,
    has_failed: bool,
    /// After a failure, other gateways may come back until then: none takes all over.
    others_until: Option<Instant>,
}

impl RateLeases {
    pub(super) fn new(services: Arc<Services>, shares: Shares) -> Self {
        Self {
            services,
            shares,
            has_failed: false,
            others_until: None,
        }
    }

    /// Enters this gateway before it serves its first request.
    pub(super) async fn enter(mut self) {
        let give_up = Instant::now() + ENTER_WITHIN;
        self.services.gate.with(Policy::share_rates);
        while !matches!(self.refresh(&[]).await, Ok(true)) && Instant::now() < give_up {
            tokio::time::sleep(REFRESH_EVERY / 5).await;
        }
    }

    /// Refreshes for as long as the process runs.
    pub(super) async fn run(mut self) {
        let mut tick = tokio::time::interval(REFRESH_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let services = Arc::clone(&self.services);
        loop {
            tokio::select! {
                request = services.gate.rates().next() => self.serve(request).await,
                _ = tick.tick() => {
                    let done = self.synchronize().await;
                    self.report(&done);
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
        self.services.gate.with(Policy::share_rates);
        self.refresh(&[]).await
    }

    fn is_sharing(&self) -> bool {
        self.services.gate.with(Policy::is_sharing_rates)
    }

    /// Reports and draws. Returns false while another gateway uses the whole of all limits.
    async fn refresh(&mut self, needs: &[RateNeed]) -> Result<bool, ledger::Error> {
        let gate = Arc::clone(&self.services.gate);
        let (sent, reports) = gate.with(|policy, now| (now, policy.rate_reports(needs, REFRESH_EVERY, now)));
        let mut reports: Vec<(String, RateReport)> = reports
            .into_iter()
            .filter_map(|report| Some((id_of(&self.services.current, report.rate)?, report)))
            .collect();
        reports.sort_by(|(one, _), (other, _)| one.cmp(other));
        let refreshed = self.shares.refresh(&reports).await;
        self.services.metrics.cluster.refreshed(refreshed.is_ok());
        let reports: Vec<RateReport> = reports.into_iter().map(|(_, report)| report).collect();
        match refreshed {
            Ok(Refreshed {
                members,
                grants: Some(grants),
            }) => {
                gate.with(|policy, now| policy.set_rate_grants(&reports, &grants, (members, sent), now));
                if members == 1 && needs.is_empty() {
                    self.take_over().await?;
                }
                Ok(true)
            }
            Ok(Refreshed { members, grants: None }) => {
                gate.with(|policy, now| {
                    policy.keep_rate_reports(&reports, now);
                    policy.set_rate_grants(&[], &[], (members, sent), now);
                });
                Ok(false)
            }
            Err(error) => {
                gate.with(|policy, now| policy.keep_rate_reports(&reports, now));
                Err(error)
            }
        }
    }

    /// Uses the whole of every limit from now on, if no other gateway is live.
    async fn take_over(&mut self) -> Result<(), ledger::Error> {
        if self.others_until.is_some_and(|until| Instant::now() < until) {
            return Ok(());
        }
        let Some(levels) = self.shares.take_over().await? else {
            return Ok(());
        };
        let current = &self.services.current;
        let levels: Vec<_> = levels
            .into_iter()
            .filter_map(|(id, level)| Some((named(current, &id)?, level)))
            .collect();
        self.services
            .gate
            .with(|policy, now| policy.take_over_rates(&levels, now));
        Ok(())
    }

    /// Logs the first failure, and its end.
    fn report(&mut self, done: &Result<bool, ledger::Error>) {
        match done {
            Ok(_) => {
                self.services.metrics.cluster.coordinated(true);
                if std::mem::take(&mut self.has_failed) {
                    self.others_until = Some(Instant::now() + LEASE_TTL);
                    tracing::info!("rate limits hold over all gateways again");
                }
            }
            Err(error) => {
                let is_sharing = self.is_sharing();
                self.services.metrics.cluster.coordinated(is_sharing);
                if !std::mem::replace(&mut self.has_failed, true) {
                    tracing::warn!(
                        %error,
                        "cannot lease shared rate limits: within 3 s, this gateway uses its part of each on its own"
                    );
                }
            }
        }
    }
}
