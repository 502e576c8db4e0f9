//! A rate limit over three gateways, by what arrives at the model's server: never more than the limit in any window, and
//! nearly all of it, while traffic moves between the gateways and while a gateway or the database is killed.

use end_to_end::postgres::Postgres;
use end_to_end::upstream::Scripted;
use end_to_end::{Gateway, config_dir, roomy, wait_for, with_model};
use serde_json::json;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Requests a minute of the project's plan: 5 a second, and 300 at once.
pub(super) const LIMIT: u32 = 300;
pub(super) const A_SECOND: f64 = LIMIT as f64 / 60.0;

/// Requests may arrive later than they were admitted, and so be closer together.
pub(super) const JITTER: f64 = 3.0;

const ANSWER: &str = r#"{"id":"c","object":"chat.completion","created":1,"model":"tested","choices":[{"index":0,"message":{"role":"assistant","content":"yes"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4}}"#;

/// When requests arrived at the server.
pub(super) type Arrivals = Arc<Mutex<Vec<Instant>>>;

pub(super) async fn upstream() -> (Scripted, Arrivals) {
    let arrivals = Arrivals::default();
    let seen = Arc::clone(&arrivals);
    let server = Scripted::start(move |mut connection| {
        let seen = Arc::clone(&seen);
        async move {
            while connection.read_request().await {
                seen.lock().expect("unpoisoned").push(Instant::now());
                connection.answer("200 OK", ANSWER).await;
            }
        }
    })
    .await;
    (server, arrivals)
}

pub(super) fn directory(upstream: &str) -> TempDir {
    config_dir(|name, text| {
        let text = roomy(name, text);
        match name {
            "models.yaml" => with_model(&text, "tested", "openai", upstream, ""),
            "limits.yaml" => text.replace(
                "requests_per_minute: 1000000\n",
                &format!("requests_per_minute: {LIMIT}\n"),
            ),
            _ => text,
        }
    })
}

/// Clients that ask for more than the limit, most of them the gateway that is hot.
pub(super) struct Load {
    hot: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    refused: Arc<AtomicU64>,
    /// Answers 503 and none at all.
    unavailable: Arc<AtomicU64>,
    /// The longest time to an answer, in milliseconds.
    slowest_ms: Arc<AtomicU64>,
    clients: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    pub(super) fn start(gateways: &[Gateway]) -> Self {
        let addresses: Vec<String> = gateways.iter().map(|gateway| gateway.proxy.clone()).collect();
        let (hot, stop) = (Arc::default(), Arc::<AtomicBool>::default());
        let [refused, unavailable, slowest_ms] = [(); 3].map(|()| Arc::<AtomicU64>::default());
        let client = |number: usize| {
            let (addresses, hot) = (addresses.clone(), Arc::<AtomicUsize>::clone(&hot));
            let (stop, refused) = (Arc::clone(&stop), Arc::clone(&refused));
            let (unavailable, slowest_ms) = (Arc::clone(&unavailable), Arc::clone(&slowest_ms));
            async move {
                let http = reqwest::Client::new();
                let body = json!({"model": "tested", "messages": [{"role": "user", "content": "?"}], "max_tokens": 5});
                for round in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let is_hot = (number + round) % 10 < 7;
                    let at = if is_hot {
                        hot.load(Ordering::Relaxed)
                    } else {
                        number + round
                    };
                    let address = &addresses[at % addresses.len()];
                    let sent = http.post(format!("{address}/v1/chat/completions")).json(&body).send();
                    let began = Instant::now();
                    let answered = sent.await.map(|answer| answer.status().as_u16());
                    let took = u64::try_from(began.elapsed().as_millis()).expect("short");
                    slowest_ms.fetch_max(took, Ordering::Relaxed);
                    match answered {
                        Ok(200) => {}
                        // Without the database, what is drawn from budgets is spent at some time: 503.
                        Ok(503) | Err(_) => drop(unavailable.fetch_add(1, Ordering::Relaxed)),
                        Ok(429) => drop(refused.fetch_add(1, Ordering::Relaxed)),
                        Ok(other) => panic!("{other}"),
                    }
                    tokio::time::sleep(Duration::from_millis(250)).await;
                }
            }
        };
        let clients = (0..24).map(|number| tokio::spawn(client(number))).collect();
        Self {
            hot,
            stop,
            refused,
            unavailable,
            slowest_ms,
            clients,
        }
    }

    /// Goes on for some seconds; another gateway is hot every two.
    pub(super) async fn last(&self, seconds: u64) {
        for second in 0..seconds {
            if second % 2 == 1 {
                self.hot.fetch_add(1, Ordering::Relaxed);
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// The answers 503 and the longest time to an answer since the last call.
    pub(super) fn troubles(&self) -> (u64, Duration) {
        let slowest = Duration::from_millis(self.slowest_ms.swap(0, Ordering::Relaxed));
        (self.unavailable.swap(0, Ordering::Relaxed), slowest)
    }

    pub(super) async fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.await.expect("no panic");
        }
        self.refused.load(Ordering::Relaxed)
    }
}

/// The most that was used at once of a bucket that the limit drains, and how many arrived in how many seconds.
pub(super) fn used(arrivals: &Arrivals) -> (f64, f64, f64) {
    let arrivals = arrivals.lock().expect("unpoisoned");
    let (mut level, mut most, mut last) = (0.0f64, 0.0f64, arrivals[0]);
    for at in arrivals.iter() {
        level = (level - (*at - last).as_secs_f64() * A_SECOND).max(0.0) + 1.0;
        (most, last) = (most.max(level), *at);
    }
    let count = u32::try_from(arrivals.len()).expect("few");
    (most, count.into(), (last - arrivals[0]).as_secs_f64())
}

pub(super) async fn three(flags: &[&str], upstream: &str) -> Vec<Gateway> {
    let start = || Gateway::start_in(directory(upstream), flags);
    let (one, two, three) = tokio::join!(start(), start(), start());
    vec![one, two, three]
}

/// Waits until all gateways lease their limits, or none does.
pub(super) async fn coordinated(gateways: &[Gateway], is: bool) {
    wait_for(if is { "leases" } else { "parts" }, || async {
        for gateway in gateways {
            if (gateway.metric("sluice_cluster_coordinated").await > 0.5) != is {
                return None;
            }
        }
        Some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_holds_over_gateways_and_nearly_all_of_it_is_used_wherever_the_traffic_is() {
    let postgres = Postgres::start();
    let (server, arrivals) = upstream().await;
    let gateways = three(&["--database-url", &postgres.url], &server.url).await;
    let load = Load::start(&gateways);
    load.last(20).await;
    let refused = load.end().await;
    let (most, count, seconds) = used(&arrivals);
    let possible = f64::from(LIMIT) + A_SECOND * seconds;
    println!("{count} of {possible:.0} used, {refused} refused, at most {most:.1} at once");
    assert!(refused > 50, "more was asked for: {refused}");
    assert!(most <= f64::from(LIMIT) + JITTER, "{most} of {LIMIT} at once");
    assert!(count >= 0.97 * possible, "{count} of {possible} used");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_killed_takes_little_of_a_limit_with_it_and_the_last_one_knows_what_is_used() {
    let postgres = Postgres::start();
    let (server, arrivals) = upstream().await;
    let mut gateways = three(&["--database-url", &postgres.url], &server.url).await;
    let load = Load::start(&gateways);
    load.last(6).await;
    for gateway in &mut gateways[..2] {
        gateway.signal("KILL");
        gateway.ended().await;
    }
    load.last(10).await;
    let refused = load.end().await;
    let (most, count, seconds) = used(&arrivals);
    let possible = f64::from(LIMIT) + A_SECOND * seconds;
    println!("{count} of {possible:.0} used, {refused} refused, at most {most:.1} at once");
    assert!(most <= f64::from(LIMIT) + JITTER, "{most} of {LIMIT} at once");
    assert!(count >= 0.9 * possible, "{count} of {possible} used");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_database_each_gateway_uses_a_part_of_a_limit_until_it_is_back() {
    let mut postgres = Postgres::start();
    let (server, arrivals) = upstream().await;
    let gateways = three(&["--database-url", &postgres.url], &server.url).await;
    let load = Load::start(&gateways);
    load.last(6).await;
    coordinated(&gateways, true).await;
    postgres.crash();
    let began = Instant::now();
    coordinated(&gateways, false).await;
    let parts_after = began.elapsed();
    let before = arrivals.lock().expect("unpoisoned").len();
    load.last(6).await;
    let alone = arrivals.lock().expect("unpoisoned").len() - before;
    postgres.run();
    let began = Instant::now();
    coordinated(&gateways, true).await;
    let leases_after = began.elapsed();
    load.last(6).await;
    let refused = load.end().await;
    let (most, count, seconds) = used(&arrivals);
    let possible = f64::from(LIMIT) + A_SECOND * seconds;
    println!(
        "{count} of {possible:.0} used, {refused} refused, at most {most:.1} at once; parts after {parts_after:?}, \
         in which {alone} arrived, leases after {leases_after:?}"
    );
    assert!(alone > 0, "requests go on");
    assert!(most <= f64::from(LIMIT) + JITTER, "{most} of {LIMIT} at once");
}
