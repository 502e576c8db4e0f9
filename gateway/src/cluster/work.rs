//! Jobs and batches of the cluster: those of gateways that are silent or gone are taken over, and those that any gateway was
//! asked to cancel are cancelled by the one that has them. With SQLite there may be two during an upgrade. A gateway that
//! stops leaves what it does not finish to the others.

use crate::batch::{self, Batches};
use crate::exchange::stored;
use crate::services::Services;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// How often both are looked for.
const EVERY: Duration = Duration::from_secs(1);

/// Heartbeats in a row before this gateway takes anything over. After an outage of the database all others look silent
/// until they have sent theirs.
const SETTLED: u32 = 7;

/// What is taken over by one statement, so that several gateways share it, and the statements of one turn.
const JOBS_AT_ONCE: i64 = 32;
const BATCHES_AT_ONCE: i64 = 2;
const STATEMENTS: usize = 50;

/// The turns after which this gateway looks for work of its own that it does not know of.
const TURNS: u32 = 10;

/// The heartbeats of this gateway since the last one that failed, and the members that are live.
#[derive(Debug, Default)]
pub(super) struct Beats {
    succeeded: AtomicU32,
    live: AtomicU64,
}

impl Beats {
    pub(super) fn succeeded(&self, live: u64) {
        self.succeeded.fetch_add(1, Relaxed);
        self.live.store(live, Relaxed);
    }

    pub(super) fn failed(&self) {
        self.succeeded.store(0, Relaxed);
    }

    fn are_settled(&self) -> bool {
        self.succeeded.load(Relaxed) >= SETTLED
    }

    fn has_others(&self) -> bool {
        self.live.load(Relaxed) > 1
    }
}

/// Looks for work to take over and to cancel, and once the gateway stops, for work to leave to others.
pub(super) async fn run(services: Arc<Services>, batches: Arc<Batches>, beats: Arc<Beats>) {
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut has_failed = false;
    for number in 1_u32.. {
        tick.tick().await;
        match turn(&services, &batches, &beats, number).await {
            Ok(()) => has_failed = false,
            Err(error) => {
                if !std::mem::replace(&mut has_failed, true) {
                    tracing::warn!(%error, "cannot look for jobs and batches to take over or to cancel");
                }
            }
        }
    }
}

async fn turn(
    services: &Arc<Services>,
    batches: &Arc<Batches>,
    beats: &Beats,
    number: u32,
) -> Result<(), ledger::Error> {
    stored::cancel_marked(services).await?;
    batch::cancel_marked(services, batches).await?;
    if !beats.are_settled() {
        return Ok(());
    }
    let is_leaving = services.shutdown.is_stopping();
    if (is_leaving && beats.has_others()) || (!is_leaving && number.is_multiple_of(TURNS)) {
        batch::recover_forgotten(services, batches, is_leaving).await?;
        stored::recover_forgotten(services, is_leaving).await?;
    }
    if is_leaving {
        return Ok(());
    }
    let metrics = &services.metrics.cluster;
    for _ in 0..STATEMENTS {
        let taken_batches = batch::take_over(services, batches, BATCHES_AT_ONCE).await?;
        metrics.took_over("batch", taken_batches);
        let taken_jobs = stored::take_over(services, JOBS_AT_ONCE).await?;
        metrics.took_over("job", taken_jobs);
        if taken_batches + taken_jobs == 0 {
            break;
        }
    }
    Ok(())
}
