//! Group commit without a timer: whoever finds the connection idle commits for itself; while it is busy,
//! records gather, and one commit serves all of them.
//!
//! The commit is made on the exchange's own thread, by rusqlite: handing it to another thread and back
//! costs several times what SQLite itself takes (`docs/decisions/002-the-commit-is-made-in-place.md`).

use super::Unavailable;
use super::record::{Record, class_name, priority_name};
use jiff::Timestamp;
use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use rusqlite::{CachedStatement, Connection};
use std::fmt::Write;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Instant;
use tokio::sync::oneshot;

/// Records in one commit, at most.
const BATCH: usize = 256;

/// Columns of `requests`, in the order in which [`bind`] gives their values.
const COLUMNS: &[&str] = &[
    "request_id",
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
    "input_tokens",
    "output_tokens",
    "cached_input_tokens",
    "input_tokens_estimated",
    "output_tokens_reserved",
    "usage_source",
    "estimated_cost_nano_eur",
    "cost_nano_eur",
    "latency_seconds",
    "queue_wait_seconds",
    "first_token_seconds",
    "error_message",
    "trace_id",
    "config_version",
    "created_at",
    "updated_at",
];

static INSERT: LazyLock<String> = LazyLock::new(|| {
    let marks = vec!["?"; COLUMNS.len()].join(",");
    format!("INSERT INTO requests ({}) VALUES ({marks})", COLUMNS.join(","))
});

type Answer = oneshot::Sender<Result<(), Unavailable>>;

/// The only writer of records.
#[derive(Debug)]
pub(crate) struct Ledger {
    state: Mutex<State>,
    backlog: AtomicUsize,
    commit_seconds: prometheus::Histogram,
}

#[derive(Debug)]
struct State {
    gathered: Vec<(Arc<Record>, Answer)>,
    /// `None` while someone commits.
    idle: Option<Connection>,
}

impl Ledger {
    pub(crate) fn new(connection: Connection, commit_seconds: prometheus::Histogram) -> Self {
        connection.set_prepared_statement_cache_capacity(4);
        Self {
            state: Mutex::new(State {
                gathered: Vec::new(),
                idle: Some(connection),
            }),
            backlog: AtomicUsize::new(0),
            commit_seconds,
        }
    }

    /// Records that wait for their commit.
    pub(crate) fn backlog(&self) -> usize {
        self.backlog.load(Relaxed)
    }

    /// Returns when the record is in the database.
    pub(crate) async fn commit(&self, record: &Arc<Record>) -> Result<(), Unavailable> {
        self.backlog.fetch_add(1, Relaxed);
        match self.turn(record) {
            Ok(connection) => self.lead(connection, record),
            Err(answer) => answer
                .await
                .unwrap_or_else(|_| Err(Unavailable("the writer has stopped".to_owned()))),
        }
    }

    /// The connection, if it is idle; else a promise that whoever has it commits this record too.
    fn turn(&self, record: &Arc<Record>) -> Result<Connection, oneshot::Receiver<Result<(), Unavailable>>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.idle.take().ok_or_else(|| {
            let (tell, answer) = oneshot::channel();
            state.gathered.push((Arc::clone(record), tell));
            answer
        })
    }

    /// Commits the own record, then whatever has gathered meanwhile, and gives the connection back.
    fn lead(&self, mut connection: Connection, own: &Arc<Record>) -> Result<(), Unavailable> {
        let own = self.write(&mut connection, std::slice::from_ref(own));
        loop {
            let batch: Vec<_> = {
                let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                if state.gathered.is_empty() {
                    state.idle = Some(connection);
                    return own;
                }
                let count = state.gathered.len().min(BATCH);
                state.gathered.drain(..count).collect()
            };
            let (records, answers): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
            let written = self.write(&mut connection, &records);
            for answer in answers {
                let _ = answer.send(written.clone());
            }
        }
    }

    fn write(&self, connection: &mut Connection, records: &[Arc<Record>]) -> Result<(), Unavailable> {
        let since = Instant::now();
        let written = match records {
            [one] => connection
                .prepare_cached(&INSERT)
                .and_then(|mut insert| bind(one, &mut insert)),
            many => write_many(connection, many),
        };
        self.backlog.fetch_sub(records.len(), Relaxed);
        self.commit_seconds.observe(since.elapsed().as_secs_f64());
        written.map_err(|error| Unavailable(error.to_string()))
    }
}

fn write_many(connection: &mut Connection, records: &[Arc<Record>]) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    {
        let mut insert = transaction.prepare_cached(&INSERT)?;
        for record in records {
            bind(record, &mut insert)?;
        }
    }
    transaction.commit()
}

/// A value that is borrowed from the record.
enum Field<'a> {
    Text(&'a str),
    Whole(u64),
    Seconds(f64),
    Null,
}

impl rusqlite::ToSql for Field<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Field::Text(text) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
            Field::Whole(number) => ToSqlOutput::Owned(Value::Integer(i64::try_from(*number).unwrap_or(i64::MAX))),
            Field::Seconds(seconds) => ToSqlOutput::Owned(Value::Real(*seconds)),
            Field::Null => ToSqlOutput::Owned(Value::Null),
        })
    }
}

/// Text that may be missing.
fn text(text: Option<&str>) -> Field<'_> {
    text.map_or(Field::Null, Field::Text)
}

/// Writes one record: its values, in the order of [`COLUMNS`].
fn bind(record: &Record, insert: &mut CachedStatement<'_>) -> rusqlite::Result<()> {
    let key = record.caller.as_ref().and_then(|caller| caller.key.as_ref());
    let (created, updated) = (iso(record.started_at), iso(record.started_at + record.latency));
    let fields: [Field<'_>; 33] = [
        Field::Text(&record.request_id),
        Field::Text(record.user_id()),
        Field::Text(record.project_id()),
        text(key.map(|key| key.id.as_str())),
        Field::Text(&record.requested_model),
        Field::Text(record.model_name()),
        Field::Text(record.backend()),
        text(record.upstream.as_deref()),
        Field::Text(record.protocol().name()),
        Field::Text(class_name(record.class)),
        Field::Text(priority_name(record.priority)),
        Field::Whole(u64::from(record.streamed)),
        Field::Text(record.outcome.name()),
        Field::Text(record.decision()),
        text(record.stop.as_ref().map(|stop| stop.reason.name())),
        Field::Whole(u64::from(record.http_status)),
        Field::Text("normal"),
        Field::Whole(record.usage.input_tokens),
        Field::Whole(record.usage.output_tokens),
        Field::Whole(record.usage.cached_input_tokens),
        Field::Whole(record.estimate.input_tokens),
        Field::Whole(record.estimate.output_tokens),
        Field::Text(record.usage_source.name()),
        Field::Whole(record.estimate.cost.0),
        Field::Whole(record.cost.0),
        Field::Seconds(record.latency.as_secs_f64()),
        Field::Seconds(record.queue_wait.unwrap_or_default().as_secs_f64()),
        record
            .first_token
            .map_or(Field::Null, |after| Field::Seconds(after.as_secs_f64())),
        text(record.stop.as_ref().map(|stop| stop.message.as_str())),
        text(record.trace_id.as_deref()),
        Field::Whole(record.snapshot.version),
        Field::Text(&created),
        Field::Text(&updated),
    ];
    insert.execute(rusqlite::params_from_iter(fields.iter()))?;
    Ok(())
}

/// UTC with microseconds, so that text order is time order.
fn iso(time: std::time::SystemTime) -> String {
    let mut text = String::with_capacity(27);
    let timestamp = Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH);
    let _ = write!(text, "{timestamp:.6}");
    text
}
