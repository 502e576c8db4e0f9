//! HTTP/1 framing that programs before the gateway could read otherwise than it does: after any doubt the connection
//! closes, and bytes that were smuggled behind a request are never answered as one of their own.

use end_to_end::Gateway;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const BODY: &str = r#"{"model":"simulated-small","messages":[{"role":"user","content":"x"}],"max_tokens":2}"#;

/// A request that must not be answered.
const SMUGGLED: &str = "GET /v1/models HTTP/1.1\r\nhost: 127.0.0.1\r\nx-request-id: smuggled\r\n\r\n";

/// Sends bytes, one part a moment after the other, and reads until the gateway closes the connection.
async fn answers(gateway: &Gateway, parts: &[&str]) -> String {
    let mut stream = TcpStream::connect(gateway.address()).await.expect("connected");
    for part in parts {
        // The gateway may have closed already.
        let _ = stream.write_all(part.as_bytes()).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut bytes)).await;
    let _ = read.expect("the gateway closes the connection");
    String::from_utf8_lossy(&bytes).into_owned()
}

fn post(headers: &str) -> String {
    format!("POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\n{headers}\r\n")
}

#[tokio::test]
async fn nothing_is_read_after_a_request_whose_framing_is_broken() {
    let gateway = Gateway::start().await;
    let chunked = post("transfer-encoding: chunked\r\n");
    let size = BODY.len();
    for (name, body) in [
        ("a line feed ends the size", "4\n".to_owned()),
        ("a size that is no number", "zz\r\n".to_owned()),
        ("a negative size", "-5\r\n".to_owned()),
        ("a size with a prefix", "0x5\r\n".to_owned()),
        ("a size with a sign", "+5\r\n".to_owned()),
        ("a size beyond 64 bits", "fffffffffffffffff\r\n".to_owned()),
        ("no size", "\r\n".to_owned()),
        ("a chunk longer than its size", format!("2\r\n{BODY}\r\n0\r\n\r\n")),
        ("an extension without an end", format!("5;{}", "x".repeat(64 << 10))),
    ] {
        let answer = answers(&gateway, &[&chunked, &body, SMUGGLED]).await;
        assert!(
            answer.starts_with("HTTP/1.1 400") || answer.is_empty(),
            "{name}: {answer}"
        );
        assert!(answer.matches("HTTP/1.1 ").count() <= 1, "{name}: {answer}");
        assert!(!answer.contains("smuggled"), "{name}: {answer}");
    }
    for (name, headers) in [
        (
            "two lengths",
            format!("content-length: {size}\r\ncontent-length: 3\r\n"),
        ),
        ("a length with a sign", format!("content-length: +{size}\r\n")),
        (
            "an encoding that is not chunked",
            "transfer-encoding: identity\r\n".to_owned(),
        ),
        (
            "chunked is not the last",
            "transfer-encoding: chunked, gzip\r\n".to_owned(),
        ),
        (
            "an encoding that looks like chunked",
            "transfer-encoding: xchunked\r\n".to_owned(),
        ),
        ("a space before the colon", format!("content-length : {size}\r\n")),
        (
            "a folded header",
            format!("x-a: b\r\n c: d\r\ncontent-length: {size}\r\n"),
        ),
    ] {
        let answer = answers(&gateway, &[&post(&headers), BODY, SMUGGLED]).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{name}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{name}: {answer}");
    }
}

#[tokio::test]
async fn a_request_with_both_length_and_chunks_is_the_last_of_its_connection() {
    let gateway = Gateway::start().await;
    let chunks = format!("{:x}\r\n{BODY}\r\n0\r\n\r\n", BODY.len());
    let both = post("content-length: 4\r\ntransfer-encoding: chunked\r\n");
    let answer = answers(&gateway, &[&both, &chunks, SMUGGLED]).await;
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    assert!(answer.to_ascii_lowercase().contains("connection: close"), "{answer}");
    // Line feeds in an extension end a line for some programs.
    let extended = post("transfer-encoding: chunked\r\n");
    let chunks = format!("{:x};a\nb\r\n{BODY}\r\n0\r\n\r\n", BODY.len());
    let answer = answers(&gateway, &[&extended, &chunks, SMUGGLED]).await;
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
}

#[tokio::test]
async fn http_1_1_without_a_host_is_refused() {
    let gateway = Gateway::start().await;
    for path in ["/health", "/v1/models", "http://127.0.0.1/health"] {
        let answer = answers(&gateway, &[&format!("GET {path} HTTP/1.1\r\n\r\n"), SMUGGLED]).await;
        assert!(
            answer.starts_with("HTTP/1.1 400") && answer.contains("host"),
            "{answer}"
        );
        assert_eq!(
            answer.matches("HTTP/1.1 ").count() - answer.matches("an HTTP/1.1 request").count(),
            1,
            "{answer}"
        );
    }
    let two = "GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\nhost: 127.0.0.2\r\n\r\n";
    assert!(answers(&gateway, &[two]).await.starts_with("HTTP/1.1 400"));
}

#[tokio::test]
async fn http_1_0_is_answered_without_chunks_until_the_connection_closes() {
    let gateway = Gateway::start().await;
    let answer = answers(&gateway, &["GET /health HTTP/1.0\r\n\r\n"]).await;
    assert!(answer.ends_with(r#"{"status":"ok"}"#), "{answer}");
    for is_streamed in ["false", "true"] {
        let body = BODY.replace("\"max_tokens\"", &format!("\"stream\":{is_streamed},\"max_tokens\""));
        let head = format!(
            "POST /v1/chat/completions HTTP/1.0\r\nconnection: keep-alive\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let answer = answers(&gateway, &[&head, &body, SMUGGLED]).await;
        let (head, content) = answer.split_once("\r\n\r\n").expect("a head");
        assert!(head.contains(" 200 "), "{answer}");
        assert!(!head.to_ascii_lowercase().contains("transfer-encoding"), "{head}");
        let is_whole = if is_streamed == "true" {
            content.starts_with("data: {") && content.ends_with("data: [DONE]\n\n")
        } else {
            content.starts_with('{') && content.ends_with('}')
        };
        assert!(is_whole, "{content}");
    }
}
