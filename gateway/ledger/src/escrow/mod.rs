//! Quotas and budgets that gateways share in PostgreSQL. A gateway draws from an account in advance, and what it has drawn
//! stays charged until its records are written or it is returned: for a gateway that was killed, until its journal has been
//! moved. Policy decides how much is drawn ([`policy::UnitDemand::drawn_after`]).
//!
//! A gateway's operations are of a session. After one whose result is unknown it begins another, which waits for the end of
//! that operation or makes it void; so what a gateway takes for its own is at most what the database has as its own.

mod read;
mod settle;

pub use read::{SharedAllowance, read as read_shared};
pub(crate) use settle::Settlements;

use crate::error::Error;
use crate::id::GatewayId;
use crate::members::{NOW, SILENT_AFTER};
use crate::rollup::MAX_SUM;
use crate::store::{Store, Timed};
use policy::{Pool, UnitDemand};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow};
use sqlx::{Connection, Row as _};
use std::sync::LazyLock;
use std::time::Duration;

/// An operation takes at most so long. Requests wait for it.
const OPERATION_TIMEOUT: Duration = Duration::from_millis(500);

/// The first statements of the connection: the server gives up what nobody waits for any longer, and what a paused gateway
/// has begun.
const SESSION: [&str; 3] = [
    "SET statement_timeout = '2s'",
    "SET lock_timeout = '1s'",
    "SET idle_in_transaction_session_timeout = '2s'",
];

/// An account: what one project, user or key uses in one day or month.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct EscrowKey {
    /// `project`, `user` or `key`.
    pub scope: &'static str,
    /// Its id.
    pub id: String,
    /// A day such as 2026-11-25, or a month such as 2026-11.
    pub period: String,
}

/// Accounts as they are after an operation, in the order in which they were named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accounts {
    /// By unit: tokens, requests, nano-euros.
    pub pools: Vec<[Pool; 3]>,
    /// The gateways that are live.
    pub members: u64,
}

/// A gateway's access to the shared accounts. Its operations are made one after the other.
#[derive(Debug)]
pub struct Escrow {
    options: PgConnectOptions,
    gateway: GatewayId,
    connection: Option<PgConnection>,
    /// `None` after an operation whose result is unknown.
    session: Option<i64>,
}

static STATE: LazyLock<String> = LazyLock::new(|| {
    let units = [
        ("tokens", "tokens"),
        ("requests", "requests"),
        ("cost", "cost_nano_eur"),
    ];
    let columns = units.map(|(unit, used)| {
        format!(
            "coalesce(escrow.{used}, 0) AS used_{unit}, coalesce(leased.{unit}, 0) AS leased_{unit}, \
             coalesce(own.drawn_{unit}, 0) AS drawn_{unit}, coalesce(own.settled_{unit}, 0) AS settled_{unit}"
        )
    });
    let leased =
        units.map(|(unit, _)| format!("CAST(sum(greatest(drawn_{unit} - settled_{unit}, 0)) AS BIGINT) AS {unit}"));
    let silent_ms = SILENT_AFTER.as_millis();
    format!(
        "SELECT {}, (SELECT count(*) FROM gateways WHERE heartbeat_at >= {NOW} - {silent_ms}) AS members \
         FROM unnest($1, $2, $3) WITH ORDINALITY AS wanted (scope, id, period, position) \
         LEFT JOIN escrow USING (scope, id, period) \
         LEFT JOIN leases AS own ON (own.scope, own.id, own.period, own.gateway) \
           = (wanted.scope, wanted.id, wanted.period, $4) \
         LEFT JOIN LATERAL (SELECT {} FROM leases WHERE (leases.scope, leases.id, leases.period) \
           = (wanted.scope, wanted.id, wanted.period)) AS leased ON true ORDER BY position",
        columns.join(", "),
        leased.join(", ")
    )
});

const MAKE_ACCOUNTS: &str = "INSERT INTO escrow (scope, id, period) SELECT * FROM unnest($1, $2, $3) ON CONFLICT (scope, id, period) DO NOTHING";

const LOCK_ACCOUNTS: &str = "SELECT 1 FROM unnest($1, $2, $3) WITH ORDINALITY AS wanted (scope, id, period, position) \
    JOIN escrow USING (scope, id, period) ORDER BY position FOR UPDATE OF escrow";

const SET_DRAWN: &str = "INSERT INTO leases (scope, id, period, drawn_tokens, drawn_requests, drawn_cost, gateway) \
    SELECT *, $7 FROM unnest($1, $2, $3, $4, $5, $6) ON CONFLICT (scope, id, period, gateway) DO UPDATE SET \
    drawn_tokens = excluded.drawn_tokens, drawn_requests = excluded.drawn_requests, drawn_cost = excluded.drawn_cost";

const RETURN: &str = "UPDATE leases SET drawn_tokens = drawn_tokens - tokens, drawn_requests = drawn_requests - requests, \
    drawn_cost = drawn_cost - cost \
    FROM unnest($1, $2, $3, $4, $5, $6) AS back (scope, id, period, tokens, requests, cost) \
    WHERE (leases.scope, leases.id, leases.period, leases.gateway) = (back.scope, back.id, back.period, $7)";

impl Escrow {
    /// The accounts of a database, for a member of its cluster; nothing is connected yet.
    ///
    /// # Errors
    /// When the database is not PostgreSQL.
    pub fn new(url: &str, gateway: &GatewayId) -> Result<Self, Error> {
        let options: PgConnectOptions = url.parse()?;
        Ok(Self {
            options: options.application_name("sluice escrow"),
            gateway: gateway.clone(),
            connection: None,
            session: None,
        })
    }

    /// Returns whether the result of the last operation is known. If not, only [`Escrow::begin`] may follow.
    pub fn is_certain(&self) -> bool {
        self.session.is_some()
    }

    /// Begins a session and reads accounts: what was on its way before is done, or void.
    ///
    /// # Errors
    /// When the database fails, or this gateway is no member.
    pub async fn begin(&mut self, keys: &[EscrowKey]) -> Result<Accounts, Error> {
        self.within_time(async |connection, gateway, _| {
            let mut transaction = connection.begin().await?;
            let begin = "UPDATE gateways SET session = nextval('gateway_sessions') WHERE id = $1 RETURNING session";
            let begun = sqlx::query(begin).bind(gateway.as_str());
            let begun = begun.fetch_optional(&mut *transaction).await?;
            let begun = begun.ok_or_else(|| Error::Database(format!("gateway {gateway} is no member")))?;
            let session: i64 = begun.try_get("session")?;
            let accounts = read(&mut transaction, gateway, keys).await?;
            transaction.commit().await?;
            Ok((Some(session), accounts))
        })
        .await
    }

    /// Draws from accounts, which must be in their order; `demands` has one for each.
    ///
    /// # Errors
    /// When the database fails, or another session has begun.
    pub async fn draw(&mut self, keys: &[EscrowKey], demands: &[[Option<UnitDemand>; 3]]) -> Result<Accounts, Error> {
        self.within_time(async |connection, gateway, session| {
            let mut transaction = connection.begin().await?;
            check_session(&mut transaction, gateway, session).await?;
            for sql in [MAKE_ACCOUNTS, LOCK_ACCOUNTS] {
                bind(sql, keys).execute(&mut *transaction).await?;
            }
            let mut accounts = read(&mut transaction, gateway, keys).await?;
            for (pools, units) in accounts.pools.iter_mut().zip(demands) {
                for (pool, unit) in pools.iter_mut().zip(units) {
                    draw(pool, unit.as_ref(), accounts.members);
                }
            }
            let drawn = |unit: usize| {
                accounts
                    .pools
                    .iter()
                    .map(|pools| whole(pools[unit].drawn))
                    .collect::<Vec<_>>()
            };
            let set = bind(SET_DRAWN, keys).bind(drawn(0)).bind(drawn(1)).bind(drawn(2));
            set.bind(gateway.as_str()).execute(&mut *transaction).await?;
            transaction.commit().await?;
            Ok((session, accounts))
        })
        .await
    }

    /// Returns what was drawn too far in advance, and reads accounts.
    ///
    /// # Errors
    /// When the database fails, or another session has begun.
    pub async fn give_back(
        &mut self,
        returned: &[(EscrowKey, [u64; 3])],
        read_too: &[EscrowKey],
    ) -> Result<Accounts, Error> {
        self.within_time(async |connection, gateway, session| {
            let mut transaction = connection.begin().await?;
            check_session(&mut transaction, gateway, session).await?;
            if !returned.is_empty() {
                let keys: Vec<EscrowKey> = returned.iter().map(|(key, _)| key.clone()).collect();
                let amounts = |unit: usize| {
                    returned
                        .iter()
                        .map(|(_, amounts)| whole(amounts[unit]))
                        .collect::<Vec<_>>()
                };
                let give = bind(RETURN, &keys).bind(amounts(0)).bind(amounts(1)).bind(amounts(2));
                give.bind(gateway.as_str()).execute(&mut *transaction).await?;
            }
            let accounts = read(&mut transaction, gateway, read_too).await?;
            transaction.commit().await?;
            Ok((session, accounts))
        })
        .await
    }

    /// Runs an operation, which returns the session that is then in force. After an error its result is unknown.
    async fn within_time<T>(
        &mut self,
        operation: impl AsyncFnOnce(&mut PgConnection, &GatewayId, Option<i64>) -> Result<(Option<i64>, T), Error>,
    ) -> Result<T, Error> {
        let session = self.session.take();
        let connection = self.connection.take();
        let (options, gateway) = (&self.options, &self.gateway);
        let run = async {
            let mut connection = match connection {
                Some(connection) => connection,
                None => connect(options).await?,
            };
            let done = operation(&mut connection, gateway, session).await?;
            Ok((connection, done))
        };
        match tokio::time::timeout(OPERATION_TIMEOUT, run).await {
            Ok(Ok((connection, (session, done)))) => {
                (self.connection, self.session) = (Some(connection), session);
                Ok(done)
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Err(Error::Database(format!(
                "no answer within {} ms",
                OPERATION_TIMEOUT.as_millis()
            ))),
        }
    }
}

async fn connect(options: &PgConnectOptions) -> Result<PgConnection, Error> {
    let mut connection = PgConnection::connect_with(options).await?;
    for statement in SESSION {
        sqlx::query(statement).execute(&mut connection).await?;
    }
    Ok(connection)
}

/// Keeps the session in force until the end of the transaction.
async fn check_session(connection: &mut PgConnection, gateway: &GatewayId, session: Option<i64>) -> Result<(), Error> {
    let check = sqlx::query("SELECT 1 FROM gateways WHERE id = $1 AND session = $2 FOR SHARE");
    let found = check.bind(gateway.as_str()).bind(session).fetch_optional(connection);
    match found.await? {
        Some(_) => Ok(()),
        None => Err(Error::Database("another session of this gateway has begun".to_owned())),
    }
}

/// Draws from one unit of an account.
fn draw(pool: &mut Pool, demand: Option<&UnitDemand>, members: u64) {
    let before = pool.drawn.saturating_sub(pool.settled);
    if let Some(demand) = demand {
        pool.drawn = demand.drawn_after(pool, members);
    }
    pool.leased = pool.leased.saturating_sub(before) + pool.drawn.saturating_sub(pool.settled);
}

/// The accounts of keys.
async fn read(connection: &mut PgConnection, gateway: &GatewayId, keys: &[EscrowKey]) -> Result<Accounts, Error> {
    let statement = bind(&STATE, keys).bind(gateway.as_str());
    let rows = statement.fetch_all(connection).await?;
    let members: i64 = rows.first().map_or(Ok(1), |row| row.try_get("members"))?;
    Ok(Accounts {
        pools: rows.iter().map(pools).collect::<Result<_, _>>()?,
        members: members.max(1).unsigned_abs(),
    })
}

fn pools(row: &PgRow) -> Result<[Pool; 3], sqlx::Error> {
    let mut pools = [Pool::default(); 3];
    for (pool, unit) in pools.iter_mut().zip(["tokens", "requests", "cost"]) {
        // A sum that corrections have made negative is 0.
        let amount = |name: &str| {
            let amount: i64 = row.try_get(&*format!("{name}_{unit}"))?;
            Ok::<_, sqlx::Error>(amount.max(0).unsigned_abs())
        };
        *pool = Pool {
            used: amount("used")?,
            leased: amount("leased")?,
            drawn: amount("drawn")?,
            settled: amount("settled")?,
        };
    }
    Ok(pools)
}

/// A statement whose first three parameters are keys.
fn bind<'q>(sql: &'q str, keys: &[EscrowKey]) -> sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments> {
    // PostgreSQL's text has no NUL.
    let column = |of: fn(&EscrowKey) -> &str| keys.iter().map(|key| of(key).replace('\0', "")).collect::<Vec<_>>();
    sqlx::query(sql)
        .bind(column(|key| key.scope))
        .bind(column(|key| &key.id))
        .bind(column(|key| &key.period))
}

fn whole(amount: u64) -> i64 {
    i64::try_from(amount).unwrap_or(MAX_SUM).min(MAX_SUM)
}

/// Deletes the accounts of periods before a month, such as 2026-09: nothing is drawn from them any more.
///
/// # Errors
/// When the database fails.
pub async fn delete_before(store: &Store, month: &str) -> Result<(), Error> {
    for table in ["leases", "escrow"] {
        let sql = format!("DELETE FROM {table} WHERE period < $1");
        let delete = sqlx::query(&sql).bind(month);
        delete.execute(&store.pool()).timed(store).await?;
    }
    Ok(())
}
