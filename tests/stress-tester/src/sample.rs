//! The observations of one request: the original's fields first, then more.

use serde::{Deserialize, Serialize};
use simulated_upstream::report::Slo;

/// One line of the results. Times are in seconds; what was not measured is absent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Sample {
    pub(crate) request_index: usize,
    pub(crate) user_id: String,
    pub(crate) project_id: String,
    pub(crate) model: String,
    pub(crate) backend_name: String,
    pub(crate) request_type: String,
    /// 0: there was no answer.
    pub(crate) http_status: u16,
    /// Status of the first answer.
    pub(crate) backend_status: String,
    pub(crate) request_id: String,
    /// From sending to the first answer: the first token of a stream, else the whole first response.
    pub(crate) latency_seconds: Option<f64>,
    /// `completed`, `rejected`, `failed`, `timed_out`, `cancelled`, `interrupted`, or `queued` if it was not polled.
    pub(crate) final_backend_status: String,
    /// Time spent polling.
    pub(crate) final_latency_seconds: Option<f64>,
    /// From sending to the last byte, or to the final status.
    pub(crate) end_to_end_latency_seconds: Option<f64>,
    pub(crate) polling_attempts: u32,
    /// The last answer to a poll that was none.
    pub(crate) polling_error: String,
    /// The server's message, or what happened to the connection.
    pub(crate) error: String,
    /// When it was sent, since the beginning of the run.
    pub(crate) at_seconds: f64,
    /// The delay between its schedule and its sending.
    pub(crate) send_lag_seconds: f64,
    /// The time that it waited because of `--max-in-flight`. Latencies include it: an overloaded server causes it.
    pub(crate) in_flight_wait_seconds: f64,
    pub(crate) time_to_first_token_seconds: Option<f64>,
    /// From the first token to the last, by the tokens after the first.
    pub(crate) time_per_output_token_seconds: Option<f64>,
    pub(crate) time_to_last_token_seconds: Option<f64>,
    /// As the gateway reports it.
    pub(crate) queue_wait_seconds: Option<f64>,
    pub(crate) input_tokens: Option<u64>,
    pub(crate) output_tokens: Option<u64>,
    /// Where the count of output tokens is from: `usage`, `tokenizer` or `chunks`.
    pub(crate) token_source: String,
    pub(crate) max_tokens: u64,
    /// The reason why it was not completed.
    pub(crate) reason: String,
    pub(crate) degraded: String,
    pub(crate) retries: u32,
    pub(crate) polling_failures: u32,
    pub(crate) session: usize,
    pub(crate) turn: usize,
    /// A stall of this program that its first token or its end may have waited for.
    pub(crate) client_stall_seconds: f64,
    /// The reason why latency figures leave it out: `warm_up`, `cool_down`, `client_stall`, or empty.
    pub(crate) left_out: String,
    /// Between tokens, in microseconds, until it is known whether the request is measured.
    #[serde(skip)]
    pub(crate) gaps: Vec<u32>,
}

/// A figure of a request, if it has it.
pub(crate) type Figure = fn(&Sample) -> Option<f64>;

impl Sample {
    pub(crate) fn is_completed(&self) -> bool {
        self.final_backend_status == "completed"
    }

    /// Returns whether figures are made of it.
    pub(crate) fn is_measured(&self) -> bool {
        self.left_out.is_empty()
    }

    /// Since the beginning of the run: when it ended, if that was seen.
    pub(crate) fn ended_at(&self) -> Option<f64> {
        Some(self.at_seconds + self.end_to_end_latency_seconds?)
    }

    /// Returns whether it was completed within the objectives. Without a stream the whole answer is the first token.
    pub(crate) fn is_good(&self, slo: &Slo) -> bool {
        let Some(whole) = self.end_to_end_latency_seconds.filter(|_| self.is_completed()) else {
            return false;
        };
        let first = self.time_to_first_token_seconds.unwrap_or(whole);
        // An answer of one token has no time between tokens.
        let each = self.time_per_output_token_seconds.unwrap_or(0.0);
        first <= slo.ttft && each <= slo.tpot && whole <= slo.e2e
    }
}
