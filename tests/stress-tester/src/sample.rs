//! What was seen of one request, with the original's fields and more.

use serde::{Deserialize, Serialize};
use simulated_upstream::report::Slo;

/// One request's line. Times are in seconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sample {
    pub(crate) request_index: usize,
    pub(crate) user_id: String,
    pub(crate) project_id: String,
    pub(crate) model: String,
    pub(crate) backend_name: String,
    pub(crate) request_type: String,
    /// 0: there was no answer.
    pub(crate) http_status: u16,
    pub(crate) backend_status: String,
    pub(crate) request_id: String,
    /// To the first answer.
    pub(crate) latency_seconds: f64,
    pub(crate) final_backend_status: String,
    /// From there to the end of polling.
    pub(crate) final_latency_seconds: f64,
    pub(crate) end_to_end_latency_seconds: f64,
    pub(crate) polling_attempts: u32,
    pub(crate) polling_error: String,
    pub(crate) error: String,
    /// After the beginning of the run: when it was to be sent. In an open loop, times are counted from there.
    pub(crate) at_seconds: f64,
    pub(crate) time_to_first_token_seconds: Option<f64>,
    pub(crate) time_per_output_token_seconds: Option<f64>,
    /// As the gateway says.
    pub(crate) queue_wait_seconds: Option<f64>,
    pub(crate) input_tokens: u64,
    pub(crate) output_tokens: u64,
    /// Why it was refused.
    pub(crate) reason: String,
    pub(crate) degraded: String,
    pub(crate) retries: u32,
}

/// A figure of a request, if it has it.
pub(crate) type Figure = fn(&Sample) -> Option<f64>;

impl Sample {
    pub(crate) fn is_completed(&self) -> bool {
        self.final_backend_status == "completed"
    }

    /// Whether it was within bounds, in seconds; without a stream the whole answer is the first token.
    pub(crate) fn is_good(&self, slo: &Slo) -> bool {
        let first = self
            .time_to_first_token_seconds
            .unwrap_or(self.end_to_end_latency_seconds);
        let each = self.time_per_output_token_seconds.unwrap_or(0.0);
        self.is_completed() && first <= slo.ttft && each <= slo.tpot && self.end_to_end_latency_seconds <= slo.e2e
    }
}
