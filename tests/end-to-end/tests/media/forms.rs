//! Forms: as clients write them, in whatever pieces they come, at their bounds, and broken.

use super::{TEXT, TYPE, answering, bounded, field, file, form, gateway, send, wav};
use end_to_end::Simulated;
use serde_json::{Value, json};
use std::process::Command;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn curl_may_name_the_model_after_the_file() {
    let upstream = answering("application/json", TEXT).await;
    let gateway = gateway("openai", &upstream.url, "").await;
    let sound = gateway.dir.path().join("ä sound.wav");
    std::fs::write(&sound, wav(1.0)).expect("written");
    let url = format!("{}/v1/audio/transcriptions", gateway.proxy);
    let mut curl = Command::new("curl");
    curl.args(["-sS", &url, "-F"])
        .arg(format!("file=@{}", sound.display()))
        .args([
            "-F",
            "prompt=a \"quoted\" hint",
            "-F",
            "model=whisper",
            "-F",
            "response_format=json",
        ]);
    let output = tokio::task::spawn_blocking(move || curl.output())
        .await
        .expect("no panic")
        .expect("curl runs");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        TEXT,
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let seen = upstream.last_request();
    assert!(
        seen.contains("\r\n\r\ntheirs\r\n--") && !seen.contains("whisper"),
        "{seen}"
    );
    assert!(seen.contains("authorization: Bearer sk-up"));
    let record = &gateway.wait_for_records(1).await[0];
    assert_eq!(
        (&record["input_tokens_estimated"], &record["status"]),
        (&json!(25 + hint()), &json!("completed"))
    );
}

/// The tokens of the hint in curl's form; a byte is a quarter of a token, and 25 tokens are a second.
fn hint() -> u64 {
    "a \"quoted\" hint".len().div_ceil(4) as u64
}

#[tokio::test]
async fn a_form_is_passed_on_byte_for_byte_but_for_the_models_name_in_whatever_pieces_it_comes() {
    let upstream = answering("application/json", TEXT).await;
    let gateway = gateway("openai", &upstream.url, "").await;
    let content = "RIFF \r\n--a\r\n--a bc\r\n-- a b".as_bytes();
    let parts = [
        field("language", "de"),
        file(content),
        field("model", "whisper"),
        field("x", "1.0"),
    ];
    let body = form(&parts);
    let wanted = String::from_utf8_lossy(&body).replace("whisper", "theirs");
    for step in [1, 7, body.len()] {
        let mut stream = TcpStream::connect(gateway.address()).await.expect("connected");
        stream.set_nodelay(true).expect("a socket");
        let head = format!(
            "POST /v1/audio/transcriptions HTTP/1.1\r\nhost: localhost\r\ncontent-type: {TYPE}\r\n\
             transfer-encoding: chunked\r\nconnection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.expect("written");
        for piece in body.chunks(step) {
            let chunk = [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat();
            stream.write_all(&chunk).await.expect("written");
        }
        stream.write_all(b"0\r\n\r\n").await.expect("written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("text");
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(TEXT), "{answer}");
        let seen = upstream.last_request();
        let (head, sent) = seen.split_once("\r\n\r\n").expect("a head");
        assert_eq!(sent, wanted);
        let head = head.to_ascii_lowercase();
        assert!(
            head.contains(&format!("content-type: {TYPE}").to_ascii_lowercase()),
            "{head}"
        );
    }
}

#[tokio::test]
async fn a_body_at_the_bound_passes_and_one_byte_more_does_not() {
    let upstream = answering("application/json", TEXT).await;
    let most = 100_000;
    let gateway = bounded("openai", &upstream.url, "", most).await;
    let around = form(&[file(b""), field("model", "whisper")]).len();
    for (bytes, status) in [(most, 200), (most + 1, 413)] {
        let body = form(&[file(&vec![b'x'; bytes - around]), field("model", "whisper")]);
        assert_eq!(body.len(), bytes);
        let answer = send(&gateway, "/v1/audio/transcriptions", body).await;
        assert_eq!(answer.status(), status);
    }
    assert_eq!(upstream.requests.lock().expect("no panic").len(), 1);
}

#[tokio::test]
async fn a_sound_of_a_hundred_megabytes_is_kept_in_memory_once() {
    let upstream = Simulated::start(&["theirs=0"]);
    let gateway = bounded("openai", &upstream.url, "", 110_000_000).await;
    let resident = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).expect("a process");
        let line = status
            .lines()
            .find(|line| line.starts_with("VmHWM:"))
            .expect("a peak")
            .to_owned();
        line.split_whitespace()
            .nth(1)
            .and_then(|kilobytes| kilobytes.parse::<u64>().ok())
            .expect("a number")
            * 1024
    };
    let before = resident();
    let body = form(&[file(&wav(6250.0)), field("model", "whisper")]);
    let bytes = body.len() as u64;
    assert!(bytes > 100_000_000);
    let answer = send(&gateway, "/v1/audio/transcriptions", body).await;
    assert_eq!(answer.status(), 200);
    let written: Value = answer.json().await.expect("JSON");
    assert_eq!(written["usage"]["seconds"], 6250);
    let grown = resident() - before;
    assert!(grown < bytes + bytes / 4, "{grown} bytes more for a body of {bytes}");
}

#[tokio::test]
async fn a_client_that_leaves_in_the_midst_of_its_upload_is_recorded_and_nothing_is_sent() {
    let upstream = answering("application/json", TEXT).await;
    let gateway = gateway("openai", &upstream.url, "").await;
    let mut stream = TcpStream::connect(gateway.address()).await.expect("connected");
    let head = format!(
        "POST /v1/audio/transcriptions HTTP/1.1\r\nhost: localhost\r\ncontent-type: {TYPE}\r\ncontent-length: 1000000\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("written");
    stream.write_all(&file(&[0; 5000])).await.expect("written");
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(stream);
    let record = &gateway.wait_for_records(1).await[0];
    assert_eq!(
        (&record["reason"], &record["http_status"]),
        (&json!("client_gone"), &json!(499))
    );
    assert_eq!(
        (&record["operation"], &record["cost_eur"]),
        (&json!("/v1/audio/transcriptions"), &json!(0.0))
    );
    assert!(upstream.requests.lock().expect("no panic").is_empty());
    let answer = send(
        &gateway,
        "/v1/audio/transcriptions",
        form(&[field("model", "whisper"), file(b"x")]),
    )
    .await;
    assert_eq!(answer.status(), 200, "the gateway goes on");
}

#[tokio::test]
async fn a_form_that_is_wrong_is_refused_in_openais_shape_and_reaches_no_server() {
    let upstream = answering("application/json", TEXT).await;
    let gateway = gateway("openai", &upstream.url, "").await;
    let whole = form(&[field("model", "whisper"), file(b"x")]);
    let cases = [
        (form(&[file(b"x")]), 400, "model"),
        (form(&[field("model", "whisper")]), 400, "file"),
        (
            form(&[field("model", "whisper"), file(b"x"), field("model", "tested")]),
            400,
            "model",
        ),
        (whole[..whole.len() - 6].to_vec(), 400, ""),
        (b"{\"model\":\"whisper\"}".to_vec(), 400, ""),
        (form(&[field("model", "nobody"), file(b"x")]), 404, "model"),
    ];
    let count = cases.len();
    for (body, status, param) in cases {
        let answer = send(&gateway, "/v1/audio/transcriptions", body).await;
        assert_eq!(answer.status(), status);
        let error: Value = answer.json().await.expect("JSON");
        assert_eq!(error["error"]["param"].as_str().unwrap_or_default(), param, "{error}");
        assert_eq!(error["error"]["type"], "invalid_request_error");
    }
    let json = gateway
        .post("/v1/audio/transcriptions", &json!({"model": "whisper"}))
        .await;
    assert_eq!(json.status(), 415);
    assert!(upstream.requests.lock().expect("no panic").is_empty());
    assert_eq!(gateway.wait_for_records(count + 1).await.len(), count + 1);
}
