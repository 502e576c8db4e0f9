//! Writes records into PostgreSQL, many in one statement. The thread that writes has a small runtime of its own.

use crate::error::Error;
use crate::id::GatewayId;
use crate::journal::Lines;
use crate::rollup::{ADD_TO_LATENCIES, ADD_TO_ROLLUPS, Rollup};
use crate::row::{COLUMNS, Row};
use crate::time::iso;
use crate::writer::{DELETE_AT_ONCE, Writer};
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
pub(crate) struct PostgresWriter {
    runtime: Runtime,
    pool: PgPool,
    owner: GatewayId,
}

impl PostgresWriter {
    pub(crate) fn open(url: &str, owner: GatewayId) -> Result<Self, Error> {
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
    fn write(&mut self, lines: &Lines) -> Result<(), Error> {
        self.runtime.block_on(async {
            let mut transaction = self.pool.begin().await?;
            insert(&mut transaction, &lines.rows).await?;
            let finished: HashSet<i64> = lines.rows.iter().map(|row| row.id).collect();
            for intent in lines.intents.iter().filter(|intent| !finished.contains(&intent.id)) {
                sqlx::query(
                    "INSERT INTO intents (id, owner, line) VALUES ($1, $2, $3) ON CONFLICT (id) DO UPDATE SET line = $3",
                )
                .bind(intent.id)
                .bind(self.owner.as_str())
                .bind(intent.line()?)
                .execute(&mut *transaction)
                .await?;
            }
            sqlx::query("DELETE FROM intents USING requests WHERE intents.id = requests.id AND owner = $1")
                .bind(self.owner.as_str())
                .execute(&mut *transaction)
                .await?;
            Ok(transaction.commit().await?)
        })
    }

    fn conclude_intents(&mut self, owner: &GatewayId) -> Result<usize, Error> {
        self.runtime.block_on(async {
            let mut transaction = self.pool.begin().await?;
            let found = sqlx::query("DELETE FROM intents WHERE owner = $1 RETURNING line")
                .bind(owner.as_str())
                .fetch_all(&mut *transaction)
                .await?;
            let lines = found.iter().map(|row| Row::of_line(row.try_get("line")?));
            let rows = lines.collect::<Result<Vec<_>, Error>>()?;
            insert(&mut transaction, &rows).await?;
            transaction.commit().await?;
            Ok(rows.len())
        })
    }

    fn last_id(&mut self) -> Result<i64, Error> {
        self.runtime.block_on(async {
            let last = sqlx::query("SELECT coalesce(max(id), 0) AS last FROM requests");
            Ok(last.fetch_one(&self.pool).await?.try_get("last")?)
        })
    }

    fn forget_old(&mut self, keep: Duration) -> Result<u64, Error> {
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
async fn insert(connection: &mut PgConnection, rows: &[Row<'_>]) -> Result<(), Error> {
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

async fn add(connection: &mut PgConnection, rollup: &Rollup<'_>) -> Result<(), Error> {
    // In one order for all, so that gateways that share the database never wait for each other in a circle.
    let mut groups: Vec<_> = rollup.groups.iter().collect();
    groups.sort_by_key(|(group, _)| **group);
    for (group, sums) in groups {
        let mut statement = sqlx::query(&ADD_TO_ROLLUPS);
        for value in group {
            statement = statement.bind(value.replace('\0', ""));
        }
        for count in sums.counts {
            statement = statement.bind(count);
        }
        for seconds in sums.seconds {
            statement = statement.bind(seconds);
        }
        statement.execute(&mut *connection).await?;
    }
    let mut latencies: Vec<_> = rollup.latencies.iter().collect();
    latencies.sort();
    for ((day, bucket), requests) in latencies {
        sqlx::query(ADD_TO_LATENCIES)
            .bind(*day)
            .bind(bucket)
            .bind(requests)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}
