//! The database interface of the thread that moves records; SQLite and PostgreSQL each have their own.

use crate::endings::{Ending, Written};
use crate::error::Error;
use crate::id::GatewayId;
use crate::journal::Lines;
use crate::row::Row;
use std::time::SystemTime;

/// Rows that one statement of housekeeping deletes at most.
pub(crate) const DELETE_AT_ONCE: i64 = 1000;

/// Writes records into a database.
pub(crate) trait Writer: Send {
    /// Writes a segment's lines in one transaction: records that are not there yet, their sums, and intents of requests
    /// that run on. They are of the gateway `owner`.
    fn write(&mut self, lines: &Lines<'_>, owner: &GatewayId) -> Result<(), Error>;
    /// Writes the endings of work that the gateway `owner` has, with their records, in one transaction: either all of them
    /// or none. What became of each.
    fn finish(&mut self, endings: &[Ending], owner: &GatewayId) -> Result<Vec<Written>, Error>;
    /// The intents that a gateway has left when it was killed, as the records that they become.
    fn intents(&mut self, owner: &GatewayId) -> Result<Vec<Row<'static>>, Error>;
    /// Deletes intents by their numbers.
    fn delete_intents(&mut self, ids: &[i64]) -> Result<(), Error>;
    /// The greatest number of a record.
    fn last_number(&mut self) -> Result<i64, Error>;
    /// Deletes some of the records that began before a time, oldest first; their sums stay. How many.
    fn delete_old_records(&mut self, before: SystemTime) -> Result<u64, Error>;
    /// Deletes some of the jobs that were finished before a time, in milliseconds since 1970. How many.
    fn delete_finished_jobs(&mut self, before_ms: i64) -> Result<u64, Error>;
    /// Deletes the sums of minutes and hours that are not kept any longer at a time in seconds since 1970.
    fn delete_old_spans(&mut self, now: i64) -> Result<(), Error>;
}

/// Connects a writer.
pub(crate) type Connect = Box<dyn Fn() -> Result<Box<dyn Writer>, Error> + Send>;
