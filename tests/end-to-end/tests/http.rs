//! HTTP as clients really speak it: sizes, framings, slow senders, many at once.

use end_to_end::upstream::{Scripted, WHOLE};
use end_to_end::{Gateway, config_dir, roomy};
use futures_util::future::join_all;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Writes raw bytes, half-closes nothing, and reads until the text has come (or the end, or 5 s).
async fn raw(address: &str, parts: &[&str], until: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("connected");
    let mut got = Vec::new();
    for part in parts {
        stream.write_all(part.as_bytes()).await.expect("written");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut buffer = [0; 4096];
    while !String::from_utf8_lossy(&got).contains(until) {
        match tokio::time::timeout(Duration::from_secs(5), stream.read(&mut buffer)).await {
            Ok(Ok(count)) if count > 0 => got.extend_from_slice(&buffer[..count]),
            _ => break,
        }
    }
    String::from_utf8_lossy(&got).into_owned()
}

#[tokio::test]
async fn a_prompt_of_four_megabytes_arrives_byte_for_byte() {
    let upstream = Scripted::answering(WHOLE).await;
    let gateway = Gateway::with_upstream("openai", &upstream.url, "").await;
    let prompt = "all work and no play ".repeat(200_000);
    let body = json!({"messages": [{"role": "user", "content": prompt}], "x": [1.50, null, {"y": "\u{e9}"}], "model": "tested", "max_tokens": 5}).to_string();
    let request = gateway
        .http
        .post(format!("{}/v1/chat/completions", gateway.proxy))
        .body(body.clone());
    let answer = request.send().await.expect("an answer");
    assert_eq!(answer.status(), 200);
    assert_eq!(
        answer.text().await.expect("text"),
        WHOLE,
        "the answer is untouched, too"
    );
    assert!(upstream.last_request().ends_with(&body), "the body is untouched");
}

#[tokio::test]
async fn only_what_has_to_change_is_changed_and_no_credential_goes_upstream() {
    let upstream = Scripted::answering(WHOLE).await;
    let gateway = Gateway::with_upstream("openai", &upstream.url, ", api_key_env: UPSTREAM_KEY").await;
    let body = r#"{ "messages":[], "weird" : 1.0e2,"max_tokens" : 99999, "model":"tested"}"#;
    let request = gateway.http.post(format!("{}/v1/chat/completions?x=1", gateway.proxy));
    let request = request
        .header("cookie", "a=b")
        .header("x-api-key", "secret-of-the-client")
        .bearer_auth("another-secret");
    assert_eq!(request.body(body).send().await.expect("an answer").status(), 200);
    let seen = upstream.last_request();
    assert!(seen.ends_with(&body.replace("99999", "4096")), "{seen}");
    let head = seen.to_ascii_lowercase();
    assert!(head.contains("authorization: bearer sk-up"));
    for secret in ["cookie", "secret", "x-api-key", "transfer-encoding"] {
        assert!(!head.contains(secret), "{secret}: {head}");
    }
}

#[tokio::test]
async fn a_body_over_the_bound_is_refused_before_it_is_read() {
    let gateway = Gateway::start().await;
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 99999999999\r\n\r\n";
    let answer = raw(gateway.address(), &[head], "body_too_large").await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert_eq!(gateway.wait_for_records(1).await[0]["reason"], "body_too_large");
}

#[tokio::test]
async fn chunked_bodies_continue_and_keep_alive_work() {
    let upstream = Scripted::answering(WHOLE).await;
    let gateway = Gateway::with_upstream("openai", &upstream.url, "").await;
    let body = r#"{"model":"tested","messages":[],"max_tokens":3}"#;
    let (first, second) = body.split_at(10);
    let chunked = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{first}\r\n",
        first.len()
    );
    let rest = format!("{:x}\r\n{second}\r\n0\r\n\r\n", second.len());
    let answer = raw(gateway.address(), &[&chunked, &rest], WHOLE).await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with(WHOLE),
        "{answer}"
    );

    let length = body.len();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {length}\r\nexpect: 100-continue\r\n\r\n"
    );
    let answer = raw(gateway.address(), &[&head, body], WHOLE).await;
    assert!(
        answer.starts_with("HTTP/1.1 100") && answer.contains("HTTP/1.1 200"),
        "{answer}"
    );

    let request =
        format!("POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {length}\r\n\r\n{body}");
    let last = request.replace("host: 127.0.0.1", "host: 127.0.0.1\r\nx-request-id: the-last");
    let pipelined = format!("{request}{request}{last}");
    let answer = raw(gateway.address(), &[&pipelined], "the-last").await;
    assert_eq!(
        answer.matches("HTTP/1.1 200").count(),
        3,
        "three on one connection: {answer}"
    );
}

#[tokio::test]
async fn http2_without_tls_works() {
    let gateway = Gateway::start().await;
    let client = reqwest::Client::builder()
        .http2_prior_knowledge()
        .build()
        .expect("a client");
    let body = json!({"model": "simulated-small", "messages": [], "max_tokens": 3, "stream": true});
    let request = client
        .post(format!("{}/v1/chat/completions", gateway.proxy))
        .json(&body);
    let answer = request.send().await.expect("an answer");
    assert_eq!(
        (answer.status().as_u16(), answer.version()),
        (200, reqwest::Version::HTTP_2)
    );
    assert!(answer.text().await.expect("text").ends_with("data: [DONE]\n\n"));
}

#[tokio::test]
async fn a_sender_too_slow_is_let_go() {
    let dir = config_dir(|name, text| match name {
        "gateway.yaml" => text
            .replace("head_seconds: 10 ", "head_seconds: 0.3 ")
            .replace("body_seconds: 60 ", "body_seconds: 0.3 "),
        _ => roomy(name, text),
    });
    let gateway = Gateway::start_in(dir, &[]).await;
    let answer = raw(
        gateway.address(),
        &["POST /v1/chat/completions HTTP/1.1\r\nhost:"],
        "408",
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 50\r\n\r\n{\"mod";
    let answer = raw(gateway.address(), &[head], "request_timeout").await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
}

#[tokio::test]
async fn malformed_requests_are_answered_and_disturb_no_others() {
    let gateway = Gateway::start().await;
    for nonsense in [
        "\0\u{1}\u{2}\r\n\r\n",
        "GET\r\n\r\n",
        "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: -1\r\n\r\n",
        "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        "TRACE / HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n",
        "CONNECT x:1 HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n",
    ] {
        let answer = raw(gateway.address(), &[nonsense], "\r\n\r\n").await;
        assert!(!answer.starts_with("HTTP/1.1 2"), "{nonsense:?}: {answer}");
    }
    let health = gateway
        .http
        .get(format!("{}/health", gateway.proxy))
        .send()
        .await
        .expect("an answer");
    assert_eq!(health.json::<Value>().await.expect("JSON"), json!({"status": "ok"}));
    assert!(!gateway.log().contains("panicked"), "{}", gateway.log());
}

#[tokio::test]
async fn three_hundred_streams_at_once_are_unbroken() {
    let gateway = Gateway::start().await;
    let body = json!({"model": "simulated-large", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 50, "stream": true});
    let one = || async {
        gateway
            .post("/v1/chat/completions", &body)
            .await
            .text()
            .await
            .expect("unbroken")
    };
    for text in join_all((0..300).map(|_| one())).await {
        assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
        assert_eq!(text.matches("\"delta\":{\"content\"").count(), 50);
    }
    let records = gateway.records().await;
    assert_eq!(records.len(), 300);
    assert!(
        records
            .iter()
            .all(|record| record["status"] == "completed" && record["output_tokens"] == 50)
    );
}
