//! Endings in SQLite.

use super::{Answer, Counts, Ending, Held, Work, Written, batch, count, ids, job};
use crate::error::Error;
use crate::id::GatewayId;
use crate::row::Row;
use rusqlite::{Connection, OptionalExtension, params};

/// Writes the endings of work that a gateway has, within a transaction; returns the records that are to be written with
/// them.
pub(crate) fn finish(
    connection: &Connection,
    endings: &[Ending],
    owner: &GatewayId,
) -> Result<(Vec<Written>, Vec<Row<'static>>), Error> {
    let held = held(connection, endings, owner)?;
    let mut counts = Counts::default();
    for ending in held.to_write(endings) {
        write(connection, ending, &mut counts)?;
    }
    for (id, [completed, failed]) in counts {
        connection
            .prepare_cached("UPDATE batches SET completed = completed + ?2, failed = failed + ?3 WHERE id = ?1")?
            .execute(params![id, completed, failed])?;
    }
    let rows = held.rows(endings);
    for row in &rows {
        connection
            .prepare_cached("DELETE FROM intents WHERE id = ?1")?
            .execute([row.id])?;
    }
    Ok((held.written(endings), rows))
}

/// The work of endings that a gateway has.
fn held(connection: &Connection, endings: &[Ending], owner: &GatewayId) -> Result<Held, Error> {
    let mut held = Held::default();
    for id in ids(endings, batch) {
        let found = connection
            .prepare_cached("SELECT epoch FROM batches WHERE id = ?1 AND owner = ?2")?
            .query_row([id, owner.as_str()], |row| row.get(0))
            .optional()?;
        held.batches.extend(found.map(|epoch| (id.to_owned(), epoch)));
    }
    for id in ids(endings, job) {
        let found = connection
            .prepare_cached("SELECT epoch, finished_at IS NOT NULL FROM jobs WHERE id = ?1 AND owner = ?2")?
            .query_row([id, owner.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        held.jobs.extend(found.map(|state| (id.to_owned(), state)));
    }
    Ok(held)
}

/// Writes an ending; a line that was not there adds to the counts of its batch.
fn write(connection: &Connection, ending: &Ending, counts: &mut Counts) -> Result<(), Error> {
    match (&ending.claim.work, &ending.answer) {
        (Work::Job(id), Answer::Job { answer, finished_at_ms }) => {
            connection
                .prepare_cached(
                    "UPDATE jobs SET finished_at = ?1, answer = ?2, body = x'', kept_input = NULL WHERE id = ?3",
                )?
                .execute(params![finished_at_ms, answer, id.as_str()])?;
        }
        (
            Work::Batch(id),
            Answer::Line {
                file_id,
                number,
                contents,
                is_completed,
            },
        ) => {
            let added = connection
                .prepare_cached(
                    "INSERT INTO file_parts (file_id, number, contents) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
                )?
                .execute(params![file_id, number, contents])?;
            if added > 0 {
                count(counts, id, *is_completed);
            }
        }
        // An answer is of the kind of its work.
        (Work::Job(_), Answer::Line { .. }) | (Work::Batch(_), Answer::Job { .. }) => {}
    }
    Ok(())
}
