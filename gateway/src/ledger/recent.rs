//! `/usage/recent`: the newest records, with the original's fields and the gateway's own.

use super::row::{COLUMNS, Row};
use super::{Store, Unavailable};
use serde_json::Value;

/// The newest `limit` records, newest first.
pub(crate) async fn recent(store: &Store, limit: u32) -> Result<Vec<Value>, Unavailable> {
    let sql = format!("SELECT {} FROM requests ORDER BY id DESC LIMIT $1", COLUMNS.join(", "));
    let rows = sqlx::query(&sql).bind(i64::from(limit)).fetch_all(store).await?;
    rows.iter().map(|row| Ok(shown(&Row::read(row)?))).collect()
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
    object.insert("total_tokens".to_owned(), (row.input_tokens + row.output_tokens).into());
    Value::Object(object)
}

#[allow(clippy::cast_precision_loss)]
fn euros(nanos: Option<&Value>) -> Value {
    (nanos.and_then(Value::as_i64).unwrap_or(0) as f64 / 1e9).into()
}
