//! Writes records into SQLite, through rusqlite: one thread, prepared statements, no switch to another.

use crate::durability::Durability;
use crate::endings::{self, Ending, Written};
use crate::error::Error;
use crate::id::GatewayId;
use crate::journal::Lines;
use crate::rollup::{ROLLUP_COLUMNS, Rollup, add_to_latencies, add_to_rollups, parameters};
use crate::row::{COLUMNS, Row};
use crate::spans::{self, Spans};
use crate::store::sqlite_session;
use crate::time::iso;
use crate::writer::{DELETE_AT_ONCE, Writer};
use rusqlite::{Connection, ToSql, params};
use std::collections::HashSet;
use std::path::Path;
use std::sync::LazyLock;
use std::time::SystemTime;

static INSERT: LazyLock<String> = LazyLock::new(|| {
    let marks = vec!["?"; COLUMNS.len()].join(",");
    // A row that is there already was moved before a crash could remove its segment. Any other conflict is an error.
    // Statements of 64 rows with `RETURNING id` took 17 to 26 % more of the whole process's CPU (debug builds).
    format!(
        "INSERT INTO requests ({}) VALUES ({marks}) ON CONFLICT (id) DO NOTHING",
        COLUMNS.join(",")
    )
});
static ADD_TO_ROLLUPS: LazyLock<String> =
    LazyLock::new(|| add_to_rollups(&format!("VALUES ({})", parameters(ROLLUP_COLUMNS))));
static ADD_TO_LATENCIES: LazyLock<String> = LazyLock::new(|| add_to_latencies("VALUES ($1, $2, $3)"));
static ADD_TO_SPANS: LazyLock<String> = LazyLock::new(spans::add_one);

/// The connection that records are written with.
pub(crate) struct SqliteWriter {
    connection: Connection,
}

impl SqliteWriter {
    pub(crate) fn open(file: &Path, durability: Durability) -> Result<Self, Error> {
        let connection = Connection::open(file)?;
        connection.execute_batch(&sqlite_session(durability).join("; "))?;
        Ok(Self { connection })
    }
}

impl Writer for SqliteWriter {
    fn write(&mut self, lines: &Lines<'_>, owner: &GatewayId) -> Result<(), Error> {
        let transaction = self.connection.transaction()?;
        insert(&transaction, &lines.rows)?;
        let finished: HashSet<i64> = lines.rows.iter().map(|row| row.id).collect();
        for intent in lines.intents.iter().filter(|intent| !finished.contains(&intent.id)) {
            transaction
                .prepare_cached("INSERT OR REPLACE INTO intents (id, owner, line) VALUES (?1, ?2, ?3)")?
                .execute(params![intent.id, owner.as_str(), intent.line()?])?;
        }
        transaction
            .prepare_cached("DELETE FROM intents WHERE id IN (SELECT id FROM requests)")?
            .execute([])?;
        Ok(transaction.commit()?)
    }

    fn finish(&mut self, endings: &[Ending], owner: &GatewayId) -> Result<Vec<Written>, Error> {
        let transaction = self.connection.transaction()?;
        let (written, rows) = endings::finish_in_sqlite(&transaction, endings, owner)?;
        insert(&transaction, &rows)?;
        transaction.commit()?;
        Ok(written)
    }

    fn intents(&mut self, owner: &GatewayId) -> Result<Vec<Row<'static>>, Error> {
        let mut intents = self
            .connection
            .prepare("SELECT line FROM intents WHERE owner = ?1 ORDER BY id")?;
        let lines = intents.query_map([owner.as_str()], |row| row.get::<_, String>(0))?;
        lines.map(|line| Row::of_line(&line?)).collect()
    }

    fn delete_intents(&mut self, ids: &[i64]) -> Result<(), Error> {
        let transaction = self.connection.transaction()?;
        for id in ids {
            transaction
                .prepare_cached("DELETE FROM intents WHERE id = ?1")?
                .execute([id])?;
        }
        Ok(transaction.commit()?)
    }

    fn last_number(&mut self) -> Result<i64, Error> {
        let last = "SELECT coalesce(max(id), 0) FROM requests";
        Ok(self.connection.query_row(last, [], |row| row.get(0))?)
    }

    fn delete_old_records(&mut self, before: SystemTime) -> Result<u64, Error> {
        let before = iso(before);
        let transaction = self.connection.transaction()?;
        let oldest = "SELECT id, created_at FROM requests ORDER BY id LIMIT ?1";
        let deleted = transaction.execute(
            &format!("DELETE FROM requests WHERE id IN (SELECT id FROM ({oldest}) WHERE created_at < ?2)"),
            params![DELETE_AT_ONCE, before],
        )?;
        if deleted > 0 {
            transaction.execute(
                "INSERT INTO settings VALUES ('deleted_until', ?1) ON CONFLICT (name) DO UPDATE SET value = ?1",
                [&before[..10]],
            )?;
        }
        transaction.commit()?;
        Ok(deleted as u64)
    }

    fn delete_finished_jobs(&mut self, before_ms: i64) -> Result<u64, Error> {
        let deleted = self.connection.execute(
            "DELETE FROM jobs WHERE id IN (SELECT id FROM jobs WHERE finished_at < ?1 LIMIT ?2)",
            params![before_ms, DELETE_AT_ONCE],
        )?;
        Ok(deleted as u64)
    }

    fn delete_old_spans(&mut self, now: i64) -> Result<(), Error> {
        for (length, before) in spans::old(now) {
            self.connection.execute(spans::DELETE_OLD, params![length, before])?;
        }
        Ok(())
    }
}

/// Writes rows, and adds to the sums those that were not there.
fn insert(connection: &Connection, rows: &[Row<'_>]) -> Result<(), Error> {
    let (mut rollup, mut sums) = (Rollup::default(), Spans::default());
    let mut insert = connection.prepare_cached(&INSERT)?;
    for row in rows {
        if insert.execute(&row.values()[..])? == 1 {
            rollup.add(row);
            sums.add(row);
        }
    }
    let mut add = connection.prepare_cached(&ADD_TO_ROLLUPS)?;
    for (group, sums) in &rollup.groups {
        let group = group.iter().map(|value| value as &dyn ToSql);
        let counts = sums.counts.iter().map(|count| count as &dyn ToSql);
        let seconds = sums.seconds.iter().map(|seconds| seconds as &dyn ToSql);
        let values: Vec<&dyn ToSql> = group.chain(counts).chain(seconds).collect();
        add.execute(&values[..])?;
    }
    let mut add = connection.prepare_cached(&ADD_TO_LATENCIES)?;
    for ((day, bucket), requests) in &rollup.latencies {
        add.execute(params![day, bucket, requests])?;
    }
    let mut add = connection.prepare_cached(&ADD_TO_SPANS)?;
    for (key, sums) in &sums.of_all_lengths() {
        let times = [&key.length as &dyn ToSql, &key.begins];
        let texts = key.texts.iter().map(|text| text as &dyn ToSql);
        let counts = sums.counts.iter().map(|count| count as &dyn ToSql);
        let seconds = sums.seconds.iter().map(|seconds| seconds as &dyn ToSql);
        let values: Vec<&dyn ToSql> = times.into_iter().chain(texts).chain(counts).chain(seconds).collect();
        add.execute(&values[..])?;
    }
    Ok(())
}
