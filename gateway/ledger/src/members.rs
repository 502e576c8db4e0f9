//! The table `gateways`: the members of a cluster, which share one PostgreSQL database. Each renews its heartbeat, by the
//! server's clock, so that the clocks of the gateways' machines do not matter.

use crate::error::Error;
use crate::id::GatewayId;
use crate::store::{Store, Timed};
use sqlx::any::AnyRow;
use sqlx::{AnyPool, Row};
use std::collections::BTreeMap;
use std::time::Duration;

/// The interval of heartbeats.
pub const HEARTBEAT_EVERY: Duration = Duration::from_secs(1);

/// A member without a heartbeat for longer is silent: killed, stopped, or cut off from the database.
pub const SILENT_AFTER: Duration = Duration::from_secs(5);

/// Milliseconds since 1970 by the server's clock.
pub(crate) const NOW: &str = "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)";

/// Selects unfinished work of gateways other than $1 that are silent or gone, $2 at most, oldest first. What another
/// gateway is just claiming is passed over.
pub(crate) fn abandoned(table: &str) -> String {
    let silent_ms = SILENT_AFTER.as_millis();
    format!(
        "SELECT id FROM {table} WHERE finished_at IS NULL AND owner <> $1 \
         AND owner NOT IN (SELECT id FROM gateways WHERE heartbeat_at >= {NOW} - {silent_ms}) \
         ORDER BY created_at LIMIT $2 FOR UPDATE SKIP LOCKED"
    )
}

/// Selects the unfinished work of gateway $1.
pub(crate) fn owned(table: &str) -> String {
    format!("SELECT id FROM {table} WHERE finished_at IS NULL AND owner = $1")
}

/// Sets unfinished work $2 of gateway $1 free, for any other.
pub(crate) fn release(table: &str) -> String {
    format!("UPDATE {table} SET owner = '' WHERE id = $2 AND owner = $1 AND finished_at IS NULL")
}

/// What a gateway tells of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Introduction {
    /// The name of its machine.
    pub name: String,
    /// The address of its proxy listener.
    pub address: String,
    /// Its version.
    pub version: String,
}

/// A gateway of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its id, kept in its data directory.
    pub id: GatewayId,
    /// What it tells of itself.
    pub introduction: Introduction,
    /// Its start, in milliseconds since 1970.
    pub started_at: i64,
    /// The time since its last heartbeat.
    pub silent_for: Duration,
    /// True while it shares rate limits and slots; false while it uses a part of each on its own.
    pub is_coordinated: bool,
    /// What runs and waits there, as it wrote it with its last heartbeat; empty where its version writes none.
    pub figures: String,
}

impl Member {
    /// Returns whether it was heard of lately.
    pub fn is_live(&self) -> bool {
        self.silent_for <= SILENT_AFTER
    }
}

/// The cluster at a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    /// All members, the longest-running first.
    pub members: Vec<Member>,
    /// The members that are live, this one included, in order.
    pub live_ids: Vec<String>,
    /// The members that are silent.
    pub silent: u64,
    /// The server's time, in milliseconds since 1970.
    pub server_ms: i64,
    /// True if another live member shares rate limits and slots.
    pub is_other_coordinated: bool,
}

/// The end of a member that does not return.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Retirement {
    /// It was silent, and is no member any more.
    Retired(Member),
    /// It is live; nothing was changed.
    Live(Member),
    /// There is no such member.
    Unknown,
}

/// Enters a gateway that starts: its records are moved, so nothing is left of what it had drawn.
///
/// # Errors
/// When the database fails.
pub async fn join(store: &Store, id: &GatewayId, introduction: &Introduction) -> Result<(), Error> {
    enter(store, id, introduction).await?;
    // What the process before has sent, and the server has not run yet, is void from here on.
    let begin = "UPDATE gateways SET session = nextval('gateway_sessions') WHERE id = $1";
    for sql in [
        begin,
        "DELETE FROM leases WHERE gateway = $1",
        "DELETE FROM sharers WHERE gateway = $1",
    ] {
        let statement = sqlx::query(sql).bind(id.as_str());
        statement.execute(&store.pool()).timed(store).await?;
    }
    Ok(())
}

/// Enters a gateway that runs, and was retired.
///
/// # Errors
/// When the database fails.
pub async fn enter(store: &Store, id: &GatewayId, introduction: &Introduction) -> Result<(), Error> {
    let sql = format!(
        "INSERT INTO gateways (id, name, address, version, started_at, heartbeat_at) VALUES ($1, $2, $3, $4, {NOW}, {NOW}) \
         ON CONFLICT (id) DO UPDATE SET name = excluded.name, address = excluded.address, version = excluded.version, \
         started_at = excluded.started_at, heartbeat_at = excluded.heartbeat_at"
    );
    let join = sqlx::query(&sql)
        .bind(id.as_str())
        .bind(&introduction.name)
        .bind(&introduction.address)
        .bind(&introduction.version);
    join.execute(&store.pool()).timed(store).await?;
    Ok(())
}

/// Renews a member's heartbeat, with whether it shares rate limits and slots, and what runs and waits there; `None` if it is
/// no member, because it was retired.
///
/// # Errors
/// When the database fails.
pub async fn heartbeat(
    store: &Store,
    id: &GatewayId,
    is_coordinated: bool,
    figures: &str,
) -> Result<Option<Heartbeat>, Error> {
    let renew = format!("UPDATE gateways SET heartbeat_at = {NOW}, is_coordinated = $2, figures = $3 WHERE id = $1");
    // PostgreSQL's text has no NUL.
    let figures = figures.replace('\0', "");
    let renew = sqlx::query(&renew).bind(id.as_str()).bind(is_coordinated).bind(figures);
    let reserved = store.reserved();
    if renew.execute(&reserved).timed(store).await?.rows_affected() == 0 {
        return Ok(None);
    }
    let members = list_by(store, &reserved).await?;
    let live = members.members.iter().filter(|member| member.is_live());
    let mut live_ids: Vec<String> = live.clone().map(|member| member.id.to_string()).collect();
    live_ids.sort_unstable();
    Ok(Some(Heartbeat {
        silent: (members.members.len() - live_ids.len()) as u64,
        live_ids,
        server_ms: members.server_ms,
        is_other_coordinated: live.clone().any(|member| member.id != *id && member.is_coordinated),
        members: members.members,
    }))
}

/// All members at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Members {
    /// The longest-running first.
    pub members: Vec<Member>,
    /// The server's time, in milliseconds since 1970.
    pub server_ms: i64,
}

/// Lists all members.
///
/// # Errors
/// When the database fails.
pub async fn list(store: &Store) -> Result<Members, Error> {
    list_by(store, &store.pool()).await
}

async fn list_by(store: &Store, pool: &AnyPool) -> Result<Members, Error> {
    let sql = format!(
        "SELECT now.ms AS server_ms, id, name, address, version, started_at, is_coordinated, figures, \
         now.ms - heartbeat_at AS silent_ms FROM (SELECT {NOW} AS ms) AS now LEFT JOIN gateways ON true ORDER BY started_at, id"
    );
    let rows = sqlx::query(&sql).fetch_all(pool).timed(store).await?;
    let server_ms = rows.first().map_or(Ok(0), |row| row.try_get("server_ms"))?;
    let members = rows.iter().map(member).collect::<Result<Vec<_>, _>>()?;
    Ok(Members {
        members: members.into_iter().flatten().collect(),
        server_ms,
    })
}

/// What a gateway has to do without clients.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unfinished {
    /// Its unfinished batches.
    pub batches: i64,
    /// Its unfinished jobs.
    pub jobs: i64,
}

/// The unfinished work of each gateway that has some.
///
/// # Errors
/// When the database fails.
pub async fn unfinished(store: &Store) -> Result<BTreeMap<String, Unfinished>, Error> {
    let rows = sqlx::query(
        "SELECT owner, CAST(SUM(batches) AS BIGINT) AS batches, CAST(SUM(jobs) AS BIGINT) AS jobs FROM ( \
         SELECT owner, 1 AS batches, 0 AS jobs FROM batches WHERE finished_at IS NULL UNION ALL \
         SELECT owner, 0 AS batches, 1 AS jobs FROM jobs WHERE finished_at IS NULL) AS work GROUP BY owner",
    )
    .fetch_all(&store.pool())
    .timed(store)
    .await?;
    let mut unfinished = BTreeMap::new();
    for row in &rows {
        let work = Unfinished {
            batches: row.try_get("batches")?,
            jobs: row.try_get("jobs")?,
        };
        unfinished.insert(row.try_get("owner")?, work);
    }
    Ok(unfinished)
}

/// The member of a row; `None` for the row of an empty table.
fn member(row: &AnyRow) -> Result<Option<Member>, Error> {
    let Some(id) = row.try_get::<Option<String>, _>("id")? else {
        return Ok(None);
    };
    let silent_ms: i64 = row.try_get("silent_ms")?;
    Ok(Some(Member {
        id: id.into(),
        introduction: Introduction {
            name: row.try_get("name")?,
            address: row.try_get("address")?,
            version: row.try_get("version")?,
        },
        started_at: row.try_get("started_at")?,
        silent_for: Duration::from_millis(u64::try_from(silent_ms).unwrap_or(0)),
        is_coordinated: row.try_get("is_coordinated")?,
        figures: row.try_get("figures")?,
    }))
}

/// Removes a member that has ended, and whose records are moved.
///
/// # Errors
/// When the database fails.
pub async fn leave(store: &Store, id: &GatewayId) -> Result<(), Error> {
    for sql in [
        "DELETE FROM gateways WHERE id = $1",
        "DELETE FROM leases WHERE gateway = $1",
        "DELETE FROM sharers WHERE gateway = $1",
    ] {
        let delete = sqlx::query(sql).bind(id.as_str());
        delete.execute(&store.pool()).timed(store).await?;
    }
    Ok(())
}

/// Removes a silent member for good, because its machine or its data directory is gone: what it has drawn from quotas and
/// budgets and not recorded is free for the others.
///
/// # Errors
/// When the database fails.
pub async fn retire(store: &Store, id: &str) -> Result<Retirement, Error> {
    let members = list(store).await?.members;
    let Some(member) = members.into_iter().find(|member| &member.id == id) else {
        return Ok(Retirement::Unknown);
    };
    // It may have sent a heartbeat meanwhile.
    let sql = format!("DELETE FROM gateways WHERE id = $1 AND heartbeat_at < {NOW} - $2");
    let silent_ms = i64::try_from(SILENT_AFTER.as_millis()).unwrap_or(i64::MAX);
    let delete = sqlx::query(&sql).bind(id).bind(silent_ms);
    let deleted = delete.execute(&store.pool()).timed(store).await?.rows_affected();
    if deleted == 0 {
        return Ok(Retirement::Live(member));
    }
    // What it has drawn and not settled is free. Its sums stay, should it run all the same.
    let free = "UPDATE leases SET drawn_tokens = least(drawn_tokens, settled_tokens), \
        drawn_requests = least(drawn_requests, settled_requests), drawn_cost = least(drawn_cost, settled_cost) \
        WHERE gateway = $1";
    sqlx::query(free).bind(id).execute(&store.pool()).timed(store).await?;
    Ok(Retirement::Retired(member))
}
