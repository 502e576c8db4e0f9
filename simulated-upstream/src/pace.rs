//! When the tokens of an answer come: a fifth of the latency before the first, the rest evenly.

use std::time::Duration;
use tokio::time::Instant;

/// The schedule of one answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    began: Instant,
    latency: Duration,
    tokens: u64,
}

impl Pace {
    pub(crate) fn begin(latency: Duration, tokens: u64) -> Self {
        Self {
            began: Instant::now(),
            latency,
            tokens,
        }
    }

    /// Waits until the token of this index, from 0, is due.
    pub(crate) async fn token(&self, index: u64) {
        if self.latency.is_zero() {
            return;
        }
        let first = self.latency / 5;
        let steps = u32::try_from(self.tokens.saturating_sub(1)).unwrap_or(u32::MAX).max(1);
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        tokio::time::sleep_until(self.began + first + self.latency.saturating_sub(first) / steps * index).await;
    }

    /// Waits until the whole answer is due.
    pub(crate) async fn whole(&self) {
        if !self.latency.is_zero() {
            tokio::time::sleep_until(self.began + self.latency).await;
        }
    }
}
