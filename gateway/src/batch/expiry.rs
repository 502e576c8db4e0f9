//! Deletes what clients had the gateway keep, once its time is over: stored responses, files, batches. Ledger records are
//! not touched: what was used stays known.

use crate::clock::now_ms;
use crate::services::Services;
use ledger::{batches, files, responses};
use std::sync::Arc;
use std::time::Duration;

/// Expired things are looked for so often.
const EVERY: Duration = Duration::from_secs(60);

/// So many are deleted by one statement, and so many statements follow each other at most.
const AT_ONCE: i64 = 500;
const STATEMENTS: usize = 20;

/// Deletes what has expired, again and again, until the gateway stops.
pub(crate) async fn run(services: Arc<Services>) {
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = services.shutdown.stopping() => return,
            _ = tick.tick() => {}
        }
        if let Err(error) = delete_expired(&services, now_ms() / 1000).await {
            tracing::warn!(%error, "expired responses, files or batches not deleted; the next turn does it");
        }
    }
}

/// Deletes what has expired at a time, in seconds since 1970.
async fn delete_expired(services: &Services, now: i64) -> Result<(), ledger::Error> {
    let store = services.ledger.store();
    for _ in 0..STATEMENTS {
        if responses::delete_expired(store, now, AT_ONCE).await? < AT_ONCE.unsigned_abs() {
            break;
        }
    }
    if let Some(keep) = services.current.get().config.gateway.files_keep {
        let keep = i64::try_from(keep.as_secs()).unwrap_or(i64::MAX).max(1);
        files::expire_by_default(store, keep).await?;
        for _ in 0..STATEMENTS {
            let at = now.saturating_sub(keep);
            if batches::delete_finished(store, at, AT_ONCE).await? < AT_ONCE.unsigned_abs() {
                break;
            }
        }
    }
    delete_files(services, now).await
}

/// Deletes files with their contents.
async fn delete_files(services: &Services, now: i64) -> Result<(), ledger::Error> {
    let store = services.ledger.store();
    let mut after = None;
    for _ in 0..STATEMENTS {
        let expired = files::expired(store, now, after.as_deref(), AT_ONCE).await?;
        for file in &expired {
            files::delete(store, &file.project_id, &file.id).await?;
        }
        match expired.last() {
            Some(last) => after = Some(last.id.to_string()),
            None => return Ok(()),
        }
    }
    Ok(())
}
