//! Writes records into SQLite, through rusqlite: one thread, prepared statements, no switch to another.

use super::Unavailable;
use super::journal::Lines;
use super::rollup::Rollup;
use super::row::{COLUMNS, Row, iso};
use super::writer::{DELETE_AT_ONCE, Writer};
use rusqlite::{Connection, params};
use std::collections::HashSet;
use std::path::Path;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

static INSERT: LazyLock<String> = LazyLock::new(|| {
    let marks = vec!["?"; COLUMNS.len()].join(",");
    // A row that is there already was moved before a crash could remove its segment.
    format!(
        "INSERT OR IGNORE INTO requests ({}) VALUES ({marks})",
        COLUMNS.join(",")
    )
});

/// The connection that records are written with.
pub(super) struct SqliteWriter {
    connection: Connection,
    owner: String,
}

impl SqliteWriter {
    pub(super) fn open(file: &Path, owner: String) -> Result<Self, Unavailable> {
        let connection = Connection::open(file)?;
        connection.busy_timeout(Duration::from_secs(10))?;
        connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;")?;
        Ok(Self { connection, owner })
    }
}

impl Writer for SqliteWriter {
    fn write(&mut self, lines: &Lines) -> Result<(), Unavailable> {
        let transaction = self.connection.transaction()?;
        insert(&transaction, &lines.rows)?;
        let finished: HashSet<i64> = lines.rows.iter().map(|row| row.id).collect();
        for intent in lines.intents.iter().filter(|intent| !finished.contains(&intent.id)) {
            transaction
                .prepare_cached("INSERT OR REPLACE INTO intents (id, owner, line) VALUES (?1, ?2, ?3)")?
                .execute(params![intent.id, self.owner, intent.line()?])?;
        }
        transaction
            .prepare_cached("DELETE FROM intents WHERE id IN (SELECT id FROM requests)")?
            .execute([])?;
        Ok(transaction.commit()?)
    }

    fn conclude_intents(&mut self, owner: &str) -> Result<usize, Unavailable> {
        let transaction = self.connection.transaction()?;
        let mut rows: Vec<Row<'static>> = Vec::new();
        {
            let mut intents = transaction.prepare("SELECT line FROM intents WHERE owner = ?1 ORDER BY id")?;
            for line in intents.query_map([owner], |row| row.get::<_, String>(0))? {
                rows.push(Row::of_line(&line?)?);
            }
        }
        insert(&transaction, &rows)?;
        transaction.execute("DELETE FROM intents WHERE owner = ?1", [owner])?;
        transaction.commit()?;
        Ok(rows.len())
    }

    fn last_id(&mut self) -> Result<i64, Unavailable> {
        let last = "SELECT coalesce(max(id), 0) FROM requests";
        Ok(self.connection.query_row(last, [], |row| row.get(0))?)
    }

    fn forget_old(&mut self, keep: Duration) -> Result<u64, Unavailable> {
        let before = iso(SystemTime::now() - keep);
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
}

/// Writes rows, and adds to the sums those that were not there.
fn insert(connection: &Connection, rows: &[Row<'_>]) -> Result<(), Unavailable> {
    let mut rollup = Rollup::default();
    let mut insert = connection.prepare_cached(&INSERT)?;
    for row in rows {
        if insert.execute(&row.values()[..])? == 1 {
            rollup.add(row);
        }
    }
    let mut add = connection.prepare_cached(
        "INSERT INTO rollups VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15) \
         ON CONFLICT DO UPDATE SET requests = requests + ?9, input_tokens = input_tokens + ?10, \
         output_tokens = output_tokens + ?11, cached_input_tokens = cached_input_tokens + ?12, \
         cost_nano_eur = cost_nano_eur + ?13, latency_seconds = latency_seconds + ?14, \
         queue_wait_seconds = queue_wait_seconds + ?15",
    )?;
    for (group, sums) in &rollup.groups {
        let [day, project, user, key, model, backend, status, decision] = group;
        add.execute(params![
            day,
            project,
            user,
            key,
            model,
            backend,
            status,
            decision,
            sums.requests,
            sums.input_tokens,
            sums.output_tokens,
            sums.cached_input_tokens,
            sums.cost_nano_eur,
            sums.latency_seconds,
            sums.queue_wait_seconds,
        ])?;
    }
    let mut add = connection.prepare_cached(
        "INSERT INTO latencies VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET requests = requests + ?3",
    )?;
    for ((day, bucket), requests) in &rollup.latencies {
        add.execute(params![day, bucket, requests])?;
    }
    Ok(())
}
