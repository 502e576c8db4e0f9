//! Files and batches that expire, batches of responses on every kind of server, and the ledger's records of strangers.

use end_to_end::upstream::{Scripted, WHOLE};
use end_to_end::{Gateway, config_dir, roomy, wait_for, with_model};
use serde_json::{Value, json};

async fn json_of(request: reqwest::RequestBuilder) -> (u16, Value) {
    let answer = request.send().await.expect("an answer");
    (answer.status().as_u16(), answer.json().await.expect("JSON"))
}

/// Uploads a file; `more` are further fields of the form.
async fn upload(gateway: &Gateway, text: &str, more: &[(&str, &str)]) -> (u16, Value) {
    let field = |(name, value): &(&str, &str)| {
        format!("--b\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    let fields: Vec<String> = [("purpose", "batch")].iter().chain(more).map(field).collect();
    let file = "--b\r\ncontent-disposition: form-data; name=\"file\"; filename=\"x.jsonl\"\r\n\r\n";
    let body = format!("{}{file}{text}\r\n--b--\r\n", fields.concat());
    let request = gateway.http.post(format!("{}/v1/files", gateway.proxy));
    json_of(
        request
            .header("content-type", "multipart/form-data; boundary=b")
            .body(body),
    )
    .await
}

async fn get(gateway: &Gateway, path: &str) -> (u16, Value) {
    json_of(gateway.http.get(format!("{}{path}", gateway.proxy))).await
}

fn id(object: &Value) -> &str {
    object["id"].as_str().unwrap_or_else(|| panic!("no id: {object}"))
}

/// Starts a batch and waits for its end.
async fn batch(gateway: &Gateway, endpoint: &str, lines: &[Value], more: Value) -> Value {
    let line = |(number, body): (usize, &Value)| {
        json!({"custom_id": format!("line-{number}"), "method": "POST", "url": endpoint, "body": body}).to_string()
    };
    let text: Vec<String> = lines.iter().enumerate().map(line).collect();
    let (_, file) = upload(gateway, &text.join("\n"), &[]).await;
    let mut asked = json!({"input_file_id": id(&file), "endpoint": endpoint, "completion_window": "24h"});
    asked
        .as_object_mut()
        .expect("an object")
        .extend(more.as_object().expect("an object").clone());
    let (status, made) = json_of(gateway.http.post(format!("{}/v1/batches", gateway.proxy)).json(&asked)).await;
    assert_eq!(status, 200, "{made}");
    let path = format!("/v1/batches/{}", id(&made));
    wait_for("the end of a batch", || async {
        let (_, shown) = get(gateway, &path).await;
        (shown["status"] == "completed").then_some(shown)
    })
    .await
}

/// The lines of a file, by their `custom_id`.
async fn rows(gateway: &Gateway, file: &Value) -> Vec<Value> {
    let id = file.as_str().expect("a file");
    let content = gateway.http.get(format!("{}/v1/files/{id}/content", gateway.proxy));
    let text = content.send().await.expect("an answer").text().await.expect("text");
    let mut rows: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    rows.sort_by_key(|row| row["custom_id"].as_str().map(str::to_owned));
    rows
}

#[tokio::test]
async fn files_expire_as_openai_documents_it_and_other_times_are_refused() {
    let gateway = Gateway::start().await;
    let after = |seconds| {
        [
            ("expires_after[anchor]", "created_at"),
            ("expires_after[seconds]", seconds),
        ]
    };
    for seconds in ["3600", "2592000"] {
        let (status, file) = upload(&gateway, "x", &after(seconds)).await;
        assert_eq!(status, 200, "{file}");
        let lasts = file["expires_at"].as_i64().expect("a time") - file["created_at"].as_i64().expect("a time");
        assert_eq!(lasts.to_string(), seconds);
        assert_eq!(get(&gateway, &format!("/v1/files/{}", id(&file))).await.1, file);
    }
    for wrong in ["3599", "2592001", "-1", "soon"] {
        let (status, error) = upload(&gateway, "x", &after(wrong)).await;
        assert_eq!(status, 400, "{wrong}: {error}");
    }
    let (status, _) = upload(
        &gateway,
        "x",
        &[
            ("expires_after[anchor]", "last_active_at"),
            ("expires_after[seconds]", "3600"),
        ],
    )
    .await;
    assert_eq!(status, 400);
    let (_, file) = upload(&gateway, "x", &[]).await;
    assert_eq!(file.get("expires_at"), None, "no time is set by default");
    let asked = json!({"input_file_id": id(&file), "endpoint": "/v1/responses", "completion_window": "24h",
        "output_expires_after": {"anchor": "created_at", "seconds": 60}});
    let (status, error) = json_of(gateway.http.post(format!("{}/v1/batches", gateway.proxy)).json(&asked)).await;
    assert_eq!(
        (status, &error["error"]["param"]),
        (400, &json!("output_expires_after"))
    );
}

#[tokio::test]
async fn what_expires_is_gone_at_once_and_deleted_with_its_contents_while_usage_stays() {
    let dir = config_dir(|name, text| match name {
        // About four seconds.
        "gateway.yaml" => format!("{text}\nfiles: {{keep_days: 0.00005}}\n"),
        _ => roomy(name, text),
    });
    let mut gateway = Gateway::start_in(dir, &[]).await;
    let line = json!({"model": "simulated-small", "input": "hello"});
    let done = batch(&gateway, "/v1/embeddings", &[line], json!({})).await;
    let (_, lasting) = upload(
        &gateway,
        "x",
        &[
            ("expires_after[anchor]", "created_at"),
            ("expires_after[seconds]", "3600"),
        ],
    )
    .await;
    let output = done["output_file_id"].as_str().expect("a file").to_owned();
    let path = format!("/v1/files/{output}");
    wait_for("expiry", || async {
        (get(&gateway, &path).await.0 == 404).then_some(())
    })
    .await;
    assert_eq!(get(&gateway, &format!("{path}/content")).await.0, 404);
    let listed = get(&gateway, "/v1/files").await.1;
    assert_eq!(listed["data"].as_array().map(Vec::len), Some(1), "{listed}");
    let with_contents = "SELECT DISTINCT file_id FROM file_parts ORDER BY 1";
    assert!(
        gateway.query_sqlite(with_contents).contains(&output),
        "the task has not come round"
    );
    // The task's first turn is at the start.
    gateway.signal("TERM");
    gateway.ended().await;
    let gateway = Gateway::start_in(gateway.left(), &[]).await;
    wait_for("deletion", || async {
        (gateway.query_sqlite(with_contents) == id(&lasting)).then_some(())
    })
    .await;
    assert_eq!(
        get(&gateway, &format!("/v1/batches/{}", id(&done))).await.0,
        404,
        "an ended batch expires too"
    );
    assert_eq!(gateway.records().await.len(), 1, "what was used stays known");
    assert_eq!(gateway.admin_json("/usage/summary").await["total_records"], 1);
}

/// A response of a server that speaks the API itself.
const NATIVE: &str = "{\"id\":\"resp_1\",\"object\":\"response\",\"created_at\":1,\"status\":\"completed\",\
    \"output\":[{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\",\"status\":\"completed\",\
    \"content\":[{\"type\":\"output_text\",\"text\":\"hello\",\"annotations\":[]}]}],\
    \"usage\":{\"input_tokens\":11,\"output_tokens\":7,\"total_tokens\":18}}";

const OLLAMA: &str = "{\"model\":\"m\",\"created_at\":\"2026-01-01T00:00:00Z\",\"message\":{\"role\":\"assistant\",\
    \"content\":\"hello\"},\"done\":true,\"done_reason\":\"stop\",\"prompt_eval_count\":11,\"eval_count\":7}";

#[tokio::test]
async fn a_batch_of_responses_has_responses_from_every_kind_of_server_and_names_its_bad_lines() {
    for (backend, body, more) in [
        ("openai", WHOLE, ""),
        ("ollama", OLLAMA, ""),
        ("openai", NATIVE, "    native_apis: [responses]\n"),
    ] {
        let upstream = Scripted::answering(body).await;
        let dir = config_dir(|name, text| match name {
            "models.yaml" => format!("{}{more}", with_model(&text, "tested", backend, &upstream.url, "")),
            "gateway.yaml" => format!("{text}\nstored_responses: {{keep_days: 1}}\n"),
            _ => roomy(name, text),
        });
        let gateway = Gateway::start_in(dir, &[]).await;
        let lines = [
            json!({"model": "tested", "input": "Why?", "store": true}),
            json!({"model": "tested", "input": [{"role": "user", "content": "Why not?"}]}),
            json!({"model": "tested", "input": "a stream", "stream": true}),
            json!({"model": "tested", "input": "go on", "previous_response_id": "resp_never"}),
        ];
        let done = batch(&gateway, "/v1/responses", &lines, json!({})).await;
        assert_eq!(
            done["request_counts"],
            json!({"total": 4, "completed": 2, "failed": 2}),
            "{backend}"
        );
        for row in rows(&gateway, &done["output_file_id"]).await {
            let response = &row["response"]["body"];
            assert_eq!(
                (&response["object"], &response["status"]),
                (&json!("response"), &json!("completed")),
                "{row}"
            );
            assert_eq!(response["output"][0]["content"][0]["text"], "hello", "{row}");
            assert_eq!(
                (&response["usage"]["input_tokens"], &response["usage"]["output_tokens"]),
                (&json!(11), &json!(7))
            );
        }
        let failed = rows(&gateway, &done["error_file_id"]).await;
        let told: Vec<&Value> = failed
            .iter()
            .map(|row| &row["response"]["body"]["error"]["param"])
            .collect();
        assert_eq!(told, ["stream", "previous_response_id"], "{failed:?}");
        // A response that a line has stored can be continued.
        let stored = id(&rows(&gateway, &done["output_file_id"]).await[0]["response"]["body"]).to_owned();
        let more = [json!({"model": "tested", "input": "And?", "previous_response_id": stored})];
        let done = batch(&gateway, "/v1/responses", &more, json!({})).await;
        let rows = rows(&gateway, &done["output_file_id"]).await;
        assert_eq!(rows[0]["response"]["body"]["previous_response_id"], json!(stored));
        let records = gateway.records().await;
        assert_eq!(records.len(), 5, "one record a line");
        assert!(
            records.iter().all(|record| record["project_id"] == "standard_project"),
            "{records:?}"
        );
    }
}

#[tokio::test]
async fn strangers_get_records_for_so_many_requests_a_minute_and_are_counted_all() {
    let dir = config_dir(|name, text| match name {
        "gateway.yaml" => text.replacen("bounds:\n", "bounds:\n  wrong_credentials_per_minute: 1000\n", 1),
        _ => roomy(name, text),
    });
    let gateway = Gateway::start_in(dir, &["--identity", "keys"]).await;
    let before = std::time::Instant::now();
    for number in 0..200 {
        let request = gateway.http.post(format!("{}/v1/chat/completions", gateway.proxy));
        let request = if number % 2 == 0 {
            request
        } else {
            request.bearer_auth("sk-sluice-wrong")
        };
        let answer = request.body("{}").send().await.expect("an answer");
        assert_eq!(answer.status(), 401);
    }
    let refused = "sluice_refusals_total{project=\"\",reason=\"invalid_key\"}";
    assert_eq!(gateway.metric(refused).await.to_string(), "200");
    let records = gateway.records().await;
    let is_refusal = |record: &Value| record["reason"] == "invalid_key" && record["http_status"] == 401;
    assert!(records.iter().all(is_refusal), "{records:?}");
    let minutes = usize::try_from(before.elapsed().as_secs() / 60 + 2).expect("a few");
    let count = records.len();
    assert!(count >= 60 && count <= 60 * minutes, "{count} records");
    let unrecorded = "sluice_unrecorded_refusals_total{reason=\"invalid_key\"}";
    assert_eq!(gateway.metric(unrecorded).await.to_string(), (200 - count).to_string());
}
