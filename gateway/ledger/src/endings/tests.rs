//! Answers and their records: both or neither, once, and only by the gateway that has the work.

use super::{Answer, Claim, Work, Written};
use crate::batches::{self, Batch};
use crate::jobs::{self, Job, JobState};
use crate::testing::entry;
use crate::tests::{Bench, Mode, counts};
use crate::{BatchStatus, Durability, GatewayId, Ledger, Store, contents};
use policy::{Class, Priority};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

const BATCH: &str = "batch_1";

fn job(id: &str) -> Job {
    Job {
        id: id.into(),
        endpoint: "/generate".to_owned(),
        user_id: "u".to_owned(),
        project_id: "p".to_owned(),
        key_id: None,
        class: Class::Interactive,
        priority: Priority::Normal,
        body: b"body".to_vec(),
        attempts: 0,
        previous_response_id: None,
        kept_input: None,
        epoch: 0,
    }
}

async fn with_batch(ledger: &Ledger) {
    let batch = Batch {
        id: BATCH.into(),
        user_id: "u".to_owned(),
        project_id: "p".to_owned(),
        key_id: None,
        priority: Priority::Normal,
        endpoint: "/v1/responses".to_owned(),
        input_file_id: "file-1".into(),
        output_file_id: None,
        error_file_id: None,
        completion_window: "24h".to_owned(),
        status: BatchStatus::Validating,
        problems: None,
        metadata: None,
        total: 0,
        completed: 0,
        failed: 0,
        created_at: 0,
        expires_at: 1,
        finished_at: None,
        output_expires_seconds: None,
        epoch: 0,
    };
    assert!(
        batches::add(ledger.store(), ledger.owner(), &batch, 9)
            .await
            .expect("added")
    );
}

fn answered(text: &str) -> Answer {
    Answer::Job {
        answer: json!({"answer": text}).to_string(),
        finished_at_ms: 7,
    }
}

fn line(number: i64, is_completed: bool) -> Answer {
    Answer::Line {
        file_id: format!("{BATCH}-{is_completed}"),
        number,
        contents: format!("line {number}\n").into_bytes(),
        is_completed,
    }
}

fn of_job(id: &str, epoch: i64) -> Claim {
    Claim {
        work: Work::Job(id.into()),
        epoch,
    }
}

fn of_batch(epoch: i64) -> Claim {
    Claim {
        work: Work::Batch(BATCH.into()),
        epoch,
    }
}

async fn state(store: &Store, id: &str) -> JobState {
    jobs::find(store, Some("p"), id).await.expect("read").expect("a job")
}

async fn progress(store: &Store) -> (i64, i64) {
    let batch = batches::find(store, "p", BATCH).await.expect("read").expect("a batch");
    (batch.completed, batch.failed)
}

#[tokio::test]
async fn an_answer_is_in_the_database_with_its_record_when_it_is_written() {
    let bench = Bench::new(Durability::Strict);
    let ledger = bench.open().await;
    let store = ledger.store();
    jobs::add(store, ledger.owner(), &job("req_1"), 1).await.expect("added");
    with_batch(&ledger).await;
    let written = ledger
        .finish(&of_job("req_1", 0), answered("yes"), Some(&entry("req_1")))
        .await;
    assert_eq!(written.expect("written"), Written::Yes);
    assert_eq!(
        state(store, "req_1").await,
        JobState::Finished(json!({"answer": "yes"}))
    );
    for number in 0..9 {
        let id = format!("{BATCH}-{number}");
        let record = entry(&id);
        let written = ledger
            .finish(&of_batch(0), line(number, number % 3 > 0), Some(&record))
            .await;
        assert_eq!(written.expect("written"), Written::Yes);
    }
    assert_eq!(progress(store).await, (6, 3));
    let records = counts(store).await;
    assert_eq!(records.len(), 10);
    assert!(records.values().all(|count| *count == 1), "{records:?}");
    let report = crate::verify(store).await.expect("read");
    assert!(report.disagreements.is_empty(), "{report:?}");
}

#[tokio::test]
async fn what_was_committed_though_its_result_was_lost_is_not_written_twice() {
    let bench = Bench::new(Durability::Strict);
    let ledger = bench.open().await;
    let store = ledger.store();
    jobs::add(store, ledger.owner(), &job("req_1"), 1).await.expect("added");
    with_batch(&ledger).await;
    *bench.mode.lock() = Mode::LosesAnswers;
    let (of_job, of_batch) = (of_job("req_1", 0), of_batch(0));
    let (job_entry, line_entry) = (entry("req_1"), entry("batch_1-4"));
    let both = async {
        tokio::join!(
            ledger.finish(&of_job, answered("yes"), Some(&job_entry)),
            ledger.finish(&of_batch, line(4, true), Some(&line_entry)),
        )
    };
    let works_again = async {
        tokio::time::sleep(Duration::from_millis(600)).await;
        *bench.mode.lock() = Mode::Works;
    };
    let ((first, second), ()) = tokio::join!(both, works_again);
    assert_eq!(
        (first.expect("written"), second.expect("written")),
        (Written::Yes, Written::Yes)
    );
    assert_eq!(progress(store).await, (1, 0));
    let records = counts(store).await;
    assert_eq!(records.into_values().collect::<Vec<_>>(), [1, 1]);
}

#[tokio::test]
async fn a_gateway_that_has_lost_its_work_writes_neither_answer_nor_record() {
    let bench = Bench::new(Durability::Strict);
    let ledger = bench.open().await;
    let (store, owner) = (ledger.store(), ledger.owner());
    jobs::add(store, owner, &job("req_1"), 1).await.expect("added");
    jobs::add(store, owner, &job("req_2"), 1).await.expect("added");
    with_batch(&ledger).await;
    let other = GatewayId::from("other");
    let claimed = jobs::claim(store, owner, &other).await.expect("claimed");
    assert!(claimed.iter().all(|job| job.epoch == 1), "{claimed:?}");
    let claimed = batches::claim(store, owner, &other).await.expect("claimed");
    assert_eq!(claimed[0].epoch, 1);
    // One of them even comes back: it is another claim.
    jobs::claim(store, &other, owner).await.expect("claimed");
    for (claim, answer) in [
        (of_job("req_1", 0), answered("late")),
        (of_job("req_2", 0), answered("late")),
        (of_batch(0), line(1, true)),
        (of_batch(1), line(2, true)),
        (of_job("req_none", 0), answered("of nothing")),
    ] {
        let written = ledger.finish(&claim, answer, Some(&entry("late"))).await;
        assert_eq!(written.expect("asked"), Written::TakenOver, "{claim:?}");
    }
    assert!(!batches::begin(store, owner, &claimed[0]).await.expect("asked"));
    assert!(!batches::end(store, owner, &claimed[0], &[]).await.expect("asked"));
    assert!(counts(store).await.is_empty());
    assert_eq!(progress(store).await, (0, 0));
    assert_eq!(contents::read(store, "batch_1-true").await.expect("read"), None);
    let written = ledger
        .finish(&of_job("req_1", 2), answered("yes"), Some(&entry("req_1")))
        .await;
    assert_eq!(written.expect("written"), Written::Yes);
    assert_eq!(
        state(store, "req_1").await,
        JobState::Finished(json!({"answer": "yes"}))
    );
}

#[tokio::test]
async fn a_record_that_the_database_refuses_keeps_neither_its_answer_nor_the_others_back() {
    let bench = Bench::new(Durability::Strict);
    let ledger = bench.open().await;
    let store = ledger.store();
    with_batch(&ledger).await;
    let refuse = "CREATE TRIGGER refuse BEFORE INSERT ON requests WHEN new.request_id = 'batch_1-2' \
        BEGIN SELECT RAISE(ABORT, 'no'); END";
    sqlx::query(refuse).execute(&store.pool()).await.expect("made");
    let claim = of_batch(0);
    let finish = async |number: i64| {
        let id = format!("{BATCH}-{number}");
        ledger
            .finish(&claim, line(number, true), Some(&entry(&id)))
            .await
            .expect("written")
    };
    let written = tokio::join!(finish(1), finish(2), finish(3));
    assert_eq!(written, (Written::Yes, Written::Yes, Written::Yes));
    assert_eq!(progress(store).await, (3, 0));
    let records = counts(store).await;
    assert_eq!(records.keys().collect::<Vec<_>>(), ["batch_1-1", "batch_1-3"]);
    let entries = std::fs::read_dir(bench.dir.path()).expect("a directory").flatten();
    let aside: Vec<_> = entries
        .filter(|entry| entry.file_name().to_string_lossy().ends_with(".rejected"))
        .collect();
    let text = std::fs::read_to_string(aside[0].path()).expect("readable");
    assert_eq!((aside.len(), text.contains("batch_1-2")), (1, true), "{text}");
}

#[tokio::test]
async fn an_answer_that_the_database_refuses_is_its_callers_error_and_the_others_are_written() {
    let bench = Bench::new(Durability::Strict);
    let ledger = bench.open().await;
    let store = ledger.store();
    with_batch(&ledger).await;
    let refuse = "CREATE TRIGGER refuse BEFORE INSERT ON file_parts WHEN new.number = 2 \
        BEGIN SELECT RAISE(ABORT, 'no'); END";
    sqlx::query(refuse).execute(&store.pool()).await.expect("made");
    let claim = of_batch(0);
    let finish = |number: i64| ledger.finish(&claim, line(number, true), None);
    let (first, second, third) = tokio::join!(finish(1), finish(2), finish(3));
    assert_eq!(
        (first.expect("written"), third.expect("written")),
        (Written::Yes, Written::Yes)
    );
    let error = second.expect_err("refused").to_string();
    assert!(error.contains("no"), "{error}");
    assert_eq!(progress(store).await, (2, 0));
}

#[tokio::test]
async fn results_gather_while_the_database_is_away_and_are_all_written_after_it() {
    let bench = Bench::new(Durability::Strict);
    let ledger = bench.open().await;
    with_batch(&ledger).await;
    *bench.mode.lock() = Mode::Fails;
    let claim = of_batch(0);
    let all = a_thousand_lines(&ledger, &claim);
    let works_again = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        *bench.mode.lock() = Mode::Works;
    };
    let (written, ()) = tokio::join!(all, works_again);
    assert_eq!(written, 1000, "each is written");
    assert_eq!(progress(ledger.store()).await, (1000, 0));
}

/// Writes a thousand lines at once; how many were written.
async fn a_thousand_lines(ledger: &Arc<Ledger>, claim: &Claim) -> usize {
    let tasks: Vec<_> = (0..1000)
        .map(|number| {
            let (ledger, claim) = (Arc::clone(ledger), claim.clone());
            tokio::spawn(async move { ledger.finish(&claim, line(number, true), None).await })
        })
        .collect();
    let mut written = 0;
    for task in tasks {
        written += usize::from(task.await.expect("no panic").expect("written") == Written::Yes);
    }
    written
}
