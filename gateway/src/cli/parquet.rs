//! Records as a Parquet file: a column a field, with its type.

use super::Failure;
use ledger::Store;
use ledger::records::{self, FIELDS, Page};
use parquet::basic::{Compression, LogicalType, Repetition, TimeUnit, Type as Physical};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DoubleType, Int64Type};
use parquet::errors::{ParquetError, Result};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::format::MicroSeconds;
use parquet::schema::types::{Type, TypePtr};
use serde_json::Value;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;

/// A row group holds so many records.
const GROUP: usize = 50_000;

/// The type of a column; every value may be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Whole,
    Number,
    Truth,
    /// Microseconds since 1970, UTC.
    Time,
}

fn kind(field: &str) -> Kind {
    match field {
        "created_at" | "updated_at" => Kind::Time,
        "streamed" => Kind::Truth,
        "http_status"
        | "config_version"
        | "evictions"
        | "objectives"
        | "objectives_met"
        | "input_tokens_estimated"
        | "output_tokens_reserved" => Kind::Whole,
        _ if field.ends_with("_tokens") => Kind::Whole,
        _ if field.ends_with("_eur") || field.ends_with("_seconds") => Kind::Number,
        _ => Kind::Text,
    }
}

fn schema() -> Result<TypePtr> {
    let column = |field: &&str| {
        let (physical, logical) = match kind(field) {
            Kind::Text => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
            Kind::Whole => (Physical::INT64, None),
            Kind::Number => (Physical::DOUBLE, None),
            Kind::Truth => (Physical::BOOLEAN, None),
            Kind::Time => {
                let unit = TimeUnit::MICROS(MicroSeconds::default());
                let time = LogicalType::Timestamp {
                    is_adjusted_to_u_t_c: true,
                    unit,
                };
                (Physical::INT64, Some(time))
            }
        };
        let column = Type::primitive_type_builder(field, physical)
            .with_repetition(Repetition::OPTIONAL)
            .with_logical_type(logical);
        column.build().map(Arc::new)
    };
    let columns = FIELDS.iter().map(column).collect::<Result<Vec<_>>>()?;
    Type::group_type_builder("records")
        .with_fields(columns)
        .build()
        .map(Arc::new)
}

/// Writes all records of a page and those that follow to standard output.
pub(super) async fn export(pool: &Store, page: &mut Page) -> Result<ExitCode, Failure> {
    if io::stdout().is_terminal() {
        return Err(Failure::usage(
            "refusing to write Parquet to a terminal; redirect it to a file: `> records.parquet`".to_owned(),
        ));
    }
    let failed = |error: ParquetError| Failure::other(format!("cannot write the records: {error}"));
    let mut out = Records::begin(io::BufWriter::new(io::stdout())).map_err(failed)?;
    let mut group = Vec::new();
    loop {
        let records = records::page(pool, page).await?;
        let is_last = records.is_empty();
        group.extend(records);
        if group.len() >= GROUP || (is_last && !group.is_empty()) {
            out.write(&group).map_err(failed)?;
            group.clear();
        }
        if is_last {
            break;
        }
    }
    out.end().map_err(failed)?;
    Ok(ExitCode::SUCCESS)
}

/// Writes records as they come, a row group at a time.
struct Records<W: Write + Send>(SerializedFileWriter<W>);

impl<W: Write + Send> Records<W> {
    fn begin(out: W) -> Result<Self> {
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
        SerializedFileWriter::new(out, schema()?, Arc::new(properties)).map(Self)
    }

    fn write(&mut self, records: &[Value]) -> Result<()> {
        let mut group = self.0.next_row_group()?;
        for field in FIELDS {
            write_column(&mut group, field, records)?;
        }
        group.close().map(drop)
    }

    fn end(self) -> Result<()> {
        self.0.close().map(drop)
    }
}

fn write_column<W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    field: &str,
    records: &[Value],
) -> Result<()> {
    let Some(mut column) = group.next_column()? else {
        return Ok(());
    };
    let given: Vec<Option<&Value>> = records
        .iter()
        .map(|record| record.get(field).filter(|value| !value.is_null()))
        .collect();
    let there: Vec<i16> = given.iter().map(|value| i16::from(value.is_some())).collect();
    let given = given.into_iter().flatten();
    let there = Some(&there[..]);
    match kind(field) {
        Kind::Text => {
            let text = |value: &Value| {
                ByteArray::from(value.as_str().map_or_else(|| value.to_string(), str::to_owned).as_str())
            };
            let values: Vec<ByteArray> = given.map(text).collect();
            column.typed::<ByteArrayType>().write_batch(&values, there, None)?;
        }
        Kind::Whole => {
            let values: Vec<i64> = given.map(|value| value.as_i64().unwrap_or_default()).collect();
            column.typed::<Int64Type>().write_batch(&values, there, None)?;
        }
        Kind::Number => {
            let values: Vec<f64> = given.map(|value| value.as_f64().unwrap_or_default()).collect();
            column.typed::<DoubleType>().write_batch(&values, there, None)?;
        }
        Kind::Truth => {
            let values: Vec<bool> = given.map(|value| value.as_bool().unwrap_or_default()).collect();
            column.typed::<BoolType>().write_batch(&values, there, None)?;
        }
        Kind::Time => {
            let micros = |value: &Value| {
                let time = value.as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok());
                time.map_or(0, jiff::Timestamp::as_microsecond)
            };
            let values: Vec<i64> = given.map(micros).collect();
            column.typed::<Int64Type>().write_batch(&values, there, None)?;
        }
    }
    column.close()
}
