//! A TCP proxy whose connections can go silent: nothing comes through and nothing is closed, as when a firewall forgets
//! a connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, tcp};

/// A running proxy.
pub struct SilentProxy {
    /// Where it listens, `127.0.0.1:PORT`.
    pub address: String,
    /// Connections with a smaller number are silent.
    silent_before: Arc<AtomicUsize>,
    opened: Arc<AtomicUsize>,
}

impl SilentProxy {
    /// Listens on a free port and passes connections on to a server.
    pub async fn start(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let proxy = Self {
            address: listener.local_addr().expect("bound").to_string(),
            silent_before: Arc::default(),
            opened: Arc::default(),
        };
        let (silent_before, opened) = (Arc::clone(&proxy.silent_before), Arc::clone(&proxy.opened));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let number = opened.fetch_add(1, SeqCst);
                let Ok(server) = TcpStream::connect(&server).await else {
                    continue;
                };
                let (client_reads, client_writes) = client.into_split();
                let (server_reads, server_writes) = server.into_split();
                tokio::spawn(pump(client_reads, server_writes, number, Arc::clone(&silent_before)));
                tokio::spawn(pump(server_reads, client_writes, number, Arc::clone(&silent_before)));
            }
        });
        proxy
    }

    /// Makes every open connection silent, for ever; how many have been opened so far. New ones work.
    pub fn silence(&self) -> usize {
        let opened = self.opened.load(SeqCst);
        self.silent_before.store(opened, SeqCst);
        opened
    }

    /// Makes every connection silent, new ones too, until [`restore`](Self::restore).
    pub fn cut_off(&self) {
        self.silent_before.store(usize::MAX, SeqCst);
    }

    /// Lets new connections work; those that were opened before stay silent.
    pub fn restore(&self) {
        self.silent_before.store(self.opened.load(SeqCst), SeqCst);
    }
}

async fn pump(
    mut from: tcp::OwnedReadHalf,
    mut to: tcp::OwnedWriteHalf,
    number: usize,
    silent_before: Arc<AtomicUsize>,
) {
    let mut buffer = vec![0; 65_536];
    loop {
        let Ok(length) = from.read(&mut buffer).await else {
            return;
        };
        if number < silent_before.load(SeqCst) {
            // Neither half is dropped, so neither side sees an end.
            std::future::pending::<()>().await;
        }
        if length == 0 || to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
