//! Settlement: what the records of a transaction have used, added to the escrow, and taken from the leases of the gateway
//! whose records they are.

use crate::error::Error;
use crate::id::GatewayId;
use crate::rollup::{clamped, parameters};
use crate::row::{CORRECTION, Row};
use sqlx::postgres::PgConnection;
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// Tokens, requests and nano-euros.
type Amounts = [i64; 3];

static ADD_USED: LazyLock<String> = LazyLock::new(|| {
    let add = ["tokens", "requests", "cost_nano_eur"].map(|column| {
        format!(
            "{column} = {}",
            clamped(&format!("escrow.{column} + excluded.{column}"))
        )
    });
    format!(
        "INSERT INTO escrow (scope, id, period, tokens, requests, cost_nano_eur) SELECT * FROM unnest({}) \
         ON CONFLICT (scope, id, period) DO UPDATE SET {}",
        parameters(6),
        add.join(", ")
    )
});
static ADD_SETTLED: LazyLock<String> = LazyLock::new(|| {
    let add = ["settled_tokens", "settled_requests", "settled_cost"].map(|column| {
        format!(
            "{column} = {}",
            clamped(&format!("leases.{column} + excluded.{column}"))
        )
    });
    format!(
        "INSERT INTO leases (scope, id, period, settled_tokens, settled_requests, settled_cost, gateway) \
         SELECT *, $7 FROM unnest({}) ON CONFLICT (scope, id, period, gateway) DO UPDATE SET {}",
        parameters(6),
        add.join(", ")
    )
});

/// The sums of some records by account: scope, id and period. Accounts are in the order of their keys, so that gateways
/// never wait for each other in a circle.
#[derive(Debug, Default)]
pub(crate) struct Settlements {
    used: BTreeMap<(&'static str, String, String), Amounts>,
    /// Without corrections, for which nothing was drawn.
    settled: BTreeMap<(&'static str, String, String), Amounts>,
}

impl Settlements {
    /// Adds a record, which counts as quotas count it.
    pub(crate) fn add(&mut self, row: &Row<'_>) {
        let is_request = !matches!(&*row.decision, "rejected" | CORRECTION);
        let tokens = row.input_tokens.saturating_add(row.output_tokens);
        let amounts = [tokens, i64::from(is_request), row.cost_nano_eur];
        if amounts == [0; 3] {
            return;
        }
        let key_id = row.key_id.as_deref().unwrap_or_default();
        let ids = [("project", &*row.project_id), ("user", &*row.user_id), ("key", key_id)];
        for (scope, id) in ids.into_iter().filter(|(_, id)| !id.is_empty()) {
            for period in ["2026-11-25".len(), "2026-11".len()] {
                let period = row.created_at.get(..period).unwrap_or_default().to_owned();
                // PostgreSQL's text has no NUL.
                let account = (scope, id.replace('\0', ""), period);
                if &*row.decision != CORRECTION {
                    add(self.settled.entry(account.clone()).or_default(), amounts);
                }
                add(self.used.entry(account).or_default(), amounts);
            }
        }
    }

    /// Writes the sums within a transaction.
    pub(crate) async fn settle(&self, connection: &mut PgConnection, owner: &GatewayId) -> Result<(), Error> {
        for (sql, sums, is_lease) in [(&ADD_USED, &self.used, false), (&ADD_SETTLED, &self.settled, true)] {
            if sums.is_empty() {
                continue;
            }
            let keys = sums.keys();
            let mut statement = sqlx::query(sql)
                .bind(keys.clone().map(|(scope, ..)| *scope).collect::<Vec<_>>())
                .bind(keys.clone().map(|(_, id, _)| id.clone()).collect::<Vec<_>>())
                .bind(keys.map(|(.., period)| period.clone()).collect::<Vec<_>>());
            for unit in 0..3 {
                statement = statement.bind(sums.values().map(|amounts| amounts[unit]).collect::<Vec<_>>());
            }
            if is_lease {
                statement = statement.bind(owner.as_str());
            }
            statement.execute(&mut *connection).await?;
        }
        Ok(())
    }
}

fn add(sum: &mut Amounts, amounts: Amounts) {
    for (sum, amount) in sum.iter_mut().zip(amounts) {
        *sum = sum.saturating_add(amount);
    }
}
