//! Writes records into PostgreSQL, many in one statement. The thread that writes has a small runtime of its own.
//!
//! A connection may be dead without a sign of it. The server gives statements up after the time in
//! [`POSTGRES_SESSION`]; here, a whole operation is given up after [`OPERATION_TIMEOUT`], and its connection with it.

use crate::endings::{self, Ending, Written};
use crate::error::Error;
use crate::escrow::Settlements;
use crate::id::GatewayId;
use crate::journal::Lines;
use crate::rollup::{
    COUNT_COLUMNS, GROUP_COLUMNS, ROLLUP_COLUMNS, Rollup, SECONDS_COLUMNS, Sums, add_to_latencies, add_to_rollups,
    parameters,
};
use crate::row::{COLUMNS, Row};
use crate::spans::{self, Key, Spans};
use crate::store::POSTGRES_SESSION;
use crate::time::iso;
use crate::writer::{DELETE_AT_ONCE, Writer};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{Connection, Row as _};
use std::collections::{BTreeMap, HashSet};
use std::future::Future;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};
use tokio::runtime::Runtime;

/// Rows in one statement. Each column is one array, so that the statement stays the same and short however many they are.
const ROWS_AT_ONCE: usize = 1000;

static INSERT: LazyLock<String> = LazyLock::new(|| {
    // A row that is there already was moved before a crash could remove its segment.
    format!(
        "INSERT INTO requests ({}) SELECT * FROM unnest({}) ON CONFLICT (id) DO NOTHING RETURNING id",
        COLUMNS.join(","),
        parameters(COLUMNS.len())
    )
});
static ADD_TO_ROLLUPS: LazyLock<String> =
    LazyLock::new(|| add_to_rollups(&format!("SELECT * FROM unnest({})", parameters(ROLLUP_COLUMNS))));
static ADD_TO_LATENCIES: LazyLock<String> = LazyLock::new(|| add_to_latencies("SELECT * FROM unnest($1, $2, $3)"));
static ADD_TO_SPANS: LazyLock<String> = LazyLock::new(spans::add_arrays);

static COPY: LazyLock<String> = LazyLock::new(|| format!("COPY requests ({}) FROM STDIN", COLUMNS.join(",")));

/// From this many rows on, they are copied.
const ROWS_TO_COPY: usize = 32;

/// The longest time to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// The longest time for a transaction, of several statements.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(20);

/// The connection that records are written with.
pub(crate) struct PostgresWriter {
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
    connection: PgConnection,
}

impl PostgresWriter {
    /// Connects.
    pub(crate) fn open(url: &str) -> Result<Self, Error> {
        let options: PgConnectOptions = url.parse()?;
        let options = options.application_name("sluice ledger");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let connected = run(&runtime, CONNECT_TIMEOUT, async {
            let mut connection = PgConnection::connect_with(&options).await?;
            for statement in POSTGRES_SESSION {
                sqlx::query(statement).execute(&mut connection).await?;
            }
            Ok(connection)
        });
        match connected {
            Ok(connection) => Ok(Self {
                runtime: Some(runtime),
                connection,
            }),
            Err(error) => {
                runtime.shutdown_background();
                Err(error)
            }
        }
    }
}

/// Runs an operation within a time.
fn run<T>(runtime: &Runtime, limit: Duration, operation: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let done = runtime.block_on(async { tokio::time::timeout(limit, operation).await });
    done.unwrap_or_else(|_| Err(Error::Database(format!("no answer within {} s", limit.as_secs()))))
}

/// Runs a transaction of the writer's within [`OPERATION_TIMEOUT`]; after an error the writer is to be dropped.
macro_rules! transaction {
    ($writer:ident, |$transaction:ident| $body:block) => {{
        let PostgresWriter {
            runtime: Some(runtime),
            connection,
            ..
        } = $writer
        else {
            return Err(Error::Database("the connection is closed".to_owned()));
        };
        run(runtime, OPERATION_TIMEOUT, async {
            let mut $transaction = connection.begin().await?;
            let done = $body;
            $transaction.commit().await?;
            Ok(done)
        })
    }};
}

impl Drop for PostgresWriter {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Nothing waits for a server that may be gone.
            runtime.shutdown_background();
        }
    }
}

impl Writer for PostgresWriter {
    fn write(&mut self, lines: &Lines<'_>, owner: &GatewayId) -> Result<(), Error> {
        transaction!(self, |transaction| {
            insert(&mut transaction, &lines.rows, owner).await?;
            let finished: HashSet<i64> = lines.rows.iter().map(|row| row.id).collect();
            for intent in lines.intents.iter().filter(|intent| !finished.contains(&intent.id)) {
                sqlx::query(
                    "INSERT INTO intents (id, owner, line) VALUES ($1, $2, $3) ON CONFLICT (id) DO UPDATE SET line = $3",
                )
                .bind(intent.id)
                .bind(owner.as_str())
                .bind(intent.line()?)
                .execute(&mut *transaction)
                .await?;
            }
            sqlx::query("DELETE FROM intents USING requests WHERE intents.id = requests.id AND owner = $1")
                .bind(owner.as_str())
                .execute(&mut *transaction)
                .await?;
        })
    }

    fn finish(&mut self, endings: &[Ending], owner: &GatewayId) -> Result<Vec<Written>, Error> {
        transaction!(self, |transaction| {
            let (written, rows) = endings::finish_in_postgres(&mut transaction, endings, owner).await?;
            insert(&mut transaction, &rows, owner).await?;
            written
        })
    }

    fn intents(&mut self, owner: &GatewayId) -> Result<Vec<Row<'static>>, Error> {
        transaction!(self, |transaction| {
            let found = sqlx::query("SELECT line FROM intents WHERE owner = $1 ORDER BY id")
                .bind(owner.as_str())
                .fetch_all(&mut *transaction)
                .await?;
            let lines = found.iter().map(|row| Row::of_line(row.try_get("line")?));
            lines.collect::<Result<Vec<_>, Error>>()?
        })
    }

    fn delete_intents(&mut self, ids: &[i64]) -> Result<(), Error> {
        let ids = ids.to_vec();
        transaction!(self, |transaction| {
            sqlx::query("DELETE FROM intents WHERE id = ANY($1)")
                .bind(ids)
                .execute(&mut *transaction)
                .await?;
        })
    }

    fn last_number(&mut self) -> Result<i64, Error> {
        transaction!(self, |transaction| {
            let last = sqlx::query("SELECT coalesce(max(id), 0) AS last FROM requests");
            last.fetch_one(&mut *transaction).await?.try_get("last")?
        })
    }

    fn delete_old_records(&mut self, before: SystemTime) -> Result<u64, Error> {
        let before = iso(before);
        transaction!(self, |transaction| {
            let oldest = "SELECT id, created_at FROM requests ORDER BY id LIMIT $1";
            let sql =
                format!("DELETE FROM requests WHERE id IN (SELECT id FROM ({oldest}) AS oldest WHERE created_at < $2)");
            let deleted = sqlx::query(&sql)
                .bind(DELETE_AT_ONCE)
                .bind(&before)
                .execute(&mut *transaction)
                .await?
                .rows_affected();
            if deleted > 0 {
                sqlx::query(
                    "INSERT INTO settings VALUES ('deleted_until', $1) ON CONFLICT (name) DO UPDATE SET value = $1",
                )
                .bind(&before[..10])
                .execute(&mut *transaction)
                .await?;
            }
            deleted
        })
    }

    fn delete_finished_jobs(&mut self, before_ms: i64) -> Result<u64, Error> {
        transaction!(self, |transaction| {
            sqlx::query("DELETE FROM jobs WHERE id IN (SELECT id FROM jobs WHERE finished_at < $1 LIMIT $2)")
                .bind(before_ms)
                .bind(DELETE_AT_ONCE)
                .execute(&mut *transaction)
                .await?
                .rows_affected()
        })
    }

    fn delete_old_spans(&mut self, now: i64) -> Result<(), Error> {
        transaction!(self, |transaction| {
            for (length, before) in spans::old(now) {
                let delete = sqlx::query(spans::DELETE_OLD).bind(length).bind(before);
                delete.execute(&mut *transaction).await?;
            }
        })
    }
}

/// Writes rows, and adds to the sums those that were not there.
async fn insert(connection: &mut PgConnection, rows: &[Row<'_>], owner: &GatewayId) -> Result<(), Error> {
    let mut inserted = if rows.len() >= ROWS_TO_COPY && copy(connection, rows).await? {
        rows.iter().map(|row| row.id).collect()
    } else {
        insert_new(connection, rows).await?
    };
    let (mut rollup, mut sums, mut used) = (Rollup::default(), Spans::default(), Settlements::default());
    // Of two rows with one id, only the first is there.
    for row in rows.iter().filter(|row| inserted.remove(&row.id)) {
        rollup.add(row);
        sums.add(row);
        used.add(row);
    }
    add(connection, &rollup).await?;
    add_spans(connection, &sums.of_all_lengths()).await?;
    // Last, since draws wait for it.
    used.settle(connection, owner).await
}

/// Copies rows into the table, which takes half the time of inserting them. Returns false, and copies none, if the database
/// refuses one of them, as it does when it is there already.
async fn copy(connection: &mut PgConnection, rows: &[Row<'_>]) -> Result<bool, Error> {
    let mut savepoint = connection.begin().await?;
    let mut into = savepoint.copy_in_raw(&COPY).await?;
    let mut lines = String::new();
    for rows in rows.chunks(ROWS_AT_ONCE) {
        lines.clear();
        for row in rows {
            row.write_copy_line(&mut lines);
        }
        into.send(lines.as_bytes()).await?;
    }
    match into.finish().await.map_err(Error::from) {
        Ok(_) => {
            savepoint.commit().await?;
            Ok(true)
        }
        Err(Error::Rejected(_)) => {
            savepoint.rollback().await?;
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Inserts the rows that are not there yet, and returns their ids.
async fn insert_new(connection: &mut PgConnection, rows: &[Row<'_>]) -> Result<HashSet<i64>, Error> {
    let mut inserted = HashSet::new();
    for rows in rows.chunks(ROWS_AT_ONCE) {
        let statement = Row::bind_columns(rows, sqlx::query(&INSERT));
        for row in statement.fetch_all(&mut *connection).await? {
            inserted.insert(row.try_get("id")?);
        }
    }
    Ok(inserted)
}

/// Adds to the sums of spans, in the order of their keys.
async fn add_spans(connection: &mut PgConnection, spans: &BTreeMap<Key, spans::Sums>) -> Result<(), Error> {
    let Some((first, sums)) = spans.first_key_value() else {
        return Ok(());
    };
    let (keys, all) = (spans.keys(), spans.values());
    let mut statement = sqlx::query(&ADD_TO_SPANS)
        .bind(keys.clone().map(|key| key.length).collect::<Vec<_>>())
        .bind(keys.clone().map(|key| key.begins).collect::<Vec<_>>());
    for column in 0..first.texts.len() {
        statement = statement.bind(keys.clone().map(|key| key.texts[column].clone()).collect::<Vec<_>>());
    }
    for column in 0..sums.counts.len() {
        statement = statement.bind(all.clone().map(|sums| sums.counts[column]).collect::<Vec<_>>());
    }
    for column in 0..sums.seconds.len() {
        statement = statement.bind(all.clone().map(|sums| sums.seconds[column]).collect::<Vec<_>>());
    }
    statement.execute(&mut *connection).await?;
    Ok(())
}

/// Adds to the sums: one statement for all groups, one for all latencies. Both go in the order of their keys, so that
/// gateways that share the database never wait for each other in a circle.
async fn add(connection: &mut PgConnection, rollup: &Rollup<'_>) -> Result<(), Error> {
    // PostgreSQL's text has no NUL, and names that differ in nothing else are one group.
    let mut groups: BTreeMap<[String; GROUP_COLUMNS.len()], Sums> = BTreeMap::new();
    for (group, sums) in &rollup.groups {
        let group = group.map(|value| value.replace('\0', ""));
        groups.entry(group).or_default().add(sums);
    }
    let mut statement = sqlx::query(&ADD_TO_ROLLUPS);
    for column in 0..GROUP_COLUMNS.len() {
        statement = statement.bind(groups.keys().map(|group| group[column].clone()).collect::<Vec<_>>());
    }
    for column in 0..COUNT_COLUMNS.len() {
        statement = statement.bind(groups.values().map(|sums| sums.counts[column]).collect::<Vec<_>>());
    }
    for column in 0..SECONDS_COLUMNS.len() {
        statement = statement.bind(groups.values().map(|sums| sums.seconds[column]).collect::<Vec<_>>());
    }
    statement.execute(&mut *connection).await?;
    let mut latencies: Vec<_> = rollup.latencies.iter().collect();
    latencies.sort();
    sqlx::query(&ADD_TO_LATENCIES)
        .bind(latencies.iter().map(|((day, _), _)| *day).collect::<Vec<_>>())
        .bind(latencies.iter().map(|((_, bucket), _)| *bucket).collect::<Vec<_>>())
        .bind(latencies.iter().map(|(_, requests)| **requests).collect::<Vec<_>>())
        .execute(&mut *connection)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests;
