//! Search among records, newest first, a page at a time. A record's number grows with time, so a time is a range of the
//! primary key. One search reads at most [`SCANNED`] records: without an index on each field that is searched for, whose
//! upkeep every record would pay, it is as fast with ten million records as with a few, and goes on where it ended.

use crate::error::Error;
use crate::ledger::NUMBERS;
use crate::records::render;
use crate::row::{COLUMNS, Row};
use crate::store::{Store, Timed};
use serde_json::Value;
use sqlx::Row as _;

/// Records that one search reads at most.
pub const SCANNED: i64 = 50_000;

/// Which records are wanted; what is left out matches everything.
#[derive(Debug, Clone, Default)]
pub struct Wanted<'a> {
    /// The project's id.
    pub project: Option<&'a str>,
    /// The user's id.
    pub user: Option<&'a str>,
    /// The API key's id.
    pub key: Option<&'a str>,
    /// The model that was used.
    pub model: Option<&'a str>,
    /// The server's address.
    pub upstream: Option<&'a str>,
    /// The outcome.
    pub status: Option<&'a str>,
    /// The error's code.
    pub reason: Option<&'a str>,
    /// Records from this moment on, in seconds since 1970.
    pub from: Option<i64>,
    /// Records before this moment, in seconds since 1970.
    pub until: Option<i64>,
    /// Goes on before the record of this number.
    pub before: Option<i64>,
}

/// The records of one page.
#[derive(Debug, Default)]
pub struct Found {
    /// Newest first.
    pub records: Vec<Value>,
    /// The number that the next page begins before; `None` where nothing older matches.
    pub next: Option<i64>,
    /// The moment down to which was searched, in seconds since 1970, if the search ended because it had read enough.
    pub searched_to: Option<i64>,
}

/// The smallest number of a record of a moment.
fn number_at(seconds: i64) -> i64 {
    seconds.saturating_mul(1_000_000).saturating_mul(NUMBERS)
}

/// The moment of a record's number.
fn moment_of(number: i64) -> i64 {
    number / NUMBERS / 1_000_000
}

/// The newest `limit` records that match.
///
/// # Errors
/// When the database fails.
pub async fn search(store: &Store, wanted: &Wanted<'_>, limit: usize) -> Result<Found, Error> {
    let conditions = [
        ("project_id", wanted.project),
        ("user_id", wanted.user),
        ("key_id", wanted.key),
        ("model", wanted.model),
        ("upstream", wanted.upstream),
        ("status", wanted.status),
        ("reason", wanted.reason),
    ];
    let given: Vec<(&str, &str)> = conditions
        .into_iter()
        .filter_map(|(column, value)| Some((column, value?)))
        .collect();
    let before = wanted
        .before
        .unwrap_or(i64::MAX)
        .min(wanted.until.map_or(i64::MAX, number_at));
    let from = wanted.from.map_or(0, number_at);
    // Without conditions every record that is read is shown.
    let bound = if given.is_empty() {
        None
    } else {
        bound(store, from, before).await?
    };
    let conditions: Vec<String> = given
        .iter()
        .zip(4..)
        // An expression, so that the primary key is used and no index that would lead to all records of a project.
        .map(|((column, _), number)| format!(" AND {column} || '' = ${number}"))
        .collect();
    let sql = format!(
        "SELECT {} FROM requests WHERE id >= $1 AND id < $2{} ORDER BY id DESC LIMIT $3",
        COLUMNS.join(", "),
        conditions.concat()
    );
    let mut query = sqlx::query(&sql)
        .bind(bound.unwrap_or(from))
        .bind(before)
        .bind(i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1));
    for (_, value) in given {
        query = query.bind(value);
    }
    let rows = query.fetch_all(&store.pool()).timed(store).await?;
    let rows = rows.iter().map(Row::read).collect::<Result<Vec<_>, _>>()?;
    let next = match rows.get(limit.saturating_sub(1)) {
        Some(last) if rows.len() > limit => Some(last.id),
        _ => bound,
    };
    Ok(Found {
        records: rows.iter().take(limit).map(render).collect(),
        next,
        searched_to: bound.filter(|_| next == bound).map(moment_of),
    })
}

/// The number of the last record that a search may read; `None` if it may read all.
async fn bound(store: &Store, from: i64, before: i64) -> Result<Option<i64>, Error> {
    let row = sqlx::query("SELECT id FROM requests WHERE id >= $1 AND id < $2 ORDER BY id DESC LIMIT 1 OFFSET $3")
        .bind(from)
        .bind(before)
        .bind(SCANNED - 1)
        .fetch_optional(&store.pool())
        .timed(store)
        .await?;
    Ok(row.map(|row| row.try_get("id")).transpose()?)
}

/// The records with an id, the gateway's or a caller's; newest first, a few at most.
///
/// # Errors
/// When the database fails.
pub async fn by_id(store: &Store, id: &str) -> Result<Vec<Value>, Error> {
    // Requests are indexed by project and id; every project with a record has sums.
    let sql = format!(
        "SELECT {0} FROM requests WHERE request_id = $1 \
         AND project_id IN (SELECT DISTINCT project_id FROM spans WHERE length = 86400) \
         UNION ALL SELECT {0} FROM requests WHERE client_request_id = $1 AND request_id <> $1 ORDER BY id DESC LIMIT 50",
        COLUMNS.join(", ")
    );
    let rows = sqlx::query(&sql).bind(id).fetch_all(&store.pool()).timed(store).await?;
    rows.iter().map(|row| Ok(render(&Row::read(row)?))).collect()
}
