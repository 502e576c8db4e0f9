//! Bodies that strangers send, and bodies that do not end: a request without a valid key costs its head, and what has
//! arrived of a body counts in `bounds.max_buffered_bytes`.

use end_to_end::{Gateway, config_dir, roomy, wait_for};
use std::io::Write;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const MEGABYTE: usize = 1 << 20;

/// Sends a head and as much of a body as the gateway takes within 10 s; the connection and whether all of it was taken.
async fn sent(gateway: &Gateway, path: &str, framing: &str, body: &[u8]) -> (TcpStream, bool) {
    let mut stream = TcpStream::connect(gateway.address()).await.expect("connected");
    let head = format!("POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n{framing}\r\n");
    stream.write_all(head.as_bytes()).await.expect("written");
    let written = tokio::time::timeout(Duration::from_secs(10), stream.write_all(body)).await;
    (stream, matches!(written, Ok(Ok(()))))
}

async fn answer(stream: &mut TcpStream) -> String {
    let mut bytes = vec![0; 4096];
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read(&mut bytes)).await;
    let count = read.expect("an answer").unwrap_or(0);
    String::from_utf8_lossy(&bytes[..count]).into_owned()
}

/// The gateway's peak of memory, in bytes.
fn peak(gateway: &Gateway) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).expect("readable");
    let line = status.lines().find(|line| line.starts_with("VmHWM")).expect("a line");
    let kilobytes = line.split_whitespace().nth(1).expect("a number");
    kilobytes.parse::<usize>().expect("a number") * 1024
}

#[tokio::test]
async fn a_request_without_a_key_is_answered_before_its_body_is_read() {
    let gateway = Gateway::start_in(config_dir(roomy), &["--identity", "keys"]).await;
    let before = peak(&gateway);
    let body = vec![b'x'; 31 * MEGABYTE];
    let mut open = Vec::new();
    for path in [
        "/v1/chat/completions",
        "/v1/messages",
        "/api/chat",
        "/generate",
        "/v1/files",
        "/v1/batches",
    ] {
        for framing in [
            "content-length: 33554432\r\n",
            "content-length: 33554432\r\nauthorization: Bearer sk-wrong\r\n",
        ] {
            let mut stream = TcpStream::connect(gateway.address()).await.expect("connected");
            let head = format!("POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n{framing}\r\n");
            stream.write_all(head.as_bytes()).await.expect("written");
            let answer = answer(&mut stream).await;
            assert!(answer.starts_with("HTTP/1.1 401"), "{path}: {answer}");
            // Whoever goes on is not read.
            let _ = tokio::time::timeout(Duration::from_secs(5), stream.write_all(&body)).await;
            open.push(stream);
        }
    }
    let grown = peak(&gateway).saturating_sub(before);
    assert!(grown < 31 * MEGABYTE, "{grown} bytes for 12 bodies of 31 MB");
}

/// A body of 1 MB of gzip that 1 GiB was packed into, and one of members that are empty.
#[tokio::test]
async fn a_compressed_body_is_decoded_no_further_than_its_bound() {
    let gateway = Gateway::start().await;
    let before = peak(&gateway);
    let gzip = |text: &[u8], times: usize| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        for _ in 0..times {
            encoder.write_all(text).expect("memory");
        }
        encoder.finish().expect("memory")
    };
    for (body, status) in [
        (gzip(&vec![b' '; MEGABYTE], 1024), 413),
        (gzip(b"", 0).repeat(100_000), 400),
    ] {
        let length = body.len();
        let framing = format!("connection: close\r\ncontent-encoding: gzip\r\ncontent-length: {length}\r\n");
        let (mut stream, is_taken) = sent(&gateway, "/v1/chat/completions", &framing, &body).await;
        assert!(is_taken);
        let answer = answer(&mut stream).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
    }
    let grown = peak(&gateway).saturating_sub(before);
    assert!(grown < 150 * MEGABYTE, "{grown} bytes for bodies of 1 and 2 MB");
}

#[tokio::test]
async fn bodies_that_are_being_read_count_in_the_bound_on_all_of_them() {
    let dir = config_dir(|name, text| match name {
        "gateway.yaml" => text.replacen("bounds:\n", "bounds:\n  max_buffered_bytes: 4000000\n", 1),
        _ => roomy(name, text),
    });
    let gateway = Gateway::start_in(dir, &[]).await;
    let part = vec![b' '; MEGABYTE + MEGABYTE / 2];
    let chunk = [format!("{:x}\r\n", part.len()).as_bytes(), &part, b"\r\n"].concat();
    // Two bodies that do not end hold 3 MB: one whose length is declared, one in chunks.
    let length = "content-length: 1600000\r\n";
    let first = sent(&gateway, "/v1/chat/completions", length, &part).await;
    let second = sent(
        &gateway,
        "/v1/chat/completions",
        "transfer-encoding: chunked\r\n",
        &chunk,
    )
    .await;
    assert!(first.1 && second.1);
    let held = || async { (gateway.metric("sluice_buffered_bytes").await > 3_100_000.0).then_some(()) };
    wait_for("3 MB in memory", held).await;
    let small = r#"{"model":"simulated-small","messages":[{"role":"user","content":"x"}],"max_tokens":2}"#;
    for (path, framing) in [
        ("/v1/chat/completions", length),
        ("/v1/chat/completions", "transfer-encoding: chunked\r\n"),
        ("/v1/files", "transfer-encoding: chunked\r\n"),
    ] {
        let refused = || async {
            let body = if framing == length { &part } else { &chunk };
            let (mut stream, _) = sent(&gateway, path, framing, body).await;
            let answer = answer(&mut stream).await;
            let is_refused = answer.starts_with("HTTP/1.1 503") && answer.contains("max_buffered_bytes");
            is_refused.then_some(())
        };
        wait_for("refusal", refused).await;
    }
    let framing = format!("content-length: {}\r\n", small.len());
    let (mut stream, _) = sent(&gateway, "/v1/chat/completions", &framing, small.as_bytes()).await;
    assert!(
        answer(&mut stream).await.starts_with("HTTP/1.1 200"),
        "there is room for a small one"
    );
    drop((first, second));
    wait_for("room", || async {
        let (mut stream, _) = sent(&gateway, "/v1/chat/completions", length, &[]).await;
        let body = format!("{small}{}", " ".repeat(1_600_000 - small.len()));
        stream.write_all(body.as_bytes()).await.ok()?;
        answer(&mut stream).await.starts_with("HTTP/1.1 200").then_some(())
    })
    .await;
}
