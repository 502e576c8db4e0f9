//! Shared parts of the crate's tests.

use crate::database::Database;
use crate::store::{Store, connect_or_create};
use crate::{Decision, Durability, Entry, Error, Outcome};
use policy::{Class, NanoEuro, Priority};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// Opens a database of SQLite in its own directory, once the ledger before has released its slot.
pub(crate) async fn open_database(file: &Path, durability: Durability) -> Database {
    let url = format!("sqlite://{}", file.display());
    let dir = file.parent().expect("a directory");
    loop {
        match crate::open(&url, dir, false, durability).await {
            Ok(database) => return database,
            Err(Error::Setup(_)) => tokio::time::sleep(Duration::from_millis(5)).await,
            Err(error) => panic!("{error}"),
        }
    }
}

/// A database that is made if it is not there.
pub(crate) async fn create(url: &str) -> Store {
    connect_or_create(url, Durability::Strict).await.expect("connected")
}

/// A completed request.
pub(crate) fn entry(id: &str) -> Entry<'_> {
    Entry {
        number: None,
        request_id: id,
        client_request_id: None,
        user_id: "u",
        project_id: "p",
        key_id: None,
        requested_model: "m",
        model: "m",
        backend: "openai",
        upstream: None,
        client_protocol: "openai",
        operation: "/v1/chat/completions",
        class: Class::Interactive,
        priority: Priority::Normal,
        is_streamed: false,
        outcome: Outcome::Completed,
        decision: Decision::Accepted,
        reason: None,
        http_status: 200,
        degradation_level: "normal",
        degraded: None,
        input_tokens: 3,
        output_tokens: 5,
        cached_input_tokens: 1,
        estimated_input_tokens: 3,
        reserved_output_tokens: 5,
        usage_source: "upstream",
        estimated_cost: NanoEuro(7),
        cost: NanoEuro(7),
        latency: Duration::from_millis(20),
        queue_wait: Duration::ZERO,
        first_token: None,
        error_message: None,
        trace_id: None,
        config_version: 1,
        started_at: SystemTime::now(),
        evictions: 0,
        evicted: Duration::ZERO,
        objectives: 0,
        objectives_met: 0,
    }
}
