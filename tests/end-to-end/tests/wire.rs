//! Requests and answers in odd but real forms, as a server and a client receive them.

use end_to_end::Gateway;
use end_to_end::upstream::{FINISH, Scripted, WHOLE, delta};
use serde_json::{Value, json};

/// The body of the request that a server has read last.
fn asked(upstream: &Scripted) -> Value {
    let request = upstream.last_request();
    let (_, body) = request.split_once("\r\n\r\n").expect("a head and a body");
    serde_json::from_str(body).unwrap_or_default()
}

/// Ollama unloads a model after a request with `keep_alive: 0`, and other projects use the same model.
#[tokio::test]
async fn no_client_unloads_the_model_of_an_ollama_server_with_a_request() {
    let upstream = Scripted::answering(
        r#"{"model":"tested","message":{"role":"assistant","content":"hello"},"response":"hello","embeddings":[[1]],"embedding":[1],"done":true,"done_reason":"stop","prompt_eval_count":3,"eval_count":1}"#,
    )
    .await;
    let gateway = Gateway::with_upstream("ollama", &upstream.url, "").await;
    let message = json!([{"role": "user", "content": "hi"}]);
    let requests = [
        ("/api/chat", json!({"stream": false, "messages": message})),
        ("/api/generate", json!({"stream": false, "prompt": "hi"})),
        ("/api/embed", json!({"input": "hi"})),
        ("/api/embeddings", json!({"prompt": "hi"})),
        ("/v1/chat/completions", json!({"messages": message})),
    ];
    for (path, mut body) in requests {
        body["model"] = "tested".into();
        for (keep_alive, is_sent) in [(json!(0), false), (json!("0s"), false), (json!(600), true)] {
            body["keep_alive"] = keep_alive.clone();
            let answer = gateway.post(path, &body).await;
            let dropped = answer.headers().get("x-sluice-dropped").cloned();
            assert_eq!(answer.status(), 200, "{path} {keep_alive}");
            let sent = asked(&upstream).get("keep_alive").cloned();
            assert_eq!(sent, is_sent.then_some(keep_alive), "{path}");
            let names = dropped.as_ref().map(|names| names.to_str().expect("ASCII"));
            assert_eq!(names, (!is_sent).then_some("keep_alive"), "{path}");
        }
    }
}

#[tokio::test]
async fn the_name_of_a_dropped_field_cannot_break_the_head_of_an_answer() {
    let upstream = Scripted::answering(WHOLE).await;
    let gateway = Gateway::with_upstream("openai", &upstream.url, "").await;
    let body = json!({"model": "tested", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}],
        "x\r\nset-cookie: a, b\u{e9}": 1});
    let answer = gateway.post("/v1/messages", &body).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["x-sluice-dropped"], "x??set-cookie:?a??b?");
    assert!(!answer.headers().contains_key("set-cookie"));
}

/// Old servers and strict ones refuse `stream_options`, which only the gateway asks for.
#[tokio::test]
async fn a_server_that_refuses_stream_options_is_asked_again_without_them_for_clients_of_every_protocol() {
    let upstream = Scripted::start(|mut connection| async move {
        while connection.read_request().await {
            if connection.last_request().contains("stream_options") {
                let refusal = r#"{"detail":[{"type":"extra_forbidden","loc":["body","stream_options"],"msg":"Extra inputs are not permitted"}]}"#;
                connection.answer("422 Unprocessable Entity", refusal).await;
            } else {
                connection.begin_stream().await;
                for event in [delta("hello").as_str(), FINISH, "data: [DONE]\n\n"] {
                    connection.chunk(event).await;
                }
                connection.chunk("").await;
            }
        }
    })
    .await;
    let gateway = Gateway::with_upstream("openai", &upstream.url, "").await;
    let message = json!([{"role": "user", "content": "hi"}]);
    for (path, body) in [
        (
            "/v1/chat/completions",
            json!({"model": "tested", "stream": true, "messages": message}),
        ),
        (
            "/v1/messages",
            json!({"model": "tested", "stream": true, "max_tokens": 9, "messages": message}),
        ),
        (
            "/v1/responses",
            json!({"model": "tested", "stream": true, "input": "hi"}),
        ),
        ("/api/chat", json!({"model": "tested", "messages": message})),
    ] {
        let answer = gateway.post(path, &body).await;
        assert_eq!(answer.status(), 200, "{path}");
        assert!(answer.text().await.expect("a stream").contains("hello"), "{path}");
    }
}

#[tokio::test]
async fn every_status_of_success_is_one() {
    let upstream = Scripted::start(|mut connection| async move {
        while connection.read_request().await {
            connection.answer("201 Created", WHOLE).await;
        }
    })
    .await;
    let gateway = Gateway::with_upstream("openai", &upstream.url, "").await;
    let message = json!([{"role": "user", "content": "hi"}]);
    for (path, body) in [
        ("/v1/chat/completions", json!({"model": "tested", "messages": message})),
        (
            "/v1/messages",
            json!({"model": "tested", "max_tokens": 9, "messages": message}),
        ),
    ] {
        let answer = gateway.post(path, &body).await;
        assert_eq!(answer.status(), 200, "{path}");
        assert!(answer.text().await.expect("an answer").contains("hello"), "{path}");
    }
    let records = gateway.wait_for_records(2).await;
    assert!(records.iter().all(|record| record["output_tokens"] == 7), "{records:?}");
}
