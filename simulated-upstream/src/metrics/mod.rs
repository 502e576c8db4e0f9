//! `/metrics`: under vLLM's names and with its buckets, by its documentation and `vllm/v1/metrics/loggers.py`, and
//! under some names of its own.

mod histogram;
mod show;

pub(crate) use histogram::Figure;
pub(crate) use show::show;

use histogram::{FIGURES, Histogram};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

/// Counters of requests and tokens.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) requests: AtomicU64,
    pub(crate) running: AtomicU64,
    pub(crate) aborted: AtomicU64,
    pub(crate) prompt_tokens: AtomicU64,
    pub(crate) generation_tokens: AtomicU64,
    by_model: Mutex<BTreeMap<String, OfModel>>,
}

/// The figures of a model.
#[derive(Debug)]
struct OfModel {
    running: u64,
    stopped: u64,
    cut: u64,
    aborted: u64,
    histograms: Vec<Histogram>,
}

impl Default for OfModel {
    fn default() -> Self {
        Self {
            running: 0,
            stopped: 0,
            cut: 0,
            aborted: 0,
            histograms: FIGURES.iter().map(|known| Histogram::new(known.buckets)).collect(),
        }
    }
}

impl Metrics {
    fn of(&self, model: &str, change: impl FnOnce(&mut OfModel)) {
        let mut by_model = self.by_model.lock().unwrap_or_else(PoisonError::into_inner);
        match by_model.get_mut(model) {
            Some(known) => change(known),
            None => change(by_model.entry(model.to_owned()).or_default()),
        }
    }

    pub(crate) fn began(&self, model: &str) {
        self.requests.fetch_add(1, Relaxed);
        self.running.fetch_add(1, Relaxed);
        self.of(model, |of| of.running += 1);
    }

    pub(crate) fn ended(&self, model: &str, is_complete: bool) {
        self.running.fetch_sub(1, Relaxed);
        self.aborted.fetch_add(u64::from(!is_complete), Relaxed);
        self.of(model, |of| {
            of.running = of.running.saturating_sub(1);
            of.aborted += u64::from(!is_complete);
        });
    }

    /// Counts a request's `n` and `max_tokens`.
    #[allow(clippy::cast_precision_loss)]
    pub(crate) fn count_request(&self, model: &str, count: i64, limit: Option<i64>) {
        self.observe(model, Figure::ParamsN, count as f64);
        if let Some(limit) = limit {
            self.observe(model, Figure::ParamsMaxTokens, limit as f64);
        }
    }

    pub(crate) fn observe(&self, model: &str, figure: Figure, value: f64) {
        self.of(model, |of| of.histograms[figure as usize].observe(value));
    }

    pub(crate) fn finished(&self, model: &str, is_cut: bool) {
        self.of(model, |of| {
            of.cut += u64::from(is_cut);
            of.stopped += u64::from(!is_cut);
        });
    }
}
