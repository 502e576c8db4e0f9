//! A file that came to one gateway, at every other.

use end_to_end::postgres::Postgres;
use end_to_end::{Gateway, config_dir, roomy};
use reqwest::Method;
use serde_json::{Value, json};

/// Status and text of a request of a user.
async fn send(gateway: &Gateway, method: Method, path: &str, user: &str) -> (u16, String) {
    let request = gateway.http.request(method, format!("{}{path}", gateway.proxy));
    let answer = request.header("x-sluice-user", user).send().await.expect("an answer");
    (answer.status().as_u16(), answer.text().await.expect("text"))
}

const OWNER: &str = "user_standard_01";
const STRANGER: &str = "user_vip_01";

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_listed_read_used_and_deleted_at_any_gateway_by_its_own_project_alone() {
    let postgres = Postgres::start();
    let flags = ["--database-url", &postgres.url];
    let (one, other) = tokio::join!(
        Gateway::start_in(config_dir(roomy), &flags),
        Gateway::start_in(config_dir(roomy), &flags)
    );
    // Of several parts, and not of whole ones.
    let line = |number: usize| {
        let body = json!({"model": "simulated-small", "input": "x".repeat(90_000)});
        json!({"custom_id": format!("line-{number}"), "method": "POST", "url": "/v1/embeddings", "body": body})
            .to_string()
    };
    let text = (0..30).map(line).collect::<Vec<_>>().join("\n");
    let file = one.upload(&text).await;
    let (path, content) = (format!("/v1/files/{file}"), format!("/v1/files/{file}/content"));
    let (status, listed) = send(&other, Method::GET, "/v1/files", OWNER).await;
    assert!(status == 200 && listed.contains(&file), "{listed}");
    assert_eq!(send(&other, Method::GET, &content, OWNER).await, (200, text));
    for path in [&path, &content] {
        assert_eq!(send(&other, Method::GET, path, STRANGER).await.0, 404);
    }
    assert_eq!(send(&other, Method::DELETE, &path, STRANGER).await.0, 404);

    let wanted = json!({"input_file_id": file, "endpoint": "/v1/embeddings", "completion_window": "24h"});
    let batch: Value = other.post("/v1/batches", &wanted).await.json().await.expect("JSON");
    let ended = one.ended_batch(batch["id"].as_str().expect("an id")).await;
    assert_eq!(
        ended["request_counts"],
        json!({"total": 30, "completed": 30, "failed": 0}),
        "{ended}"
    );
    let rows = one.batch_rows(&ended).await;
    let ids: Vec<&str> = rows
        .iter()
        .map(|row| row["custom_id"].as_str().expect("an id"))
        .collect();
    let expected: Vec<String> = (0..30).map(|number| format!("line-{number}")).collect();
    assert_eq!(ids, expected, "in the order of the input");

    assert_eq!(send(&other, Method::DELETE, &path, OWNER).await.0, 200);
    for gateway in [&one, &other] {
        assert_eq!(send(gateway, Method::GET, &content, OWNER).await.0, 404);
    }
    let left = postgres.column(&format!("SELECT count(*) FROM file_parts WHERE file_id = '{file}'"));
    assert_eq!(left, ["0"], "no contents are left");
}
