//! An HTTP server whose every byte a test decides on, and which notes when it sent what. It shares no code with the
//! program: threads and sockets of the standard library alone.

use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The steps of a stream that the server sends.
#[derive(Clone)]
pub(crate) enum Step {
    /// Milliseconds.
    Wait(u64),
    /// Bytes that are no part of an answer, or not all of one.
    Send(String),
    /// Bytes that are, or complete, so many parts of an answer.
    Parts(usize, String),
    /// The connection is closed in the middle.
    Break,
}

/// An answer.
pub(crate) enum Reply {
    /// Status, content type and body.
    Whole(u16, &'static str, String),
    /// Status, further head lines and JSON.
    Json(u16, &'static str, Value),
    /// Content type and steps.
    Stream(&'static str, Vec<Step>),
    /// Nothing, for ever.
    Silence,
}

/// A request as the server saw it, and when it sent what.
#[derive(Clone)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) path: String,
    /// In lower case.
    pub(crate) head: String,
    pub(crate) body: Value,
    pub(crate) received: Instant,
    /// When the parts of the answer were sent; those sent together have the same time.
    pub(crate) parts: Vec<Instant>,
    pub(crate) ended: Option<Instant>,
}

/// A server; it ends with the test's process.
pub(crate) struct Server {
    pub(crate) url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    /// Starts; `reply` gets each request and its number, from 0. The number is also sent as `x-request-id`.
    pub(crate) fn start(reply: impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (all, reply) = (Arc::clone(&seen), Arc::new(reply));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (seen, reply) = (Arc::clone(&all), Arc::clone(&reply));
                // Small stacks: a test may open thousands of connections.
                let thread = std::thread::Builder::new().stack_size(256 << 10);
                let _ = thread.spawn(move || connection(stream, &seen, &*reply));
            }
        });
        Self { url, seen }
    }

    /// All requests to a path that begins so, in their order.
    pub(crate) fn seen(&self, path: &str) -> Vec<Seen> {
        let seen = self.seen.lock().expect("no panic");
        seen.iter()
            .filter(|seen| seen.path.starts_with(path))
            .cloned()
            .collect()
    }

    /// A request by the number that was sent as its id. The client may have read its end a moment before the server's
    /// thread notes it.
    pub(crate) fn numbered(&self, number: &str) -> Seen {
        let number = number.parse::<usize>().expect("a number");
        for _ in 0..2_000 {
            let seen = self.seen.lock().expect("no panic")[number].clone();
            if seen.ended.is_some() {
                return seen;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("request {number} has not ended at the server");
    }
}

fn connection(mut stream: TcpStream, all: &Mutex<Vec<Seen>>, reply: &dyn Fn(&Seen, usize) -> Reply) {
    stream.set_nodelay(true).expect("a socket");
    let mut buffer = Vec::new();
    while let Some(seen) = request(&mut stream, &mut buffer) {
        let number = {
            let mut all = all.lock().expect("no panic");
            all.push(seen.clone());
            all.len() - 1
        };
        let note = |change: &dyn Fn(&mut Seen)| change(&mut all.lock().expect("no panic")[number]);
        let head = |status: u16, kind: &str, more: &str| {
            format!("HTTP/1.1 {status} OK\r\ncontent-type: {kind}\r\nx-request-id: {number}\r\n{more}")
        };
        let sent = match reply(&seen, number) {
            Reply::Silence => loop {
                std::thread::sleep(Duration::from_secs(60));
            },
            Reply::Whole(status, kind, body) => {
                write!(
                    stream,
                    "{}content-length: {}\r\n\r\n{body}",
                    head(status, kind, ""),
                    body.len()
                )
            }
            Reply::Json(status, more, body) => {
                let body = body.to_string();
                write!(
                    stream,
                    "{}content-length: {}\r\n\r\n{body}",
                    head(status, "application/json", more),
                    body.len()
                )
            }
            Reply::Stream(kind, steps) => {
                let head = head(200, kind, "transfer-encoding: chunked\r\n\r\n");
                stream
                    .write_all(head.as_bytes())
                    .and_then(|()| stream_steps(&mut stream, steps, &note))
            }
        };
        note(&|seen| seen.ended = Some(Instant::now()));
        if sent.is_err() {
            return;
        }
    }
}

/// Changes what is noted of a request.
type Note<'a> = dyn Fn(&dyn Fn(&mut Seen)) + 'a;

fn stream_steps(stream: &mut TcpStream, steps: Vec<Step>, note: &Note<'_>) -> std::io::Result<()> {
    let mut due = Instant::now();
    for step in steps {
        let (bytes, parts) = match step {
            Step::Wait(millis) => {
                due += Duration::from_millis(millis);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                // A wait that was too long is not made up for in the next.
                due = due.max(Instant::now());
                continue;
            }
            Step::Break => {
                stream.shutdown(std::net::Shutdown::Both)?;
                return Err(std::io::ErrorKind::ConnectionAborted.into());
            }
            Step::Send(bytes) => (bytes, 0),
            Step::Parts(parts, bytes) => (bytes, parts),
        };
        let now = Instant::now();
        note(&|seen| seen.parts.extend(std::iter::repeat_n(now, parts)));
        stream.write_all(format!("{:x}\r\n{bytes}\r\n", bytes.len()).as_bytes())?;
    }
    stream.write_all(b"0\r\n\r\n")
}

fn request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Seen> {
    loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&buffer[..end]).into_owned();
            let head = text.to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.map_or(0, |length| length.trim().parse().expect("a length"));
            if buffer.len() >= end + 4 + length {
                let body = serde_json::from_slice(&buffer[end + 4..end + 4 + length]).unwrap_or(Value::Null);
                buffer.drain(..end + 4 + length);
                let mut words = text.split_whitespace().map(str::to_owned);
                return Some(Seen {
                    method: words.next()?,
                    path: words.next()?,
                    head,
                    body,
                    received: Instant::now(),
                    parts: Vec::new(),
                    ended: None,
                });
            }
        }
        let mut bytes = vec![0; 1 << 16];
        match stream.read(&mut bytes) {
            Ok(0) | Err(_) => return None,
            Ok(count) => buffer.extend_from_slice(&bytes[..count]),
        }
    }
}

/// An event.
pub(crate) fn event(data: &Value) -> String {
    format!("data: {data}\n\n")
}

/// A chunk of a chat completion with this delta.
pub(crate) fn chunk(delta: &Value) -> String {
    event(
        &json!({"id": "c", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta, "finish_reason": null}]}),
    )
}

/// The end of a stream: why it ended, the counts, the marker.
pub(crate) fn ending(tokens: usize) -> Vec<Step> {
    let usage = json!({"prompt_tokens": 5, "completion_tokens": tokens, "total_tokens": 5 + tokens});
    [
        event(&json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})),
        event(&json!({"choices": [], "usage": usage})),
        "data: [DONE]\n\n".to_owned(),
    ]
    .map(Step::Send)
    .into()
}

/// A stream of `tokens` chunks of content: the first after `first` ms, each of the others after `gap` ms.
pub(crate) fn plain(first: u64, tokens: usize, gap: u64) -> Vec<Step> {
    let mut steps = vec![Step::Wait(first)];
    for token in 0..tokens {
        if token > 0 {
            steps.push(Step::Wait(gap));
        }
        steps.push(Step::Parts(1, chunk(&json!({"content": "a "}))));
    }
    steps.extend(ending(tokens));
    steps
}

/// The answer to a chat completion that is not streamed.
pub(crate) fn answer(text: &str, tokens: usize) -> Value {
    json!({
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": tokens},
    })
}
