//! OpenAI's Batch API: a file of requests, done in the background as batch class through the same admission as all
//! others, so interactive traffic always comes first; a file of answers at the end. A stop or a crash loses nothing: what
//! has an answer in the database is done, and the rest is taken up by the next start.

pub(crate) mod expiry;
mod import;
mod lines;
pub(crate) mod shapes;
mod worker;

pub(crate) use import::import;
pub(crate) use lines::endpoint;
pub(crate) use worker::{Batches, cancel_marked, recover, recover_forgotten, start, take_over};

use crate::services::Services;

/// When a file that is made at `now` is deleted, in seconds since 1970: after what its owner asked for, else after
/// `files.keep_days`; `None`: never.
pub(crate) fn expires_at(services: &Services, now: i64, asked_seconds: Option<i64>) -> Option<i64> {
    let config = &services.current.get().config;
    let by_default = config.gateway.files_keep.map(|keep| keep.as_secs());
    let seconds = asked_seconds.or_else(|| i64::try_from(by_default?).ok())?;
    Some(now.saturating_add(seconds.max(1)))
}
