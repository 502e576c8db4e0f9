//! A database that refuses some records, by a trigger: the others get in, and those are set aside, once.

use crate::journal::{Lines, read, segments};
use crate::records::{self, Search};
use crate::row::Row;
use crate::testing::{entry, open_database};
use crate::{Bounds, Durability, Entry, Ledger, Observer, Store};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

async fn open(dir: &Path) -> Arc<Ledger> {
    let database = open_database(&dir.join("usage.db"), Durability::Strict).await;
    let bounds = Bounds {
        backlog: 10_000,
        keep: None,
    };
    Ledger::open(database, bounds, Observer::new(|_| ()), std::time::SystemTime::now)
        .await
        .expect("opened")
}

async fn execute(store: &Store, sql: &str) {
    sqlx::query(sql).execute(&store.pool()).await.expect("executed");
}

/// Makes the database refuse records whose request id begins with `bad`.
async fn refuse_bad_ones(store: &Store) {
    let trigger = "CREATE TRIGGER picky BEFORE INSERT ON requests WHEN NEW.request_id LIKE 'bad%' \
        BEGIN SELECT RAISE(ABORT, 'not this one'); END";
    execute(store, trigger).await;
}

async fn ids(store: &Store) -> BTreeSet<String> {
    let found = records::recent(store, &Search::default(), 1000).await.expect("read");
    let id = |record: &serde_json::Value| record["request_id"].as_str().expect("an id").to_owned();
    found.iter().map(id).collect()
}

/// The files of records that were set aside.
fn set_aside(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).expect("listed");
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rejected"))
        .collect();
    files.sort();
    files
}

fn ids_set_aside(dir: &Path) -> Vec<String> {
    let texts = set_aside(dir)
        .into_iter()
        .map(|file| std::fs::read(&file).expect("read"));
    let ids = texts.flat_map(|text| {
        let rows = read(&text).rows.into_iter();
        rows.map(|row| row.request_id.into_owned()).collect::<Vec<_>>()
    });
    ids.collect()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_records_the_database_refuses_all_others_get_in(bad in proptest::collection::vec(any::<bool>(), 1..40)) {
        runtime().block_on(async {
            let dir = TempDir::new().expect("a directory");
            let ledger = open(dir.path()).await;
            refuse_bad_ones(ledger.store()).await;
            let name = |(number, is_bad): (usize, &bool)| format!("{}_{number}", if *is_bad { "bad" } else { "good" });
            let all: Vec<String> = bad.iter().enumerate().map(name).collect();
            for id in &all {
                ledger.commit(&entry(id)).await.expect("appended");
            }
            ledger.flush().await;
            let (refused, taken): (BTreeSet<String>, BTreeSet<String>) =
                all.into_iter().partition(|id| id.starts_with("bad"));
            assert_eq!(ids(ledger.store()).await, taken);
            let aside = ids_set_aside(dir.path());
            assert_eq!(aside.len(), refused.len(), "each once");
            assert_eq!(aside.into_iter().collect::<BTreeSet<_>>(), refused);
            let health = ledger.health();
            assert_eq!((health.rejected_records, health.backlog), (refused.len() as u64, 0));
            assert_eq!(health.reason(), None, "the ledger goes on");
            assert!(crate::verify(ledger.store()).await.expect("verified").disagreements.is_empty());
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_intent_that_becomes_a_refused_record_does_not_keep_a_gateway_from_starting() {
    let dir = TempDir::new().expect("a directory");
    let ledger = open(dir.path()).await;
    for id in ["bad_1", "good_1"] {
        let number = Some(ledger.next_number());
        ledger.intend(&Entry { number, ..entry(id) });
    }
    ledger.flush().await;
    refuse_bad_ones(ledger.store()).await;
    drop(ledger);
    for _ in 0..2 {
        let ledger = open(dir.path()).await;
        assert_eq!(ids(ledger.store()).await, BTreeSet::from(["good_1".to_owned()]));
        assert_eq!(ids_set_aside(dir.path()), ["bad_1"]);
        drop(ledger);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_refused_records_that_is_renamed_to_a_segment_is_taken_by_the_next_start() {
    let dir = TempDir::new().expect("a directory");
    let ledger = open(dir.path()).await;
    refuse_bad_ones(ledger.store()).await;
    ledger.commit(&entry("bad_1")).await.expect("appended");
    ledger.flush().await;
    execute(ledger.store(), "DROP TRIGGER picky").await;
    drop(ledger);
    // As docs/operations.md says.
    std::fs::rename(&set_aside(dir.path())[0], dir.path().join("usage.db.ledger-000000")).expect("renamed");
    let ledger = open(dir.path()).await;
    assert_eq!(ids(ledger.store()).await, BTreeSet::from(["bad_1".to_owned()]));
    let left = segments(&dir.path().join("usage.db")).expect("listed");
    assert!(left.iter().all(|(number, _)| *number > 0), "{left:?}");
}

#[test]
fn records_that_are_there_twice_count_once_in_a_statement_and_between_statements() {
    let dir = TempDir::new().expect("a directory");
    let runtime = runtime();
    let database = runtime.block_on(open_database(&dir.path().join("usage.db"), Durability::Strict));
    let mut writer = (database.connect)().expect("connected");
    let entry = entry("one");
    let owned = |row: &Row<'_>| Row::of_line(&row.line().expect("a line")).expect("a row");
    let lines = |ids: &[i64]| Lines {
        rows: ids.iter().map(|id| owned(&Row::of(&entry, *id))).collect(),
        ..Lines::default()
    };
    // 100 ids, each twice: beside itself, and in another statement of 64 rows.
    let ids: Vec<i64> = (1..=100).chain(1..=100).flat_map(|id| [id, id]).collect();
    writer.write(&lines(&ids), &"me".into()).expect("written");
    // A segment that was moved before, and two records more.
    writer
        .write(&lines(&(1..=102).collect::<Vec<_>>()), &"me".into())
        .expect("written");
    let counts = "SELECT (SELECT count(*) FROM requests) AS records, (SELECT sum(requests) FROM rollups) AS sums, \
        (SELECT sum(requests) FROM latencies) AS latencies";
    let counts = runtime
        .block_on(sqlx::query_as::<_, (i64, i64, i64)>(counts).fetch_one(&database.store.pool()))
        .expect("counted");
    assert_eq!(counts, (102, 102, 102));
}
