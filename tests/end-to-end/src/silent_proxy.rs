//! A TCP proxy between a gateway and a server, for faults of a network: connections go silent (nothing comes through and
//! nothing is closed, as when a firewall forgets a connection), replies come late, or end in their middle.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, tcp};

/// A running proxy.
pub struct SilentProxy {
    /// Where it listens, `127.0.0.1:PORT`.
    pub address: String,
    faults: Arc<Faults>,
}

#[derive(Default)]
struct Faults {
    /// Connections with a smaller number are silent.
    silent_before: AtomicUsize,
    opened: AtomicUsize,
    /// Milliseconds by which replies come late.
    late_by: AtomicU64,
    /// True while replies end in their middle, and their connections with them.
    cuts_replies: AtomicBool,
}

impl SilentProxy {
    /// Listens on a free port and passes connections on to a server.
    pub async fn start(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let faults = Arc::<Faults>::default();
        let proxy = Self {
            address: listener.local_addr().expect("bound").to_string(),
            faults: Arc::clone(&faults),
        };
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let number = faults.opened.fetch_add(1, SeqCst);
                let Ok(server) = TcpStream::connect(&server).await else {
                    continue;
                };
                let (client_reads, client_writes) = client.into_split();
                let (server_reads, server_writes) = server.into_split();
                tokio::spawn(pump(client_reads, server_writes, number, false, Arc::clone(&faults)));
                tokio::spawn(pump(server_reads, client_writes, number, true, Arc::clone(&faults)));
            }
        });
        proxy
    }

    /// Makes every open connection silent, for ever; how many have been opened so far. New ones work.
    pub fn silence(&self) -> usize {
        let opened = self.faults.opened.load(SeqCst);
        self.faults.silent_before.store(opened, SeqCst);
        opened
    }

    /// Makes every connection silent, new ones too, until [`restore`](Self::restore).
    pub fn cut_off(&self) {
        self.faults.silent_before.store(usize::MAX, SeqCst);
    }

    /// Lets replies come so much later.
    pub fn delay(&self, by: Duration) {
        self.faults
            .late_by
            .store(u64::try_from(by.as_millis()).expect("short"), SeqCst);
    }

    /// Ends every reply in its middle, and its connection, until told otherwise.
    pub fn cut_replies(&self, is_on: bool) {
        self.faults.cuts_replies.store(is_on, SeqCst);
    }

    /// Lets new connections work; those that were opened before stay silent.
    pub fn restore(&self) {
        self.faults.silent_before.store(self.faults.opened.load(SeqCst), SeqCst);
    }
}

async fn pump(
    mut from: tcp::OwnedReadHalf,
    mut to: tcp::OwnedWriteHalf,
    number: usize,
    is_reply: bool,
    faults: Arc<Faults>,
) {
    let mut buffer = vec![0; 65_536];
    loop {
        let Ok(length) = from.read(&mut buffer).await else {
            return;
        };
        if is_reply && length > 0 {
            tokio::time::sleep(Duration::from_millis(faults.late_by.load(SeqCst))).await;
        }
        if number < faults.silent_before.load(SeqCst) {
            // Neither half is dropped, so neither side sees an end.
            std::future::pending::<()>().await;
        }
        let is_cut = is_reply && faults.cuts_replies.load(SeqCst);
        let passed = if is_cut { length / 2 } else { length };
        if to.write_all(&buffer[..passed]).await.is_err() || length == 0 || is_cut {
            return;
        }
    }
}
