//! What happened: exactly one record a request, safe from `kill -9` before the client has the end of its
//! answer.

pub(crate) mod batches;
pub(crate) mod jobs;
mod journal;
pub(crate) mod keys;
mod place;
mod postgres;
pub(crate) mod record;
pub(crate) mod records;
pub(crate) mod report;
mod rollup;
mod row;
mod sqlite;
mod store;
mod verify;
pub(crate) mod versions;
mod writer;

pub(crate) use record::{Outcome, Record};
pub(crate) use store::{Database, connect, open};
pub(crate) use verify::verify;
pub(crate) use writer::{Bounds, Ledger};

/// Where keys, records and their sums are read and changed.
pub(crate) type Store = sqlx::AnyPool;

/// What can go wrong with the database.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the database: {0}")]
pub(crate) struct Unavailable(pub(crate) String);

impl From<sqlx::Error> for Unavailable {
    fn from(error: sqlx::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<rusqlite::Error> for Unavailable {
    fn from(error: rusqlite::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<std::io::Error> for Unavailable {
    fn from(error: std::io::Error) -> Self {
        Self(format!("its journal: {error}"))
    }
}

/// The UTC day of a moment after 1970, as rollups have it.
pub(crate) fn day_of(after_epoch: std::time::Duration) -> String {
    let mut day = row::iso(std::time::UNIX_EPOCH + after_epoch);
    day.truncate(10);
    day
}
