//! Endings in PostgreSQL.

use super::{Answer, Counts, Ending, Held, Written, batch, count, ids, job};
use crate::error::Error;
use crate::id::GatewayId;
use crate::row::Row;
use sqlx::Row as _;
use sqlx::postgres::PgConnection;
use std::collections::BTreeMap;

/// Writes the endings of work that a gateway has, within a transaction; returns the records that are to be written with
/// them. Until its end nobody takes that work over.
pub(crate) async fn finish(
    connection: &mut PgConnection,
    endings: &[Ending],
    owner: &GatewayId,
) -> Result<(Vec<Written>, Vec<Row<'static>>), Error> {
    let held = lock(connection, endings, owner).await?;
    write_lines(connection, &held, endings).await?;
    for ending in held.to_write(endings) {
        if let (Some(id), Answer::Job { answer, finished_at_ms }) = (job(&ending.claim.work), &ending.answer) {
            let finish = "UPDATE jobs SET finished_at = $1, answer = $2, body = '', kept_input = NULL WHERE id = $3";
            let finish = sqlx::query(finish).bind(finished_at_ms).bind(answer).bind(id);
            finish.execute(&mut *connection).await?;
        }
    }
    let rows = held.rows(endings);
    let numbers: Vec<i64> = rows.iter().map(|row| row.id).collect();
    let done = sqlx::query("DELETE FROM intents WHERE id = ANY($1)").bind(numbers);
    done.execute(&mut *connection).await?;
    Ok((held.written(endings), rows))
}

/// Locks the work of endings that a gateway has.
async fn lock(connection: &mut PgConnection, endings: &[Ending], owner: &GatewayId) -> Result<Held, Error> {
    let mut held = Held::default();
    let batches = ids(endings, batch);
    if !batches.is_empty() {
        let sql = "SELECT id, epoch FROM batches WHERE id = ANY($1) AND owner = $2 ORDER BY id FOR UPDATE";
        let found = sqlx::query(sql).bind(batches).bind(owner.as_str());
        for row in found.fetch_all(&mut *connection).await? {
            held.batches.insert(row.try_get("id")?, row.try_get("epoch")?);
        }
    }
    let jobs = ids(endings, job);
    if !jobs.is_empty() {
        let sql = "SELECT id, epoch, finished_at IS NOT NULL AS is_finished FROM jobs \
            WHERE id = ANY($1) AND owner = $2 ORDER BY id FOR UPDATE";
        let found = sqlx::query(sql).bind(jobs).bind(owner.as_str());
        for row in found.fetch_all(&mut *connection).await? {
            let state = (row.try_get("epoch")?, row.try_get("is_finished")?);
            held.jobs.insert(row.try_get("id")?, state);
        }
    }
    Ok(held)
}

/// Writes lines, and adds those that were not there to the counts of their batches.
async fn write_lines(connection: &mut PgConnection, held: &Held, endings: &[Ending]) -> Result<(), Error> {
    let (mut files, mut numbers, mut parts) = (Vec::new(), Vec::new(), Vec::new());
    let mut lines: BTreeMap<(&str, i64), (&str, bool)> = BTreeMap::new();
    for ending in held.to_write(endings) {
        if let (
            Some(batch),
            Answer::Line {
                file_id,
                number,
                contents,
                is_completed,
            },
        ) = (batch(&ending.claim.work), &ending.answer)
        {
            lines.insert((file_id, *number), (batch, *is_completed));
            files.push(file_id.as_str());
            numbers.push(*number);
            parts.push(contents.as_slice());
        }
    }
    if lines.is_empty() {
        return Ok(());
    }
    let insert = sqlx::query(
        "INSERT INTO file_parts (file_id, number, contents) SELECT * FROM unnest($1, $2, $3) ON CONFLICT DO NOTHING \
         RETURNING file_id, number",
    );
    let inserted = insert.bind(files).bind(numbers).bind(parts);
    let mut counts = Counts::default();
    for row in inserted.fetch_all(&mut *connection).await? {
        let (file, number): (String, i64) = (row.try_get("file_id")?, row.try_get("number")?);
        if let Some((batch, is_completed)) = lines.get(&(file.as_str(), number)) {
            count(&mut counts, batch, *is_completed);
        }
    }
    let add = sqlx::query(
        "UPDATE batches SET completed = completed + added.c, failed = failed + added.f \
         FROM unnest($1, $2, $3) AS added (id, c, f) WHERE batches.id = added.id",
    );
    let add = add
        .bind(counts.keys().cloned().collect::<Vec<_>>())
        .bind(counts.values().map(|[completed, _]| *completed).collect::<Vec<_>>())
        .bind(counts.values().map(|[_, failed]| *failed).collect::<Vec<_>>());
    add.execute(&mut *connection).await?;
    Ok(())
}
