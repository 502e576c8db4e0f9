//! Requests and answers in odd but real forms, as a server and a client receive them.

mod native;
mod quirks;
mod reader;

use end_to_end::upstream::{FINISH, Scripted, WHOLE, delta};
use end_to_end::{Gateway, all_that_comes, config_dir, roomy, with_model};
use native::Native;
use quirks::{Outcome, Quirk};
use reader::{Client, read};
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

/// A request for a stream, with tools, in each client's words.
fn requests() -> [(Client, &'static str, Value); 4] {
    let message = json!([{"role": "user", "content": "hi"}]);
    let schema = json!({"type": "object"});
    let functions = json!([{"type": "function", "function": {"name": "f", "parameters": schema}}]);
    [
        (
            Client::Chat,
            "/v1/chat/completions",
            json!({"model": "tested", "messages": message, "stream": true, "stream_options": {"include_usage": true}, "tools": functions}),
        ),
        (
            Client::Messages,
            "/v1/messages",
            json!({"model": "tested", "max_tokens": 100, "messages": message, "stream": true, "tools": [{"name": "f", "input_schema": schema}]}),
        ),
        (
            Client::Responses,
            "/v1/responses",
            json!({"model": "tested", "input": "hi", "stream": true, "tools": [{"type": "function", "name": "f", "parameters": schema}]}),
        ),
        (
            Client::Ollama,
            "/api/chat",
            json!({"model": "tested", "messages": message, "tools": functions}),
        ),
    ]
}

/// A server that answers each request with the stream that its prompt's system message names by number.
async fn server(streams: Vec<String>) -> Scripted {
    Scripted::start(move |mut connection| {
        let streams = streams.clone();
        async move {
            while connection.read_request().await {
                let (_, number) = connection.own_request.rsplit_once("quirk-").expect("a number");
                let digits = number.split(|letter: char| !letter.is_ascii_digit()).next();
                let stream = &streams[digits
                    .and_then(|digits| digits.parse::<usize>().ok())
                    .expect("a number")];
                connection.begin_stream().await;
                if !stream.is_empty() {
                    connection.chunk(stream).await;
                }
                connection.chunk("").await;
            }
        }
    })
    .await
}

/// Sends every stream to a client of every protocol; a client of the server's own gets its bytes.
async fn every_client_reads(quirks: Vec<Quirk>) {
    let upstream = server(quirks.iter().map(|(_, stream, _)| stream.clone()).collect()).await;
    let gateway = Gateway::with_upstream("openai", &upstream.url, "").await;
    let mut wrong = Vec::new();
    for (number, (name, stream, outcome)) in quirks.iter().enumerate() {
        for (client, path, body) in requests() {
            let body = body.to_string().replace("\"hi\"", &format!("\"quirk-{number}\""));
            let body = serde_json::from_str(&body).expect("JSON");
            let request = gateway
                .http
                .post(format!("{}{path}", gateway.proxy))
                .json::<Value>(&body);
            let sent = request.header("x-request-id", format!("quirk-{number}")).send().await;
            let (got, is_whole) = all_that_comes(sent.expect("an answer")).await;
            let is_right = match (outcome, client) {
                (Outcome::Says(_), _) if !is_whole => false,
                // Bytes after the end are nobody's.
                (Outcome::Says(_), Client::Chat) => {
                    !got.is_empty() && stream.starts_with(&got) && got.contains("data:")
                }
                (Outcome::Says(answer), _) => read(client, &got).as_ref() == Ok(answer),
                (Outcome::Fails(why), _) => read(client, &got).is_err() && got.contains(why),
            };
            if !is_right {
                wrong.push(format!("{name}, {client:?}: {:?}\n  {got}", read(client, &got)));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let records = gateway.wait_for_records(quirks.len() * 4).await;
    let completed = records.iter().filter(|record| record["status"] == "completed");
    let said = quirks
        .iter()
        .filter(|(_, _, outcome)| matches!(outcome, Outcome::Says(_)));
    assert_eq!(completed.clone().count(), said.count() * 4);
    for record in completed {
        let figures = (
            &record["input_tokens"],
            &record["output_tokens"],
            &record["usage_source"],
        );
        let number = record["client_request_id"]
            .as_str()
            .and_then(|id| id.strip_prefix("quirk-"));
        let name = number.and_then(|number| Some(quirks.get(number.parse::<usize>().ok()?)?.0));
        assert_eq!(
            figures,
            (&json!(10), &json!(3), &json!("upstream")),
            "{name:?}: {record}"
        );
    }
}

#[tokio::test]
async fn streams_are_read_however_their_lines_end_and_whatever_keeps_them_alive() {
    every_client_reads(quirks::framing()).await;
}

#[tokio::test]
async fn an_error_in_a_stream_reaches_every_client_with_its_sentence() {
    every_client_reads(quirks::errors()).await;
}

#[tokio::test]
async fn text_and_reasoning_are_read_under_every_name_and_beside_every_wrong_type() {
    every_client_reads(quirks::texts()).await;
}

#[tokio::test]
async fn reasons_to_finish_and_usage_are_read_in_every_form() {
    every_client_reads(quirks::ends()).await;
}

#[tokio::test]
async fn calls_of_tools_are_read_in_whatever_pieces_they_come() {
    every_client_reads(quirks::tools()).await;
}

/// Sends every stream to a client of the server's own protocol: its bytes are the same, and what it says is billed.
async fn passes_as_it_is(backend: &str, path: &str, body: Value, natives: Vec<Native>) {
    let upstream = server(natives.iter().map(|(_, stream, _)| stream.clone()).collect()).await;
    let dir = config_dir(|name, text| match name {
        "models.yaml" => {
            with_model(&text, "tested", backend, &upstream.url, "") + "    native_apis: [anthropic, responses]\n"
        }
        _ => roomy(name, text),
    });
    let gateway = Gateway::start_in(dir, &[]).await;
    for (number, (name, stream, is_complete)) in natives.iter().enumerate() {
        let body = body.to_string().replace("\"hi\"", &format!("\"quirk-{number}\""));
        let body = serde_json::from_str(&body).expect("JSON");
        let (got, is_whole) = all_that_comes(gateway.post(path, &body).await).await;
        if *is_complete {
            assert_eq!((&got, is_whole), (stream, true), "{name}");
        } else {
            assert!(got.contains("error"), "{name}: {got}");
        }
        let records = gateway.wait_for_records(number + 1).await;
        let record = &records[0];
        let figures = (
            &record["status"],
            &record["input_tokens"],
            &record["output_tokens"],
            &record["usage_source"],
        );
        if *is_complete {
            let billed = (&json!("completed"), &json!(10), &json!(3), &json!("upstream"));
            assert_eq!(figures, billed, "{name}");
        } else {
            assert_eq!(record["status"], "failed", "{name}");
        }
    }
}

#[tokio::test]
async fn a_stream_of_the_clients_own_protocol_passes_as_it_is_and_is_billed_by_its_figures() {
    let message = json!([{"role": "user", "content": "hi"}]);
    let request = json!({"model": "tested", "max_tokens": 100, "stream": true, "messages": message});
    passes_as_it_is("openai", "/v1/messages", request.clone(), native::messages()).await;
    let response = json!({"model": "tested", "stream": true, "input": "hi"});
    passes_as_it_is("openai", "/v1/responses", response, native::responses()).await;
    passes_as_it_is("ollama", "/api/chat", request, native::ollama()).await;
}
