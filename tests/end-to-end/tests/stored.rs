//! Stored responses and `previous_response_id`: what the model reads is what a client that sends everything would have
//! had it read, on every kind of server; what is stored outlives a restart, belongs to its project, and expires.

use end_to_end::postgres::Postgres;
use end_to_end::upstream::{Scripted, USAGE, WHOLE, delta};
use end_to_end::{Gateway, config_dir, python, roomy, sluice, wait_for, with_model};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use tempfile::TempDir;

/// A configuration that stores responses, with one model more at an upstream of the test's.
fn storing(settings: &str, backend: &str, url: &str, more: &str) -> TempDir {
    config_dir(|name, text| match name {
        "gateway.yaml" => format!("{text}\nstored_responses: {{{settings}}}\n"),
        "models.yaml" => format!("{}{more}", with_model(&text, "tested", backend, url, "")),
        _ => roomy(name, text),
    })
}

/// An Ollama server's answer.
const OLLAMA: &str = "{\"model\":\"m\",\"created_at\":\"2026-01-01T00:00:00Z\",\"message\":{\"role\":\"assistant\",\
    \"content\":\"hello\"},\"done\":true,\"done_reason\":\"stop\",\"prompt_eval_count\":11,\"eval_count\":7}";

/// An upstream that answers every request with the same body.
async fn answering(body: &'static str) -> Scripted {
    Scripted::start(move |mut connection| async move {
        while connection.read_request().await {
            connection.answer("200 OK", body).await;
        }
    })
    .await
}

/// The body of the last request that an upstream has got.
fn last_body(upstream: &Scripted) -> Value {
    let request = upstream
        .requests
        .lock()
        .expect("no panic")
        .last()
        .cloned()
        .expect("a request");
    let (_, body) = request.split_once("\r\n\r\n").expect("a body");
    serde_json::from_str(body).expect("JSON")
}

async fn respond(gateway: &Gateway, body: &Value) -> Value {
    let answer = gateway.post("/v1/responses", body).await;
    let (status, body) = (answer.status(), answer.text().await.expect("text"));
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).expect("JSON")
}

async fn get(gateway: &Gateway, path: &str) -> (u16, Value) {
    let answer = gateway
        .http
        .get(format!("{}{path}", gateway.proxy))
        .send()
        .await
        .expect("an answer");
    (answer.status().as_u16(), answer.json().await.expect("JSON"))
}

/// Three turns: a text, an answered tool call, and parts.
fn turns() -> [Value; 3] {
    [
        json!("Why is the sky blue?"),
        json!([{"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "it is blue"}]),
        json!([{"role": "user", "content": [{"type": "input_text", "text": "And \"at\" night?\u{0}"}]}]),
    ]
}

/// A turn's own input as a list of items.
fn items(input: &Value) -> Vec<Value> {
    match input {
        Value::Array(items) => items.clone(),
        text => vec![json!({"role": "user", "content": text})],
    }
}

/// Has three turns by `previous_response_id` and the same by a client that sends everything; what the server was sent
/// is the same each time.
async fn reads_the_same(gateway: &Gateway, upstream: &Scripted) {
    let mut previous = Value::Null;
    let mut everything: Vec<Value> = Vec::new();
    for (number, input) in turns().into_iter().enumerate() {
        let settings =
            json!({"model": "tested", "instructions": format!("instruction {number}"), "max_output_tokens": 30});
        let with = |more: Value| {
            let mut body = settings.clone();
            body.as_object_mut()
                .expect("an object")
                .extend(more.as_object().expect("an object").clone());
            body
        };
        let response = respond(
            gateway,
            &with(json!({"input": input, "previous_response_id": previous, "store": true})),
        )
        .await;
        assert_eq!(
            (&response["previous_response_id"], &response["store"]),
            (&previous, &json!(true)),
            "{response}"
        );
        let chained = last_body(upstream);
        everything.extend(items(&input));
        let alone = respond(gateway, &with(json!({"input": everything}))).await;
        assert_eq!(alone["store"], false);
        assert_eq!(chained, last_body(upstream), "turn {number}");
        everything.extend(response["output"].as_array().expect("a list").clone());
        previous = response["id"].clone();
    }
    // The reservation counts all of it.
    let records = gateway.records().await;
    assert_eq!(
        records[0]["input_tokens_estimated"], records[1]["input_tokens_estimated"],
        "{records:?}"
    );
    assert!(records[0]["input_tokens_estimated"].as_u64() > records[5]["input_tokens_estimated"].as_u64());
    // So does a count of its tokens.
    everything.push(json!({"role": "user", "content": "go on"}));
    let mut counts = Vec::new();
    for body in [
        json!({"model": "tested", "input": "go on", "previous_response_id": previous}),
        json!({"model": "tested", "input": everything}),
    ] {
        let answer = gateway.post("/v1/responses/input_tokens", &body).await;
        counts.push(
            answer.json::<Value>().await.expect("JSON")["input_tokens"]
                .as_u64()
                .expect("a count"),
        );
    }
    assert_eq!(counts[0], counts[1]);
}

#[tokio::test]
async fn over_an_openai_server_the_model_reads_what_a_client_that_sends_everything_has_it_read() {
    let upstream = answering(WHOLE).await;
    let gateway = Gateway::start_in(storing("keep_days: 30", "openai", &upstream.url, ""), &[]).await;
    reads_the_same(&gateway, &upstream).await;
}

#[tokio::test]
async fn over_an_ollama_server_the_model_reads_what_a_client_that_sends_everything_has_it_read() {
    let upstream = answering(OLLAMA).await;
    let gateway = Gateway::start_in(storing("keep_days: 30", "ollama", &upstream.url, ""), &[]).await;
    reads_the_same(&gateway, &upstream).await;
}

/// A response of a server that speaks the API itself, under its own id.
const NATIVE: &str = "{\"id\":\"resp_servers\",\"object\":\"response\",\"created_at\":1,\"status\":\"completed\",\"store\":false,\
    \"previous_response_id\":null,\"output\":[{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\",\"status\":\"completed\",\
    \"content\":[{\"type\":\"output_text\",\"text\":\"hello\",\"annotations\":[]}]}],\
    \"usage\":{\"input_tokens\":11,\"output_tokens\":7,\"total_tokens\":18}}";

#[tokio::test]
async fn over_a_server_of_responses_it_is_the_same_and_the_ids_are_the_gateways() {
    let upstream = answering(NATIVE).await;
    let dir = storing(
        "keep_days: 30",
        "openai",
        &upstream.url,
        "    native_apis: [responses]\n",
    );
    let gateway = Gateway::start_in(dir, &[]).await;
    let first = respond(&gateway, &json!({"model": "tested", "input": "a", "store": true})).await;
    assert!(
        first["id"].as_str().is_some_and(|id| id.starts_with("resp_req_")),
        "{first}"
    );
    assert_eq!(
        last_body(&upstream)["store"],
        false,
        "the server is not to store it too"
    );
    let second = json!({"model": "tested", "input": "b", "store": true, "previous_response_id": first["id"]});
    let second = respond(&gateway, &second).await;
    assert_eq!(second["previous_response_id"], first["id"]);
    let output = &first["output"][0];
    let expected = json!([{"role": "user", "content": "a"}, output, {"role": "user", "content": "b"}]);
    assert_eq!(last_body(&upstream)["input"], expected);
    assert_eq!(last_body(&upstream)["previous_response_id"], Value::Null);
    let id = second["id"].as_str().expect("an id");
    assert_eq!(
        get(&gateway, &format!("/v1/responses/{id}")).await,
        (200, second.clone())
    );
    // Without storage the server's answer is not touched.
    let plain = respond(&gateway, &json!({"model": "tested", "input": "c"})).await;
    assert_eq!(plain, serde_json::from_str::<Value>(NATIVE).expect("JSON"));
}

#[tokio::test]
async fn a_streamed_response_is_stored_when_its_stream_ends_and_a_broken_one_never() {
    let upstream = Scripted::start(|mut connection| async move {
        let is_broken = connection.number > 0;
        connection.read_request().await;
        connection.begin_stream().await;
        connection.chunk(&delta("hel")).await;
        connection.chunk(&delta("lo")).await;
        if !is_broken {
            let end = format!("{}{USAGE}data: [DONE]\n\n", end_to_end::upstream::FINISH);
            connection.chunk(&end).await;
            connection.chunk("").await;
        }
    })
    .await;
    let gateway = Gateway::start_in(storing("keep_days: 30", "openai", &upstream.url, ""), &[]).await;
    let body = json!({"model": "tested", "input": "a", "store": true, "stream": true});
    let whole = gateway
        .post("/v1/responses", &body)
        .await
        .text()
        .await
        .expect("a stream");
    let data = whole
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .next_back()
        .expect("an event");
    let last: Value = serde_json::from_str(data).expect("JSON");
    assert_eq!(
        (&last["type"], &last["response"]["store"]),
        (&json!("response.completed"), &json!(true))
    );
    let id = last["response"]["id"].as_str().expect("an id");
    assert_eq!(
        get(&gateway, &format!("/v1/responses/{id}")).await,
        (200, last["response"].clone())
    );
    let answer = gateway.post("/v1/responses", &body).await;
    let broken = answer.headers()["x-sluice-request-id"]
        .to_str()
        .expect("text")
        .to_owned();
    let _ = answer.bytes().await;
    assert_eq!(get(&gateway, &format!("/v1/responses/resp_{broken}")).await.0, 404);
}

#[tokio::test]
async fn without_the_setting_nothing_is_stored_and_a_dependence_is_refused_by_name() {
    let upstream = answering(WHOLE).await;
    let gateway = Gateway::with_upstream("openai", &upstream.url, "").await;
    let first = respond(&gateway, &json!({"model": "tested", "input": "a", "store": true})).await;
    assert_eq!(first["store"], false);
    let id = first["id"].as_str().expect("an id");
    assert_eq!(get(&gateway, &format!("/v1/responses/{id}")).await.0, 404);
    let refused = json!({"model": "tested", "input": "b", "previous_response_id": id});
    let refused = gateway.post("/v1/responses", &refused).await;
    assert_eq!(refused.status(), 400);
    let refused: Value = refused.json().await.expect("JSON");
    assert_eq!(refused["error"]["param"], "previous_response_id");
}

#[tokio::test]
async fn conversations_are_bounded_and_what_cannot_be_stored_says_so() {
    let upstream = answering(WHOLE).await;
    let settings = "keep_days: 30, max_turns: 2, max_bytes: 4000";
    let gateway = Gateway::start_in(storing(settings, "openai", &upstream.url, ""), &[]).await;
    let turn = |input: &str, previous: &Value| json!({"model": "tested", "input": input, "store": true, "previous_response_id": previous});
    let first = respond(&gateway, &turn("a", &Value::Null)).await;
    let second = respond(&gateway, &turn("b", &first["id"])).await;
    let third = respond(&gateway, &turn("c", &second["id"])).await;
    let refusal = |body: Value| {
        let gateway = &gateway;
        async move {
            let refused = gateway.post("/v1/responses", &body).await;
            let status = refused.status().as_u16();
            let error = refused.json::<Value>().await.expect("JSON")["error"].clone();
            (status, error)
        }
    };
    let (status, error) = refusal(turn("d", &third["id"])).await;
    assert_eq!((status, &error["param"]), (400, &json!("previous_response_id")));
    assert!(
        error["message"].as_str().is_some_and(|text| text.contains("max_turns")),
        "{error}"
    );
    let (status, error) = refusal(json!({"model": "tested", "input": "d", "conversation": "conv_1"})).await;
    assert_eq!((status, &error["param"]), (400, &json!("conversation")));
    // The project's bytes are used up; the answer is given all the same.
    let large = respond(&gateway, &turn(&"e".repeat(4000), &Value::Null)).await;
    assert_eq!(
        (&large["store"], &large["status"]),
        (&json!(false), &json!("completed"))
    );
    let counted =
        |result: &str| format!("sluice_stored_responses_total{{project=\"standard_project\",result=\"{result}\"}}");
    assert_eq!(gateway.metric(&counted("stored")).await.to_string(), "3");
    assert_eq!(gateway.metric(&counted("full")).await.to_string(), "1");
    let (status, error) = refusal(turn("f", &large["id"])).await;
    assert_eq!((status, &error["code"]), (400, &json!("previous_response_not_found")));
    let sent = upstream.requests.lock().expect("no panic").len();
    assert_eq!(sent, 4, "no refused request has reached the server");
    assert!(
        gateway
            .records()
            .await
            .iter()
            .any(|record| record["reason"] == "previous_response_not_found"
                && record["project_id"] == "standard_project")
    );
}

#[tokio::test]
async fn a_response_expires_after_its_time() {
    let upstream = answering(WHOLE).await;
    // About four seconds.
    let gateway = Gateway::start_in(storing("keep_days: 0.00005", "openai", &upstream.url, ""), &[]).await;
    let first = respond(&gateway, &json!({"model": "tested", "input": "a", "store": true})).await;
    let path = format!("/v1/responses/{}", first["id"].as_str().expect("an id"));
    assert_eq!(get(&gateway, &path).await.0, 200);
    let cancel = gateway.http.post(format!("{}{path}/cancel", gateway.proxy));
    assert_eq!(
        cancel.send().await.expect("an answer").status(),
        400,
        "it has been answered"
    );
    wait_for("expiry", || async {
        (get(&gateway, &path).await.0 == 404).then_some(())
    })
    .await;
    let next = json!({"model": "tested", "input": "b", "previous_response_id": first["id"]});
    assert_eq!(gateway.post("/v1/responses", &next).await.status(), 400);
}

#[tokio::test]
async fn a_background_response_is_stored_too_and_continues_a_conversation() {
    let upstream = answering(WHOLE).await;
    let gateway = Gateway::start_in(storing("keep_days: 30", "openai", &upstream.url, ""), &[]).await;
    let first = respond(&gateway, &json!({"model": "tested", "input": "a", "store": true})).await;
    let body = json!({"model": "tested", "input": "b", "store": true, "background": true, "previous_response_id": first["id"]});
    let queued = respond(&gateway, &body).await;
    assert_eq!(
        (&queued["status"], &queued["previous_response_id"]),
        (&json!("queued"), &first["id"])
    );
    let id = queued["id"].as_str().expect("an id");
    let done = wait_for("the end", || async {
        let (_, shown) = get(&gateway, &format!("/v1/responses/{id}")).await;
        (shown["status"] == "completed").then_some(shown)
    })
    .await;
    assert_eq!(
        (&done["store"], &done["previous_response_id"]),
        (&json!(true), &first["id"])
    );
    let third = respond(
        &gateway,
        &json!({"model": "tested", "input": "c", "previous_response_id": id}),
    )
    .await;
    assert_eq!(third["store"], false);
    let said: Vec<Value> = last_body(&upstream)["messages"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|message| message["content"].clone())
        .collect();
    assert_eq!(said, ["a", "hello", "b", "hello", "c"]);
    let (_, listed) = get(&gateway, &format!("/v1/responses/{id}/input_items?order=asc")).await;
    assert_eq!(listed["data"].as_array().expect("a list").len(), 3);
    // Forgotten everywhere at once.
    let deleted = gateway
        .http
        .delete(format!("{}/v1/responses/{id}", gateway.proxy))
        .send()
        .await
        .expect("an answer");
    assert_eq!(deleted.status(), 200);
    assert_eq!(get(&gateway, &format!("/v1/responses/{id}")).await.0, 404);
}

#[tokio::test]
async fn a_background_response_that_a_kill_cut_off_is_made_again_and_stored() {
    let has_hung = Arc::new(AtomicBool::new(false));
    let upstream = Scripted::start(move |mut connection| {
        let has_hung = Arc::clone(&has_hung);
        async move {
            while connection.read_request().await {
                if connection.last_request().contains("cut off") && !has_hung.swap(true, Relaxed) {
                    return connection.closed().await;
                }
                connection.answer("200 OK", WHOLE).await;
            }
        }
    })
    .await;
    let mut gateway = Gateway::start_in(storing("keep_days: 30", "openai", &upstream.url, ""), &[]).await;
    let first = respond(&gateway, &json!({"model": "tested", "input": "a", "store": true})).await;
    let body = json!({"model": "tested", "input": "cut off", "store": true, "background": true,
        "previous_response_id": first["id"]});
    let queued = respond(&gateway, &body).await;
    let path = format!("/v1/responses/{}", queued["id"].as_str().expect("an id"));
    wait_for("the request at the server", || async {
        (get(&gateway, &path).await.1["status"] == "in_progress").then_some(())
    })
    .await;
    wait_for("the request at the server", || async {
        let requests = upstream.requests.lock().expect("no panic").len();
        (requests == 2).then_some(())
    })
    .await;
    gateway.signal("KILL");
    gateway.ended().await;
    let gateway = Gateway::start_in(gateway.left(), &[]).await;
    let done = wait_for("the end", || async {
        let (_, shown) = get(&gateway, &path).await;
        (shown["status"] == "completed").then_some(shown)
    })
    .await;
    assert_eq!(
        (&done["store"], &done["previous_response_id"]),
        (&json!(true), &first["id"])
    );
    let said: Vec<Value> = last_body(&upstream)["messages"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|message| message["content"].clone())
        .collect();
    assert_eq!(said, ["a", "hello", "cut off"]);
    let (_, listed) = get(&gateway, &format!("{path}/input_items?order=asc")).await;
    let texts: Vec<&Value> = listed["data"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|item| &item["content"][0]["text"])
        .collect();
    assert_eq!(texts, ["a", "hello", "cut off"]);
}

#[tokio::test]
async fn a_background_response_that_was_stored_just_before_a_kill_is_not_lost() {
    let upstream = answering(WHOLE).await;
    let mut gateway = Gateway::start_in(storing("keep_days: 30", "openai", &upstream.url, ""), &[]).await;
    let body = json!({"model": "tested", "input": "a", "store": true, "background": true});
    let queued = respond(&gateway, &body).await;
    let path = format!("/v1/responses/{}", queued["id"].as_str().expect("an id"));
    let done = wait_for("the end", || async {
        let (_, shown) = get(&gateway, &path).await;
        (shown["status"] == "completed").then_some(shown)
    })
    .await;
    gateway.signal("TERM");
    gateway.ended().await;
    // As if the gateway had been killed between the storing of the response and the end of the job.
    let script = "import sqlite3; c = sqlite3.connect('data/usage.db'); \
        c.execute('UPDATE jobs SET finished_at = NULL, answer = NULL'); c.commit()";
    let python = std::process::Command::new("python3")
        .args(["-c", script])
        .current_dir(gateway.dir.path())
        .status();
    assert!(python.expect("python runs").success());
    let gateway = Gateway::start_in(gateway.left(), &[]).await;
    let again = wait_for("the end", || async {
        let (_, shown) = get(&gateway, &path).await;
        (!matches!(shown["status"].as_str(), Some("queued" | "in_progress"))).then_some(shown)
    })
    .await;
    assert_eq!(again, done);
    let sent = upstream.requests.lock().expect("no panic").len();
    assert_eq!(sent, 1, "it is not made twice");
}

/// A conversation of two projects through a restart, on a database.
async fn outlives_a_restart(flags: &[&str]) {
    let upstream = answering(WHOLE).await;
    let flags = [&["--identity", "keys"], flags].concat();
    let mut gateway = Gateway::start_in(storing("keep_days: 30", "openai", &upstream.url, ""), &flags).await;
    let mut keys = Vec::new();
    for user in ["user_standard_01", "user_vip_01"] {
        let made = sluice(
            gateway.dir.path(),
            &[&["keys", "create", "--user", user], &flags[2..]].concat(),
        );
        assert!(made.status.success(), "{made:?}");
        keys.push(String::from_utf8(made.stdout).expect("text").trim().to_owned());
    }
    wait_for("valid keys", || async {
        let request = gateway
            .http
            .get(format!("{}/v1/models", gateway.proxy))
            .bearer_auth(&keys[1]);
        (request.send().await.expect("an answer").status() == 200).then_some(())
    })
    .await;
    let ask = |gateway: &Gateway, by: usize, previous: Value| {
        let body = json!({"model": "tested", "input": "a", "store": true, "previous_response_id": previous});
        let request = gateway
            .http
            .post(format!("{}/v1/responses", gateway.proxy))
            .bearer_auth(&keys[by]);
        async move {
            let answer = request.json(&body).send().await.expect("an answer");
            (answer.status().as_u16(), answer.json::<Value>().await.expect("JSON"))
        }
    };
    let (_, first) = ask(&gateway, 0, Value::Null).await;
    let (status, second) = ask(&gateway, 0, first["id"].clone()).await;
    assert_eq!(status, 200, "{second}");
    gateway.signal("TERM");
    gateway.ended().await;
    let gateway = Gateway::start_in(gateway.left(), &flags).await;
    wait_for("valid keys", || async {
        let request = gateway
            .http
            .get(format!("{}/v1/models", gateway.proxy))
            .bearer_auth(&keys[1]);
        (request.send().await.expect("an answer").status() == 200).then_some(())
    })
    .await;
    let (status, third) = ask(&gateway, 0, second["id"].clone()).await;
    assert_eq!(status, 200, "{third}");
    assert_eq!(last_body(&upstream)["messages"].as_array().map(Vec::len), Some(5));
    // To another project it does not exist: the same answer as for an id that never was.
    let (status, stolen) = ask(&gateway, 1, second["id"].clone()).await;
    let never = "resp_req_00000000000000000000000000000000";
    let (_, unknown) = ask(&gateway, 1, never.into()).await;
    let without_id = |answer: &Value, id: &str| answer.to_string().replace(id, "ID");
    let id = second["id"].as_str().expect("an id");
    assert_eq!((status, without_id(&stolen, id)), (400, without_id(&unknown, never)));
}

#[tokio::test]
async fn what_is_stored_outlives_a_restart_and_belongs_to_its_project_on_sqlite() {
    outlives_a_restart(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stored_outlives_a_restart_and_belongs_to_its_project_on_postgresql() {
    let postgres = Postgres::start();
    outlives_a_restart(&["--database-url", &postgres.url]).await;
    let kept =
        postgres.column("SELECT previous_id IS NULL FROM responses ORDER BY created_at, previous_id NULLS FIRST");
    assert_eq!(kept.len(), 3, "{kept:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_database_only_requests_that_use_storage_notice() {
    let mut postgres = Postgres::start();
    let upstream = answering(WHOLE).await;
    let dir = storing("keep_days: 30", "openai", &upstream.url, "");
    let gateway = Gateway::start_in(dir, &["--database-url", &postgres.url]).await;
    let first = respond(&gateway, &json!({"model": "tested", "input": "a", "store": true})).await;
    assert_eq!(first["store"], true);
    postgres.stop();
    let plain = respond(&gateway, &json!({"model": "tested", "input": "b"})).await;
    assert_eq!(plain["status"], "completed");
    // The tokens are spent: the client gets its answer, which says that it is not stored.
    let unstored = respond(&gateway, &json!({"model": "tested", "input": "c", "store": true})).await;
    assert_eq!(
        (&unstored["status"], &unstored["store"]),
        (&json!("completed"), &json!(false))
    );
    let next = json!({"model": "tested", "input": "d", "previous_response_id": first["id"]});
    let refused = gateway.post("/v1/responses", &next).await;
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key("retry-after"));
    assert_eq!(
        refused.json::<Value>().await.expect("JSON")["error"]["code"],
        "ledger_unavailable"
    );
    postgres.run();
    wait_for("the database", || async {
        (gateway.post("/v1/responses", &next).await.status() == 200).then_some(())
    })
    .await;
    assert_eq!(last_body(&upstream)["messages"].as_array().map(Vec::len), Some(3));
}

#[tokio::test]
async fn openais_client_stores_continues_lists_replays_and_deletes() {
    let dir = storing("keep_days: 30", "openai", "http://127.0.0.1:9", "");
    let gateway = Gateway::start_in(dir, &[]).await;
    let printed = python::run("openai_responses.py", &[&gateway.proxy, "simulated-small"]).await;
    let ids: Vec<String> = serde_json::from_str(&printed).expect("two ids");
    assert_eq!(get(&gateway, &format!("/v1/responses/{}", ids[0])).await.0, 404);
    assert_eq!(get(&gateway, &format!("/v1/responses/{}", ids[1])).await.0, 200);
}
