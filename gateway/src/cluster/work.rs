//! Jobs and batches of the cluster: those of gateways that are silent or gone are taken over, and those that any gateway was
//! asked to cancel are cancelled by the one that has them. With SQLite there may be two during an upgrade.

use crate::batch::{self, Batches};
use crate::exchange::stored;
use crate::services::Services;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

/// How often both are looked for.
const EVERY: Duration = Duration::from_secs(1);

/// Heartbeats in a row before this gateway takes anything over. After an outage of the database all others look silent
/// until they have sent theirs.
const SETTLED: u32 = 7;

/// What is taken over at once, so that several gateways share it.
const JOBS_AT_ONCE: i64 = 32;
const BATCHES_AT_ONCE: i64 = 2;

/// The heartbeats of this gateway since the last one that failed.
#[derive(Debug, Default)]
pub(super) struct Beats(AtomicU32);

impl Beats {
    pub(super) fn succeeded(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    pub(super) fn failed(&self) {
        self.0.store(0, Relaxed);
    }

    fn are_settled(&self) -> bool {
        self.0.load(Relaxed) >= SETTLED
    }
}

/// Looks for work to take over and to cancel until the gateway stops.
pub(super) async fn run(services: Arc<Services>, batches: Arc<Batches>, beats: Arc<Beats>) {
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut has_failed = false;
    loop {
        tokio::select! {
            () = services.shutdown.stopping() => return,
            _ = tick.tick() => {}
        }
        match turn(&services, &batches, &beats).await {
            Ok(()) => has_failed = false,
            Err(error) => {
                if !std::mem::replace(&mut has_failed, true) {
                    tracing::warn!(%error, "cannot look for jobs and batches to take over or to cancel");
                }
            }
        }
    }
}

async fn turn(services: &Arc<Services>, batches: &Arc<Batches>, beats: &Beats) -> Result<(), ledger::Error> {
    stored::cancel_marked(services).await?;
    batch::cancel_marked(services, batches).await?;
    if !beats.are_settled() {
        return Ok(());
    }
    let metrics = &services.metrics.cluster;
    let taken = batch::take_over(services, batches, BATCHES_AT_ONCE).await?;
    metrics.took_over("batch", taken);
    let taken = stored::take_over(services, JOBS_AT_ONCE).await?;
    metrics.took_over("job", taken);
    Ok(())
}
