//! Connections that a stranger opens: silent ones, half heads, too many, more than there are descriptors.

use end_to_end::{Gateway, as_admin, config_dir, program, roomy, wait_for};
use serde_json::{Value, json};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

const PREFACE: &str = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// An empty SETTINGS frame (RFC 9113, section 6.5).
const SETTINGS: &str = "\0\0\0\u{4}\0\0\0\0\0";

fn config(more: &'static str, head_seconds: &'static str) -> TempDir {
    config_dir(|name, text| match name {
        "gateway.yaml" => text
            .replacen("bounds:\n", &format!("bounds:\n{more}"), 1)
            .replace("head_seconds: 10 ", &format!("head_seconds: {head_seconds} "))
            .replace("body_seconds: 60 ", &format!("body_seconds: {head_seconds} ")),
        _ => roomy(name, text),
    })
}

fn admin(gateway: &Gateway) -> String {
    gateway.admin.trim_start_matches("http://").to_owned()
}

/// Opens a connection and sends its first bytes.
async fn opened(address: &str, bytes: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("connected");
    stream.write_all(bytes.as_bytes()).await.expect("written");
    stream
}

/// Everything until the other side closes.
async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut bytes)).await;
    let _ = read.expect("the gateway closes the connection");
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test]
async fn whoever_does_not_send_a_whole_head_in_time_is_disconnected_on_both_listeners() {
    let gateway = Gateway::start_in(config("", "0.5"), &[]).await;
    let (proxy, admin) = (gateway.address().to_owned(), admin(&gateway));
    let half = "GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\n";
    let h2 = format!("{PREFACE}{SETTINGS}");
    let cases = [
        (&proxy, "silent", ""),
        (&proxy, "half head", half),
        (&proxy, "half preface", &PREFACE[..18]),
        (&proxy, "preface without settings", PREFACE),
        (&proxy, "preface and settings", &h2),
        (&admin, "silent", ""),
        (&admin, "half head", half),
    ];
    let mut open = Vec::new();
    for (address, name, bytes) in cases {
        open.push((name, opened(address, bytes).await));
    }
    for (name, stream) in &mut open {
        let answer = rest(stream).await;
        // A half head of HTTP/1 is told so.
        let is_told = *name == "half head" && answer.starts_with("HTTP/1.1 408");
        assert!(is_told || !answer.starts_with("HTTP/1.1"), "{name}: {answer}");
    }
    let overdue = "sluice_connections_head_timeouts_total";
    assert!(gateway.metric(&format!("{overdue}{{listener=\"proxy\"}}")).await >= 5.0);
    assert!(gateway.metric(&format!("{overdue}{{listener=\"admin\"}}")).await >= 2.0);
    let open = "sluice_connections{listener=\"proxy\"}";
    wait_for("connection closed", || async {
        (gateway.metric(open).await < 0.5).then_some(())
    })
    .await;

    let body = "POST /login HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/x-www-form-urlencoded\r\n\
                content-length: 1000\r\n\r\ntoken=";
    let mut stream = opened(&admin, body).await;
    assert!(
        rest(&mut stream).await.starts_with("HTTP/1.1 408"),
        "a body that does not come"
    );
}

#[tokio::test]
async fn a_request_shorter_than_the_preface_of_http_2_is_answered_at_once() {
    let gateway = Gateway::start_in(config("", "600"), &[]).await;
    let mut stream = opened(gateway.address(), "GET /api HTTP/1.0\r\n\r\n").await;
    assert!(rest(&mut stream).await.starts_with("HTTP/1."));
    let mut stream = opened(gateway.address(), "P").await;
    stream
        .write_all(b"RI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await
        .expect("written");
    let mut frame = [0; 9];
    stream.read_exact(&mut frame).await.expect("a frame");
    assert_eq!(frame[3], 4, "the gateway's SETTINGS: {frame:?}");
}

/// Opens a connection from an address of this machine, asks for `/health`, and keeps it open.
async fn asked(from: &str, to: &str) -> (TcpStream, String) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket
        .bind(format!("{from}:0").parse().expect("an address"))
        .expect("bound");
    let mut stream = socket
        .connect(to.parse().expect("an address"))
        .await
        .expect("connected");
    let _ = stream
        .write_all(b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
        .await;
    let mut bytes = vec![0; 4096];
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read(&mut bytes)).await;
    let count = read.expect("an answer").expect("readable");
    (stream, String::from_utf8_lossy(&bytes[..count]).into_owned())
}

#[tokio::test]
async fn further_connections_are_refused_with_the_reason_until_others_close() {
    let bounds = "  max_connections: 3\n  max_connections_per_address: 2\n";
    let gateway = Gateway::start_in(config(bounds, "600"), &[]).await;
    let to = gateway.address().to_owned();
    let (first, answer) = asked("127.0.0.1", &to).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let (_second, answer) = asked("127.0.0.1", &to).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let (_, answer) = asked("127.0.0.1", &to).await;
    assert!(
        answer.starts_with("HTTP/1.1 503") && answer.contains("your address"),
        "{answer}"
    );
    let (_third, answer) = asked("127.0.0.2", &to).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let (_, answer) = asked("127.0.0.3", &to).await;
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(
        head.starts_with("HTTP/1.1 503") && head.contains("retry-after: 1"),
        "{head}"
    );
    let body: Value = serde_json::from_str(body).expect("JSON");
    assert_eq!(body["error"]["code"], "too_many_connections");
    let refused = "sluice_connections_refused_total{listener=\"proxy\",reason=";
    assert_eq!(gateway.metric(&format!("{refused}\"total\"}}")).await.to_string(), "1");
    assert_eq!(
        gateway.metric(&format!("{refused}\"address\"}}")).await.to_string(),
        "1"
    );
    drop(first);
    wait_for("room", || async {
        let (_stream, answer) = asked("127.0.0.1", &to).await;
        answer.starts_with("HTTP/1.1 200").then_some(())
    })
    .await;
}

/// `sluice` in a shell that sets a limit on descriptors first.
fn limited(limit: &str) -> Command {
    let mut command = Command::new("bash");
    let script = format!("ulimit {limit}; exec \"$0\" \"$@\"");
    command.arg("-c").arg(script).arg(program("sluice"));
    command
}

#[tokio::test]
async fn with_descriptors_at_their_end_operators_journal_and_known_clients_go_on_and_it_recovers() {
    let gateway = Gateway::start_by(limited("-n 256"), config("", "600"), &[]).await;
    let body = json!({"model": "simulated-small", "messages": [{"role": "user", "content": "x"}], "max_tokens": 3});
    assert_eq!(gateway.post("/v1/chat/completions", &body).await.status(), 200);
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(opened(gateway.address(), "").await);
    }
    let ready = as_admin(gateway.http.get(format!("{}/ready", gateway.admin))).await;
    assert_eq!(ready.status(), 200, "operators come in");
    for _ in 0..300 {
        silent.push(opened(&admin(&gateway), "").await);
    }
    // The client's connection of before is still there: its requests are served and recorded.
    for _ in 0..3 {
        assert_eq!(gateway.post("/v1/chat/completions", &body).await.status(), 200);
    }
    let (_, answer) = asked("127.0.0.1", gateway.address()).await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    drop(silent);
    wait_for("room", || async {
        let (_stream, answer) = asked("127.0.0.1", gateway.address()).await;
        answer.starts_with("HTTP/1.1 200").then_some(())
    })
    .await;
    assert_eq!(gateway.wait_for_records(4).await.len(), 4);
    assert!(
        gateway
            .metric("sluice_connections_refused_total{listener=\"proxy\"")
            .await
            >= 200.0
    );
    assert!(!gateway.log().contains("Too many open files"), "{}", gateway.log());
}

#[tokio::test]
async fn the_limit_on_descriptors_is_raised_as_far_as_the_system_allows() {
    let gateway = Gateway::start_by(limited("-Sn 300"), config("", "600"), &[]).await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", gateway.pid())).expect("readable");
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .expect("a line");
    let numbers: Vec<&str> = line.split_whitespace().skip(3).take(2).collect();
    assert_eq!(numbers[0], numbers[1], "{line}");
    assert_ne!(numbers[0], "300");
}
