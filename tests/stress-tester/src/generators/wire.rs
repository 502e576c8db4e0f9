//! Messages between a lead and a follower: a line of JSON each, and a run as bytes after its length.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// The longest message, in bytes.
const MAX_MESSAGE: u64 = 1 << 20;

/// The largest run, in bytes: about five million requests.
const MAX_RUN: usize = 4 << 30;

/// The interval of a follower's heartbeats, and the silence after which a lead gives it up.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(1);
pub(super) const SILENCE: Duration = Duration::from_secs(15);

/// A follower's messages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "snake_case")]
pub(super) enum FromFollower {
    Hello {
        token: String,
        version: String,
        name: String,
    },
    /// Its clock.
    Clock {
        unix_seconds: f64,
    },
    /// It could begin at once; the requests of its part.
    Ready {
        requests: usize,
    },
    Running,
    /// The run follows, in so many bytes.
    Finished {
        started_unix_seconds: f64,
        bytes: usize,
    },
    Failed {
        why: String,
    },
}

/// A lead's messages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "snake_case")]
pub(super) enum FromLead {
    Refused {
        why: String,
    },
    /// Asks for the clock.
    Clock,
    /// The flags of the run, and the follower's part of it.
    Prepare {
        flags: Vec<String>,
        part: usize,
        of: usize,
    },
    Start {
        after_seconds: f64,
    },
}

/// A connection.
#[derive(Debug)]
pub(super) struct Link {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

impl Link {
    pub(super) fn new(stream: TcpStream) -> Self {
        // Clocks are compared over this connection; without it a message waits for the answer to the one before.
        let _ = stream.set_nodelay(true);
        let (reader, writer) = stream.into_split();
        Self {
            reader: BufReader::new(reader),
            writer,
        }
    }

    pub(super) async fn send(&mut self, message: &impl Serialize) -> Result<(), String> {
        let mut line = serde_json::to_vec(message).map_err(|error| error.to_string())?;
        line.push(b'\n');
        self.send_bytes(&line).await
    }

    pub(super) async fn send_bytes(&mut self, bytes: &[u8]) -> Result<(), String> {
        let sent = self.writer.write_all(bytes).await;
        sent.map_err(|error| format!("the connection broke: {error}"))
    }

    /// Waits for a message.
    ///
    /// # Errors
    /// The connection ended, no message arrived in time, or what arrived is no valid message.
    pub(super) async fn receive<T: DeserializeOwned>(&mut self, within: Duration) -> Result<T, String> {
        let mut line = Vec::new();
        let mut limited = (&mut self.reader).take(MAX_MESSAGE);
        let read = tokio::time::timeout(within, limited.read_until(b'\n', &mut line)).await;
        let read = read.map_err(|_| format!("nothing was received for {} s", within.as_secs()))?;
        read.map_err(|error| format!("the connection broke: {error}"))?;
        if line.is_empty() {
            return Err("the connection was closed".to_owned());
        }
        serde_json::from_slice(&line).map_err(|error| format!("invalid message: {error}"))
    }

    pub(super) async fn receive_bytes(&mut self, count: usize) -> Result<Vec<u8>, String> {
        if count > MAX_RUN {
            return Err(format!("a run of {count} bytes is too large"));
        }
        let mut bytes = Vec::new();
        let mut limited = (&mut self.reader).take(count as u64);
        let read = limited.read_to_end(&mut bytes).await;
        read.map_err(|error| format!("the connection broke: {error}"))?;
        if bytes.len() < count {
            return Err("the connection was closed within a run".to_owned());
        }
        Ok(bytes)
    }
}

/// This machine's clock.
pub(super) fn unix_seconds() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64()
}
