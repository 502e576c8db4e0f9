//! What the console reads: sums of spans of time, and searches.

use crate::search::{self, Wanted};
use crate::spans::{self, SpanGroup, SpanLength, SpanQuery};
use crate::testing::{entry, open_database};
use crate::{Bounds, Durability, Entry, Ledger, Observer, Outcome};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tempfile::TempDir;

async fn open(dir: &TempDir) -> Arc<Ledger> {
    let database = open_database(&dir.path().join("usage.db"), Durability::Strict).await;
    let bounds = Bounds {
        backlog: 100_000,
        keep: None,
    };
    let opened = Ledger::open(database, bounds, Observer::new(|_| ()), SystemTime::now).await;
    opened.expect("opened")
}

#[tokio::test]
async fn sums_of_spans_are_told_apart_by_what_is_asked_for() {
    let dir = TempDir::new().expect("a directory");
    let ledger = open(&dir).await;
    // Minutes of an hour ago are kept.
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .expect("after 1970");
    let minute = now.as_secs() / 60 * 60 - 3600;
    let began = SystemTime::UNIX_EPOCH + Duration::from_secs(minute + 30);
    let minute = i64::try_from(minute).expect("a time");
    for (number, project, outcome) in [
        (0, "p", Outcome::Completed),
        (1, "p", Outcome::Failed),
        (2, "q", Outcome::Completed),
    ] {
        let id = format!("r{number}");
        let entry = Entry {
            project_id: project,
            outcome,
            first_token: Some(Duration::from_millis(5)),
            started_at: began + Duration::from_secs(60 * number),
            ..entry(&id)
        };
        ledger.commit(&entry).await.expect("appended");
    }
    ledger.flush().await;
    let query = SpanQuery {
        length: SpanLength::Minute,
        from: minute,
        before: minute + 120,
        project: None,
    };
    let sums = |query: SpanQuery<'static>, by: &'static [SpanGroup], each: bool| {
        let store = ledger.store().clone();
        async move { spans::sums(&store, &query, by, each).await.expect("sums") }
    };
    let each = sums(query, &[SpanGroup::Status], true).await;
    let found: Vec<(i64, &str, i64)> = each
        .iter()
        .map(|sum| (sum.begins, &*sum.groups[0], sum.requests))
        .collect();
    assert_eq!(found, [(minute, "completed", 1), (minute + 60, "failed", 1)]);
    let median = each[0].latency(0.5).expect("a latency");
    assert!((0.0175..0.0307).contains(&median), "{median}");
    assert_eq!(each[0].mean_first_token(), Some(0.005));
    let day = SpanQuery {
        length: SpanLength::Day,
        from: 0,
        before: i64::MAX,
        project: Some("p"),
    };
    let whole = sums(day, &[SpanGroup::Project], false).await;
    assert_eq!((whole.len(), whole[0].requests, whole[0].output_tokens), (1, 2, 10));
}

#[tokio::test]
async fn a_search_shows_what_matches_page_by_page_and_within_its_time() {
    let dir = TempDir::new().expect("a directory");
    let ledger = open(&dir).await;
    for number in 0..30 {
        let id = format!("r{number:02}");
        let entry = Entry {
            user_id: if number % 3 == 0 { "ada" } else { "bob" },
            reason: (number == 7).then_some("queue_full"),
            client_request_id: (number == 7).then_some("mine"),
            ..entry(&id)
        };
        ledger.commit(&entry).await.expect("appended");
    }
    ledger.flush().await;
    let found = |wanted: Wanted<'static>| {
        let store = ledger.store().clone();
        async move {
            let found = search::search(&store, &wanted, 4).await.expect("found");
            let ids = found
                .records
                .iter()
                .map(|one| one["request_id"].as_str().expect("an id").to_owned());
            (ids.collect::<Vec<_>>(), found.next, found.searched_to)
        }
    };
    let ada = Wanted {
        user: Some("ada"),
        ..Wanted::default()
    };
    let (first, next, searched_to) = found(ada.clone()).await;
    assert_eq!(first, ["r27", "r24", "r21", "r18"]);
    assert_eq!(searched_to, None);
    let (second, next, _) = found(Wanted {
        before: next,
        ..ada.clone()
    })
    .await;
    assert_eq!(second, ["r15", "r12", "r09", "r06"]);
    let (third, next, _) = found(Wanted {
        before: next,
        ..ada.clone()
    })
    .await;
    assert_eq!((third, next), (vec!["r03".to_owned(), "r00".to_owned()], None));
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .expect("after 1970");
    let now = i64::try_from(now.as_secs()).expect("a time");
    let (none, next, _) = found(Wanted {
        from: Some(now + 60),
        ..ada.clone()
    })
    .await;
    assert_eq!((none.len(), next), (0, None));
    let (none, ..) = found(Wanted {
        until: Some(now - 60),
        ..ada
    })
    .await;
    assert_eq!(none.len(), 0);
    let queue_full = Wanted {
        reason: Some("queue_full"),
        ..Wanted::default()
    };
    assert_eq!(found(queue_full).await.0, ["r07"]);
    for id in ["r07", "mine"] {
        let found = search::by_id(ledger.store(), id).await.expect("found");
        assert_eq!((found.len(), &found[0]["request_id"]), (1, &"r07".into()), "{id}");
    }
}
