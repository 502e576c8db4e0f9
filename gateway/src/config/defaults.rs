//! Defaults of settings that a file leaves out.

use super::kept::{Durability, LedgerSettings, StoredResponseSettings};
use super::levels::Hysteresis;
use super::raw::{Bounds, Health, LogFormat, Retries, Telemetry, Timeouts, TokenWeights};
use super::read::At;
use std::time::Duration;

impl Default for Hysteresis {
    fn default() -> Self {
        Self {
            margin: At { value: 0.05, line: 0 },
            hold_seconds: Duration::from_secs(2),
        }
    }
}

impl Default for TokenWeights {
    fn default() -> Self {
        Self {
            cached_input: At { value: 0.1, line: 0 },
            output: At { value: 2.0, line: 0 },
        }
    }
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            max_body_bytes: 32 << 20,
            max_response_bytes: 64 << 20,
            max_buffered_bytes: 1 << 30,
            max_connections: At { value: 16_384, line: 0 },
            max_connections_per_address: At { value: 4_096, line: 0 },
            max_http2_control_frames: At { value: 1_000, line: 0 },
            wrong_credentials_per_minute: At { value: 20, line: 0 },
            reserved_descriptors: 64,
            max_files_bytes: 1 << 30,
            max_files: At { value: 10_000, line: 0 },
            max_unfinished_batches: At { value: 100, line: 0 },
            max_ended_batches: At { value: 10_000, line: 0 },
            ledger_backlog: 100_000,
        }
    }
}

impl Default for LedgerSettings {
    fn default() -> Self {
        Self {
            durability: Durability::Strict,
        }
    }
}

impl Default for StoredResponseSettings {
    fn default() -> Self {
        Self {
            keep_days: None,
            max_bytes: 1 << 30,
            max_turns: At { value: 200, line: 0 },
        }
    }
}

impl Default for Health {
    fn default() -> Self {
        Self {
            interval_seconds: Duration::from_secs(5),
            timeout_seconds: Duration::from_secs(2),
            failures: At { value: 5, line: 0 },
            rest_seconds: Duration::from_secs(1),
            longest_rest_seconds: Duration::from_secs(30),
            slow_start_seconds: Duration::from_secs(10),
        }
    }
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            attempts: At { value: 3, line: 0 },
            share: At { value: 0.2, line: 0 },
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            head_seconds: Duration::from_secs(10),
            body_seconds: Duration::from_secs(60),
            connect_seconds: Duration::from_secs(5),
            first_token_seconds: Duration::from_secs(120),
            gap_seconds: Duration::from_secs(60),
            keepalive_seconds: Duration::from_secs(60),
            drain_seconds: Duration::from_secs(30),
        }
    }
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            log_format: LogFormat::Text,
            log_requests: false,
            otlp_endpoint: None,
            sample_ratio: At { value: 0.01, line: 0 },
            service_name: "sluice".to_owned(),
        }
    }
}
