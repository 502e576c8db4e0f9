//! Writes records into SQLite, through rusqlite: one thread, prepared statements, no switch to another.

use crate::durability::Durability;
use crate::error::Error;
use crate::id::GatewayId;
use crate::journal::Lines;
use crate::rollup::{ROLLUP_COLUMNS, Rollup, add_to_latencies, add_to_rollups, parameters};
use crate::row::{COLUMNS, Row};
use crate::store::sqlite_session;
use crate::time::iso;
use crate::writer::{DELETE_AT_ONCE, Writer};
use rusqlite::{Connection, ToSql, params, params_from_iter};
use std::collections::HashSet;
use std::path::Path;
use std::sync::LazyLock;
use std::time::SystemTime;

/// Rows in one statement. The work of a statement itself (its start, its end, the cursors of the table and its indexes)
/// is then shared by them. It has 37 values a row, of the 32,766 that SQLite takes.
const ROWS_AT_ONCE: usize = 64;

static INSERT_MANY: LazyLock<String> = LazyLock::new(|| insert_statement(ROWS_AT_ONCE));
static INSERT_ONE: LazyLock<String> = LazyLock::new(|| insert_statement(1));
static ADD_TO_ROLLUPS: LazyLock<String> =
    LazyLock::new(|| add_to_rollups(&format!("VALUES ({})", parameters(ROLLUP_COLUMNS))));
static ADD_TO_LATENCIES: LazyLock<String> = LazyLock::new(|| add_to_latencies("VALUES ($1, $2, $3)"));

/// Inserts rows and returns the ids of those that were not there. A row that is there already was moved before a crash
/// could remove its segment. Any other conflict is an error.
fn insert_statement(rows: usize) -> String {
    let marks = format!("({})", vec!["?"; COLUMNS.len()].join(","));
    format!(
        "INSERT INTO requests ({}) VALUES {} ON CONFLICT (id) DO NOTHING RETURNING id",
        COLUMNS.join(","),
        vec![marks; rows].join(",")
    )
}

/// The connection that records are written with.
pub(crate) struct SqliteWriter {
    connection: Connection,
    owner: GatewayId,
}

impl SqliteWriter {
    pub(crate) fn open(file: &Path, owner: GatewayId, durability: Durability) -> Result<Self, Error> {
        let connection = Connection::open(file)?;
        connection.execute_batch(&sqlite_session(durability).join("; "))?;
        Ok(Self { connection, owner })
    }
}

impl Writer for SqliteWriter {
    fn write(&mut self, lines: &Lines) -> Result<(), Error> {
        let transaction = self.connection.transaction()?;
        insert(&transaction, &lines.rows)?;
        let finished: HashSet<i64> = lines.rows.iter().map(|row| row.id).collect();
        for intent in lines.intents.iter().filter(|intent| !finished.contains(&intent.id)) {
            transaction
                .prepare_cached("INSERT OR REPLACE INTO intents (id, owner, line) VALUES (?1, ?2, ?3)")?
                .execute(params![intent.id, self.owner.as_str(), intent.line()?])?;
        }
        transaction
            .prepare_cached("DELETE FROM intents WHERE id IN (SELECT id FROM requests)")?
            .execute([])?;
        Ok(transaction.commit()?)
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
}

/// Writes rows, and adds to the sums those that were not there.
fn insert(connection: &Connection, rows: &[Row<'_>]) -> Result<(), Error> {
    let mut inserted = HashSet::with_capacity(rows.len());
    let (many, rest) = rows.split_at(rows.len() - rows.len() % ROWS_AT_ONCE);
    for (sql, rows) in many
        .chunks(ROWS_AT_ONCE)
        .map(|rows| (&*INSERT_MANY, rows))
        .chain(rest.chunks(1).map(|row| (&*INSERT_ONE, row)))
    {
        let mut insert = connection.prepare_cached(sql)?;
        let mut ids = insert.query(params_from_iter(rows.iter().flat_map(Row::values)))?;
        while let Some(id) = ids.next()? {
            inserted.insert(id.get::<_, i64>(0)?);
        }
    }
    let mut rollup = Rollup::default();
    // Of two rows with one id, only the first is there.
    rows.iter()
        .filter(|row| inserted.remove(&row.id))
        .for_each(|row| rollup.add(row));
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
    Ok(())
}
