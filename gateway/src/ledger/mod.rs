//! What happened: exactly one record a request, in the database before the client has the end of its
//! answer.

pub(crate) mod keys;
mod recent;
pub(crate) mod record;
mod store;
mod writer;

pub(crate) use recent::recent;
pub(crate) use record::{Outcome, Record};
pub(crate) use store::{keep_log_short, open};
pub(crate) use writer::Ledger;

/// What can go wrong with the database.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the database: {0}")]
pub(crate) struct Unavailable(pub(crate) String);

impl From<sqlx::Error> for Unavailable {
    fn from(error: sqlx::Error) -> Self {
        Self(error.to_string())
    }
}
