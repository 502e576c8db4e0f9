//! Writes records into PostgreSQL, many in one statement. The thread that writes has a small runtime of its own.

use super::Unavailable;
use super::journal::Lines;
use super::rollup::Rollup;
use super::row::{COLUMNS, Row, iso};
use super::writer::{DELETE_AT_ONCE, Writer};
use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::{PgConnection, QueryBuilder, Row as _};
use std::collections::HashSet;
use std::time::{Duration, SystemTime};
use tokio::runtime::Runtime;

/// Rows in one statement: it has at most 65,535 values.
const ROWS_AT_ONCE: usize = 1000;

/// How long the database may take to let us in.
const PATIENCE: Duration = Duration::from_secs(3);

/// The connection that records are written with.
pub(super) struct PostgresWriter {
    runtime: Runtime,
    pool: PgPool,
    owner: String,
}

impl PostgresWriter {
    pub(super) fn open(url: &str, owner: String) -> Result<Self, Unavailable> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let options = PgPoolOptions::new().max_connections(1).acquire_timeout(PATIENCE);
        let pool = {
            let _inside = runtime.enter();
            options.connect_lazy(url)?
        };
        Ok(Self { runtime, pool, owner })
    }
}

impl Writer for PostgresWriter {
    fn write(&mut self, lines: &Lines) -> Result<(), Unavailable> {
        self.runtime.block_on(async {
            let mut transaction = self.pool.begin().await?;
            insert(&mut transaction, &lines.rows).await?;
            let finished: HashSet<i64> = lines.rows.iter().map(|row| row.id).collect();
            for intent in lines.intents.iter().filter(|intent| !finished.contains(&intent.id)) {
                sqlx::query(
                    "INSERT INTO intents (id, owner, line) VALUES ($1, $2, $3) ON CONFLICT (id) DO UPDATE SET line = $3",
                )
                .bind(intent.id)
                .bind(&self.owner)
                .bind(intent.line()?)
                .execute(&mut *transaction)
                .await?;
            }
            sqlx::query("DELETE FROM intents USING requests WHERE intents.id = requests.id AND owner = $1")
                .bind(&self.owner)
                .execute(&mut *transaction)
                .await?;
            Ok(transaction.commit().await?)
        })
    }

    fn conclude_intents(&mut self, owner: &str) -> Result<usize, Unavailable> {
        self.runtime.block_on(async {
            let mut transaction = self.pool.begin().await?;
            let found = sqlx::query("DELETE FROM intents WHERE owner = $1 RETURNING line")
                .bind(owner)
                .fetch_all(&mut *transaction)
                .await?;
            let lines = found.iter().map(|row| Row::of_line(row.try_get("line")?));
            let rows = lines.collect::<Result<Vec<_>, Unavailable>>()?;
            insert(&mut transaction, &rows).await?;
            transaction.commit().await?;
            Ok(rows.len())
        })
    }

    fn last_id(&mut self) -> Result<i64, Unavailable> {
        self.runtime.block_on(async {
            let last = sqlx::query("SELECT coalesce(max(id), 0) AS last FROM requests");
            Ok(last.fetch_one(&self.pool).await?.try_get("last")?)
        })
    }

    fn forget_old(&mut self, keep: Duration) -> Result<u64, Unavailable> {
        let before = iso(SystemTime::now() - keep);
        self.runtime.block_on(async {
            let mut transaction = self.pool.begin().await?;
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
            transaction.commit().await?;
            Ok(deleted)
        })
    }
}

/// Writes rows, and adds to the sums those that were not there.
async fn insert(connection: &mut PgConnection, rows: &[Row<'_>]) -> Result<(), Unavailable> {
    let mut inserted: HashSet<i64> = HashSet::new();
    for rows in rows.chunks(ROWS_AT_ONCE) {
        let mut statement = QueryBuilder::new(format!("INSERT INTO requests ({}) ", COLUMNS.join(",")));
        statement.push_values(rows, |mut values, row| row.bind(&mut values));
        // A row that is there already was moved before a crash could remove its segment.
        statement.push(" ON CONFLICT (id) DO NOTHING RETURNING id");
        for row in statement.build().fetch_all(&mut *connection).await? {
            inserted.insert(row.try_get("id")?);
        }
    }
    let mut rollup = Rollup::default();
    rows.iter()
        .filter(|row| inserted.contains(&row.id))
        .for_each(|row| rollup.add(row));
    add(connection, &rollup).await
}

async fn add(connection: &mut PgConnection, rollup: &Rollup<'_>) -> Result<(), Unavailable> {
    // In one order for all, so that gateways that share the database never wait for each other in a circle.
    let mut groups: Vec<_> = rollup.groups.iter().collect();
    groups.sort_by_key(|(group, _)| **group);
    for (group, sums) in groups {
        let statement = sqlx::query(
            "INSERT INTO rollups VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15) \
             ON CONFLICT (day, project_id, user_id, key_id, model, backend, status, decision) DO UPDATE SET \
             requests = rollups.requests + $9, input_tokens = rollups.input_tokens + $10, \
             output_tokens = rollups.output_tokens + $11, cached_input_tokens = rollups.cached_input_tokens + $12, \
             cost_nano_eur = rollups.cost_nano_eur + $13, latency_seconds = rollups.latency_seconds + $14, \
             queue_wait_seconds = rollups.queue_wait_seconds + $15",
        );
        let statement = group
            .iter()
            .fold(statement, |statement, value| statement.bind(value.replace('\0', "")));
        statement
            .bind(sums.requests)
            .bind(sums.input_tokens)
            .bind(sums.output_tokens)
            .bind(sums.cached_input_tokens)
            .bind(sums.cost_nano_eur)
            .bind(sums.latency_seconds)
            .bind(sums.queue_wait_seconds)
            .execute(&mut *connection)
            .await?;
    }
    let mut latencies: Vec<_> = rollup.latencies.iter().collect();
    latencies.sort();
    for ((day, bucket), requests) in latencies {
        sqlx::query(
            "INSERT INTO latencies VALUES ($1, $2, $3) ON CONFLICT (day, bucket) \
             DO UPDATE SET requests = latencies.requests + $3",
        )
        .bind(*day)
        .bind(bucket)
        .bind(requests)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}
