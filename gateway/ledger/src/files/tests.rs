//! Files and batches that expire.

use super::{File, FileBounds, expire_by_default, expired, find, page, upload, usage};
use crate::batches::{self, Batch};
use crate::{BatchStatus, FilePurpose, Page, Store};
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
    let bounds = FileBounds { count: 100, bytes: 100 };
    assert!(upload(store, &file, &bounds, b"x").await.expect("added"));
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
        epoch: 0,
    };
    batches::add(store, &"gateway".into(), &batch, 100)
        .await
        .expect("added");
    let owner = "gateway".into();
    assert!(batches::end(store, &owner, &batch, &[]).await.expect("updated"));
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
    let left = usage(&store, "p", 10).await.expect("read");
    assert_eq!(left, FileBounds { count: 2, bytes: 2 });
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

/// The ids of all of a project's files, page by page.
async fn paged(store: &Store, purpose: Option<FilePurpose>, limit: i64, is_ascending: bool) -> Vec<String> {
    let mut ids = Vec::new();
    let mut last: Option<File> = None;
    loop {
        let after = last.as_ref().map(|file| (file.created_at, file.id.as_str()));
        let part = Page {
            after,
            limit,
            is_ascending,
        };
        let found = page(store, "p", purpose, 0, &part).await.expect("read");
        let Some(end) = found.last() else { return ids };
        ids.extend(found.iter().map(|file| file.id.to_string()));
        last = Some(end.clone());
    }
}

#[tokio::test]
async fn pages_have_every_file_once_though_many_were_made_in_the_same_second() {
    let (_dir, store) = open().await;
    for number in 0..23 {
        with_file(&store, &format!("file-{number:02}"), number / 7, None).await;
    }
    let all: Vec<String> = (0..23).map(|number| format!("file-{number:02}")).collect();
    let newest_first: Vec<String> = all.iter().rev().cloned().collect();
    for limit in [1, 2, 7, 22, 23, 100] {
        assert_eq!(paged(&store, None, limit, true).await, all, "{limit}");
        assert_eq!(
            paged(&store, Some(FilePurpose::Batch), limit, false).await,
            newest_first,
            "{limit}"
        );
    }
    assert!(paged(&store, Some(FilePurpose::BatchOutput), 10, true).await.is_empty());
}

#[tokio::test]
async fn a_file_that_would_exceed_the_bounds_of_its_project_is_not_added() {
    let (_dir, store) = open().await;
    let bounds = FileBounds { count: 3, bytes: 10 };
    let file = |id: &str, bytes, expires_at| File {
        id: id.into(),
        project_id: "p".to_owned(),
        filename: "x".to_owned(),
        purpose: FilePurpose::Batch,
        bytes,
        created_at: 5,
        expires_at,
    };
    let add = async |file: File| upload(&store, &file, &bounds, b"").await.expect("asked");
    // What has expired is about to be deleted.
    assert!(add(file("gone", 10, Some(5))).await);
    let other = File {
        project_id: "q".to_owned(),
        ..file("other", 10, None)
    };
    assert!(add(other).await, "a project's files are its own");
    assert!(!add(file("large", 11, None)).await);
    assert!(add(file("a", 4, None)).await && add(file("b", 6, Some(9))).await);
    assert!(!add(file("c", 1, None)).await, "no bytes are left");
    assert!(add(file("empty", 0, None)).await);
    assert!(!add(file("empty2", 0, None)).await, "no file is left");
    assert_eq!(
        usage(&store, "p", 5).await.expect("read"),
        FileBounds { count: 3, bytes: 10 }
    );
    assert!(!add(file("huge", i64::MAX, None)).await);
}

#[tokio::test]
async fn the_oldest_ended_batches_are_forgotten_and_running_ones_are_not() {
    let (_dir, store) = open().await;
    for (id, finished_at) in [
        ("a", Some(1)),
        ("b", None),
        ("c", Some(1)),
        ("d", Some(1)),
        ("e", Some(1)),
    ] {
        with_batch(&store, id, "x", finished_at).await;
    }
    assert_eq!(batches::delete_oldest(&store, "q", 0, 9).await.expect("deleted"), 0);
    assert_eq!(
        batches::delete_oldest(&store, "p", 2, 1).await.expect("deleted"),
        1,
        "so many at once"
    );
    assert_eq!(batches::delete_oldest(&store, "p", 2, 9).await.expect("deleted"), 1);
    let part = Page {
        after: None,
        limit: 9,
        is_ascending: true,
    };
    let left = batches::page(&store, "p", &part).await.expect("read");
    let ids: Vec<&str> = left.iter().map(|batch| batch.id.as_str()).collect();
    assert_eq!(ids, ["b", "d", "e"]);
}
