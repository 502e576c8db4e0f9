//! Every answer of policy. A refusal is an expected decision, not an error; it knows no HTTP.

use crate::cell::Figure;
use crate::{Counted, Estimate, ModelId, NanoEuro, Scope, TicketId, Time};
use std::fmt;
use std::time::Duration;
use thiserror::Error;

/// What becomes of an offered request.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision {
    /// It may run now, as granted.
    Admit(Grant),
    /// It waits; [`Policy::next`](crate::Policy::next) will name its ticket.
    Queue(QueueTicket),
    /// It may not.
    Reject(Refusal),
}

/// What was granted: the request as it may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// To be settled, exactly once.
    pub ticket: TicketId,
    /// What it may use, after whatever gave way.
    pub terms: Terms,
}

/// A place in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueTicket {
    /// To be cancelled if whoever waits goes away.
    pub ticket: TicketId,
    /// What it will be granted.
    pub terms: Terms,
    /// When waiting ends without a grant.
    pub deadline: Time,
    /// How long it will take, at the present pace.
    pub expected: Duration,
    /// Who lost its place to this one: a lower band's newest, or the greediest's.
    pub displaced: Option<TicketId>,
}

/// A request's terms: what was asked, less whatever gave way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Terms {
    /// The model that answers; another one where it was routed to the smaller.
    pub model: ModelId,
    /// The most tokens that each answer may have.
    pub max_tokens: u64,
    /// The worst case, which is reserved.
    pub estimate: Estimate,
    /// The number of the degradation level that held.
    pub level: u32,
    /// What gave way.
    pub degradations: DegradationsApplied,
}

/// What gave way for a request to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DegradationsApplied {
    /// Its answers may have fewer tokens.
    pub max_tokens_reduced: bool,
    /// It goes to the smaller model: pressure is high.
    pub routed_by_pressure: bool,
    /// It goes to the smaller model: a budget is used up.
    pub routed_by_budget: bool,
}

impl DegradationsApplied {
    /// Whether anything did.
    pub fn any(self) -> bool {
        self != Self::default()
    }
}

/// A window of an allowance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Period {
    /// A day, UTC.
    Day,
    /// A calendar month, UTC.
    Month,
}

/// What an allowance counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Measure {
    /// Tokens of prompts and answers.
    Tokens,
    /// Requests.
    Requests,
    /// Billionths of a euro.
    Cost,
}

/// An amount of a measure, for people.
struct Amount(Measure, u64);

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Measure::Tokens => write!(f, "{} tokens", self.1),
            Measure::Requests => write!(f, "{} requests", self.1),
            Measure::Cost => write!(f, "{} euros", NanoEuro(self.1).euros()),
        }
    }
}

impl Period {
    /// As in messages and metrics.
    pub fn word(self) -> &'static str {
        match self {
            Period::Day => "day",
            Period::Month => "month",
        }
    }
}

/// Why a request may not run.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// More than a rate allows.
    #[error("rate limit reached: {limit} {} for {}", counted.word(), scope.word())]
    RateLimited {
        /// Whose limit.
        scope: Scope,
        /// What it counts.
        counted: Counted,
        /// How many.
        limit: u64,
        /// When it could pass.
        retry_after: Duration,
    },
    /// Larger than a limit can ever let pass.
    #[error("this request needs up to {wanted} and can never pass: the limit is {limit} {what}; ask for fewer tokens")]
    ExceedsLimit {
        /// Whose limit, and what it counts.
        what: String,
        /// The limit.
        limit: u64,
        /// What the request needs at worst.
        wanted: u64,
    },
    /// A quota or budget is used up.
    #[error("{} of {} has {} of its {} left, and this request may need {}",
        if *.measure == Measure::Cost { "the budget" } else { "the quota" },
        scope.word(), Amount(*measure, *left), period.word(), Amount(*measure, *wanted))]
    AllowanceUsedUp {
        /// Whose.
        scope: Scope,
        /// In which window.
        period: Period,
        /// Of what.
        measure: Measure,
        /// What is left, after what others have reserved.
        left: u64,
        /// What the request needs at worst.
        wanted: u64,
        /// When the window ends, or what is reserved may have come back.
        retry_after: Duration,
    },
    /// Batch class gives way.
    #[error("batch requests are refused: pressure is high ({level})")]
    BatchRejected {
        /// The level's name.
        level: String,
        /// When trying again makes sense.
        retry_after: Duration,
    },
    /// All but high priority gives way.
    #[error("only high priority is served: pressure is high ({level})")]
    StandardRejected {
        /// The level's name.
        level: String,
        /// When trying again makes sense.
        retry_after: Duration,
    },
    /// Nearly everything gives way.
    #[error("the gateway is overloaded ({level}) and takes on nothing new")]
    Emergency {
        /// The level's name.
        level: String,
        /// When trying again makes sense.
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
    /// It waited as long as one may, or would have to.
    #[error("no capacity {} {} s", if *.known_at_entry { "is expected within" } else { "became free within" }, limit.as_secs())]
    QueueTimeout {
        /// The longest wait.
        limit: Duration,
        /// Whether this was foreseen, so that it did not wait at all.
        known_at_entry: bool,
        /// When trying again makes sense.
        retry_after: Duration,
    },
    /// Its project runs as many as it may, and none would end in time.
    #[error("this project runs {limit} requests at once, which is as many as it may, and none would end in time")]
    TooManyConcurrent {
        /// How many it may run.
        limit: usize,
        /// When trying again makes sense.
        retry_after: Duration,
    },
    /// Whoever asked, or an operator, has taken it back.
    #[error("the request was cancelled")]
    Cancelled,
}

impl Refusal {
    /// When trying again makes sense; `None` where time changes nothing.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Refusal::RateLimited { retry_after, .. }
            | Refusal::AllowanceUsedUp { retry_after, .. }
            | Refusal::BatchRejected { retry_after, .. }
            | Refusal::StandardRejected { retry_after, .. }
            | Refusal::Emergency { retry_after, .. }
            | Refusal::QueueFull { retry_after, .. }
            | Refusal::QueueTimeout { retry_after, .. }
            | Refusal::TooManyConcurrent { retry_after, .. } => Some(*retry_after),
            Refusal::ExceedsLimit { .. } | Refusal::Cancelled => None,
        }
    }
}

/// Where a caller stands with the minute's limits: the figures of the `x-ratelimit-*` headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RateLimitStatus {
    /// Requests; `None` where nothing limits.
    pub requests: Option<Figure>,
    /// Tokens; `None` where nothing limits.
    pub tokens: Option<Figure>,
}
