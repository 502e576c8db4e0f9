//! Bounds on a project's files and batches, and lists page by page, with SQLite and with PostgreSQL.

use end_to_end::postgres::Postgres;
use end_to_end::upstream::{Scripted, WHOLE};
use end_to_end::{Gateway, config_dir, roomy, wait_for, with_model};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::sync::watch;

const BOUNDS: &str =
    "bounds:\n  max_files: 12\n  max_files_bytes: 2000\n  max_unfinished_batches: 2\n  max_ended_batches: 3\n";

/// A gateway with these bounds, and the model `tested` at a server.
async fn start(url: &str, flags: &[&str]) -> Gateway {
    let dir = config_dir(|name, text| match name {
        "gateway.yaml" => text.replacen("bounds:\n", BOUNDS, 1),
        "models.yaml" => with_model(&text, "tested", "openai", url, ""),
        _ => roomy(name, text),
    });
    Gateway::start_in(dir, flags).await
}

/// Uploads so many bytes; status and answer.
async fn upload(gateway: &Gateway, user: &str, bytes: usize) -> (u16, Value) {
    let text = "x".repeat(bytes);
    let form = format!(
        "--b\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--b\r\n\
         content-disposition: form-data; name=\"file\"; filename=\"x.jsonl\"\r\n\r\n{text}\r\n--b--\r\n"
    );
    let request = gateway.http.post(format!("{}/v1/files", gateway.proxy));
    let request = request
        .header("content-type", "multipart/form-data; boundary=b")
        .header("x-sluice-user", user)
        .body(form);
    let answer = request.send().await.expect("an answer");
    (answer.status().as_u16(), answer.json().await.expect("JSON"))
}

async fn get(gateway: &Gateway, path: &str) -> (u16, Value) {
    let request = gateway.http.get(format!("{}{path}", gateway.proxy));
    let answer = request.send().await.expect("an answer");
    (answer.status().as_u16(), answer.json().await.expect("JSON"))
}

fn ids(list: &Value) -> Vec<String> {
    let data = list["data"].as_array().expect("a list");
    data.iter()
        .map(|item| item["id"].as_str().expect("an id").to_owned())
        .collect()
}

/// All ids of a list, by pages of so many.
async fn paged(gateway: &Gateway, path: &str, limit: usize) -> Vec<String> {
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let (status, page) = get(gateway, &format!("{path}?limit={limit}{after}")).await;
        assert_eq!(status, 200, "{page}");
        let part = ids(&page);
        assert!(
            part.len() <= limit && (page["last_id"].as_str() == part.last().map(String::as_str)),
            "{page}"
        );
        all.extend(part);
        if page["has_more"] == false {
            return all;
        }
        after = format!("&after={}", page["last_id"].as_str().expect("an id"));
    }
}

/// The files whose contents are in the database.
const WITH_CONTENTS: &str = "SELECT count(DISTINCT file_id) FROM file_parts";

fn in_sqlite(gateway: &Gateway) -> String {
    gateway.query_sqlite(WITH_CONTENTS)
}

async fn files_are_bounded_and_listed_by_pages(flags: &[&str], with_contents: impl Fn(&Gateway) -> String) {
    let gateway = start("http://127.0.0.1:9", flags).await;
    // Forty at once: the bound holds whoever comes first.
    let answers = join_all((0..40).map(|_| upload(&gateway, "user_standard_01", 10))).await;
    let refused: Vec<&Value> = answers
        .iter()
        .filter(|(status, _)| *status != 200)
        .map(|(_, body)| body)
        .collect();
    assert_eq!(refused.len(), 28, "{refused:?}");
    let error = &refused[0]["error"];
    assert_eq!(
        (&error["type"], &error["code"]),
        (&json!("invalid_request_error"), &json!("storage_limit_exceeded"))
    );
    assert!(
        refused
            .iter()
            .all(|body| body["error"]["code"] == "storage_limit_exceeded"),
        "{refused:?}"
    );
    assert_eq!(with_contents(&gateway), "12", "what is refused leaves nothing behind");
    // Another project has its own bounds.
    assert_eq!(upload(&gateway, "user_vip_01", 10).await.0, 200);

    let all = get(&gateway, "/v1/files").await.1;
    assert_eq!(
        (ids(&all).len(), &all["has_more"], &all["object"]),
        (12, &json!(false), &json!("list"))
    );
    for limit in [1, 5, 12] {
        assert_eq!(paged(&gateway, "/v1/files", limit).await, ids(&all));
    }
    let oldest: Vec<String> = ids(&all).into_iter().rev().collect();
    assert_eq!(ids(&get(&gateway, "/v1/files?order=asc").await.1), oldest);
    assert_eq!(
        ids(&get(&gateway, "/v1/files?purpose=batch&limit=3").await.1),
        ids(&all)[..3]
    );
    assert!(ids(&get(&gateway, "/v1/files?purpose=assistants").await.1).is_empty());
    for wrong in ["limit=0", "limit=10001", "limit=-1", "order=up", "after=file-none"] {
        let (status, error) = get(&gateway, &format!("/v1/files?{wrong}")).await;
        assert_eq!(
            (status, &error["error"]["code"]),
            (400, &json!("bad_request")),
            "{wrong}: {error}"
        );
    }

    // Room for files is made by deleting, and then the bytes are the bound.
    for id in &oldest[..6] {
        let request = gateway.http.delete(format!("{}/v1/files/{id}", gateway.proxy));
        assert_eq!(request.send().await.expect("an answer").status(), 200);
    }
    assert_eq!(upload(&gateway, "user_standard_01", 1940).await.0, 200);
    assert_eq!(with_contents(&gateway), "8", "contents are deleted with their file");
    let (status, error) = upload(&gateway, "user_standard_01", 1).await;
    let message = error["error"]["message"].as_str().expect("words");
    assert!(
        status == 400 && message.contains("max_files_bytes") && message.contains("2000"),
        "{error}"
    );
}

#[tokio::test]
async fn files_are_bounded_and_listed_by_pages_with_sqlite() {
    files_are_bounded_and_listed_by_pages(&[], in_sqlite).await;
}

#[tokio::test]
async fn files_are_bounded_and_listed_by_pages_with_postgresql() {
    let postgres = Postgres::start();
    let count = |_: &Gateway| postgres.column(WITH_CONTENTS).concat();
    files_are_bounded_and_listed_by_pages(&["--database-url", &postgres.url], count).await;
}

#[tokio::test]
async fn unfinished_batches_are_bounded_and_of_ended_ones_the_newest_are_kept() {
    let (open, opened) = watch::channel(false);
    let server = Scripted::start(move |mut connection| {
        let mut opened = opened.clone();
        async move {
            while connection.read_request().await {
                let _ = opened.wait_for(|is_open| *is_open).await;
                connection.answer("200 OK", WHOLE).await;
            }
        }
    })
    .await;
    let gateway = start(&server.url, &[]).await;
    let line = json!({"custom_id": "a", "method": "POST", "url": "/v1/chat/completions",
        "body": {"model": "tested", "messages": [{"role": "user", "content": "hello"}]}});
    let input = gateway.upload(&line.to_string()).await;
    let body = json!({"input_file_id": input, "endpoint": "/v1/chat/completions", "completion_window": "24h"});
    // Eight at once, of which two may be unfinished.
    let answers = join_all((0..8).map(|_| gateway.post("/v1/batches", &body))).await;
    let (mut made, mut refused) = (Vec::new(), 0);
    for answer in answers {
        let retry_after = answer.headers().contains_key("retry-after");
        let (status, batch) = (answer.status(), answer.json::<Value>().await.expect("JSON"));
        match status.as_u16() {
            200 => made.push(batch["id"].as_str().expect("an id").to_owned()),
            429 => {
                assert!(
                    retry_after && batch["error"]["code"] == "concurrency_limit_exceeded",
                    "{batch}"
                );
                refused += 1;
            }
            _ => panic!("{status} {batch}"),
        }
    }
    assert_eq!((made.len(), refused), (2, 6));
    open.send(true).expect("the server listens");
    for _ in 0..6 {
        // An ended batch makes room a moment after its end.
        let batch = wait_for("room for a batch", || async {
            let answer = gateway.post("/v1/batches", &body).await;
            let is_made = answer.status() == 200;
            let batch: Value = answer.json().await.expect("JSON");
            is_made.then_some(batch)
        })
        .await;
        made.push(batch["id"].as_str().expect("an id").to_owned());
        gateway.ended_batch(made.last().expect("one")).await;
    }
    let listed = paged(&gateway, "/v1/batches", 2).await;
    // Three that had ended when the last one came, and that one.
    assert_eq!(listed.len(), 4, "{listed:?}");
    assert!(
        made[made.len() - 2..].iter().all(|id| listed.contains(id)),
        "{listed:?} {made:?}"
    );
    assert_eq!(get(&gateway, &format!("/v1/files/{input}")).await.0, 200);
    let forgotten = made.iter().find(|id| !listed.contains(id)).expect("one of eight");
    assert_eq!(get(&gateway, &format!("/v1/batches/{forgotten}")).await.0, 404);
    assert_eq!(get(&gateway, "/v1/batches?limit=101").await.0, 400);
}
