//! A record as it is kept: one line of the journal, one row of the table `requests`. Both come from one list
//! of fields, so they cannot differ.

use super::Unavailable;
use super::record::{CORRECTION, Correction, Record, class_name, priority_name};
use jiff::Timestamp;
use protocol::meter::Usage;
use rusqlite::ToSql;
use serde::de::{Error, SeqAccess, Visitor};
use serde::ser::SerializeTuple;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value, json};
use sqlx::any::AnyRow;
use sqlx::query_builder::Separated;
use sqlx::{Postgres, Row as _};
use std::borrow::Cow;
use std::fmt::{self, Write};
use std::time::SystemTime;

macro_rules! row {
    ($($field:ident: $type:ty,)*) => {
        /// One request's row.
        #[derive(Debug, Clone, PartialEq)]
        pub(super) struct Row<'a> { $(pub(super) $field: $type,)* }

        /// The columns of `requests`.
        pub(super) const COLUMNS: &[&str] = &[$(stringify!($field)),*];

        impl Row<'_> {
            /// The values, in the order of [`COLUMNS`].
            pub(super) fn values(&self) -> [&dyn ToSql; COLUMNS.len()] {
                [$(&self.$field),*]
            }
        }

        impl Row<'static> {
            /// Reads a row that was selected by [`COLUMNS`].
            pub(super) fn read(row: &AnyRow) -> Result<Self, sqlx::Error> {
                Ok(Self { $($field: Column::read(row, stringify!($field))?,)* })
            }
        }

        impl Row<'_> {
            /// The fields by their names.
            pub(super) fn as_json(&self) -> Map<String, Value> {
                let mut object = Map::new();
                $(object.insert(stringify!($field).to_owned(), json!(self.$field));)*
                object
            }

            /// Binds the values, in the order of [`COLUMNS`].
            pub(super) fn bind(&self, values: &mut Separated<'_, '_, Postgres, &'static str>) {
                $(values.push_bind(Column::owned(&self.$field));)*
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

        impl<'de> Deserialize<'de> for Row<'static> {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct List;
                impl<'de> Visitor<'de> for List {
                    type Value = Row<'static>;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        write!(f, "a list of {} values", COLUMNS.len())
                    }
                    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                        Ok(Row { $($field: match list.next_element()? {
                            Some(value) => value,
                            None => return Err(Error::missing_field(stringify!($field))),
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
}

impl<'a> Row<'a> {
    /// The row of a finished request.
    pub(super) fn of(record: &'a Record, id: i64) -> Self {
        let key = record.caller.as_ref().and_then(|caller| caller.key.as_ref());
        let stop = record.stop.as_ref();
        Self {
            id,
            request_id: Cow::from(&record.request_id),
            user_id: record.user_id().into(),
            project_id: record.project_id().into(),
            key_id: key.map(|key| Cow::from(&key.id)),
            requested_model: Cow::from(&record.requested_model),
            model: record.model_name().into(),
            backend: record.backend().into(),
            upstream: record.upstream.as_deref().map(Cow::from),
            client_protocol: record.protocol().name().into(),
            request_type: class_name(record.class).into(),
            priority: priority_name(record.priority).into(),
            streamed: i64::from(record.streamed),
            status: record.outcome.name().into(),
            decision: record.decision().into(),
            reason: stop.map(|stop| stop.code.name().into()),
            http_status: i64::from(record.http_status),
            degradation_level: record.level_name().into(),
            degraded: record.degraded().map(Cow::from),
            input_tokens: whole(record.usage.input_tokens),
            output_tokens: whole(record.usage.output_tokens),
            cached_input_tokens: whole(record.usage.cached_input_tokens),
            input_tokens_estimated: whole(record.terms.estimate.input_tokens),
            output_tokens_reserved: whole(record.terms.estimate.output_tokens),
            usage_source: record.usage_source.name().into(),
            estimated_cost_nano_eur: whole(record.terms.estimate.cost.0),
            cost_nano_eur: whole(record.cost.0),
            latency_seconds: record.latency.as_secs_f64(),
            queue_wait_seconds: record.queue_wait.unwrap_or_default().as_secs_f64(),
            first_token_seconds: record.first_token.map(|after| after.as_secs_f64()),
            error_message: stop.map(|stop| Cow::from(&stop.message)),
            trace_id: record.trace_id.as_deref().map(Cow::from),
            config_version: whole(record.snapshot.config_version),
            created_at: iso(record.started_at).into(),
            updated_at: iso(record.started_at + record.latency).into(),
        }
    }
}

impl<'a> Row<'a> {
    /// What the row will be if the gateway is killed while the request runs: its prompt has been read, and nobody can
    /// say how much of its answer was made.
    pub(super) fn interrupted(record: &'a Record, id: i64) -> Self {
        let usage = Usage {
            input_tokens: record.terms.estimate.input_tokens,
            ..Usage::default()
        };
        Self {
            status: "interrupted".into(),
            reason: Some("interrupted".into()),
            error_message: Some("the gateway was killed while the request ran".into()),
            input_tokens: whole(usage.input_tokens),
            cost_nano_eur: whole(record.price(usage).0),
            latency_seconds: record.started.elapsed().as_secs_f64(),
            ..Self::of(record, id)
        }
    }
}

impl<'a> Row<'a> {
    /// The row of a correction: amounts to add to what the ledger says, and no request.
    pub(super) fn correction(correction: &'a Correction, id: i64, config_version: u64) -> Self {
        let now: Cow<'a, str> = iso(SystemTime::now()).into();
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
            input_tokens: correction.input_tokens,
            output_tokens: correction.output_tokens,
            cached_input_tokens: 0,
            input_tokens_estimated: 0,
            output_tokens_reserved: 0,
            usage_source: "estimated".into(),
            estimated_cost_nano_eur: 0,
            cost_nano_eur: correction.cost_nano_eur,
            latency_seconds: 0.0,
            queue_wait_seconds: 0.0,
            first_token_seconds: None,
            error_message: Some(Cow::from(&correction.why)),
            trace_id: None,
            config_version: whole(config_version),
            created_at: now.clone(),
            updated_at: now,
        }
    }
}

impl Row<'_> {
    /// As a line, for the table of intents.
    pub(super) fn line(&self) -> Result<String, Unavailable> {
        serde_json::to_string(self).map_err(|error| Unavailable(error.to_string()))
    }

    /// The row of such a line.
    pub(super) fn of_line(line: &str) -> Result<Row<'static>, Unavailable> {
        serde_json::from_str(line).map_err(|error| Unavailable(error.to_string()))
    }
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A value as databases have it.
trait Column: Sized {
    /// As it is bound to a statement of its own life.
    type Owned;
    fn read(row: &AnyRow, name: &str) -> Result<Self, sqlx::Error>;
    fn owned(&self) -> Self::Owned;
}

macro_rules! plain {
    ($($type:ty),*) => {$(
        impl Column for $type {
            type Owned = Self;
            fn read(row: &AnyRow, name: &str) -> Result<Self, sqlx::Error> {
                row.try_get(name)
            }
            fn owned(&self) -> Self {
                *self
            }
        }
    )*};
}
plain!(i64, f64, Option<f64>);

impl Column for Cow<'_, str> {
    type Owned = String;
    fn read(row: &AnyRow, name: &str) -> Result<Self, sqlx::Error> {
        row.try_get::<String, _>(name).map(Cow::Owned)
    }
    fn owned(&self) -> String {
        // PostgreSQL's text has no NUL.
        self.replace('\0', "")
    }
}

impl Column for Option<Cow<'_, str>> {
    type Owned = Option<String>;
    fn read(row: &AnyRow, name: &str) -> Result<Self, sqlx::Error> {
        Ok(row.try_get::<Option<String>, _>(name)?.map(Cow::Owned))
    }
    fn owned(&self) -> Option<String> {
        self.as_ref().map(Column::owned)
    }
}

/// UTC with microseconds, so that text order is time order.
pub(super) fn iso(time: SystemTime) -> String {
    let mut text = String::with_capacity(27);
    let timestamp = Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH);
    let _ = write!(text, "{timestamp:.6}");
    text
}
