//! Making metrics of each type in one registry.

use prometheus::core::Collector;
use prometheus::{GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

/// Makes metrics and adds them to the registry; `sluice_` goes before every name.
pub(super) struct Make<'a>(pub(super) &'a Registry);

impl Make<'_> {
    pub(super) fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
        self.add(IntCounterVec::new(Opts::new(format!("sluice_{name}"), help), labels)?)
    }

    pub(super) fn gauges(&self, name: &str, help: &str, label: &str) -> Result<IntGaugeVec, prometheus::Error> {
        self.add(IntGaugeVec::new(Opts::new(format!("sluice_{name}"), help), &[label])?)
    }

    pub(super) fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.add(IntGauge::new(format!("sluice_{name}"), help)?)
    }

    pub(super) fn ratios(&self, name: &str, help: &str) -> Result<GaugeVec, prometheus::Error> {
        let labels = &["project", "window"];
        self.add(GaugeVec::new(Opts::new(format!("sluice_{name}"), help), labels)?)
    }

    pub(super) fn seconds(
        &self,
        name: &str,
        help: &str,
        label: &str,
        buckets: &[f64],
    ) -> Result<HistogramVec, prometheus::Error> {
        let opts = HistogramOpts::new(format!("sluice_{name}"), help).buckets(buckets.to_vec());
        self.add(HistogramVec::new(opts, &[label])?)
    }

    pub(super) fn add<C: Collector + Clone + 'static>(&self, collector: C) -> Result<C, prometheus::Error> {
        self.0.register(Box::new(collector.clone()))?;
        Ok(collector)
    }
}
