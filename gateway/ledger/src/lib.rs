//! The ledger: exactly one record a request, safe from `kill -9` before the client has the end of its answer; the
//! jobs, batches, files and keys that outlive a process; and the reports on them.
//!
//! The only crate that knows SQL. It knows nothing of configuration, HTTP or the proxy: it is handed plain data.

pub mod batches;
mod connecting;
pub mod contents;
mod database;
mod durability;
mod endings;
mod entry;
mod error;
pub mod escrow;
pub mod files;
mod finishing;
mod health;
mod id;
pub mod jobs;
mod journal;
pub mod keys;
mod ledger;
pub mod members;
mod migrations;
mod mover;
mod page;
mod postgres;
pub mod records;
pub mod report;
pub mod responses;
mod rollup;
mod row;
pub mod search;
mod segments;
pub mod shares;
mod slot;
pub mod spans;
mod sqlite;
mod state;
mod store;
mod time;
pub mod totals;
mod verify;
pub mod versions;
mod writer;

pub use database::{Database, open, paths};
pub use durability::Durability;
pub use endings::{Answer, Claim, Work, Written};
pub use entry::{Correction, Entry};
pub use error::Error;
pub use health::LedgerHealth;
pub use id::{BatchId, EntryNumber, FileId, GatewayId, RequestId};
pub use journal::Receipt;
pub use ledger::{Bounds, Ledger, Observer};
pub use page::Page;
pub use state::{BatchStatus, Decision, FilePurpose, KeyState, Outcome};
pub use store::{Store, connect, describe};
pub use time::{Clock, day_of};
pub use verify::{Verified, verify};

#[cfg(test)]
mod isolation;
#[cfg(test)]
mod moving_speed;
#[cfg(test)]
mod reading_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
