//! Group commit without a timer: whoever finds the connection idle commits for all who have gathered;
//! while it is busy, records gather for the next commit. One statement a commit, so one round trip.

use super::Unavailable;
use super::record::{Record, class_name, priority_name};
use jiff::Timestamp;
use sqlx::sqlite::{SqliteArguments, SqliteConnection};
use sqlx::{Arguments, Sqlite};
use std::fmt::Write;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Instant;
use tokio::sync::oneshot;

/// Records in one statement, at most.
const BATCH: usize = 64;

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

/// The statement for so many records, made once.
static INSERTS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let row = format!("({})", vec!["?"; COLUMNS.len()].join(","));
    let head = format!("INSERT INTO requests ({}) VALUES ", COLUMNS.join(","));
    (1..=BATCH)
        .map(|rows| head.clone() + &vec![row.as_str(); rows].join(","))
        .collect()
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
    gathered: Vec<(Arc<Record>, Option<Answer>)>,
    /// `None` while someone commits.
    idle: Option<SqliteConnection>,
}

impl Ledger {
    pub(crate) fn new(connection: SqliteConnection, commit_seconds: prometheus::Histogram) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                gathered: Vec::new(),
                idle: Some(connection),
            }),
            backlog: AtomicUsize::new(0),
            commit_seconds,
        })
    }

    /// Records that wait for their commit.
    pub(crate) fn backlog(&self) -> usize {
        self.backlog.load(Relaxed)
    }

    /// Returns when the record is in the database.
    pub(crate) async fn commit(self: &Arc<Self>, record: Arc<Record>) -> Result<(), Unavailable> {
        self.backlog.fetch_add(1, Relaxed);
        let turn = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            match state.idle.take() {
                Some(connection) => Ok(connection),
                None => {
                    let (tell, answer) = oneshot::channel();
                    state.gathered.push((Arc::clone(&record), Some(tell)));
                    Err(answer)
                }
            }
        };
        match turn {
            Ok(connection) => {
                let leader = Leader {
                    ledger: Arc::clone(self),
                    connection: Some(connection),
                };
                leader.write_then_rest(record).await
            }
            Err(answer) => answer
                .await
                .unwrap_or_else(|_| Err(Unavailable("the writer has stopped".to_owned()))),
        }
    }
}

/// Holds the connection; gives it back even if whoever commits is dropped on the way.
struct Leader {
    ledger: Arc<Ledger>,
    connection: Option<SqliteConnection>,
}

impl Leader {
    async fn write_then_rest(mut self, own: Arc<Record>) -> Result<(), Unavailable> {
        let result = self.write(&[(own, None)]).await;
        if !self.is_done() {
            // Others have gathered: their commits are not this request's business.
            tokio::spawn(async move { self.write_gathered().await });
        }
        result
    }

    async fn write_gathered(mut self) {
        loop {
            let mut batch = {
                let mut state = self.ledger.state.lock().unwrap_or_else(PoisonError::into_inner);
                let count = state.gathered.len().min(BATCH);
                if count == 0 {
                    state.idle = self.connection.take();
                    return;
                }
                state.gathered.drain(..count).collect::<Vec<_>>()
            };
            let result = self.write(&batch).await;
            for (_, answer) in &mut batch {
                if let Some(answer) = answer.take() {
                    let _ = answer.send(result.clone());
                }
            }
        }
    }

    /// Gives the connection back if nobody has gathered.
    fn is_done(&mut self) -> bool {
        let mut state = self.ledger.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.gathered.is_empty() {
            state.idle = self.connection.take();
        }
        state.gathered.is_empty()
    }

    async fn write(&mut self, batch: &[(Arc<Record>, Option<Answer>)]) -> Result<(), Unavailable> {
        let since = Instant::now();
        let mut arguments = SqliteArguments::default();
        arguments.reserve(batch.len() * COLUMNS.len(), 0);
        for (record, _) in batch {
            bind(record, &mut arguments).map_err(|error| Unavailable(error.to_string()))?;
        }
        let result = match &mut self.connection {
            Some(connection) => sqlx::query_with::<Sqlite, _>(&INSERTS[batch.len() - 1], arguments)
                .execute(connection)
                .await
                .map(|_| ())
                .map_err(Unavailable::from),
            None => Err(Unavailable("no connection".to_owned())),
        };
        self.ledger.backlog.fetch_sub(batch.len(), Relaxed);
        self.ledger.commit_seconds.observe(since.elapsed().as_secs_f64());
        result
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            let mut state = self.ledger.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.idle = Some(connection);
        }
    }
}

/// One record's values, in the order of [`COLUMNS`].
fn bind(record: &Record, to: &mut SqliteArguments<'_>) -> Result<(), sqlx::error::BoxDynError> {
    let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let key_id = record
        .caller
        .as_ref()
        .and_then(|caller| caller.key.as_ref())
        .map(|key| key.id.clone());
    to.add(record.request_id.clone())?;
    to.add(record.user_id().to_owned())?;
    to.add(record.project_id().to_owned())?;
    to.add(key_id)?;
    to.add(record.requested_model.clone())?;
    to.add(record.model_name().to_owned())?;
    to.add(record.backend())?;
    to.add(record.upstream.as_deref().map(str::to_owned))?;
    to.add(record.protocol().name())?;
    to.add(class_name(record.class))?;
    to.add(priority_name(record.priority))?;
    to.add(record.streamed)?;
    to.add(record.outcome.name())?;
    to.add(record.decision())?;
    to.add(record.stop.as_ref().map(|stop| stop.reason.name()))?;
    to.add(i64::from(record.http_status))?;
    to.add("normal")?;
    to.add(whole(record.usage.input_tokens))?;
    to.add(whole(record.usage.output_tokens))?;
    to.add(whole(record.usage.cached_input_tokens))?;
    to.add(whole(record.estimate.input_tokens))?;
    to.add(whole(record.estimate.output_tokens))?;
    to.add(record.usage_source.name())?;
    to.add(whole(record.estimate.cost.0))?;
    to.add(whole(record.cost.0))?;
    to.add(record.latency.as_secs_f64())?;
    to.add(record.queue_wait.unwrap_or_default().as_secs_f64())?;
    to.add(record.first_token.map(|after| after.as_secs_f64()))?;
    to.add(record.stop.as_ref().map(|stop| stop.message.clone()))?;
    to.add(record.trace_id.clone())?;
    to.add(whole(record.snapshot.version))?;
    to.add(iso(record.started_at))?;
    to.add(iso(record.started_at + record.latency))?;
    Ok(())
}

/// UTC with microseconds, so that text order is time order.
fn iso(time: std::time::SystemTime) -> String {
    let mut text = String::with_capacity(27);
    let timestamp = Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH);
    let _ = write!(text, "{timestamp:.6}");
    text
}
