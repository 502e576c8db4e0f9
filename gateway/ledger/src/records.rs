//! Records as they are read: the newest, those of one request, and all of some days.

use crate::error::Error;
use crate::row::{COLUMNS, Row};
use crate::store::{Store, Timed};
use serde_json::Value;
use sqlx::Row as _;

pub use crate::row::{MAX_NANO_EUR, MAX_TOKENS};

/// Which records are wanted; what is left out matches everything.
#[derive(Debug, Clone, Default)]
pub struct Search {
    /// A project's.
    pub project: Option<String>,
    /// Those of the gateway's id.
    pub request_id: Option<String>,
    /// Those of a caller's id.
    pub client_request_id: Option<String>,
    /// Those of an operation, by its path.
    pub operation: Option<String>,
}

/// The newest `limit` records that match, newest first.
///
/// # Errors
/// When the database fails.
pub async fn recent(store: &Store, search: &Search, limit: u32) -> Result<Vec<Value>, Error> {
    let conditions = [
        ("project_id", &search.project),
        ("request_id", &search.request_id),
        ("client_request_id", &search.client_request_id),
        ("operation", &search.operation),
    ];
    let wanted: Vec<(&str, &String)> = conditions
        .iter()
        .filter_map(|(column, value)| Some((*column, value.as_ref()?)))
        .collect();
    let conditions: Vec<String> = wanted
        .iter()
        .zip(2..)
        .map(|((column, _), number)| format!("{column} = ${number}"))
        .collect();
    let condition = if conditions.is_empty() {
        String::new()
    } else {
        format!("WHERE {}", conditions.join(" AND "))
    };
    let sql = format!(
        "SELECT {} FROM requests {condition} ORDER BY id DESC LIMIT $1",
        COLUMNS.join(", ")
    );
    let mut query = sqlx::query(&sql).bind(i64::from(limit));
    for (_, value) in wanted {
        query = query.bind(value);
    }
    let rows = query.fetch_all(&store.pool()).timed(store).await?;
    rows.iter().map(|row| Ok(render(&Row::read(row)?))).collect()
}

/// The project, user, key and model that a record is booked on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The project's id.
    pub project_id: String,
    /// The user's id.
    pub user_id: String,
    /// The key's id.
    pub key_id: Option<String>,
    /// The model that was used.
    pub model: String,
}

/// The accounts of the requests with this id, within a project if one is given; more than one if projects share an id.
///
/// # Errors
/// When the database fails.
pub async fn accounts(store: &Store, project: Option<&str>, request_id: &str) -> Result<Vec<Account>, Error> {
    let rows = sqlx::query(
        "SELECT DISTINCT project_id, user_id, key_id, model FROM requests \
         WHERE request_id = $1 AND project_id = COALESCE($2, project_id)",
    )
    .bind(request_id)
    .bind(project)
    .fetch_all(&store.pool())
    .timed(store)
    .await?;
    let account = |row: &sqlx::any::AnyRow| {
        Ok(Account {
            project_id: row.try_get("project_id")?,
            user_id: row.try_get("user_id")?,
            key_id: row.try_get("key_id")?,
            model: row.try_get("model")?,
        })
    };
    rows.iter().map(account).collect()
}

/// The fields of a record, in the order of a file's columns.
pub const FIELDS: &[&str] = &[
    "request_id",
    "client_request_id",
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
    "operation",
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
    "evictions",
    "evicted_seconds",
    "objectives",
    "objectives_met",
];

/// A position among the records of some days.
#[derive(Debug)]
pub struct Page {
    /// The number of the last record that was read, or 0.
    pub after: i64,
    /// The first day, such as 2026-11-01, or nothing.
    pub from: String,
    /// The day after the last.
    pub before: String,
}

/// The next records, oldest first; none after the last.
///
/// # Errors
/// When the database fails.
pub async fn page(store: &Store, page: &mut Page) -> Result<Vec<Value>, Error> {
    let sql = format!(
        "SELECT {} FROM requests WHERE id > $1 AND created_at >= $2 AND created_at < $3 ORDER BY id LIMIT 2000",
        COLUMNS.join(", ")
    );
    let rows = sqlx::query(&sql)
        .bind(page.after)
        .bind(&page.from)
        .bind(&page.before)
        .fetch_all(&store.pool())
        .timed(store)
        .await?;
    let mut records = Vec::with_capacity(rows.len());
    for row in &rows {
        let row = Row::read(row)?;
        page.after = row.id;
        records.push(render(&row));
    }
    Ok(records)
}

/// A record for readers: money in euros, tokens summed, and no number of the database's.
pub(crate) fn render(row: &Row<'_>) -> Value {
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
        let rendered = kept.map(|name| name.replace("_nano_eur", "_eur"));
        let rendered: BTreeSet<String> = rendered.chain(["total_tokens".to_owned()]).collect();
        let columns: BTreeSet<String> = FIELDS.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(columns, rendered);
    }
}
