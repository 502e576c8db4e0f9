//! A watch over the gateway while it is abused: `/health` on both listeners, its memory, and what must be true afterwards.

use end_to_end::{Gateway, metric, wait_for};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A hang guard, not a measure: the test's machine may be busy.
const HEALTH_WITHIN: Duration = Duration::from_secs(10);

/// The memory that abuse may take beside what the gateway had before, in MB. Its bodies and answers are bounded by far less
/// in these tests; a debug build's stacks and freed memory that is kept come on top.
const MEMORY_MB: u64 = 300;

/// What the watch sees.
pub(crate) struct Watch {
    is_over: Arc<AtomicBool>,
    slowest_micros: Arc<AtomicU64>,
    pings: JoinHandle<u64>,
    before_mb: u64,
    pid: u32,
}

impl Watch {
    /// Begins to ask for `/health`.
    pub(crate) fn begin(gateway: &Gateway) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let slowest_micros = Arc::new(AtomicU64::new(0));
        let urls = [format!("{}/health", gateway.proxy), format!("{}/health", gateway.admin)];
        let (over, slowest) = (Arc::clone(&is_over), Arc::clone(&slowest_micros));
        // On a thread of its own, so that what the test does is not taken for the gateway's.
        let pings = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(ping(&urls, &over, &slowest))
        });
        Self {
            is_over,
            slowest_micros,
            pings,
            before_mb: memory_mb(gateway.pid(), "VmRSS"),
            pid: gateway.pid(),
        }
    }

    /// Ends the watch and checks what it has seen, and that everything was given back.
    pub(crate) async fn end(self, gateway: &Gateway) {
        self.is_over.store(true, Relaxed);
        let pings = tokio::task::spawn_blocking(|| self.pings.join()).await;
        let pings = pings.expect("no panic").expect("/health answers throughout");
        let (peak, now) = (memory_mb(self.pid, "VmHWM"), memory_mb(self.pid, "VmRSS"));
        println!(
            "{pings} times /health, the slowest after {:.1} ms; memory {} MB before, {peak} at most, {now} after",
            Duration::from_micros(self.slowest_micros.load(Relaxed)).as_secs_f64() * 1000.0,
            self.before_mb
        );
        assert!(
            peak <= self.before_mb + MEMORY_MB,
            "{} MB before, {peak} MB at most",
            self.before_mb
        );
        assert!(pings > 0);
        let log = gateway.log();
        assert!(!log.contains("panicked"), "{log}");
        for gauge in ["sluice_active_requests", "sluice_queue_size", "sluice_buffered_bytes"] {
            wait_for(gauge, || async { (gateway.metric(gauge).await < 0.5).then_some(()) }).await;
        }
        let text = gateway.http.get(format!("{}/metrics", gateway.admin)).send().await;
        let text = text.expect("an answer").text().await.expect("text");
        let faults: f64 = text
            .lines()
            .filter(|line| line.starts_with("sluice_refusals_total{") && line.contains("internal_error"))
            .map(|line| metric(line, "sluice_refusals_total"))
            .sum();
        assert!(faults < 0.5, "{faults} requests ended by a fault of the gateway");
    }
}

/// Asks both listeners for `/health` until the watch is over; how often.
async fn ping(urls: &[String], is_over: &AtomicBool, slowest_micros: &AtomicU64) -> u64 {
    let client = reqwest::Client::builder()
        .timeout(HEALTH_WITHIN)
        .build()
        .expect("a client");
    let mut pings = 0;
    while !is_over.load(Relaxed) {
        for url in urls {
            let asked = Instant::now();
            let answer = client.get(url).send().await.expect("an answer");
            assert_eq!(answer.status(), 200);
            let micros = u64::try_from(asked.elapsed().as_micros()).unwrap_or(u64::MAX);
            slowest_micros.fetch_max(micros, Relaxed);
            pings += 1;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    pings
}

fn memory_mb(pid: u32, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the gateway runs");
    let line = status.lines().find(|line| line.starts_with(field)).expect("a field");
    let kilobytes = line.split_whitespace().nth(1).and_then(|text| text.parse::<u64>().ok());
    kilobytes.expect("a number") / 1024
}
