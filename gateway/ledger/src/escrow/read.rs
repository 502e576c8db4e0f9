//! Shared quotas and budgets for display: what all gateways have used, and what each has drawn and not used yet.

use super::EscrowKey;
use crate::error::Error;
use crate::store::{Store, Timed};
use sqlx::Row as _;
use sqlx::any::AnyRow;

/// An account as the database has it, by unit: tokens, requests, nano-euros.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SharedAllowance {
    /// What the records of all gateways have used.
    pub used: [u64; 3],
    /// What each gateway has drawn and its records have not used yet.
    pub drawn: Vec<(String, [u64; 3])>,
}

/// Reads an account; an empty one where nothing was used.
///
/// # Errors
/// When the database fails.
pub async fn read(store: &Store, key: &EscrowKey) -> Result<SharedAllowance, Error> {
    let used =
        "SELECT tokens, requests, cost_nano_eur AS cost FROM escrow WHERE scope = $1 AND id = $2 AND period = $3";
    let drawn = "SELECT gateway, drawn_tokens - settled_tokens AS tokens, drawn_requests - settled_requests AS requests, \
        drawn_cost - settled_cost AS cost FROM leases WHERE scope = $1 AND id = $2 AND period = $3 ORDER BY gateway";
    // PostgreSQL's text has no NUL.
    let id = key.id.replace('\0', "");
    let rows = |sql: &'static str| {
        sqlx::query(sql)
            .bind(key.scope)
            .bind(id.clone())
            .bind(key.period.clone())
    };
    let used = rows(used).fetch_optional(&store.pool()).timed(store).await?;
    let drawn = rows(drawn).fetch_all(&store.pool()).timed(store).await?;
    let drawn = drawn.iter().map(|row| Ok((row.try_get("gateway")?, amounts(row)?)));
    Ok(SharedAllowance {
        used: used.as_ref().map_or(Ok([0; 3]), amounts)?,
        drawn: drawn.collect::<Result<_, sqlx::Error>>()?,
    })
}

/// Sums that corrections have made negative are 0.
fn amounts(row: &AnyRow) -> Result<[u64; 3], sqlx::Error> {
    let amount = |name: &str| row.try_get::<i64, _>(name).map(|sum| sum.max(0).unsigned_abs());
    Ok([amount("tokens")?, amount("requests")?, amount("cost")?])
}
