//! Adds up all records again, and says where the sums that were kept with them disagree.

use super::{Store, Unavailable};
use sqlx::Row;

/// What was found.
#[derive(Debug)]
pub(crate) struct Verified {
    /// Records that were added up.
    pub(crate) records: i64,
    /// The first day of which all records are still there.
    pub(crate) since: String,
    /// One line a disagreement.
    pub(crate) disagreements: Vec<String>,
}

/// Sums of the records of the days after $1, and the same as they were kept.
const RECOMPUTED: &str = "SELECT substr(created_at, 1, 10) AS day, project_id, user_id, coalesce(key_id, '') AS key_id, \
    model, backend, status, decision, count(*) AS requests, CAST(sum(input_tokens) AS BIGINT) AS input_tokens, \
    CAST(sum(output_tokens) AS BIGINT) AS output_tokens, CAST(sum(cached_input_tokens) AS BIGINT) AS cached_input_tokens, \
    CAST(sum(cost_nano_eur) AS BIGINT) AS cost_nano_eur FROM requests WHERE created_at > $1 GROUP BY 1, 2, 3, 4, 5, 6, 7, 8 HAVING substr(created_at, 1, 10) > $1";
const KEPT: &str = "SELECT day, project_id, user_id, key_id, model, backend, status, decision, requests, input_tokens, \
    output_tokens, cached_input_tokens, cost_nano_eur FROM rollups WHERE day > $1";

/// Compares records and sums, for the days whose records retention has not begun to delete.
pub(crate) async fn verify(pool: &Store) -> Result<Verified, Unavailable> {
    let since: String =
        sqlx::query("SELECT coalesce((SELECT value FROM settings WHERE name = 'deleted_until'), '') AS day")
            .fetch_one(pool)
            .await?
            .try_get("day")?;
    let mut disagreements = Vec::new();
    for (what, one, other) in [
        ("the records say", RECOMPUTED, KEPT),
        ("the kept sum says", KEPT, RECOMPUTED),
    ] {
        let rows = sqlx::query(&format!(
            "SELECT * FROM ({one}) AS one EXCEPT SELECT * FROM ({other}) AS other"
        ))
        .bind(&since)
        .fetch_all(pool)
        .await?;
        for row in rows {
            let group: Vec<String> = (0..8).map(|at| row.try_get(at)).collect::<Result<_, _>>()?;
            let sums: Vec<i64> = (8..13).map(|at| row.try_get(at)).collect::<Result<_, _>>()?;
            disagreements.push(format!(
                "{}: {what} {} requests, {} + {} tokens ({} cached), {} nano-euros",
                group.join(" "),
                sums[0],
                sums[1],
                sums[2],
                sums[3],
                sums[4]
            ));
        }
    }
    let records = sqlx::query("SELECT count(*) AS records FROM requests WHERE created_at > $1")
        .bind(&since)
        .fetch_one(pool)
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
