//! An upstream whose every byte a test decides on.

use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Listens, and lets a test's script talk to each connection.
pub struct Scripted {
    /// `http://host:port`.
    pub url: String,
    /// Every request that was read, head and body.
    pub requests: Arc<Mutex<Vec<String>>>,
}

/// One connection from the gateway.
pub struct Connection {
    /// The raw stream.
    pub stream: TcpStream,
    /// Which connection it is, from 0.
    pub number: usize,
    /// The last request that was read on it.
    pub own_request: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Scripted {
    /// Starts; `script` is run for each connection.
    pub async fn start<F, Run>(script: F) -> Self
    where
        F: Fn(Connection) -> Run + Send + Sync + 'static,
        Run: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        tokio::spawn(async move {
            for number in 0.. {
                let Ok((stream, _)) = listener.accept().await else {
                    return;
                };
                let requests = Arc::clone(&seen);
                tokio::spawn(script(Connection {
                    stream,
                    number,
                    own_request: String::new(),
                    requests,
                }));
            }
        });
        Self { url, requests }
    }

    /// A server that answers every request with the same body and status 200.
    pub async fn answering(body: &'static str) -> Self {
        Self::start(move |mut connection| async move {
            while connection.read_request().await {
                connection.answer("200 OK", body).await;
            }
        })
        .await
    }

    /// The last request that was read.
    pub fn last_request(&self) -> String {
        self.requests
            .lock()
            .expect("no panic")
            .last()
            .cloned()
            .unwrap_or_default()
    }
}

impl Connection {
    /// Reads one request with a declared length; false at the connection's end.
    pub async fn read_request(&mut self) -> bool {
        let mut bytes = Vec::new();
        let mut buffer = vec![0; 64 << 10];
        loop {
            if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
                let length = head
                    .lines()
                    .find_map(|line| line.strip_prefix("content-length: "))
                    .map_or(0, |text| text.trim().parse::<usize>().expect("a number"));
                if bytes.len() >= end + 4 + length {
                    self.own_request = String::from_utf8_lossy(&bytes).into_owned();
                    self.requests.lock().expect("no panic").push(self.own_request.clone());
                    return true;
                }
            }
            match self.stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return false,
                Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            }
        }
    }

    /// The last request that was read on any connection.
    pub fn last_request(&self) -> String {
        self.requests
            .lock()
            .expect("no panic")
            .last()
            .cloned()
            .unwrap_or_default()
    }

    /// Writes bytes.
    pub async fn write(&mut self, text: &str) {
        let _ = self.stream.write_all(text.as_bytes()).await;
        let _ = self.stream.flush().await;
    }

    /// Writes a whole JSON answer.
    pub async fn answer(&mut self, status: &str, body: &str) {
        let length = body.len();
        self.write(&format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        ))
        .await;
    }

    /// Begins a stream of server-sent events.
    pub async fn begin_stream(&mut self) {
        self.write("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
            .await;
    }

    /// Writes one HTTP chunk.
    pub async fn chunk(&mut self, text: &str) {
        self.write(&format!("{:x}\r\n{text}\r\n", text.len())).await;
    }

    /// Pending until the gateway closes the connection.
    pub async fn closed(&mut self) {
        let mut byte = [0];
        while matches!(self.stream.read(&mut byte).await, Ok(count) if count > 0) {}
    }
}

/// A chunk of a chat completion, as an event.
pub fn delta(text: &str) -> String {
    format!(
        "data: {{\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}},\"finish_reason\":null}}]}}\n\n"
    )
}

/// The chunk that tells why a chat completion has ended.
pub const FINISH: &str = "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";

/// The chunk with a stream's usage: 11 tokens in, 7 out.
pub const USAGE: &str = "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"choices\":[],\"usage\":{\"prompt_tokens\":11,\"completion_tokens\":7,\"total_tokens\":18}}\n\n";

/// A whole chat completion.
pub const WHOLE: &str = "{\"id\":\"c\",\"object\":\"chat.completion\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"hello\"},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":11,\"completion_tokens\":7,\"total_tokens\":18}}";
