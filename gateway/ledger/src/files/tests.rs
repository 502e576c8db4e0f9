//! Files and batches that expire.

use super::{File, add, expire_by_default, expired, find, list};
use crate::batches::{self, Batch};
use crate::{BatchStatus, FilePurpose, Store};
use policy::Priority;
use tempfile::TempDir;

async fn open() -> (TempDir, Store) {
    let dir = TempDir::new().expect("a directory");
    let url = format!("sqlite://{}", dir.path().join("usage.db").display());
    let store = crate::testing::create(&url).await;
    (dir, store)
}

async fn with_file(store: &Store, id: &str, created_at: i64, expires_at: Option<i64>) {
    let file = File {
        id: id.into(),
        project_id: "p".to_owned(),
        filename: "x.jsonl".to_owned(),
        purpose: FilePurpose::Batch,
        bytes: 1,
        created_at,
        expires_at,
    };
    add(store, &file).await.expect("added");
}

/// A batch of an input file, which ends at a time.
async fn with_batch(store: &Store, id: &str, input: &str, finished_at: Option<i64>) {
    let batch = Batch {
        id: id.into(),
        user_id: "u".to_owned(),
        project_id: "p".to_owned(),
        key_id: None,
        priority: Priority::Normal,
        endpoint: "/v1/responses".to_owned(),
        input_file_id: input.into(),
        output_file_id: None,
        error_file_id: None,
        completion_window: "24h".to_owned(),
        status: BatchStatus::Completed,
        problems: None,
        metadata: None,
        total: 0,
        completed: 0,
        failed: 0,
        created_at: 0,
        expires_at: 1,
        finished_at,
        output_expires_seconds: Some(3600),
    };
    batches::add(store, &"gateway".into(), &batch).await.expect("added");
    batches::update(store, &batch).await.expect("updated");
    let found = batches::find(store, "p", id).await.expect("read");
    assert_eq!(found, Some(batch), "all of it is read back");
}

async fn ids(store: &Store, now: i64) -> Vec<String> {
    let mut ids = Vec::new();
    let mut after = None;
    loop {
        // Two at a time, to see that pages follow each other.
        let page = expired(store, now, after.as_deref(), 2).await.expect("read");
        let Some(last) = page.last() else { return ids };
        after = Some(last.id.to_string());
        ids.extend(page.iter().map(|file| file.id.to_string()));
    }
}

#[tokio::test]
async fn a_file_is_there_until_its_time_and_found_for_deletion_from_then_on() {
    let (_dir, store) = open().await;
    for (id, expires_at) in [
        ("a", Some(10)),
        ("b", None),
        ("c", Some(10)),
        ("d", Some(11)),
        ("e", Some(9)),
    ] {
        with_file(&store, id, 1, expires_at).await;
    }
    assert!(find(&store, "p", "a", 9).await.expect("read").is_some());
    assert!(find(&store, "p", "a", 10).await.expect("read").is_none());
    assert_eq!(list(&store, "p", 10).await.expect("read").len(), 2);
    assert_eq!(ids(&store, 10).await, ["a", "c", "e"]);
    // A time for those that have none leaves the others alone.
    expire_by_default(&store, 5).await.expect("set");
    assert_eq!(ids(&store, 6).await, ["b"]);
    assert_eq!(ids(&store, 10).await, ["a", "b", "c", "e"]);
}

#[tokio::test]
async fn the_input_of_a_batch_that_runs_is_not_deleted_and_an_ended_batch_is_in_its_time() {
    let (_dir, store) = open().await;
    with_file(&store, "running", 0, Some(10)).await;
    with_file(&store, "ended", 0, Some(10)).await;
    with_batch(&store, "batch_1", "running", None).await;
    with_batch(&store, "batch_2", "ended", Some(5)).await;
    assert_eq!(ids(&store, 10).await, ["ended"]);
    assert_eq!(batches::delete_finished(&store, 4, 10).await.expect("deleted"), 0);
    assert_eq!(batches::delete_finished(&store, 5, 10).await.expect("deleted"), 1);
    assert!(batches::find(&store, "p", "batch_1").await.expect("read").is_some());
}
