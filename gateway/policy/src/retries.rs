//! The retry budget: a share of the traffic, so that retries never make an overload worse.

use crate::Time;
use std::time::Duration;

/// Retries that may come at once after a calm time.
const BURST: f64 = 50.0;

/// Retries a second that are allowed beside the share, so that little traffic is tried again too.
const LEAST: f64 = 2.0;

/// The budget of one model.
#[derive(Debug, Clone)]
pub struct RetryBudget {
    /// Retries for a request.
    share: f64,
    left: f64,
    since: Option<Time>,
}

impl RetryBudget {
    /// `share` is retries for a request, such as 0.2.
    pub fn new(share: f64) -> Self {
        Self {
            share,
            left: BURST,
            since: None,
        }
    }

    /// A request came.
    pub fn earn(&mut self) {
        self.left = (self.left + self.share).min(BURST);
    }

    /// Takes a retry from the budget; false if none is left.
    pub fn spend(&mut self, now: Time) -> bool {
        let passed = self.since.map_or(Duration::ZERO, |since| now - since);
        self.since = Some(now);
        if self.share > 0.0 {
            self.left = (self.left + passed.as_secs_f64() * LEAST).min(BURST);
        }
        let may = self.share > 0.0 && self.left >= 1.0;
        if may {
            self.left -= 1.0;
        }
        may
    }
}
