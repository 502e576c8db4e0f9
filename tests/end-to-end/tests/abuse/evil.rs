//! What evil servers do: each way of misbehaving has a name.

use end_to_end::upstream::{Connection, FINISH, Scripted, USAGE, WHOLE, delta};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;
use std::io::Write;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;

/// A server that goes on for ever is followed for this long; the gateway must have hung up long before.
const FOR_EVER: Duration = Duration::from_secs(30);

const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
const EVENTS: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n";
const CHUNKED: &str = "transfer-encoding: chunked\r\n\r\n";

/// A server that does nothing but misbehave in one way, once a connection.
pub(crate) async fn evil(way: &'static str) -> Scripted {
    Scripted::start(move |mut connection| async move {
        if connection.read_request().await {
            let is_stream = connection.own_request.contains("\"stream\":true");
            let is_known = heads(&mut connection, way, is_stream).await
                || statuses(&mut connection, way).await
                || framings(&mut connection, way, is_stream).await
                || bodies(&mut connection, way, is_stream).await
                || endless(&mut connection, way).await;
            assert!(is_known, "no such way: {way}");
        }
    })
    .await
}

/// Connections and heads. False if the way is another.
async fn heads(connection: &mut Connection, way: &str, is_stream: bool) -> bool {
    let length = WHOLE.len();
    let whole = format!("content-length: {length}\r\n\r\n{WHOLE}");
    match way {
        "silence" => connection.closed().await,
        "close-at-once" => {}
        "reset-at-once" => reset(connection),
        "reset-after-head" => {
            connection
                .write(&format!("{HEAD}content-length: {length}\r\n\r\n"))
                .await;
            settle().await;
            reset(connection);
        }
        "reset-in-body" => {
            begin(connection, is_stream).await;
            settle().await;
            reset(connection);
        }
        "reset-after-body" => {
            connection.write(&format!("{HEAD}{whole}")).await;
            reset(connection);
        }
        "slow-head" => {
            for byte in HEAD.bytes().cycle().take(200) {
                connection.write(&char::from(byte).to_string()).await;
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
        "endless-head-line" => {
            connection.write("HTTP/1.1 200 OK\r\nx-endless: ").await;
            repeat(connection, &"a".repeat(4096)).await;
        }
        "endless-headers" => {
            connection.write("HTTP/1.1 200 OK\r\n").await;
            repeat(connection, &format!("x-a: {}\r\n", "b".repeat(4000))).await;
        }
        "half-a-head" => connection.write("HTTP/1.1 200 OK\r\ncontent-le").await,
        "garbage" => connection.write("\u{0}\u{1}\u{2}nonsense\r\n\r\n").await,
        "nul-in-header" => connection.write(&format!("{HEAD}x-nul: a\u{0}b\r\n{whole}")).await,
        "line-feed-in-header" => {
            connection
                .write(&format!("{HEAD}x-line: a\nset-cookie: b=c\r\n{whole}"))
                .await;
        }
        "retry-after-absurd" => {
            connection
                .write("HTTP/1.1 429 X\r\nretry-after: 18446744073709551615\r\ncontent-length: 0\r\n\r\n")
                .await;
        }
        _ => return false,
    }
    true
}

/// Status lines. False if the way is another.
async fn statuses(connection: &mut Connection, way: &str) -> bool {
    let length = WHOLE.len();
    let whole = format!("content-length: {length}\r\n\r\n{WHOLE}");
    match way {
        "http-0.9" => connection.write(WHOLE).await,
        "http-9.9" => connection.write(&format!("HTTP/9.9 200 OK\r\n{whole}")).await,
        "status-0" => connection.write(&format!("HTTP/1.1 0 Zero\r\n{whole}")).await,
        "status-999" => connection.write("HTTP/1.1 999 X\r\ncontent-length: 0\r\n\r\n").await,
        "status-101" => {
            connection
                .write("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n")
                .await;
            connection.closed().await;
        }
        "status-204" => connection.write("HTTP/1.1 204 No Content\r\n\r\n").await,
        "status-304" => {
            connection
                .write("HTTP/1.1 304 Not Modified\r\ncontent-length: 100\r\n\r\n")
                .await;
        }
        "redirect" => {
            connection
                .write("HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n")
                .await;
        }
        "endless-100" => repeat(connection, &"HTTP/1.1 100 Continue\r\n\r\n".repeat(50)).await,
        "endless-103" => repeat(connection, &"HTTP/1.1 103 Early Hints\r\nlink: <a>\r\n\r\n".repeat(50)).await,
        _ => return false,
    }
    true
}

/// Lengths and chunks. False if the way is another.
async fn framings(connection: &mut Connection, way: &str, is_stream: bool) -> bool {
    let length = WHOLE.len();
    let whole = format!("content-length: {length}\r\n\r\n{WHOLE}");
    match way {
        "negative-length" => {
            connection
                .write(&format!("{HEAD}content-length: -5\r\n\r\n{WHOLE}"))
                .await;
        }
        "two-lengths" => connection.write(&format!("{HEAD}content-length: 5\r\n{whole}")).await,
        "length-and-chunks" => {
            connection
                .write(&format!(
                    "{HEAD}content-length: 3\r\n{CHUNKED}{length:x}\r\n{WHOLE}\r\n0\r\n\r\n"
                ))
                .await;
        }
        "length-too-long" => {
            connection
                .write(&format!("{HEAD}content-length: {}\r\n\r\n{WHOLE}", length + 50))
                .await;
        }
        "length-too-short" => {
            connection
                .write(&format!("{HEAD}content-length: {}\r\n\r\n{WHOLE}", length - 9))
                .await;
        }
        "length-of-an-exabyte" => {
            connection
                .write(&format!("{HEAD}content-length: 1000000000000000000\r\n\r\n{WHOLE}"))
                .await;
            settle().await;
        }
        "chunk-size-not-hex" => {
            begin(connection, is_stream).await;
            connection.write("zz\r\nhello\r\n0\r\n\r\n").await;
        }
        "chunk-size-overflow" => {
            begin(connection, is_stream).await;
            connection.write("ffffffffffffffffffff\r\nhello\r\n0\r\n\r\n").await;
        }
        "chunk-without-end" => {
            begin(connection, is_stream).await;
            connection.write("5\r\nhelloXX0\r\n\r\n").await;
        }
        "chunk-extension-endless" => {
            begin(connection, is_stream).await;
            connection.write("5;").await;
            repeat(connection, &"e".repeat(4096)).await;
        }
        "endless-trailers" => {
            begin(connection, is_stream).await;
            connection.write("0\r\n").await;
            repeat(connection, &format!("x-t: {}\r\n", "t".repeat(4000))).await;
        }
        "huge-trailer" => {
            finished(connection, is_stream).await;
            let _ = connection
                .stream
                .write_all(format!("0\r\nx-t: {}\r\n\r\n", "t".repeat(60_000)).as_bytes())
                .await;
        }
        "second-answer-unasked" => {
            finished(connection, is_stream).await;
            connection
                .write("0\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nPOISON")
                .await;
            settle().await;
        }
        _ => return false,
    }
    true
}

/// Bodies that are no answer. False if the way is another.
async fn bodies(connection: &mut Connection, way: &str, is_stream: bool) -> bool {
    match way {
        "nul-in-body" => {
            begin(connection, is_stream).await;
            piece(connection, "data: {\u{0}\u{0}}\n\n").await;
            connection.write("0\r\n\r\n").await;
        }
        "invalid-utf-8" => {
            begin(connection, is_stream).await;
            let _ = connection.stream.write_all(b"3\r\n\xff\xfe\xfd\r\n0\r\n\r\n").await;
        }
        "gzip-truncated" => {
            let packed = gzip(&WHOLE.repeat(20));
            encoded(connection, "gzip", &packed[..packed.len() / 2]).await;
        }
        "gzip-bomb" => encoded(connection, "gzip", &gzip(&" ".repeat(200 << 20))).await,
        "gzip-claimed-only" => encoded(connection, "gzip", WHOLE.as_bytes()).await,
        "unknown-encoding" => encoded(connection, "rot13", b"uryyb").await,
        "error-in-200" => {
            connection
                .answer("200 OK", "{\"error\":{\"message\":\"boom\",\"code\":500}}")
                .await;
        }
        "html" => {
            let page = "<html><script>alert(document.domain)</script></html>";
            connection
                .write(&format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {}\r\n\r\n{page}",
                    page.len()
                ))
                .await;
        }
        "huge-error" => {
            let message = json!({"error": {"message": "<b>\r\n\u{1b}[31m".to_owned() + &"A".repeat(1_000_000)}});
            connection.answer("400 Bad", &message.to_string()).await;
        }
        "empty-body" => connection.write(&format!("{HEAD}content-length: 0\r\n\r\n")).await,
        "deep-json" => {
            let body = format!("{{\"choices\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
            connection.answer("200 OK", &body).await;
        }
        "absurd-usage" => {
            let absurd = |text: &str| {
                text.replace(":11,", ":18446744073709551615,")
                    .replace(":7,", ":-99999999999,")
            };
            if is_stream {
                connection.begin_stream().await;
                for event in [&delta("hi"), FINISH, &absurd(USAGE), "data: [DONE]\n\n"] {
                    connection.chunk(event).await;
                }
                connection.write("0\r\n\r\n").await;
            } else {
                connection.answer("200 OK", &absurd(WHOLE)).await;
            }
        }
        _ => return false,
    }
    true
}

/// Answers without end. False if the way is another.
async fn endless(connection: &mut Connection, way: &str) -> bool {
    match way {
        "endless-json" => {
            connection.write(&format!("{HEAD}{CHUNKED}")).await;
            piece(connection, "{\"choices\":[{\"message\":{\"content\":\"").await;
            let pieces = "1000\r\n".to_owned() + &"x".repeat(4096) + "\r\n";
            repeat(connection, &pieces).await;
        }
        "endless-event" => {
            begin(connection, true).await;
            repeat(connection, &("28\r\n".to_owned() + &"y".repeat(40) + "\r\n").repeat(20)).await;
        }
        "endless-comments" => {
            begin(connection, true).await;
            repeat(connection, &("e\r\n: keep alive\n\n\r\n").repeat(20)).await;
        }
        "endless-empty-events" => {
            begin(connection, true).await;
            repeat(connection, &("400\r\n".to_owned() + &"\n".repeat(1024) + "\r\n")).await;
        }
        "event-dribble" => {
            begin(connection, true).await;
            for byte in "data: {\"choices\":[{\"delta\":{\"content\":\""
                .bytes()
                .cycle()
                .take(400)
            {
                piece(connection, &char::from(byte).to_string()).await;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        _ => return false,
    }
    true
}

/// The beginning of an answer in chunks.
async fn begin(connection: &mut Connection, is_stream: bool) {
    connection.write(if is_stream { EVENTS } else { HEAD }).await;
    connection.write(CHUNKED).await;
    let half = if is_stream {
        delta("hi")
    } else {
        WHOLE[..WHOLE.len() / 2].to_owned()
    };
    piece(connection, &half).await;
}

/// A whole answer in chunks, but for the last chunk.
async fn finished(connection: &mut Connection, is_stream: bool) {
    if !is_stream {
        connection.write(&format!("{HEAD}{CHUNKED}")).await;
        return piece(connection, WHOLE).await;
    }
    connection.begin_stream().await;
    for event in [&delta("hi"), FINISH, USAGE, "data: [DONE]\n\n"] {
        connection.chunk(event).await;
    }
}

async fn piece(connection: &mut Connection, text: &str) {
    connection.chunk(text).await;
}

/// Writes the same until the gateway hangs up.
async fn repeat(connection: &mut Connection, text: &str) {
    let until = Instant::now() + FOR_EVER;
    while Instant::now() < until {
        if connection.stream.write_all(text.as_bytes()).await.is_err() {
            return;
        }
        tokio::task::yield_now().await;
    }
}

async fn encoded(connection: &mut Connection, coding: &str, bytes: &[u8]) {
    let head = format!(
        "{HEAD}content-encoding: {coding}\r\ncontent-length: {}\r\n\r\n",
        bytes.len()
    );
    connection.write(&head).await;
    let _ = connection.stream.write_all(bytes).await;
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(text.as_bytes()).expect("in memory");
    encoder.finish().expect("in memory")
}

/// Lets what was written arrive on its own.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(100)).await;
}

/// Lets the connection end with RST instead of FIN.
fn reset(connection: &Connection) {
    let _ = connection.stream.set_zero_linger();
}
