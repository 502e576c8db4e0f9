//! Transcriptions: what servers answer, what reaches the client, and what is billed.

use super::{TEXT, answering, field, file, form, gateway, send, wav};
use end_to_end::upstream::Scripted;
use serde_json::{Value, json};
use std::time::Duration;

#[tokio::test]
async fn a_servers_own_duration_counts_unless_it_is_absurd() {
    for (answer, input) in [
        (r#"{"text":"hello","usage":{"type":"duration","seconds":4}}"#, 100),
        (r#"{"text":"hello","usage":{"type":"duration","seconds":86400000}}"#, 50),
        (r#"{"text":"hello","usage":{"type":"duration","seconds":-5}}"#, 50),
        (
            r#"{"text":"hello","usage":{"type":"tokens","input_tokens":31,"output_tokens":2,"total_tokens":33}}"#,
            31,
        ),
    ] {
        let upstream = answering("application/json", answer).await;
        let gateway = gateway("openai", &upstream.url, "").await;
        let body = form(&[file(&wav(2.0)), field("model", "whisper")]);
        let sent = send(&gateway, "/v1/audio/translations", body).await;
        assert_eq!(sent.text().await.expect("text"), answer);
        let record = &gateway.wait_for_records(1).await[0];
        assert_eq!(record["input_tokens"], json!(input), "{answer}");
        assert_eq!(record["input_tokens_estimated"], 50);
        assert_eq!(record["output_tokens_reserved"], 448);
    }
}

#[tokio::test]
async fn a_streams_events_arrive_as_they_come_and_the_last_after_the_record() {
    let upstream = Scripted::start(|mut connection| async move {
        while connection.read_request().await {
            connection.begin_stream().await;
            connection
                .chunk("data: {\"type\":\"transcript.text.delta\",\"delta\":\"hel\"}\n\n")
                .await;
            let read = connection.stream.readable();
            let _ = tokio::time::timeout(Duration::from_millis(300), read).await;
            let done = "data: {\"type\":\"transcript.text.done\",\"text\":\"hello\",\"usage\":{\"type\":\"tokens\",\
                        \"input_tokens\":20,\"output_tokens\":3,\"total_tokens\":23}}\n\n";
            connection.chunk(done).await;
            connection.write("0\r\n\r\n").await;
        }
    })
    .await;
    let gateway = gateway("openai", &upstream.url, "").await;
    let body = form(&[field("stream", "true"), file(&wav(2.0)), field("model", "whisper")]);
    let mut answer = send(&gateway, "/v1/audio/transcriptions", body).await;
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let first = answer.chunk().await.expect("a piece").expect("a piece");
    assert!(first.ends_with(b"\"hel\"}\n\n"), "{first:?}");
    let rest = answer.text().await.expect("text");
    assert!(
        rest.contains("transcript.text.done") && rest.contains("hello"),
        "{rest}"
    );
    let record = &gateway.records().await[0];
    assert_eq!(
        (&record["input_tokens"], &record["output_tokens"]),
        (&json!(20), &json!(3))
    );
    assert_eq!(
        (&record["streamed"], &record["usage_source"]),
        (&json!(true), &json!("upstream"))
    );
}

#[tokio::test]
async fn a_server_that_does_not_stream_is_passed_on_as_it_answers() {
    let upstream = answering("text/vtt", "WEBVTT\n\n00:00.000 --> 00:02.000\nhello there\n").await;
    let gateway = gateway("openai", &upstream.url, "").await;
    let body = form(&[
        field("stream", "true"),
        field("response_format", "vtt"),
        file(&wav(2.0)),
        field("model", "tested"),
    ]);
    let answer = send(&gateway, "/v1/audio/transcriptions", body).await;
    assert_eq!(answer.headers()["content-type"], "text/vtt");
    assert!(answer.text().await.expect("text").ends_with("hello there\n"));
    let record = &gateway.wait_for_records(1).await[0];
    assert_eq!(
        (&record["input_tokens"], &record["usage_source"]),
        (&json!(50), &json!("counted"))
    );
    assert!(
        record["output_tokens"]
            .as_u64()
            .is_some_and(|tokens| (2..=4).contains(&tokens)),
        "{record}"
    );
}

#[tokio::test]
async fn a_servers_refusal_reaches_the_client_and_costs_nothing() {
    let upstream = Scripted::start(|mut connection| async move {
        while connection.read_request().await {
            let body =
                r#"{"error":{"message":"Invalid or unsupported audio file.","type":"BadRequestError","code":400}}"#;
            connection.answer("400 Bad Request", body).await;
        }
    })
    .await;
    let gateway = gateway("openai", &upstream.url, "").await;
    let body = form(&[file(b"no sound"), field("model", "whisper")]);
    let answer = send(&gateway, "/v1/audio/transcriptions", body).await;
    assert_eq!(answer.status(), 400);
    assert!(answer.text().await.expect("text").contains("unsupported audio file"));
    let speech = gateway
        .post(
            "/v1/audio/speech",
            &json!({"model": "whisper", "input": "a", "voice": "b"}),
        )
        .await;
    assert_eq!(speech.status(), 400);
    for record in gateway.wait_for_records(2).await {
        assert_eq!(
            (&record["status"], &record["cost_eur"]),
            (&json!("failed"), &json!(0.0))
        );
        assert!(
            record["error_message"]
                .as_str()
                .is_some_and(|why| why.contains("unsupported audio file")),
            "{record}"
        );
    }
}

#[tokio::test]
async fn a_server_of_ollamas_api_has_no_such_endpoints_and_the_refusal_says_so() {
    let upstream = answering("application/json", TEXT).await;
    let gateway = gateway("ollama", &upstream.url, "").await;
    let body = form(&[file(b"x"), field("model", "whisper")]);
    let answers = [
        send(&gateway, "/v1/audio/transcriptions", body).await,
        gateway
            .post(
                "/v1/audio/speech",
                &json!({"model": "tested", "input": "a", "voice": "b"}),
            )
            .await,
        gateway
            .post("/v1/images/generations", &json!({"model": "tested", "prompt": "a"}))
            .await,
    ];
    for (answer, path) in
        answers
            .into_iter()
            .zip(["/v1/audio/transcriptions", "/v1/audio/speech", "/v1/images/generations"])
    {
        assert_eq!(answer.status(), 400);
        let error: Value = answer.json().await.expect("JSON");
        assert!(
            error["error"]["message"].as_str().is_some_and(|why| why.contains(path)),
            "{error}"
        );
    }
    assert!(upstream.requests.lock().expect("no panic").is_empty());
}
