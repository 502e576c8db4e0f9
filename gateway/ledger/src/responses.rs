//! The table `responses`: responses that clients asked to keep. One is found by its project and its id; a conversation is
//! the chain of responses that each go on from the one before.

use crate::endings::{Claim, Work};
use crate::error::Error;
use crate::id::GatewayId;
use crate::store::{Store, Timed};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};
use std::collections::BTreeMap;

/// Ids in one statement: SQLite and PostgreSQL bound its parameters.
const ITEMS_A_STATEMENT: usize = 200;

/// A stored response. Times are seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredResponse {
    /// Its id.
    pub id: String,
    /// Its project.
    pub project_id: String,
    /// The response that it goes on from.
    pub previous_id: Option<String>,
    /// The new items of its request, as JSON.
    pub input: String,
    /// The response, as JSON.
    pub response: String,
    /// When it was made.
    pub created_at: i64,
    /// When it is deleted, unless a later response goes on from it.
    pub expires_at: i64,
    /// The ids of its output items, by which a request can refer to them.
    pub item_ids: Vec<String>,
}

impl StoredResponse {
    /// Its size, as far as it counts.
    fn bytes(&self) -> i64 {
        i64::try_from(self.input.len() + self.response.len()).unwrap_or(i64::MAX)
    }
}

/// Bounds of the conversation that is read.
#[derive(Debug, Clone, Copy)]
pub struct ChainBounds {
    /// Responses, at least 1.
    pub turns: i64,
    /// Bytes of all their inputs and responses.
    pub bytes: i64,
}

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// The response's id.
    pub id: String,
    /// The new items of its request, as JSON.
    pub input: String,
    /// The response, as JSON.
    pub response: String,
}

/// A conversation as it was found, from its beginning on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Its turns, oldest first; empty if there is no such response.
    pub turns: Vec<Turn>,
    /// Completeness of the list.
    pub end: ChainEnd,
}

/// Where the search for a conversation's beginning ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChainEnd {
    /// At its beginning.
    Complete,
    /// At a response that does not exist (any more).
    Missing(String),
    /// At the greatest number of turns.
    TooLong,
    /// At the greatest size.
    TooLarge,
}

/// The conversation before and with response $2 of project $1 at time $3, newest first, of at most $4 turns; the last may
/// exceed $5 bytes.
const CHAIN: &str = "WITH RECURSIVE chain (id, project_id, previous_id, turn, total) AS ( \
     SELECT id, project_id, previous_id, CAST(1 AS BIGINT), bytes FROM responses \
     WHERE id = $2 AND project_id = COALESCE($1, project_id) AND expires_at > $3 \
     UNION ALL \
     SELECT before.id, before.project_id, before.previous_id, chain.turn + 1, chain.total + before.bytes \
     FROM responses AS before JOIN chain ON before.id = chain.previous_id AND before.project_id = chain.project_id \
     WHERE before.expires_at > $3 AND chain.turn < $4 AND chain.total <= $5)";

/// Adds a response, unless the project's would then be larger than `max_bytes` together; whether it was added. All that it
/// goes on from is kept as long as it is. With a claim it is added only if the gateway still has that work, and replaces
/// what an attempt has left whose end was not written.
///
/// # Errors
/// When the database fails, or has a response of this id already.
pub async fn add(
    store: &Store,
    response: &StoredResponse,
    max_bytes: i64,
    claim: Option<(&GatewayId, &Claim)>,
) -> Result<bool, Error> {
    let mut transaction = store.pool().begin().timed(store).await?;
    if let Some((owner, claim)) = claim {
        // SQLite's transactions are to begin with a write.
        delete_attempt(&mut transaction, response).timed(store).await?;
        if !hold(store, &mut transaction, owner, claim).await? {
            return Ok(false);
        }
    }
    if !insert(&mut transaction, response, max_bytes).timed(store).await? {
        return Ok(false);
    }
    transaction.commit().timed(store).await?;
    if let Some(previous) = &response.previous_id {
        keep_longer(store, response, previous).await?;
    }
    Ok(true)
}

async fn delete_attempt(connection: &mut AnyConnection, response: &StoredResponse) -> Result<(), sqlx::Error> {
    for sql in [
        "DELETE FROM response_items WHERE response_id = $1 AND project_id = $2",
        "DELETE FROM responses WHERE id = $1 AND project_id = $2",
    ] {
        let delete = sqlx::query(sql).bind(&response.id).bind(&response.project_id);
        delete.execute(&mut *connection).await?;
    }
    Ok(())
}

/// Returns whether a gateway has some work; until the end of the transaction nobody else takes it over.
async fn hold(store: &Store, connection: &mut AnyConnection, owner: &GatewayId, claim: &Claim) -> Result<bool, Error> {
    let (table, id) = match &claim.work {
        Work::Job(id) => ("jobs", id.as_str()),
        Work::Batch(id) => ("batches", id.as_str()),
    };
    // SQLite has one writer, and is no database of several gateways.
    let lock = if store.is_shared() { " FOR SHARE" } else { "" };
    let sql = format!("SELECT id FROM {table} WHERE id = $1 AND owner = $2 AND epoch = $3{lock}");
    let held = sqlx::query(&sql).bind(id).bind(owner.as_str()).bind(claim.epoch);
    Ok(held.fetch_optional(connection).timed(store).await?.is_some())
}

/// Writes a response and where its items are.
async fn insert(
    connection: &mut AnyConnection,
    response: &StoredResponse,
    max_bytes: i64,
) -> Result<bool, sqlx::Error> {
    let added = sqlx::query(
        "INSERT INTO responses (id, project_id, previous_id, input, response, bytes, created_at, expires_at) \
         SELECT $1, $2, CAST($3 AS TEXT), $4, $5, $6, $7, $8 \
         WHERE (SELECT COALESCE(CAST(SUM(bytes) AS BIGINT), 0) FROM responses WHERE project_id = $2) + $6 <= $9",
    )
    .bind(&response.id)
    .bind(&response.project_id)
    .bind(&response.previous_id)
    .bind(&response.input)
    .bind(&response.response)
    .bind(response.bytes())
    .bind(response.created_at)
    .bind(response.expires_at)
    .bind(max_bytes)
    .execute(&mut *connection)
    .await?;
    if added.rows_affected() == 0 {
        return Ok(false);
    }
    for ids in response.item_ids.chunks(ITEMS_A_STATEMENT) {
        let rows: Vec<String> = (3..3 + ids.len()).map(|n| format!("($1, $2, ${n})")).collect();
        let statement = format!(
            "INSERT INTO response_items (project_id, response_id, item_id) VALUES {} ON CONFLICT DO NOTHING",
            rows.join(", ")
        );
        let mut insert = sqlx::query(&statement).bind(&response.project_id).bind(&response.id);
        for id in ids {
            insert = insert.bind(id);
        }
        insert.execute(&mut *connection).await?;
    }
    Ok(true)
}

/// The responses of a project that have any of these items, as JSON, oldest first; `None` if they are larger than
/// `max_bytes` together. A response that has expired has no items.
///
/// # Errors
/// When the database fails.
pub async fn with_items(
    store: &Store,
    project: &str,
    ids: &[String],
    max_bytes: i64,
    now: i64,
) -> Result<Option<Vec<String>>, Error> {
    let mut found: BTreeMap<(i64, String), i64> = BTreeMap::new();
    for ids in ids.chunks(ITEMS_A_STATEMENT) {
        let places: Vec<String> = (3..3 + ids.len()).map(|n| format!("${n}")).collect();
        let statement = format!(
            "SELECT id, created_at, bytes FROM responses WHERE project_id = $1 AND expires_at > $2 AND id IN \
             (SELECT response_id FROM response_items WHERE project_id = $1 AND item_id IN ({}))",
            places.join(", ")
        );
        let mut select = sqlx::query(&statement).bind(project).bind(now);
        for id in ids {
            select = select.bind(id);
        }
        for row in select.fetch_all(&store.pool()).timed(store).await? {
            let at = (row.try_get("created_at")?, row.try_get("id")?);
            found.insert(at, row.try_get("bytes")?);
        }
    }
    if found.values().fold(0i64, |all, bytes| all.saturating_add(*bytes)) > max_bytes {
        return Ok(None);
    }
    let mut responses = Vec::with_capacity(found.len());
    for (_, id) in found.keys() {
        responses.extend(find(store, Some(project), id, now).await?);
    }
    Ok(Some(responses))
}

/// Keeps all that a response goes on from as long as the response.
async fn keep_longer(store: &Store, response: &StoredResponse, previous: &str) -> Result<(), Error> {
    sqlx::query(&format!(
        "{CHAIN} UPDATE responses SET expires_at = $6 WHERE expires_at < $6 AND project_id = $1 \
         AND id IN (SELECT id FROM chain)"
    ))
    .bind(&response.project_id)
    .bind(previous)
    .bind(response.created_at)
    .bind(i64::MAX)
    .bind(i64::MAX)
    .bind(response.expires_at)
    .execute(&store.pool())
    .timed(store)
    .await?;
    Ok(())
}

/// A response that has not expired, as JSON; of any project's if none is given, which is for operators and open identity.
///
/// # Errors
/// When the database fails.
pub async fn find(store: &Store, project: Option<&str>, id: &str, now: i64) -> Result<Option<String>, Error> {
    let found = sqlx::query(
        "SELECT response FROM responses WHERE id = $2 AND project_id = COALESCE($1, project_id) AND expires_at > $3",
    )
    .bind(project)
    .bind(id)
    .bind(now)
    .fetch_optional(&store.pool())
    .timed(store)
    .await?;
    found.map(|row| Ok(row.try_get("response")?)).transpose()
}

/// The conversation up to and with a response. `project` as in [`find`].
///
/// # Errors
/// When the database fails.
pub async fn chain(
    store: &Store,
    project: Option<&str>,
    id: &str,
    bounds: ChainBounds,
    now: i64,
) -> Result<Chain, Error> {
    let rows = sqlx::query(&format!(
        "{CHAIN} SELECT chain.id, chain.previous_id, chain.turn, chain.total, kept.input, kept.response FROM chain \
         JOIN responses AS kept ON kept.id = chain.id AND kept.project_id = chain.project_id ORDER BY chain.turn"
    ))
    .bind(project)
    .bind(id)
    .bind(now)
    .bind(bounds.turns)
    .bind(bounds.bytes)
    .fetch_all(&store.pool())
    .timed(store)
    .await?;
    let end = match rows.last() {
        None => ChainEnd::Missing(id.to_owned()),
        Some(first) => end(first, bounds)?,
    };
    let mut turns = rows.iter().map(turn).collect::<Result<Vec<_>, Error>>()?;
    turns.reverse();
    Ok(Chain { turns, end })
}

/// Why the search ended at the oldest response that was found.
fn end(oldest: &AnyRow, bounds: ChainBounds) -> Result<ChainEnd, Error> {
    if oldest.try_get::<i64, _>("total")? > bounds.bytes {
        return Ok(ChainEnd::TooLarge);
    }
    Ok(match oldest.try_get::<Option<String>, _>("previous_id")? {
        None => ChainEnd::Complete,
        Some(_) if oldest.try_get::<i64, _>("turn")? >= bounds.turns => ChainEnd::TooLong,
        Some(previous) => ChainEnd::Missing(previous),
    })
}

fn turn(row: &AnyRow) -> Result<Turn, Error> {
    Ok(Turn {
        id: row.try_get("id")?,
        input: row.try_get("input")?,
        response: row.try_get("response")?,
    })
}

/// Deletes a response; false if there is none. `project` as in [`find`].
///
/// # Errors
/// When the database fails.
pub async fn delete(store: &Store, project: Option<&str>, id: &str, now: i64) -> Result<bool, Error> {
    let deleted = sqlx::query(
        "DELETE FROM responses WHERE id = $2 AND project_id = COALESCE($1, project_id) AND expires_at > $3",
    )
    .bind(project)
    .bind(id)
    .bind(now)
    .execute(&store.pool())
    .timed(store)
    .await?;
    Ok(deleted.rows_affected() > 0)
}

/// Deletes at most `limit` responses that have expired; how many.
///
/// # Errors
/// When the database fails.
pub async fn delete_expired(store: &Store, now: i64, limit: i64) -> Result<u64, Error> {
    let deleted = sqlx::query(
        "DELETE FROM responses WHERE expires_at <= $1 AND id IN \
         (SELECT id FROM responses WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2)",
    )
    .bind(now)
    .bind(limit)
    .execute(&store.pool())
    .timed(store)
    .await?;
    Ok(deleted.rows_affected())
}

#[cfg(test)]
mod tests;
