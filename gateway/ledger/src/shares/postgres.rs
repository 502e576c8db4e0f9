//! The store in PostgreSQL: a table of locked lines.

use super::account::{SLOTS, decode, decode_slots, encode, encode_slots};
use super::{Grants, OPERATION_TIMEOUT, Outcome, Refreshed, Reports, Shares, Standing, another_session, no_answer};
use crate::error::Error;
use crate::id::GatewayId;
use crate::members::{NOW, SILENT_AFTER};
use policy::LEASE_TTL;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow};
use sqlx::{Connection, Row as _};
use std::collections::{HashMap, HashSet};
use std::time::Duration;

#[cfg(test)]
mod tests;

/// The first statements of the connection: the server gives up what nobody waits for any longer.
const SESSION: [&str; 3] = [
    "SET statement_timeout = '2s'",
    "SET lock_timeout = '1s'",
    "SET idle_in_transaction_session_timeout = '2s'",
];

const NOW_US: &str = "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)";

const BEGIN: &str = "INSERT INTO sharers (gateway, session) VALUES ($1, nextval('gateway_sessions')) \
    ON CONFLICT (gateway) DO UPDATE SET session = excluded.session RETURNING session";

/// The store in PostgreSQL.
#[derive(Debug)]
pub(super) struct Postgres {
    options: PgConnectOptions,
    gateway: GatewayId,
    connection: Option<Session>,
}

#[derive(Debug)]
struct Session {
    connection: PgConnection,
    number: i64,
    /// The accounts that have a row.
    known: HashSet<String>,
}

/// What the server says of the other gateways.
struct Others {
    live: Vec<String>,
    is_one_sole: bool,
    /// True if the server has forgotten what was granted, and not been told it again by all.
    is_forgetful: bool,
    now_us: u64,
}

impl Postgres {
    /// The rate limits of a database, for a member of its cluster; nothing is connected yet.
    ///
    /// # Errors
    /// When the database is not PostgreSQL.
    pub(super) fn new(url: &str, gateway: &GatewayId) -> Result<Self, Error> {
        let options: PgConnectOptions = url.parse()?;
        Ok(Self {
            options: options.application_name("sluice shares"),
            gateway: gateway.clone(),
            connection: None,
        })
    }

    /// Runs an operation in this gateway's session. After an error, another one begins.
    async fn within_time<T>(
        &mut self,
        operation: impl AsyncFnOnce(&mut Session, &GatewayId) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let session = self.connection.take();
        let (options, gateway) = (&self.options, &self.gateway);
        let run = async {
            let mut session = match session {
                Some(session) => session,
                None => connect(options, gateway).await?,
            };
            let done = operation(&mut session, gateway).await?;
            Ok((session, done))
        };
        match tokio::time::timeout(OPERATION_TIMEOUT, run).await {
            Ok(Ok((session, done))) => {
                self.connection = Some(session);
                Ok(done)
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Err(no_answer()),
        }
    }
}

#[async_trait::async_trait]
impl Shares for Postgres {
    fn refresh_every(&self) -> Duration {
        Duration::from_millis(250)
    }

    async fn greet(&mut self) -> Result<Standing, Error> {
        self.within_time(async |session, gateway| {
            let connection = &mut session.connection;
            let is_sole = renew(connection, gateway, session.number, true).await?;
            let others = others(connection, gateway).await?;
            Ok(Standing {
                others: others.live.len() as u64,
                is_sole,
            })
        })
        .await
    }

    async fn refresh(&mut self, reports: &Reports, _listed: &[String]) -> Result<Refreshed, Error> {
        self.within_time(async |session, gateway| {
            make_rows(session, reports).await?;
            let mut transaction = session.connection.begin().await?;
            renew(&mut transaction, gateway, session.number, !reports.is_whole).await?;
            let mut lines = lock_accounts(&mut transaction, reports).await?;
            // After the locks: who was granted something in these accounts before has committed, and is seen to be live.
            let others = others(&mut transaction, gateway).await?;
            let members = 1 + others.live.len() as u64;
            let rank = others
                .live
                .iter()
                .filter(|other| other.as_str() < gateway.as_str())
                .count() as u64;
            let mut outcome = Outcome::Waits;
            if !others.is_one_sole {
                outcome = Outcome::Granted(grant(gateway.as_str(), reports, &others, &mut lines)?);
                update_accounts(&mut transaction, lines).await?;
            }
            transaction.commit().await?;
            Ok(Refreshed { members, rank, outcome })
        })
        .await
    }

    async fn take_over(&mut self, _listed: &[String]) -> Result<Option<Vec<(String, u64)>>, Error> {
        self.within_time(async |session, gateway| {
            let mut transaction = session.connection.begin().await?;
            // Gateways that refresh, and one that comes, wait for the end of this; those before are seen.
            let lock = "LOCK TABLE sharers IN EXCLUSIVE MODE";
            sqlx::query(lock).execute(&mut *transaction).await?;
            let others = others(&mut transaction, gateway).await?;
            if !others.live.is_empty() || has_other_members(&mut transaction, gateway).await? {
                return Ok(None);
            }
            renew(&mut transaction, gateway, session.number, true).await?;
            let sole = "UPDATE sharers SET is_sole = true WHERE gateway = $1";
            sqlx::query(sole)
                .bind(gateway.as_str())
                .execute(&mut *transaction)
                .await?;
            // They stay, in case that the answer is lost: the gateway tells its levels when another one comes.
            let rows = sqlx::query("SELECT id, state FROM shares");
            let rows = rows.fetch_all(&mut *transaction).await?;
            let mut levels = Vec::with_capacity(rows.len());
            for row in rows.iter().filter(|row| !is_of_slots(row)) {
                let account = decode(row.try_get("state")?);
                levels.push((
                    row.try_get("id")?,
                    account.level_alone(&gateway.to_string(), others.now_us),
                ));
            }
            transaction.commit().await?;
            Ok(Some(levels))
        })
        .await
    }

    async fn leave(&mut self) -> Result<(), Error> {
        // Who leaves the table of gateways leaves that of sharers with it.
        Ok(())
    }
}

async fn connect(options: &PgConnectOptions, gateway: &GatewayId) -> Result<Session, Error> {
    let mut connection = PgConnection::connect_with(options).await?;
    for statement in SESSION {
        sqlx::query(statement).execute(&mut connection).await?;
    }
    let begun = sqlx::query(BEGIN).bind(gateway.as_str()).fetch_one(&mut connection);
    let number = begun.await?.try_get("session")?;
    Ok(Session {
        connection,
        number,
        known: HashSet::new(),
    })
}

/// Tells that a gateway is live, within its session. Returns whether it uses the whole of all limits, which ends unless it
/// stays alone.
async fn renew(
    connection: &mut PgConnection,
    gateway: &GatewayId,
    session: i64,
    stays_alone: bool,
) -> Result<bool, Error> {
    let sql = format!(
        "UPDATE sharers SET refreshed_us = {NOW_US}, is_sole = is_sole AND $3, has_told = has_told OR NOT $3 \
         WHERE gateway = $1 AND session = $2 RETURNING is_sole"
    );
    let renew = sqlx::query(&sql).bind(gateway.as_str()).bind(session).bind(stays_alone);
    match renew.fetch_optional(connection).await? {
        Some(row) => Ok(row.try_get("is_sole")?),
        None => Err(another_session()),
    }
}

async fn others(connection: &mut PgConnection, gateway: &GatewayId) -> Result<Others, Error> {
    let ttl_us = LEASE_TTL.as_micros();
    let sql = format!(
        "SELECT now.us, gateway, is_sole, (SELECT min(entered_us) FROM sharers) > now.us - {ttl_us} AS is_new \
         FROM (SELECT {NOW_US} AS us) AS now LEFT JOIN sharers ON gateway <> $1 AND refreshed_us > now.us - {ttl_us}"
    );
    let rows = sqlx::query(&sql).bind(gateway.as_str()).fetch_all(&mut *connection);
    let rows = rows.await?;
    let mut others = Others {
        live: Vec::new(),
        is_one_sole: false,
        is_forgetful: false,
        now_us: 0,
    };
    let is_new = rows.first().map(|row| row.try_get::<Option<bool>, _>("is_new"));
    if is_new.transpose()?.flatten() == Some(true) {
        others.is_forgetful = is_untold(connection, gateway).await?;
    }
    for row in rows {
        others.now_us = row.try_get::<i64, _>("us")?.max(0).unsigned_abs();
        if let Some(gateway) = row.try_get("gateway")? {
            others.live.push(gateway);
            others.is_one_sole |= row.try_get::<bool, _>("is_sole")?;
        }
    }
    Ok(others)
}

/// Returns whether another member has sent a heartbeat lately and not told what it holds.
async fn is_untold(connection: &mut PgConnection, gateway: &GatewayId) -> Result<bool, Error> {
    let silent_ms = SILENT_AFTER.as_millis();
    let sql = format!(
        "SELECT 1 FROM gateways WHERE id <> $1 AND heartbeat_at >= {NOW} - {silent_ms} \
         AND NOT EXISTS (SELECT 1 FROM sharers WHERE gateway = id AND has_told) LIMIT 1"
    );
    let found = sqlx::query(&sql).bind(gateway.as_str()).fetch_optional(connection);
    Ok(found.await?.is_some())
}

/// Returns whether another member has sent a heartbeat lately. After a crash of the server, `sharers` is empty.
async fn has_other_members(connection: &mut PgConnection, gateway: &GatewayId) -> Result<bool, Error> {
    let silent_ms = SILENT_AFTER.as_millis();
    let sql = format!("SELECT 1 FROM gateways WHERE id <> $1 AND heartbeat_at >= {NOW} - {silent_ms} LIMIT 1");
    let found = sqlx::query(&sql).bind(gateway.as_str()).fetch_optional(connection);
    Ok(found.await?.is_some())
}

fn is_of_slots(row: &PgRow) -> bool {
    row.try_get("id").is_ok_and(|id: String| id.starts_with(SLOTS))
}

impl Reports {
    /// The ids of all accounts, in order, so that gateways never wait for each other in a circle.
    fn ids(&self) -> Vec<&str> {
        let rates = self.rates.iter().map(|(id, _)| &**id);
        let mut ids: Vec<&str> = rates.chain(self.slots.iter().map(|(id, _)| &**id)).collect();
        ids.sort_unstable();
        ids
    }
}

/// Makes rows for the accounts that have none yet.
async fn make_rows(session: &mut Session, reports: &Reports) -> Result<(), Error> {
    let new = reports.ids().into_iter().filter(|id| !session.known.contains(*id));
    let new: Vec<String> = new.map(str::to_owned).collect();
    if !new.is_empty() {
        let sql = "INSERT INTO shares (id) SELECT * FROM unnest($1) ON CONFLICT (id) DO NOTHING";
        sqlx::query(sql).bind(&new).execute(&mut session.connection).await?;
        session.known.extend(new);
    }
    Ok(())
}

/// Locks the accounts of reports until the transaction ends. Returns their lines.
async fn lock_accounts(connection: &mut PgConnection, reports: &Reports) -> Result<HashMap<String, String>, Error> {
    let ids = reports.ids();
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let lock = "SELECT id, state FROM shares WHERE id = ANY($1) ORDER BY id FOR UPDATE";
    let rows = sqlx::query(lock).bind(&ids).fetch_all(connection).await?;
    rows.into_iter()
        .map(|row| Ok((row.try_get("id")?, row.try_get("state")?)))
        .collect()
}

async fn update_accounts(connection: &mut PgConnection, lines: HashMap<String, String>) -> Result<(), Error> {
    if lines.is_empty() {
        return Ok(());
    }
    let (ids, states): (Vec<_>, Vec<_>) = lines.into_iter().unzip();
    let update = "UPDATE shares SET state = new.state FROM unnest($1, $2) AS new (id, state) WHERE shares.id = new.id";
    let update = sqlx::query(update).bind(ids).bind(states);
    update.execute(connection).await?;
    Ok(())
}

/// Grants what is reported, and changes the accounts' lines.
fn grant(
    gateway: &str,
    reports: &Reports,
    others: &Others,
    lines: &mut HashMap<String, String>,
) -> Result<Grants, Error> {
    let own = gateway.to_owned();
    let members = 1 + others.live.len() as u64;
    let is_live = |holder: &String| *holder == own || others.live.contains(holder);
    let mut grants = Grants::default();
    for (id, report) in &reports.rates {
        let line = lines.get_mut(id).ok_or_else(|| no_row(id))?;
        let mut account = decode(line);
        let mut granted = account.refresh(&own, (is_live, members), report, others.now_us);
        if others.is_forgetful {
            account.withhold(&own, &mut granted);
        }
        grants.rates.push(granted);
        *line = encode(&account);
    }
    for (id, report) in &reports.slots {
        let line = lines.get_mut(id).ok_or_else(|| no_row(id))?;
        let mut account = decode_slots(line);
        let mut granted = account.refresh(&own, is_live, report);
        if others.is_forgetful {
            account.withhold(&own, &mut granted);
        }
        grants.slots.push(granted);
        *line = encode_slots(&account);
    }
    Ok(grants)
}

fn no_row(id: &str) -> Error {
    Error::Database(format!("the shared limit {id} has no row"))
}
