//! Measures the simulated upstream's deviation from its own schedule, and the load that it can serve, for
//! `docs/simulated-upstream.md`:
//!
//! `cargo run --release -p simulated-upstream --example load -- streams 1000 20` opens so many streams at so many
//! milliseconds a token and tells how late tokens came; `-- requests 64` asks small questions over so many connections.
//! The server is a process of its own, on the same machine.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A server with one model; it ends with this program.
struct Server(Child, SocketAddr);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(timing: &str) -> Server {
    use std::io::BufRead;
    let program = std::env::current_exe()
        .expect("a program")
        .with_file_name("../simulated-upstream");
    let mut command = Command::new(program);
    command
        .args(["--listen", "127.0.0.1:0", "--model"])
        .arg(format!("m={timing}"));
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .expect("build simulated-upstream first");
    let mut said = String::new();
    let out = child.stdout.take().expect("piped");
    std::io::BufReader::new(out).read_line(&mut said).expect("readable");
    let address = said.split("http://").nth(1).and_then(|rest| rest.split(' ').next());
    Server(child, address.expect("an address").parse().expect("an address"))
}

fn request(body: &str) -> String {
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::main]
async fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, otherwise: u64| args.get(at).map_or(otherwise, |text| text.parse().expect("a number"));
    match args.first().map(String::as_str) {
        Some("streams") => streams(number(1, 1000), number(2, 20)).await,
        Some("requests") => requests(number(1, 64)).await,
        _ => eprintln!("load streams [STREAMS] [MS] | load requests [CONNECTIONS]"),
    }
}

/// A stream's tokens against its schedule: so many milliseconds after it was asked for, and after each other.
async fn streams(count: u64, millis: u64) {
    const TOKENS: u32 = 400;
    let server = start(&format!("{millis}ms/{millis}ms"));
    let body = format!(
        r#"{{"model":"m","stream":true,"max_tokens":{TOKENS},"ignore_eos":true,"messages":[{{"role":"user","content":"hi"}}]}}"#
    );
    let each = Duration::from_millis(millis);
    let mut readers = Vec::new();
    for number in 0..count {
        // They begin spread over a second, as those of many users do.
        let after = Duration::from_micros(number * 1_000_000 / count);
        let (address, body) = (server.1, body.clone());
        readers.push(tokio::spawn(async move {
            tokio::time::sleep(after).await;
            let mut stream = TcpStream::connect(address).await.expect("connected");
            stream.write_all(request(&body).as_bytes()).await.expect("sent");
            let sent = Instant::now();
            let mut off = Vec::with_capacity(TOKENS as usize);
            let mut buffer = vec![0; 16 << 10];
            while off.len() < TOKENS as usize {
                let read = stream.read(&mut buffer).await.expect("readable");
                let now = sent.elapsed();
                for _ in 0..tokens(&buffer[..read]) {
                    let due = each * (u32::try_from(off.len()).expect("few") + 1);
                    off.push(now.abs_diff(due));
                }
            }
            off
        }));
    }
    let mut late = Vec::new();
    for reader in readers {
        late.extend(reader.await.expect("no panic"));
    }
    late.sort_unstable();
    let at = |part: usize| late[(late.len() - 1) * part / 1000];
    println!(
        "{count} streams at {millis} ms a token: off by p50 {:?}, p99 {:?}, p99.9 {:?}",
        at(500),
        at(990),
        at(999)
    );
}

/// Tokens in a piece of a stream: deltas with a text. The chunk with the role has an empty one.
fn tokens(bytes: &[u8]) -> usize {
    let count = |needle: &[u8]| bytes.windows(needle.len()).filter(|window| *window == needle).count();
    count(b"\"content\":") - count(b"\"content\":\"\"")
}

async fn requests(connections: u64) {
    let server = start("0");
    let body = request(r#"{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"hi"}]}"#);
    let done = Arc::new(AtomicU64::new(0));
    for _ in 0..connections {
        let (address, body, done) = (server.1, body.clone(), Arc::clone(&done));
        tokio::spawn(async move {
            let mut stream = TcpStream::connect(address).await.expect("connected");
            let mut buffer = vec![0; 4096];
            loop {
                if stream.write_all(body.as_bytes()).await.is_err() {
                    return;
                }
                let mut seen = 0;
                // A small answer comes in one piece or two; its body ends with a brace.
                while seen == 0 || buffer[seen - 1] != b'}' {
                    match stream.read(&mut buffer[seen..]).await {
                        Ok(read) if read > 0 => seen += read,
                        // The server has ended, and so has the measurement.
                        _ => return,
                    }
                }
                done.fetch_add(1, Relaxed);
            }
        });
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (before, began) = (done.load(Relaxed), Instant::now());
    tokio::time::sleep(Duration::from_secs(5)).await;
    let rate = u128::from(done.load(Relaxed) - before) * 1000 / began.elapsed().as_millis();
    println!("{connections} connections: {rate} requests a second");
}
