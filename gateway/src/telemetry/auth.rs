//! Metrics of wrong credentials.

use super::make::Make;
use prometheus::IntCounterVec;

/// Wrong credentials, by kind.
#[derive(Debug, Clone)]
pub(crate) struct AuthMetrics {
    failures: IntCounterVec,
    throttled: IntCounterVec,
}

const FAILURES: (&str, &str) = (
    "auth_failures_total",
    "Requests with a wrong API key, admin token or login link: api_key, admin_token or login_link.",
);
const THROTTLED: (&str, &str) = (
    "auth_throttled_total",
    "Requests that got 429 because their address had sent more than bounds.wrong_credentials_per_minute.",
);

impl AuthMetrics {
    pub(super) fn new(make: &Make<'_>) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            failures: make.counters(FAILURES.0, FAILURES.1, &["credential"])?,
            throttled: make.counters(THROTTLED.0, THROTTLED.1, &["credential"])?,
        };
        for credential in ["api_key", "admin_token", "login_link"] {
            metrics.failures.with_label_values(&[credential]);
            metrics.throttled.with_label_values(&[credential]);
        }
        Ok(metrics)
    }

    /// Counts wrong credentials.
    pub(crate) fn failed(&self, credential: &str) {
        self.failures.with_label_values(&[credential]).inc();
    }

    /// Counts a request of an address that is over its limit.
    pub(crate) fn throttled(&self, credential: &str) {
        self.throttled.with_label_values(&[credential]).inc();
    }

    /// Metrics that nobody reads, for tests.
    #[cfg(test)]
    pub(crate) fn unregistered() -> Self {
        let registry = prometheus::Registry::new();
        Self::new(&Make(&registry)).expect("names that are free")
    }
}
