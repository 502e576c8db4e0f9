//! Every answer of policy. A refusal is an expected decision, not an error; it knows no HTTP.

use crate::{PermitId, TicketId};
use std::time::Duration;
use thiserror::Error;

/// What becomes of an offered request.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision {
    /// It may run now.
    Admit(PermitId),
    /// It waits; a later release hands its ticket a permit.
    Wait(TicketId),
    /// It may not.
    Refuse(Refusal),
}

/// Why a request may not run.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// More requests than the plan allows.
    #[error("rate limit reached: {limit} requests a minute for this project")]
    RateLimited {
        /// Requests a minute.
        limit: u32,
        /// When the next one may pass.
        retry_after: Duration,
    },
    /// The queue holds no more.
    #[error("the queue is full ({size} requests wait)")]
    QueueFull {
        /// Requests that wait.
        size: usize,
        /// When trying again makes sense.
        retry_after: Duration,
    },
    /// It waited as long as one may.
    #[error("no capacity became free within {} s", waited.as_secs())]
    QueueTimeout {
        /// How long it waited.
        waited: Duration,
        /// When trying again makes sense.
        retry_after: Duration,
    },
}

/// Where the caller's project stands with its request rate: the figures of the `x-ratelimit-*`
/// headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// Requests a minute; 0 where nothing limits.
    pub limit: u32,
    /// Requests that may still pass at once.
    pub remaining: u32,
    /// Until the whole burst is free again.
    pub reset: Duration,
}
