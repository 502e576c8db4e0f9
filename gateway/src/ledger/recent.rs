//! `/usage/recent`: the newest records, with the original's fields and the gateway's own.

use super::Unavailable;
use serde_json::{Map, Value};
use sqlx::sqlite::SqlitePool;
use sqlx::{Column, Row, TypeInfo, ValueRef};

/// The newest `limit` records, newest first.
pub(crate) async fn recent(pool: &SqlitePool, limit: u32) -> Result<Vec<Value>, Unavailable> {
    let rows = sqlx::query("SELECT * FROM requests ORDER BY id DESC LIMIT ?")
        .bind(limit)
        .fetch_all(pool)
        .await?;
    rows.iter().map(|row| as_json(row).map_err(Unavailable::from)).collect()
}

fn as_json(row: &sqlx::sqlite::SqliteRow) -> Result<Value, sqlx::Error> {
    let mut object = Map::new();
    for column in row.columns() {
        let (name, at) = (column.name(), column.ordinal());
        let raw = row.try_get_raw(at)?;
        let kind = if raw.is_null() {
            "NULL".to_owned()
        } else {
            raw.type_info().name().to_owned()
        };
        let value = match (name, kind.as_str()) {
            ("id", _) => continue,
            (_, "NULL") => Value::Null,
            ("streamed", _) => (row.try_get::<i64, _>(at)? != 0).into(),
            (_, "INTEGER") => row.try_get::<i64, _>(at)?.into(),
            (_, "REAL") => row.try_get::<f64, _>(at)?.into(),
            _ => row.try_get::<String, _>(at)?.into(),
        };
        match name.strip_suffix("_nano_eur") {
            Some(name) => object.insert(format!("{name}_eur"), euros(&value)),
            None => object.insert(name.to_owned(), value),
        };
    }
    let tokens = |name: &str| object.get(name).and_then(Value::as_u64).unwrap_or(0);
    let total = tokens("input_tokens") + tokens("output_tokens");
    object.insert("total_tokens".to_owned(), total.into());
    Ok(Value::Object(object))
}

#[allow(clippy::cast_precision_loss)]
fn euros(nanos: &Value) -> Value {
    (nanos.as_i64().unwrap_or(0) as f64 / 1e9).into()
}
