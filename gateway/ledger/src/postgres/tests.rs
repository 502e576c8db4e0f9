use super::*;
use crate::Durability;
use crate::store::Store;
use crate::testing::entry;
use end_to_end::postgres::Postgres;
use std::path::Path;
use tempfile::TempDir;

/// What PostgreSQL's `COPY` gives a meaning, and what other programs do.
const TEXTS: [&str; 12] = [
    "",
    "\\N",
    "\\.",
    "\\",
    "a\\tb",
    "a\tb\nc\rd\\",
    "\r\n\\.\r\n",
    "\u{8}\u{b}\u{c}\u{1f}\u{7f}",
    "\"quoted\", 'twice'; DROP TABLE requests --",
    "naïve 日本語 🦀 \u{202e}",
    "{\"a\":[1,2]}",
    "NULL",
];

/// The rows and the sums of a database that lines were written to.
async fn written(url: &str, dir: &Path, segments: &[Lines<'_>]) -> (Vec<Row<'static>>, Vec<i64>) {
    let database = crate::open(url, dir, false, Durability::Strict).await.expect("opened");
    let (connect, store) = (database.connect, database.store);
    std::thread::scope(|threads| {
        // What writes has a runtime of its own, or none.
        threads.spawn(move || {
            let mut writer = connect().expect("connected");
            for lines in segments {
                writer.write(lines, &"me".into()).expect("written");
            }
        });
    });
    (rows(&store).await, sums(&store).await)
}

async fn rows(store: &Store) -> Vec<Row<'static>> {
    let sql = format!("SELECT {} FROM requests ORDER BY id", COLUMNS.join(","));
    let rows = sqlx::query(&sql).fetch_all(&store.pool()).await.expect("read");
    rows.iter().map(|row| Row::read(row).expect("a row")).collect()
}

async fn sums(store: &Store) -> Vec<i64> {
    let sql = "SELECT CAST(sum(requests) AS BIGINT), CAST(sum(input_tokens) AS BIGINT), CAST(sum(cost_nano_eur) AS BIGINT) FROM rollups";
    let row = sqlx::query(sql).fetch_one(&store.pool()).await.expect("read");
    (0..3).map(|column| row.try_get(column).expect("a sum")).collect()
}

fn segment(ids: std::ops::Range<i64>) -> Lines<'static> {
    let rows = ids.map(|id| {
        let text = TEXTS[usize::try_from(id).expect("small") % TEXTS.len()];
        let mut entry = entry("req_1");
        (entry.requested_model, entry.error_message, entry.first_token) =
            (text, Some(text), Some(Duration::from_nanos(1)));
        if id % 2 == 1 {
            (entry.error_message, entry.first_token) = (None, None);
        }
        Row::of_line(&Row::of(&entry, id).line().expect("a line")).expect("a row")
    });
    Lines {
        rows: rows.collect(),
        ..Lines::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_holds_what_sqlite_holds_whatever_records_say_and_however_often_they_come() {
    let (postgres, dir, other) = (
        Postgres::start(),
        TempDir::new().expect("one"),
        TempDir::new().expect("one"),
    );
    // Many at once, few at once, all that were there already, some of them, and none that were.
    let segments = [1..101, 101..111, 1..101, 61..161, 161..300].map(segment);
    let (rows, sums) = written(&postgres.url, dir.path(), &segments).await;
    let sqlite = format!("sqlite://{}", other.path().join("usage.db").display());
    let expected = written(&sqlite, other.path(), &segments).await;
    assert_eq!(rows.len(), 299);
    assert_eq!((rows, sums), expected);
}
