//! A record as it is kept: one line of the journal, one row of the table `requests`. Both come from one list
//! of fields, so they cannot differ.

use crate::entry::{Correction, Entry};
use crate::error::Error;
use crate::time::iso;
use policy::NanoEuro;
use rusqlite::ToSql;
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::ser::SerializeTuple;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value, json};
use sqlx::any::AnyRow;
use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{Any, Decode, Postgres, Row as _, Type};
use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::time::SystemTime;

macro_rules! row {
    ($($field:ident: $type:ty,)*) => {
        /// One request's row.
        #[derive(Debug, Clone, PartialEq)]
        pub(crate) struct Row<'a> { $(pub(crate) $field: $type,)* }

        /// The columns of `requests`.
        pub(crate) const COLUMNS: &[&str] = &[$(stringify!($field)),*];

        impl Row<'_> {
            /// The values, in the order of [`COLUMNS`].
            pub(crate) fn values(&self) -> [&dyn ToSql; COLUMNS.len()] {
                [$(&self.$field),*]
            }
        }

        impl Row<'static> {
            /// Reads a row that was selected by [`COLUMNS`].
            pub(crate) fn read(row: &AnyRow) -> Result<Self, sqlx::Error> {
                Ok(Self { $($field: Column::read(row, stringify!($field))?,)* })
            }
        }

        impl Row<'_> {
            /// The same with texts of its own.
            pub(crate) fn into_owned(self) -> Row<'static> {
                Row { $($field: Column::of_read(self.$field.into_read()),)* }
            }

            /// The fields by their names.
            pub(crate) fn as_json(&self) -> Map<String, Value> {
                let mut object = Map::new();
                $(object.insert(stringify!($field).to_owned(), json!(self.$field));)*
                object
            }

            /// Binds each column of some rows as one array, in the order of [`COLUMNS`].
            pub(crate) fn bind_columns<'q>(
                rows: &[Self],
                statement: Query<'q, Postgres, PgArguments>,
            ) -> Query<'q, Postgres, PgArguments> {
                $(let values: Vec<_> = rows.iter().map(|row| Column::bound(&row.$field)).collect();
                let statement = statement.bind(values);)*
                statement
            }

            /// Writes the values in the order of [`COLUMNS`] as a line of PostgreSQL's `COPY` in its text format
            /// (<https://www.postgresql.org/docs/current/sql-copy.html>).
            pub(crate) fn write_copy_line(&self, to: &mut String) {
                $(Column::write_copied(&self.$field, to);
                to.push('\t');)*
                to.pop();
                to.push('\n');
            }
        }

        /// A list of values: names would be most of a line.
        impl Serialize for Row<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut list = serializer.serialize_tuple(COLUMNS.len())?;
                $(list.serialize_element(&self.$field)?;)*
                list.end()
            }
        }

        impl<'de> Deserialize<'de> for Row<'de> {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct List;
                impl<'de> Visitor<'de> for List {
                    type Value = Row<'de>;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        write!(f, "a list of {} values", COLUMNS.len())
                    }
                    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                        Ok(Row { $($field: match Column::next(&mut list)? {
                            Some(value) => value,
                            // A journal of an older version has fewer fields.
                            None => match Column::missing() {
                                Some(value) => value,
                                None => return Err(A::Error::missing_field(stringify!($field))),
                            },
                        },)* })
                    }
                }
                deserializer.deserialize_tuple(COLUMNS.len(), List)
            }
        }
    };
}

row! {
    id: i64,
    request_id: Cow<'a, str>,
    user_id: Cow<'a, str>,
    project_id: Cow<'a, str>,
    key_id: Option<Cow<'a, str>>,
    requested_model: Cow<'a, str>,
    model: Cow<'a, str>,
    backend: Cow<'a, str>,
    upstream: Option<Cow<'a, str>>,
    client_protocol: Cow<'a, str>,
    request_type: Cow<'a, str>,
    priority: Cow<'a, str>,
    streamed: i64,
    status: Cow<'a, str>,
    decision: Cow<'a, str>,
    reason: Option<Cow<'a, str>>,
    http_status: i64,
    degradation_level: Cow<'a, str>,
    degraded: Option<Cow<'a, str>>,
    input_tokens: i64,
    output_tokens: i64,
    cached_input_tokens: i64,
    input_tokens_estimated: i64,
    output_tokens_reserved: i64,
    usage_source: Cow<'a, str>,
    estimated_cost_nano_eur: i64,
    cost_nano_eur: i64,
    latency_seconds: f64,
    queue_wait_seconds: f64,
    first_token_seconds: Option<f64>,
    error_message: Option<Cow<'a, str>>,
    trace_id: Option<Cow<'a, str>>,
    config_version: i64,
    created_at: Cow<'a, str>,
    updated_at: Cow<'a, str>,
    client_request_id: Option<Cow<'a, str>>,
    operation: Option<Cow<'a, str>>,
    evictions: Option<i64>,
    evicted_seconds: Option<f64>,
    objectives: Option<i64>,
    objectives_met: Option<i64>,
}

/// The status, decision and reason of a correction, which is no request.
pub(crate) const CORRECTION: &str = "correction";

impl<'a> Row<'a> {
    /// The row of a request.
    pub(crate) fn of(entry: &'a Entry<'_>, id: i64) -> Self {
        Self {
            id,
            request_id: entry.request_id.into(),
            user_id: entry.user_id.into(),
            project_id: entry.project_id.into(),
            key_id: entry.key_id.map(Cow::from),
            requested_model: entry.requested_model.into(),
            model: entry.model.into(),
            backend: entry.backend.into(),
            upstream: entry.upstream.map(Cow::from),
            client_protocol: entry.client_protocol.into(),
            request_type: entry.class.name().into(),
            priority: entry.priority.name().into(),
            streamed: i64::from(entry.is_streamed),
            status: entry.outcome.name().into(),
            decision: entry.decision.name().into(),
            reason: entry.reason.map(Cow::from),
            http_status: i64::from(entry.http_status),
            degradation_level: entry.degradation_level.into(),
            degraded: entry.degraded.as_deref().map(Cow::from),
            input_tokens: tokens(entry.input_tokens),
            output_tokens: tokens(entry.output_tokens),
            cached_input_tokens: tokens(entry.cached_input_tokens),
            input_tokens_estimated: tokens(entry.estimated_input_tokens),
            output_tokens_reserved: tokens(entry.reserved_output_tokens),
            usage_source: entry.usage_source.into(),
            estimated_cost_nano_eur: nano_euros(entry.estimated_cost),
            cost_nano_eur: nano_euros(entry.cost),
            latency_seconds: entry.latency.as_secs_f64(),
            queue_wait_seconds: entry.queue_wait.as_secs_f64(),
            first_token_seconds: entry.first_token.map(|after| after.as_secs_f64()),
            error_message: entry.error_message.map(Cow::from),
            trace_id: entry.trace_id.map(Cow::from),
            config_version: i64::try_from(entry.config_version).unwrap_or(i64::MAX),
            created_at: iso(entry.started_at).into(),
            updated_at: iso(entry.started_at.checked_add(entry.latency).unwrap_or(entry.started_at)).into(),
            client_request_id: entry.client_request_id.map(Cow::from),
            operation: Some(entry.operation.into()),
            evictions: (entry.evictions > 0).then_some(entry.evictions.into()),
            evicted_seconds: (entry.evictions > 0).then_some(entry.evicted.as_secs_f64()),
            objectives: (entry.objectives > 0).then_some(entry.objectives.into()),
            objectives_met: (entry.objectives > 0).then_some(entry.objectives_met.into()),
        }
    }
}

impl<'a> Row<'a> {
    /// The row of a correction: amounts to add to what the ledger says, and no request.
    pub(crate) fn correction(correction: &'a Correction, id: i64, config_version: u64, now: SystemTime) -> Self {
        let now: Cow<'a, str> = iso(now).into();
        Self {
            id,
            request_id: Cow::from(&correction.id),
            user_id: Cow::from(&correction.user_id),
            project_id: Cow::from(&correction.project_id),
            key_id: correction.key_id.as_deref().map(Cow::from),
            requested_model: Cow::from(&correction.model),
            model: Cow::from(&correction.model),
            backend: "".into(),
            upstream: None,
            client_protocol: "admin".into(),
            request_type: "interactive".into(),
            priority: "normal".into(),
            streamed: 0,
            status: CORRECTION.into(),
            decision: CORRECTION.into(),
            reason: Some(CORRECTION.into()),
            http_status: 200,
            degradation_level: "normal".into(),
            degraded: None,
            input_tokens: correction.input_tokens.clamp(-MAX_TOKENS, MAX_TOKENS),
            output_tokens: correction.output_tokens.clamp(-MAX_TOKENS, MAX_TOKENS),
            cached_input_tokens: 0,
            input_tokens_estimated: 0,
            output_tokens_reserved: 0,
            usage_source: "estimated".into(),
            estimated_cost_nano_eur: 0,
            cost_nano_eur: correction.cost_nano_eur.clamp(-MAX_NANO_EUR, MAX_NANO_EUR),
            latency_seconds: 0.0,
            queue_wait_seconds: 0.0,
            first_token_seconds: None,
            error_message: Some(Cow::from(&*correction.reason)),
            trace_id: None,
            config_version: i64::try_from(config_version).unwrap_or(i64::MAX),
            created_at: now.clone(),
            updated_at: now,
            client_request_id: None,
            operation: None,
            evictions: None,
            evicted_seconds: None,
            objectives: None,
            objectives_met: None,
        }
    }
}

impl Row<'_> {
    /// As a line, for the table of intents.
    pub(crate) fn line(&self) -> Result<String, Error> {
        serde_json::to_string(self).map_err(Error::invalid)
    }

    /// The row of such a line.
    pub(crate) fn of_line(line: &str) -> Result<Row<'static>, Error> {
        serde_json::from_str(line).map(Row::into_owned).map_err(Error::invalid)
    }
}

/// No entry counts more tokens: sums over millions of entries stay within 64 bits.
pub const MAX_TOKENS: i64 = 1_000_000_000_000;

/// No entry costs more nano-euros: a million euros.
pub const MAX_NANO_EUR: i64 = 1_000_000_000_000_000;

fn tokens(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(MAX_TOKENS).min(MAX_TOKENS)
}

fn nano_euros(cost: NanoEuro) -> i64 {
    i64::try_from(cost.0).unwrap_or(MAX_NANO_EUR).min(MAX_NANO_EUR)
}

/// A value as databases have it.
trait Column<'a>: Sized {
    /// As it is read from a database, and bound to a statement of its own life.
    type Read: for<'r> Decode<'r, Any> + Type<Any>;
    /// As it is read from a line, whose text it borrows.
    type InLine: Deserialize<'a>;
    /// The value without NUL, which PostgreSQL's text cannot hold.
    fn bound(&self) -> Self::Read;
    fn into_read(self) -> Self::Read;
    fn of_read(value: Self::Read) -> Self;
    fn of_line(value: Self::InLine) -> Self;
    /// Writes it as a value of PostgreSQL's `COPY`.
    fn write_copied(&self, to: &mut String);
    /// The value where there is none, if that may be.
    fn missing() -> Option<Self> {
        None
    }
    fn next<A: SeqAccess<'a>>(list: &mut A) -> Result<Option<Self>, A::Error> {
        Ok(list.next_element()?.map(Self::of_line))
    }
    fn read(row: &AnyRow, name: &str) -> Result<Self, sqlx::Error> {
        row.try_get(name).map(Self::of_read)
    }
}

macro_rules! numbers {
    ($($type:ty),*) => {$(
        impl<'a> Column<'a> for $type {
            type Read = Self;
            type InLine = Self;
            fn bound(&self) -> Self {
                *self
            }
            fn into_read(self) -> Self {
                self
            }
            fn of_read(value: Self) -> Self {
                value
            }
            fn of_line(value: Self) -> Self {
                value
            }
            fn write_copied(&self, to: &mut String) {
                // Writing to a string cannot fail.
                let _ = write!(to, "{self}");
            }
        }
    )*};
}
numbers! { i64, f64 }

/// Text that is borrowed from the line, where nothing in it is escaped.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> Column<'a> for Cow<'a, str> {
    type Read = String;
    type InLine = Text<'a>;
    fn bound(&self) -> String {
        self.replace('\0', "")
    }
    fn into_read(self) -> String {
        self.into_owned()
    }
    fn of_read(value: String) -> Self {
        Cow::Owned(value)
    }
    fn of_line(Text(text): Text<'a>) -> Self {
        text
    }
    fn write_copied(&self, to: &mut String) {
        let mut rest = &**self;
        while let Some(at) = rest.find(['\\', '\t', '\n', '\r', '\0']) {
            to.push_str(&rest[..at]);
            to.push_str(match rest.as_bytes()[at] {
                b'\\' => "\\\\",
                b'\t' => "\\t",
                b'\n' => "\\n",
                b'\r' => "\\r",
                _ => "",
            });
            rest = &rest[at + 1..];
        }
        to.push_str(rest);
    }
}

impl<'a, T: Column<'a>> Column<'a> for Option<T>
where
    Option<T::Read>: for<'r> Decode<'r, Any> + Type<Any>,
{
    type Read = Option<T::Read>;
    type InLine = Option<T::InLine>;
    fn bound(&self) -> Self::Read {
        self.as_ref().map(Column::bound)
    }
    fn into_read(self) -> Self::Read {
        self.map(Column::into_read)
    }
    fn of_read(value: Self::Read) -> Self {
        value.map(T::of_read)
    }
    fn of_line(value: Self::InLine) -> Self {
        value.map(T::of_line)
    }
    fn write_copied(&self, to: &mut String) {
        match self {
            Some(value) => value.write_copied(to),
            None => to.push_str("\\N"),
        }
    }
    fn missing() -> Option<Self> {
        Some(None)
    }
}
