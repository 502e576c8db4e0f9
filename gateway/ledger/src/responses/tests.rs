//! Conversations of stored responses: read from their beginning, bounded, expired and deleted.

use super::{Chain, ChainBounds, ChainEnd, StoredResponse, add, chain, delete, delete_expired, find, with_items};
use crate::Store;
use tempfile::TempDir;

const LARGE: i64 = 1 << 30;

const ALL: ChainBounds = ChainBounds {
    turns: 100,
    bytes: LARGE,
};

async fn open() -> (TempDir, Store) {
    let dir = TempDir::new().expect("a directory");
    let url = format!("sqlite://{}", dir.path().join("usage.db").display());
    let store = crate::testing::create(&url).await;
    (dir, store)
}

/// Turn `number` of a conversation, ten bytes long, made at second `number` and kept for 100.
fn turn(number: i64) -> StoredResponse {
    StoredResponse {
        id: format!("resp_{number}"),
        project_id: "p".to_owned(),
        previous_id: (number > 1).then(|| format!("resp_{}", number - 1)),
        input: format!("in_{number:02}"),
        response: format!("out{number:02}"),
        created_at: number,
        expires_at: number + 100,
        item_ids: vec![format!("msg_{number}"), "msg_all".to_owned()],
    }
}

async fn with_turns(count: i64) -> (TempDir, Store) {
    let (dir, store) = open().await;
    for number in 1..=count {
        assert!(add(&store, &turn(number), LARGE, None).await.expect("added"));
    }
    (dir, store)
}

fn numbers(chain: &Chain) -> Vec<&str> {
    chain.turns.iter().map(|turn| turn.input.as_str()).collect()
}

async fn chain_of(store: &Store, number: i64, bounds: ChainBounds, now: i64) -> Chain {
    let id = format!("resp_{number}");
    chain(store, Some("p"), &id, bounds, now).await.expect("read")
}

#[tokio::test]
async fn a_conversation_is_read_from_its_beginning_up_to_the_response_that_is_named() {
    let (_dir, store) = with_turns(5).await;
    let found = chain_of(&store, 3, ALL, 10).await;
    assert_eq!(numbers(&found), ["in_01", "in_02", "in_03"]);
    assert_eq!(found.turns[2].response, "out03");
    assert_eq!(found.end, ChainEnd::Complete);
    let none = chain_of(&store, 6, ALL, 10).await;
    assert_eq!(
        (none.turns.len(), none.end),
        (0, ChainEnd::Missing("resp_6".to_owned()))
    );
}

#[tokio::test]
async fn a_conversation_is_read_within_bounds_of_turns_and_bytes() {
    let (_dir, store) = with_turns(5).await;
    for (turns, bytes, end) in [
        (5, 50, ChainEnd::Complete),
        (4, 50, ChainEnd::TooLong),
        (5, 49, ChainEnd::TooLarge),
        (1, 9, ChainEnd::TooLarge),
    ] {
        let found = chain_of(&store, 5, ChainBounds { turns, bytes }, 10).await;
        assert_eq!(found.end, end, "{turns} turns, {bytes} bytes");
    }
}

#[tokio::test]
async fn a_response_is_kept_as_long_as_the_last_one_that_goes_on_from_it() {
    let (_dir, store) = with_turns(5).await;
    // A conversation of another response, which expires by itself.
    let lone = StoredResponse {
        id: "lone".to_owned(),
        ..turn(1)
    };
    assert!(add(&store, &lone, LARGE, None).await.expect("added"));
    assert_eq!(
        find(&store, Some("p"), "lone", 100).await.expect("read").as_deref(),
        Some("out01")
    );
    assert_eq!(find(&store, Some("p"), "lone", 101).await.expect("read"), None);
    assert_eq!(chain_of(&store, 5, ALL, 104).await.end, ChainEnd::Complete);
    assert_eq!(
        delete_expired(&store, 104, 10).await.expect("deleted"),
        1,
        "the lone one"
    );
    assert_eq!(chain_of(&store, 5, ALL, 105).await.turns, []);
    assert_eq!(
        delete_expired(&store, 105, 3).await.expect("deleted"),
        3,
        "not more than asked for"
    );
    assert_eq!(delete_expired(&store, 105, 3).await.expect("deleted"), 2);
}

#[tokio::test]
async fn what_goes_on_from_a_deleted_response_says_which_one_is_missing() {
    let (_dir, store) = with_turns(4).await;
    assert!(delete(&store, Some("p"), "resp_2", 10).await.expect("deleted"));
    assert!(!delete(&store, Some("p"), "resp_2", 10).await.expect("asked"));
    let found = chain_of(&store, 4, ALL, 10).await;
    assert_eq!(numbers(&found), ["in_03", "in_04"]);
    assert_eq!(found.end, ChainEnd::Missing("resp_2".to_owned()));
}

#[tokio::test]
async fn a_project_keeps_so_many_bytes_and_its_fullness_is_not_anothers() {
    let (_dir, store) = with_turns(3).await;
    assert!(
        !add(&store, &turn(4), 39, None).await.expect("asked"),
        "40 bytes are more"
    );
    let others = StoredResponse {
        project_id: "q".to_owned(),
        ..turn(1)
    };
    assert!(add(&store, &others, 10, None).await.expect("added"));
    assert!(add(&store, &turn(4), 40, None).await.expect("added"));
    // The conversation of one project never leads into another's.
    let theirs = StoredResponse {
        project_id: "q".to_owned(),
        ..turn(3)
    };
    assert!(add(&store, &theirs, LARGE, None).await.expect("added"));
    let found = chain(&store, Some("q"), "resp_3", ALL, 10).await.expect("read");
    assert_eq!(found.end, ChainEnd::Missing("resp_2".to_owned()));
}

async fn of_items(store: &Store, project: &str, ids: &[&str], max_bytes: i64, now: i64) -> Option<Vec<String>> {
    let ids: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
    with_items(store, project, &ids, max_bytes, now).await.expect("read")
}

#[tokio::test]
async fn responses_are_found_by_their_items_oldest_first_within_a_bound() {
    let (_dir, store) = with_turns(3).await;
    let found = |ids: &'static [&'static str], bytes, now| of_items(&store, "p", ids, bytes, now);
    assert_eq!(
        found(&["msg_3", "msg_1", "msg_9"], 20, 10).await,
        Some(vec!["out01".to_owned(), "out03".to_owned()])
    );
    assert_eq!(found(&["msg_3", "msg_1"], 19, 10).await, None, "20 bytes are more");
    assert_eq!(found(&["msg_all"], LARGE, 10).await.map(|all| all.len()), Some(3));
    assert_eq!(
        found(&["msg_1"], LARGE, 103).await,
        Some(Vec::new()),
        "expired with its conversation"
    );
    assert_eq!(
        of_items(&store, "q", &["msg_1"], LARGE, 10).await,
        Some(Vec::new()),
        "another project's"
    );
}

#[tokio::test]
async fn items_go_with_their_response_and_many_fit() {
    let (_dir, store) = open().await;
    let ids: Vec<String> = (0..1_001).map(|number| format!("item_{number}")).collect();
    let large = StoredResponse {
        item_ids: ids.clone(),
        ..turn(1)
    };
    assert!(add(&store, &large, LARGE, None).await.expect("added"));
    assert_eq!(
        with_items(&store, "p", &ids, LARGE, 10)
            .await
            .expect("read")
            .map(|all| all.len()),
        Some(1)
    );
    assert_eq!(
        of_items(&store, "p", &["item_1000"], LARGE, 10)
            .await
            .map(|all| all.len()),
        Some(1)
    );
    assert!(delete(&store, Some("p"), "resp_1", 10).await.expect("deleted"));
    let left = sqlx::query("SELECT item_id FROM response_items")
        .fetch_all(&store.pool())
        .await
        .expect("read");
    assert!(left.is_empty());
    assert!(!add(&store, &large, 9, None).await.expect("asked"), "it does not fit");
    assert_eq!(of_items(&store, "p", &["item_0"], LARGE, 10).await, Some(Vec::new()));
}
