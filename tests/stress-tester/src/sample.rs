//! What was seen of one request, with the original's fields and more.

use serde::{Deserialize, Serialize};

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

/// Bounds within which an answer counts as good, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Slo {
    pub(crate) ttft: f64,
    pub(crate) tpot: f64,
    pub(crate) e2e: f64,
}

impl Default for Slo {
    fn default() -> Self {
        // JSON has no infinity.
        Self {
            ttft: 1e9,
            tpot: 1e9,
            e2e: 1e9,
        }
    }
}

impl std::str::FromStr for Slo {
    type Err = String;

    /// `ttft=500ms,tpot=50ms,e2e=10s`.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut slo = Self::default();
        for part in text.split(',') {
            let (name, value) = part
                .split_once('=')
                .ok_or_else(|| format!("`{part}` is not such as ttft=500ms"))?;
            let (number, unit) = match (value.strip_suffix("ms"), value.strip_suffix('s')) {
                (Some(number), _) => (number, 0.001),
                (None, Some(number)) => (number, 1.0),
                (None, None) => return Err(format!("`{value}` has no unit; give ms or s")),
            };
            let number: f64 = number.trim().parse().map_err(|_| format!("`{number}` is no number"))?;
            match name.trim() {
                "ttft" => slo.ttft = number * unit,
                "tpot" => slo.tpot = number * unit,
                "e2e" => slo.e2e = number * unit,
                other => return Err(format!("`{other}` is none of ttft, tpot, e2e")),
            }
        }
        Ok(slo)
    }
}
