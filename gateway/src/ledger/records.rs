//! Records as they are shown, with the original's fields and the gateway's own: the newest, and all of some days.

use super::row::{COLUMNS, Row};
use super::{Store, Unavailable};
use serde_json::Value;
use sqlx::Row as _;

/// The newest `limit` records, newest first.
pub(crate) async fn recent(store: &Store, limit: u32) -> Result<Vec<Value>, Unavailable> {
    let sql = format!("SELECT {} FROM requests ORDER BY id DESC LIMIT $1", COLUMNS.join(", "));
    let rows = sqlx::query(&sql).bind(i64::from(limit)).fetch_all(store).await?;
    rows.iter().map(|row| Ok(shown(&Row::read(row)?))).collect()
}

/// Whose a record is, by its request's id: project, user, key and model of the newest.
pub(crate) async fn owner(store: &Store, request_id: &str) -> Result<Option<[Option<String>; 4]>, Unavailable> {
    let found =
        sqlx::query("SELECT project_id, user_id, key_id, model FROM requests WHERE request_id = $1 ORDER BY id DESC")
            .bind(request_id)
            .fetch_optional(store)
            .await?;
    let Some(row) = found else { return Ok(None) };
    let text = |name: &str| row.try_get::<Option<String>, _>(name);
    Ok(Some([
        text("project_id")?,
        text("user_id")?,
        text("key_id")?,
        text("model")?,
    ]))
}

/// The fields of a record, in the order of a file's columns.
pub(crate) const FIELDS: &[&str] = &[
    "request_id",
    "created_at",
    "updated_at",
    "user_id",
    "project_id",
    "key_id",
    "requested_model",
    "model",
    "backend",
    "upstream",
    "client_protocol",
    "request_type",
    "priority",
    "streamed",
    "status",
    "decision",
    "reason",
    "http_status",
    "degradation_level",
    "degraded",
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "cached_input_tokens",
    "input_tokens_estimated",
    "output_tokens_reserved",
    "usage_source",
    "estimated_cost_eur",
    "cost_eur",
    "latency_seconds",
    "queue_wait_seconds",
    "first_token_seconds",
    "error_message",
    "trace_id",
    "config_version",
];

/// Where to go on among the records of some days.
#[derive(Debug)]
pub(crate) struct Page {
    /// The number of the last record that was read, or 0.
    pub(crate) after: i64,
    /// The first day, such as 2026-11-01, or nothing.
    pub(crate) from: String,
    /// The day after the last.
    pub(crate) before: String,
}

/// The next records, oldest first; none after the last.
pub(crate) async fn page(store: &Store, page: &mut Page) -> Result<Vec<Value>, Unavailable> {
    let sql = format!(
        "SELECT {} FROM requests WHERE id > $1 AND created_at >= $2 AND created_at < $3 ORDER BY id LIMIT 2000",
        COLUMNS.join(", ")
    );
    let rows = sqlx::query(&sql)
        .bind(page.after)
        .bind(&page.from)
        .bind(&page.before)
        .fetch_all(store)
        .await?;
    let mut records = Vec::with_capacity(rows.len());
    for row in &rows {
        let row = Row::read(row)?;
        page.after = row.id;
        records.push(shown(&row));
    }
    Ok(records)
}

/// A record as it is shown: money in euros, tokens summed, and no number of the database's.
fn shown(row: &Row<'_>) -> Value {
    let mut object = row.as_json();
    object.remove("id");
    object.insert("streamed".to_owned(), (row.streamed != 0).into());
    for name in ["estimated_cost", "cost"] {
        let nanos = object.remove(&format!("{name}_nano_eur"));
        object.insert(format!("{name}_eur"), euros(nanos.as_ref()));
    }
    object.insert(
        "total_tokens".to_owned(),
        row.input_tokens.saturating_add(row.output_tokens).into(),
    );
    Value::Object(object)
}

#[allow(clippy::cast_precision_loss)]
fn euros(nanos: Option<&Value>) -> Value {
    (nanos.and_then(Value::as_i64).unwrap_or(0) as f64 / 1e9).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_file_has_a_column_for_every_field_that_is_kept() {
        let kept = COLUMNS.iter().filter(|name| **name != "id");
        let shown = kept.map(|name| name.replace("_nano_eur", "_eur"));
        let shown: BTreeSet<String> = shown.chain(["total_tokens".to_owned()]).collect();
        let columns: BTreeSet<String> = FIELDS.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(columns, shown);
    }
}
