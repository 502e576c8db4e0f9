//! Refusals: expected decisions, not errors. They know no HTTP; their text is what the caller reads.

use crate::{Milestone, NanoEuro, QuotaUnit, QuotaWindow, Subject, Time};
use std::fmt;
use std::time::Duration;
use thiserror::Error;

/// The reason why a request may not run.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// A rate limit has nothing left.
    #[error("rate limit exceeded: {limit} {} for {subject}; retry in {}", kind.name(), Seconds(*retry_after))]
    RateLimited {
        /// The holder of the limit.
        subject: Subject,
        /// The unit and period of the limit.
        kind: RateLimitKind,
        /// The limit.
        limit: u64,
        /// When it could pass.
        retry_after: Duration,
    },
    /// The request is larger than a limit can ever let pass.
    #[error("request too large: it may need up to {}, and the limit is {} for {subject}; reduce the prompt or max_tokens",
        kind.amount(*wanted), kind.limit(*limit))]
    ExceedsLimit {
        /// The holder of the limit.
        subject: Subject,
        /// The limit's kind.
        kind: LimitKind,
        /// The limit.
        limit: u64,
        /// The request's worst case.
        wanted: u64,
    },
    /// A quota or budget is used up.
    #[error("{} exceeded: {} of {} for {subject} left, and this request may need up to {}; {}",
        unit.limit_name(), Amount(*unit, *left), LimitKind::Quota(*unit, *window).limit(*limit), Amount(*unit, *wanted),
        Return(*resets, *retry_after))]
    QuotaExceeded {
        /// The holder of the quota.
        subject: Subject,
        /// The quota's window.
        window: QuotaWindow,
        /// The quota's unit.
        unit: QuotaUnit,
        /// The quota.
        limit: u64,
        /// The part that is neither used nor reserved by running requests.
        left: u64,
        /// The request's worst case.
        wanted: u64,
        /// The end of the window; `None` where reservations of running requests alone are in the way.
        resets: Option<Time>,
        /// When trying again makes sense.
        retry_after: Duration,
    },
    /// The degradation level rejects batch requests.
    #[error("batch requests are rejected at degradation level \"{level}\"; retry in {}", Seconds(*retry_after))]
    BatchRejected {
        /// The level's name.
        level: String,
        /// When trying again makes sense.
        retry_after: Duration,
    },
    /// The degradation level rejects requests of this priority.
    #[error("requests of this priority are rejected at degradation level \"{level}\"; retry in {}", Seconds(*retry_after))]
    StandardRejected {
        /// The level's name.
        level: String,
        /// When trying again makes sense.
        retry_after: Duration,
    },
    /// The degradation level admits only what can run at once, or in the place of less important requests.
    #[error("overloaded: degradation level \"{level}\" admits no further requests; retry in {}", Seconds(*retry_after))]
    Emergency {
        /// The level's name.
        level: String,
        /// When trying again makes sense.
        retry_after: Duration,
    },
    /// The queue is full.
    #[error("queue full: {size} requests are waiting; retry in {}", Seconds(*retry_after))]
    QueueFull {
        /// The requests that wait.
        size: usize,
        /// When trying again makes sense.
        retry_after: Duration,
    },
    /// It waited for the longest time, or would have to.
    #[error("queue timeout: no slot {} within {}", if *.known_at_entry { "is expected to become free" } else { "became free" }, Seconds(*limit))]
    QueueTimeout {
        /// The longest wait.
        limit: Duration,
        /// True if this was expected at entry, so that it did not wait at all.
        known_at_entry: bool,
        /// When trying again makes sense.
        retry_after: Duration,
    },
    /// Its objective cannot be met: the wait would be, or was, too long.
    #[error("objective out of reach: the {} is wanted within {:.1} s, and {}; retry in {}", milestone.name(),
        within.as_secs_f64(), Reach(*expected), Seconds(*retry_after))]
    ObjectiveOutOfReach {
        /// What is wanted.
        milestone: Milestone,
        /// How soon it is wanted.
        within: Duration,
        /// The wait that was expected at entry; `None` where the request waited in vain.
        expected: Option<Duration>,
        /// When the objective could be met.
        retry_after: Duration,
    },
    /// Its project runs as many as it may, and none is expected to end in time.
    #[error("concurrency limit exceeded: this project may run {limit} requests at a time; retry in {}", Seconds(*retry_after))]
    TooManyConcurrent {
        /// The limit.
        limit: usize,
        /// When trying again makes sense.
        retry_after: Duration,
    },
    /// Quotas and budgets are shared with other gateways, and their database gives no more credit.
    #[error("the shared quotas and budgets cannot be read: the gateway's database does not answer; retry in {}", Seconds(*retry_after))]
    CreditUnavailable {
        /// When trying again makes sense.
        retry_after: Duration,
    },
    /// The caller or an operator has cancelled it.
    #[error("request cancelled")]
    Cancelled,
}

impl Refusal {
    /// When trying again makes sense; `None` where time changes nothing.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Refusal::RateLimited { retry_after, .. }
            | Refusal::QuotaExceeded { retry_after, .. }
            | Refusal::BatchRejected { retry_after, .. }
            | Refusal::StandardRejected { retry_after, .. }
            | Refusal::Emergency { retry_after, .. }
            | Refusal::QueueFull { retry_after, .. }
            | Refusal::QueueTimeout { retry_after, .. }
            | Refusal::ObjectiveOutOfReach { retry_after, .. }
            | Refusal::CreditUnavailable { retry_after }
            | Refusal::TooManyConcurrent { retry_after, .. } => Some(*retry_after),
            Refusal::ExceedsLimit { .. } | Refusal::Cancelled => None,
        }
    }
}

/// The unit and the period of a rate limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RateLimitKind {
    /// Requests per minute.
    RequestsPerMinute,
    /// Tokens per minute.
    TokensPerMinute,
    /// Requests per day.
    RequestsPerDay,
    /// Tokens per day.
    TokensPerDay,
}

impl RateLimitKind {
    /// All kinds.
    pub const ALL: [RateLimitKind; 4] = [
        RateLimitKind::RequestsPerMinute,
        RateLimitKind::TokensPerMinute,
        RateLimitKind::RequestsPerDay,
        RateLimitKind::TokensPerDay,
    ];

    /// The name in messages.
    pub fn name(self) -> &'static str {
        match self {
            RateLimitKind::RequestsPerMinute => "requests per minute",
            RateLimitKind::TokensPerMinute => "tokens per minute",
            RateLimitKind::RequestsPerDay => "requests per day",
            RateLimitKind::TokensPerDay => "tokens per day",
        }
    }

    /// Returns whether tokens are counted, not requests.
    pub fn is_tokens(self) -> bool {
        matches!(self, RateLimitKind::TokensPerMinute | RateLimitKind::TokensPerDay)
    }
}

/// The kind of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitKind {
    /// A rate limit.
    Rate(RateLimitKind),
    /// A quota or budget.
    Quota(QuotaUnit, QuotaWindow),
}

impl LimitKind {
    fn amount(self, amount: u64) -> Amount {
        let unit = match self {
            LimitKind::Quota(unit, _) => unit,
            LimitKind::Rate(kind) if kind.is_tokens() => QuotaUnit::Tokens,
            LimitKind::Rate(_) => QuotaUnit::Requests,
        };
        Amount(unit, amount)
    }

    /// The limit in words, such as `60 requests per minute` or `€0.05 per day`.
    fn limit(self, limit: u64) -> String {
        match self {
            LimitKind::Rate(kind) => format!("{limit} {}", kind.name()),
            LimitKind::Quota(unit, window) => format!("{} per {}", Amount(unit, limit), window.name()),
        }
    }
}

/// An amount with its unit, for messages.
struct Amount(QuotaUnit, u64);

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            QuotaUnit::Tokens => write!(f, "{} tokens", self.1),
            QuotaUnit::Requests => write!(f, "{} requests", self.1),
            QuotaUnit::Cost => NanoEuro(self.1).fmt(f),
        }
    }
}

/// A duration in whole seconds, rounded up, as in `retry-after`.
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs() + u64::from(self.0.subsec_nanos() > 0);
        write!(f, "{} s", seconds.max(1))
    }
}

/// Why an objective is out of reach, for messages.
struct Reach(Option<Duration>);

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(wait) => write!(
                f,
                "the wait for a slot alone is expected to take {:.1} s",
                wait.as_secs_f64()
            ),
            None => f.write_str("no slot became free in time"),
        }
    }
}

/// When a quota can be used again, for messages.
struct Return(Option<Time>, Duration);

impl fmt::Display for Return {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(resets) => write!(f, "it resets on {} at 00:00 UTC", resets.date()),
            None => write!(
                f,
                "running requests have reserved the rest; retry in {}",
                Seconds(self.1)
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ProjectId;

    const SUBJECT: Subject = Subject::Project(ProjectId(0));

    #[test]
    fn messages_name_the_limit_the_value_and_the_way_out() {
        let rate = Refusal::RateLimited {
            subject: SUBJECT,
            kind: RateLimitKind::RequestsPerMinute,
            limit: 60,
            retry_after: Duration::from_millis(2100),
        };
        let large = Refusal::ExceedsLimit {
            subject: SUBJECT,
            kind: LimitKind::Rate(RateLimitKind::TokensPerMinute),
            limit: 4000,
            wanted: 5000,
        };
        let budget = |resets| Refusal::QuotaExceeded {
            subject: SUBJECT,
            window: QuotaWindow::Day,
            unit: QuotaUnit::Cost,
            limit: 50_000_000,
            left: 10_000_000,
            wanted: 20_000_000,
            resets,
            retry_after: Duration::from_secs(1),
        };
        // 2026-11-26 is day 20,783 since 1970.
        let resets = Time::after_epoch(Duration::from_secs(20_783 * 86_400));
        let objective = |expected| Refusal::ObjectiveOutOfReach {
            milestone: Milestone::FirstToken,
            within: Duration::from_millis(1500),
            expected,
            retry_after: Duration::from_secs(3),
        };
        for (refusal, text) in [
            (
                objective(Some(Duration::from_secs(4))),
                "objective out of reach: the first token is wanted within 1.5 s, and the wait for a slot alone is \
                 expected to take 4.0 s; retry in 3 s",
            ),
            (
                objective(None),
                "objective out of reach: the first token is wanted within 1.5 s, and no slot became free in time; \
                 retry in 3 s",
            ),
            (
                rate,
                "rate limit exceeded: 60 requests per minute for this project; retry in 3 s",
            ),
            (
                large,
                "request too large: it may need up to 5000 tokens, and the limit is 4000 tokens per minute for this \
                 project; reduce the prompt or max_tokens",
            ),
            (
                budget(Some(resets)),
                "budget exceeded: €0.01 of €0.05 per day for this project left, and this request may need up to \
                 €0.02; it resets on 2026-11-26 at 00:00 UTC",
            ),
            (
                budget(None),
                "budget exceeded: €0.01 of €0.05 per day for this project left, and this request may need up to \
                 €0.02; running requests have reserved the rest; retry in 1 s",
            ),
        ] {
            assert_eq!(refusal.to_string(), text);
        }
    }
}
