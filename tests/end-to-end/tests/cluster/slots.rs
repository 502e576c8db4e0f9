//! Slots over three gateways, by what runs at the model's server: never more at once than there are slots, none left free
//! while requests wait anywhere, and those of a killed gateway back within seconds.

use end_to_end::postgres::Postgres;
use end_to_end::upstream::Scripted;
use end_to_end::{Gateway, config_dir, roomy, with_model};
use serde_json::json;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub(super) const SLOTS: usize = 6;

const ANSWER: &str = r#"{"id":"c","object":"chat.completion","created":1,"model":"tested","choices":[{"index":0,"message":{"role":"assistant","content":"yes"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4}}"#;

/// What runs at the server.
#[derive(Default)]
pub(super) struct Runs {
    now: AtomicUsize,
    most: AtomicUsize,
    ended: AtomicUsize,
    pub(super) arrivals: Mutex<Vec<Instant>>,
}

/// A server whose answers take so long.
pub(super) async fn upstream(takes: Duration) -> (Scripted, Arc<Runs>) {
    let runs = Arc::<Runs>::default();
    let counted = Arc::clone(&runs);
    let server = Scripted::start(move |mut connection| {
        let runs = Arc::clone(&counted);
        async move {
            while connection.read_request().await {
                let now = runs.now.fetch_add(1, Ordering::SeqCst) + 1;
                runs.most.fetch_max(now, Ordering::SeqCst);
                runs.arrivals.lock().expect("unpoisoned").push(Instant::now());
                tokio::time::sleep(takes).await;
                runs.now.fetch_sub(1, Ordering::SeqCst);
                runs.ended.fetch_add(1, Ordering::SeqCst);
                connection.answer("200 OK", ANSWER).await;
            }
        }
    })
    .await;
    (server, runs)
}

pub(super) fn directory(upstream: &str) -> TempDir {
    config_dir(|name, text| {
        let text = roomy(name, text);
        match name {
            "models.yaml" => {
                with_model(&text, "tested", "openai", upstream, "") + &format!("    max_concurrent_requests: {SLOTS}\n")
            }
            _ => text,
        }
    })
}

pub(super) async fn three(flags: &[&str], directory: impl Fn() -> TempDir) -> Vec<Gateway> {
    let start = || Gateway::start_in(directory(), flags);
    let (one, two, three) = tokio::join!(start(), start(), start());
    vec![one, two, three]
}

/// A request; true if it is answered.
pub(super) async fn ask(address: &str) -> bool {
    let body = json!({"model": "tested", "messages": [{"role": "user", "content": "?"}], "max_tokens": 5});
    let http = reqwest::Client::new();
    let sent = http.post(format!("{address}/v1/chat/completions")).json(&body).send();
    sent.await.is_ok_and(|answer| answer.status().as_u16() == 200)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_requests_run_than_there_are_slots_and_all_are_used_wherever_requests_come_to() {
    let postgres = Postgres::start();
    all_slots_are_used_and_no_more(&["--database-url", &postgres.url]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_slots_of_a_killed_gateway_are_back_after_three_seconds() {
    let postgres = Postgres::start();
    slots_come_back(&["--database-url", &postgres.url]).await;
}

pub(super) async fn all_slots_are_used_and_no_more(flags: &[&str]) {
    const TAKES: Duration = Duration::from_millis(400);
    let (server, runs) = upstream(TAKES).await;
    let gateways = three(flags, || directory(&server.url)).await;
    let addresses: Vec<String> = gateways.iter().map(|gateway| gateway.proxy.clone()).collect();
    let (hot, stop) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
    // Of 16 clients, 12 ask the gateway that is hot, so that each has some.
    let clients = (0..16).map(|number| {
        let (addresses, hot, stop) = (addresses.clone(), Arc::clone(&hot), Arc::clone(&stop));
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let at = if number < 12 {
                    hot.load(Ordering::Relaxed)
                } else {
                    number
                };
                assert!(ask(&addresses[at % addresses.len()]).await, "it waits for its turn");
            }
        })
    });
    let clients: Vec<_> = clients.collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (began, before) = (Instant::now(), runs.ended.load(Ordering::SeqCst));
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_secs(3)).await;
        hot.fetch_add(1, Ordering::Relaxed);
    }
    let ended = u32::try_from(runs.ended.load(Ordering::SeqCst) - before).expect("few");
    let possible = began.elapsed().as_secs_f64() / TAKES.as_secs_f64() * f64::from(u32::try_from(SLOTS).expect("few"));
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.expect("no panic");
    }
    let most = runs.most.load(Ordering::SeqCst);
    let used = f64::from(ended) / possible;
    println!("at most {most} of {SLOTS} at once, {:.1} % of them used", used * 100.0);
    assert!(most <= SLOTS, "{most} of {SLOTS} run at once");
    assert!(used >= 0.8, "{used} of the slots used");
}

pub(super) async fn slots_come_back(flags: &[&str]) {
    // No answer ends while this looks on.
    let (server, runs) = upstream(Duration::from_secs(120)).await;
    let mut gateways = three(flags, || directory(&server.url)).await;
    let spawn_to = |gateway: &Gateway| {
        let address = gateway.proxy.clone();
        tokio::spawn(async move { ask(&address).await })
    };
    let first: Vec<_> = (0..SLOTS).map(|_| spawn_to(&gateways[0])).collect();
    let arrived = |count: usize| {
        let runs = &runs;
        move || async move { (runs.arrivals.lock().expect("unpoisoned").len() >= count).then_some(()) }
    };
    end_to_end::wait_for("one gateway has all slots", arrived(SLOTS)).await;
    let others: Vec<_> = (0..SLOTS).map(|_| spawn_to(&gateways[1])).collect();
    let asked = Instant::now();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let arrivals = runs.arrivals.lock().expect("unpoisoned").clone();
    let early: Vec<_> = arrivals.iter().map(|arrival| asked - *arrival).collect();
    assert_eq!(
        arrivals.len(),
        SLOTS,
        "the others wait; before they asked: {early:?}, now {:?}",
        asked.elapsed()
    );
    gateways[0].signal("KILL");
    let killed = Instant::now();
    gateways[0].ended().await;
    end_to_end::wait_for("all slots at the other gateway", arrived(2 * SLOTS)).await;
    let arrivals = runs.arrivals.lock().expect("unpoisoned").clone();
    let (first_after, last_after) = (arrivals[SLOTS] - killed, arrivals[2 * SLOTS - 1] - killed);
    println!("the first slot is back {first_after:?} after the kill, the last {last_after:?}");
    assert!(
        first_after > Duration::from_secs(2),
        "not before the lease has ended: {first_after:?}"
    );
    assert!(last_after < Duration::from_secs(15), "{last_after:?}");
    for request in first.into_iter().chain(others) {
        request.abort();
    }
}
