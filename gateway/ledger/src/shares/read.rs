//! Shared rate limits for display: read from the store, which is neither locked nor changed.

use super::account::{Lines, decode};
use super::{OPERATION_TIMEOUT, no_answer, redis};
use crate::error::Error;
use crate::store::Store;
use policy::RateAccount;
use sqlx::Row as _;
use std::collections::HashMap;

/// A rate limit as its store has it, in nanoseconds of the limit's level.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SharedLevel {
    /// What all gateways have reported as used, drained to this moment.
    pub used: u64,
    /// The credit that each gateway holds: granted, and not yet reported as used.
    pub held: Vec<(String, u64)>,
}

/// Reads accounts from the store of `cluster_url`, or else from the database; empty ones where there is none.
///
/// # Errors
/// When the store fails or does not answer in time.
pub async fn read(store: &Store, cluster_url: Option<&str>, ids: &[String]) -> Result<Vec<SharedLevel>, Error> {
    let read = async {
        match cluster_url {
            Some(url) => redis::read(url, ids).await,
            None => read_database(store, ids).await,
        }
    };
    let lines = tokio::time::timeout(OPERATION_TIMEOUT, read).await;
    let lines = lines.map_err(|_| no_answer())??;
    let level = |id: &String| level_of(lines.by_id.get(id).map_or("", String::as_str), lines.now_us);
    Ok(ids.iter().map(level).collect())
}

async fn read_database(store: &Store, ids: &[String]) -> Result<Lines, Error> {
    let mut lines = Lines {
        now_us: 0,
        by_id: HashMap::new(),
    };
    let sql = "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT) AS us, state \
        FROM (SELECT 1) AS one LEFT JOIN shares ON id = $1";
    for id in ids {
        let row = sqlx::query(sql).bind(id).fetch_one(&store.pool()).await?;
        lines.now_us = row.try_get::<i64, _>("us")?.max(0).unsigned_abs();
        if let Some(state) = row.try_get("state")? {
            lines.by_id.insert(id.clone(), state);
        }
    }
    Ok(lines)
}

fn level_of(line: &str, now_us: u64) -> SharedLevel {
    let account: RateAccount<String> = decode(line);
    let passed = now_us.saturating_sub(account.at_us).saturating_mul(1000);
    let held = account.holders.into_iter();
    SharedLevel {
        used: account.used.saturating_sub(passed),
        held: held.map(|(gateway, holding)| (gateway, holding.held)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_drains_with_the_stores_time_and_what_is_held_does_not() {
        let at = |now_us| level_of("5000000 1000 0 a 70 1 0 b 0 2 0", now_us);
        let held = vec![("a".to_owned(), 70), ("b".to_owned(), 0)];
        assert_eq!((at(1000).used, at(3000).used, at(9000).used), (5_000_000, 3_000_000, 0));
        assert_eq!(at(9000).held, held);
        assert_eq!(level_of("", 5), SharedLevel::default());
    }
}
