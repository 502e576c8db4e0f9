//! The view while a run lasts: progress, rate, requests under way, percentiles, refusals. Shown on a terminal only.

use crate::distribution::histogram;
use crate::sample::Sample;
use crate::terminal::note;
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The view.
#[derive(Debug)]
pub(crate) struct Live {
    bar: ProgressBar,
    began: Instant,
    under_way: AtomicU64,
    done: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
    tokens: AtomicU64,
    latencies: Mutex<Histogram<u64>>,
}

impl Live {
    /// Starts the view of a run of `count` requests.
    pub(crate) fn start(count: usize, is_quiet: bool) -> Arc<Self> {
        let is_seen = !is_quiet && std::io::stderr().is_terminal();
        let target = if is_seen {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(Some(count as u64), target);
        if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} {elapsed} {msg}") {
            bar.set_style(style);
        }
        let live = Arc::new(Self {
            bar,
            began: Instant::now(),
            under_way: AtomicU64::new(0),
            done: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            tokens: AtomicU64::new(0),
            latencies: Mutex::new(histogram()),
        });
        if is_seen {
            let view = Arc::downgrade(&live);
            tokio::spawn(async move {
                while let Some(live) = view.upgrade().filter(|live| !live.bar.is_finished()) {
                    live.show();
                    drop(live);
                    tokio::time::sleep(Duration::from_millis(250)).await;
                }
            });
        }
        live
    }

    pub(crate) fn began(&self) {
        self.under_way.fetch_add(1, Relaxed);
    }

    pub(crate) fn tokens(&self, count: u64) {
        self.tokens.fetch_add(count, Relaxed);
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub(crate) fn ended(&self, sample: &Sample) {
        self.under_way.fetch_sub(1, Relaxed);
        self.done.fetch_add(1, Relaxed);
        self.refused
            .fetch_add(u64::from(sample.final_backend_status == "rejected"), Relaxed);
        self.failed.fetch_add(
            u64::from(matches!(&*sample.final_backend_status, "failed" | "timed_out")),
            Relaxed,
        );
        let Some(seconds) = sample.end_to_end_latency_seconds.filter(|_| sample.is_completed()) else {
            return;
        };
        let micros = (seconds * 1e6) as u64;
        let mut latencies = self.latencies.lock().unwrap_or_else(PoisonError::into_inner);
        latencies.saturating_record(micros.max(1));
    }

    /// Prints a note without disturbing the view.
    pub(crate) fn say(&self, what: &str) {
        self.bar.suspend(|| note(what));
    }

    pub(crate) fn end(&self) {
        self.bar.finish_and_clear();
    }

    #[allow(clippy::cast_precision_loss)]
    fn show(&self) {
        let done = self.done.load(Relaxed);
        let rate = done as f64 / self.began.elapsed().as_secs_f64().max(0.001);
        let at = |part: f64| {
            let latencies = self.latencies.lock().unwrap_or_else(PoisonError::into_inner);
            latencies.value_at_quantile(part) as f64 / 1000.0
        };
        self.bar.set_position(done);
        self.bar.set_message(format!(
            "{rate:.1}/s, {} under way, p50 {:.0} ms, p99 {:.0} ms, {} refused, {} failed, {} tokens",
            self.under_way.load(Relaxed),
            at(0.5),
            at(0.99),
            self.refused.load(Relaxed),
            self.failed.load(Relaxed),
            self.tokens.load(Relaxed),
        ));
    }
}
