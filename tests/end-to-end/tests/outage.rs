//! A batch through a server that limits, then is dead, then is alive, while the gateway is killed three times and
//! stopped once: each line is answered once and has one record. `make outage` runs it at full length.

use end_to_end::upstream::WHOLE;
use end_to_end::{Gateway, config_dir, ledger_agrees, roomy, sluice, wait_for, with_model};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// The time that the server takes for an answer.
const TAKES: Duration = Duration::from_millis(100);

/// Ledgers up to this size are compared row by row.
const ROWS_TO_COMPARE: usize = 900;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    /// It answers 429 to everything.
    Limits,
    /// It answers 503 to everything.
    Overloaded,
    /// Nothing listens at its address, and what was connected is cut off.
    Dead,
    Alive,
}

/// A server whose state the test sets.
struct Server {
    address: SocketAddr,
    phase: watch::Sender<Phase>,
    answered: Arc<AtomicUsize>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (phase, seen) = watch::channel(Phase::Alive);
        let answered = Arc::new(AtomicUsize::new(0));
        tokio::spawn(listen(Some(listener), address, seen, Arc::clone(&answered)));
        Self {
            address,
            phase,
            answered,
        }
    }

    fn answered(&self) -> usize {
        self.answered.load(Relaxed)
    }
}

async fn listen(
    mut listener: Option<TcpListener>,
    address: SocketAddr,
    mut phase: watch::Receiver<Phase>,
    answered: Arc<AtomicUsize>,
) {
    loop {
        let is_dead = *phase.borrow_and_update() == Phase::Dead;
        if is_dead {
            listener = None;
        } else if listener.is_none() {
            listener = Some(TcpListener::bind(address).await.expect("its own address"));
        }
        let accepted = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = phase.changed() => if changed.is_err() { return },
            Ok((stream, _)) = accepted => {
                let mut until_dead = phase.clone();
                let serving = serve(stream, phase.clone(), Arc::clone(&answered));
                tokio::spawn(async move {
                    tokio::select! {
                        () = serving => {}
                        _ = until_dead.wait_for(|phase| *phase == Phase::Dead) => {}
                    }
                });
            }
        }
    }
}

async fn serve(mut stream: TcpStream, phase: watch::Receiver<Phase>, answered: Arc<AtomicUsize>) {
    let mut request = Vec::new();
    let mut piece = vec![0; 16 << 10];
    loop {
        match stream.read(&mut piece).await {
            Ok(0) | Err(_) => return,
            Ok(count) => request.extend_from_slice(&piece[..count]),
        }
        if !is_whole(&request) {
            continue;
        }
        request.clear();
        let now = *phase.borrow();
        let (status, body) = match now {
            Phase::Limits => ("429 Too Many Requests", "{}"),
            Phase::Overloaded => ("503 Service Unavailable", "{}"),
            Phase::Dead | Phase::Alive => ("200 OK", WHOLE),
        };
        if now == Phase::Alive {
            tokio::time::sleep(TAKES).await;
        }
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        if stream.write_all(format!("{head}{body}").as_bytes()).await.is_err() {
            return;
        }
        answered.fetch_add(usize::from(now == Phase::Alive), Relaxed);
    }
}

/// Returns whether a request with a declared length is there to its end.
fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).to_ascii_lowercase();
    let Some((head, _)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let declared = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length = declared.map_or(0, |length| length.trim().parse().expect("a number"));
    request.len() >= head.len() + 4 + length
}

async fn reached(server: &Server, answers: usize) {
    for _ in 0..6000 {
        if server.answered() >= answers {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{} of {answers} answers in five minutes", server.answered());
}

async fn restarted(mut gateway: Gateway, signal: &str) -> Gateway {
    gateway.signal(signal);
    gateway.ended().await;
    Gateway::start_in(gateway.left(), &[]).await
}

/// A batch of so many lines; the server limits, and is dead, for so long each.
async fn outage(lines: usize, each: Duration) {
    let server = Server::start().await;
    let url = format!("http://{}", server.address);
    let dir = config_dir(|name, text| match name {
        "models.yaml" => with_model(&text, "tested", "openai", &url, ""),
        _ => roomy(name, text),
    });
    let mut gateway = Gateway::start_in(dir, &[]).await;
    let batch = gateway.start_batch("tested", lines).await;
    reached(&server, lines / 10).await;
    for (phase, signal) in [
        (Phase::Limits, "KILL"),
        (Phase::Dead, "KILL"),
        (Phase::Overloaded, "TERM"),
    ] {
        server.phase.send_replace(phase);
        tokio::time::sleep(each / 2).await;
        gateway = restarted(gateway, signal).await;
        tokio::time::sleep(each / 2).await;
    }
    server.phase.send_replace(Phase::Alive);
    reached(&server, lines / 2).await;
    gateway = restarted(gateway, "KILL").await;
    let ended = gateway.ended_batch(&batch).await;
    assert_eq!(ended["status"], "completed", "{ended}");
    check(&gateway, &ended, lines).await;
    println!(
        "{lines} lines answered once; the server gave {} answers",
        server.answered()
    );
}

/// Each line has one answer and one record.
async fn check(gateway: &Gateway, ended: &Value, lines: usize) {
    let rows = gateway.batch_rows(ended).await;
    let mut answers: HashMap<&str, usize> = HashMap::new();
    for row in &rows {
        *answers.entry(row["custom_id"].as_str().expect("an id")).or_default() += 1;
        let is_answered = row["response"]["status_code"] == 200;
        assert!(is_answered, "{row}");
    }
    let expected: HashSet<String> = (0..lines).map(|number| format!("line-{number}")).collect();
    assert!(answers.values().all(|count| *count == 1), "a line has two answers");
    assert_eq!(answers.len(), expected.len());
    assert!(answers.keys().all(|name| expected.contains(*name)));
    wait_for("records", || async {
        let summary = gateway.admin_json("/usage/summary").await;
        (summary["total_records"] == lines).then_some(())
    })
    .await;
    let script = "import json, sqlite3; c = sqlite3.connect('data/usage.db'); \
        print(json.dumps(c.execute('SELECT count(*), count(DISTINCT request_id) FROM requests').fetchone()))";
    let counted = Command::new("python3")
        .args(["-c", script])
        .current_dir(gateway.dir.path())
        .output();
    let counted: Value = serde_json::from_slice(&counted.expect("python runs").stdout).expect("two numbers");
    assert_eq!(counted, json!([lines, lines]), "one record each");
    if lines <= ROWS_TO_COMPARE {
        ledger_agrees(gateway).await;
    }
    let verified = sluice(gateway.dir.path(), &["ledger", "verify"]);
    assert!(verified.status.success(), "{verified:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_survives_a_short_outage_and_three_kills_and_a_drain_each_line_answered_once() {
    outage(200, Duration::from_secs(4)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes five minutes: `make outage`"]
async fn five_thousand_lines_survive_a_minute_of_429_a_minute_of_a_dead_server_three_kills_and_a_drain() {
    outage(5000, Duration::from_secs(60)).await;
}
