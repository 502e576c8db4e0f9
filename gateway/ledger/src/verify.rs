//! Adds up all records again, and says where the sums that were kept with them disagree.

use crate::error::Error;
use crate::rollup::{COUNT_COLUMNS, GROUP_COLUMNS, clamped};
use crate::row::CORRECTION;
use crate::store::{Store, Timed};
use sqlx::Row;

/// The result of a verification.
#[derive(Debug)]
pub struct Verified {
    /// Records that were added up.
    pub records: i64,
    /// The first day of which all records are still there.
    pub since: String,
    /// One line a disagreement.
    pub disagreements: Vec<String>,
}

/// The sums of the records of the days after $1, as `rollups` has them.
fn recomputed() -> String {
    let groups = GROUP_COLUMNS.map(|column| match column {
        "day" => "substr(created_at, 1, 10) AS day".to_owned(),
        "key_id" => "coalesce(key_id, '') AS key_id".to_owned(),
        _ => column.to_owned(),
    });
    let sums = COUNT_COLUMNS.map(|column| match column {
        "requests" => "count(*) AS requests".to_owned(),
        _ => format!(
            "CAST({} AS BIGINT) AS {column}",
            clamped(&format!("coalesce(sum({column}), 0)"))
        ),
    });
    format!(
        "SELECT {}, {} FROM requests WHERE created_at > $1 GROUP BY 1, 2, 3, 4, 5, 6, 7, 8 \
         HAVING substr(created_at, 1, 10) > $1",
        groups.join(", "),
        sums.join(", ")
    )
}

/// The sums of those days as they were kept.
fn kept() -> String {
    let columns = [&GROUP_COLUMNS[..], &COUNT_COLUMNS].concat().join(", ");
    format!("SELECT {columns} FROM rollups WHERE day > $1")
}

/// The shared accounts of this month and its days that differ from the sums.
async fn escrow_disagreements(store: &Store) -> Result<Vec<String>, Error> {
    let scopes = [("project", "project_id"), ("user", "user_id"), ("key", "key_id")].map(|(scope, column)| {
        format!(
            "SELECT '{scope}' AS scope, {column} AS id, day, input_tokens + output_tokens AS tokens, \
             CASE WHEN decision IN ('rejected', '{CORRECTION}') THEN 0 ELSE requests END AS requests, \
             cost_nano_eur AS cost FROM rollups"
        )
    });
    let sql = format!(
        "WITH summed AS (SELECT scope, id, period, CAST(sum(tokens) AS BIGINT) AS tokens, \
           CAST(sum(requests) AS BIGINT) AS requests, CAST(sum(cost) AS BIGINT) AS cost \
           FROM ({}) AS used CROSS JOIN LATERAL (VALUES (day), (substr(day, 1, 7))) AS periods (period) \
           WHERE id <> '' GROUP BY scope, id, period) \
         SELECT concat_ws(' ', scope, id, period, 'has in escrow:', escrow.tokens, 'tokens,', escrow.requests, 'requests,', \
           escrow.cost_nano_eur, 'nano-euros, and in sums:', summed.tokens, summed.requests, summed.cost) AS line \
         FROM summed FULL JOIN escrow USING (scope, id, period) \
         WHERE period >= to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM') AND \
           (coalesce(escrow.tokens, 0), coalesce(escrow.requests, 0), coalesce(escrow.cost_nano_eur, 0)) <> \
           (coalesce(summed.tokens, 0), coalesce(summed.requests, 0), coalesce(summed.cost, 0))",
        scopes.join(" UNION ALL ")
    );
    let rows = sqlx::query(&sql).fetch_all(&store.pool()).timed(store).await?;
    rows.iter().map(|row| Ok(row.try_get("line")?)).collect()
}

/// Compares records and sums, for the days whose records retention has not begun to delete.
///
/// # Errors
/// When the database fails.
pub async fn verify(store: &Store) -> Result<Verified, Error> {
    let since: String =
        sqlx::query("SELECT coalesce((SELECT value FROM settings WHERE name = 'deleted_until'), '') AS day")
            .fetch_one(&store.pool())
            .timed(store)
            .await?
            .try_get("day")?;
    let (recomputed, kept) = (recomputed(), kept());
    let mut disagreements = Vec::new();
    for (source, one, other) in [
        ("the records sum to", &recomputed, &kept),
        ("the kept sum is", &kept, &recomputed),
    ] {
        let rows = sqlx::query(&format!(
            "SELECT * FROM ({one}) AS one EXCEPT SELECT * FROM ({other}) AS other"
        ))
        .bind(&since)
        .fetch_all(&store.pool())
        .timed(store)
        .await?;
        for row in rows {
            let group: Vec<String> = GROUP_COLUMNS
                .iter()
                .map(|column| row.try_get(*column))
                .collect::<Result<_, _>>()?;
            let count = |name: &str| row.try_get::<i64, _>(name);
            disagreements.push(format!(
                "{}: {source} {} requests, {} + {} tokens ({} cached), {} nano-euros, {} of {} objectives met",
                group.join(" "),
                count("requests")?,
                count("input_tokens")?,
                count("output_tokens")?,
                count("cached_input_tokens")?,
                count("cost_nano_eur")?,
                count("objectives_met")?,
                count("objectives")?
            ));
        }
    }
    if store.is_shared() {
        disagreements.extend(escrow_disagreements(store).await?);
    }
    let records = sqlx::query("SELECT count(*) AS records FROM requests WHERE created_at > $1")
        .bind(&since)
        .fetch_one(&store.pool())
        .timed(store)
        .await?
        .try_get("records")?;
    disagreements.sort();
    let since = if since.is_empty() {
        "the first day".to_owned()
    } else {
        format!("the day after {since}")
    };
    Ok(Verified {
        records,
        since,
        disagreements,
    })
}
