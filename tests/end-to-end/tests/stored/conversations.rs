//! What the model reads in a conversation that the gateway remembers.

use super::{OLLAMA, get, items, last_body, respond, storing, turns};
use end_to_end::upstream::{Scripted, USAGE, WHOLE, delta};
use end_to_end::{Gateway, python, wait_for};
use serde_json::{Value, json};

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
    let upstream = Scripted::answering(WHOLE).await;
    let gateway = Gateway::start_in(storing("keep_days: 30", "openai", &upstream.url, ""), &[]).await;
    reads_the_same(&gateway, &upstream).await;
}

#[tokio::test]
async fn over_an_ollama_server_the_model_reads_what_a_client_that_sends_everything_has_it_read() {
    let upstream = Scripted::answering(OLLAMA).await;
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
    let upstream = Scripted::answering(NATIVE).await;
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
async fn an_item_reference_stands_for_an_output_item_of_a_stored_response() {
    for (api, answer, more) in [
        ("openai", WHOLE, ""),
        ("openai", NATIVE, "    native_apis: [responses]\n"),
        ("ollama", OLLAMA, ""),
    ] {
        let upstream = Scripted::answering(answer).await;
        let gateway = Gateway::start_in(storing("keep_days: 30", api, &upstream.url, more), &[]).await;
        let first = respond(&gateway, &json!({"model": "tested", "input": "a", "store": true})).await;
        let item = first["output"][0].clone();
        let with = |item: &Value| json!({"model": "tested", "input": [{"role": "user", "content": "a"}, item, {"role": "user", "content": "b"}], "store": true});
        let reference = json!({"type": "item_reference", "id": item["id"]});
        let second = respond(&gateway, &with(&reference)).await;
        let referred = last_body(&upstream);
        respond(&gateway, &with(&item)).await;
        assert_eq!(
            referred,
            last_body(&upstream),
            "{api}: the server reads the item itself"
        );
        // What is kept of the request does not depend on the first response.
        let (first, second) = (
            first["id"].as_str().expect("an id"),
            second["id"].as_str().expect("an id"),
        );
        let deleted = gateway
            .http
            .delete(format!("{}/v1/responses/{first}", gateway.proxy))
            .send()
            .await;
        assert_eq!(deleted.expect("an answer").status(), 200);
        let listed = get(&gateway, &format!("/v1/responses/{second}/input_items?order=asc")).await;
        assert_eq!(
            listed.1["data"][1]["content"][0]["text"], item["content"][0]["text"],
            "{listed:?}"
        );
        // The scripted server of responses gives the same id again and again.
        let gone = if answer == NATIVE {
            json!({"type": "item_reference", "id": "msg_2"})
        } else {
            reference
        };
        let lost = gateway.post("/v1/responses", &with(&gone)).await;
        assert_eq!(lost.status(), 404);
        let lost: Value = lost.json().await.expect("JSON");
        assert_eq!(
            (&lost["error"]["code"], &lost["error"]["param"]),
            (&json!("item_not_found"), &json!("input"))
        );
    }
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
    let upstream = Scripted::answering(WHOLE).await;
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
    let upstream = Scripted::answering(WHOLE).await;
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
    let upstream = Scripted::answering(WHOLE).await;
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
async fn openais_client_stores_continues_lists_replays_and_deletes() {
    let dir = storing("keep_days: 30", "openai", "http://127.0.0.1:9", "");
    let gateway = Gateway::start_in(dir, &[]).await;
    let printed = python::run("openai_responses.py", &[&gateway.proxy, "simulated-small"]).await;
    let ids: Vec<String> = serde_json::from_str(&printed).expect("two ids");
    assert_eq!(get(&gateway, &format!("/v1/responses/{}", ids[0])).await.0, 404);
    assert_eq!(get(&gateway, &format!("/v1/responses/{}", ids[1])).await.0, 200);
}
