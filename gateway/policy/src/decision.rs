//! Every answer of policy: admitted, queued or rejected, on which terms.

use crate::allowance::CreditNeed;
use crate::cell::RateWindow;
use crate::share::RateNeed;
use crate::{Estimate, ModelId, Refusal, TicketId, Time};
use std::time::Duration;

/// The decision on an offered request.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision {
    /// It may run now, as granted.
    Admit(Grant),
    /// It waits; [`Policy::next`](crate::Policy::next) will name its ticket.
    Queue(QueueTicket),
    /// It may not run.
    Reject(Refusal),
    /// It may run once credit is drawn from limits that several gateways share. Nothing is held for it: it is to be offered
    /// again after the draw. Only after [`Policy::share_allowances`](crate::Policy::share_allowances) or
    /// [`Policy::share_rates`](crate::Policy::share_rates).
    NeedsCredit(CreditNeeds),
}

/// The credit that a request lacks; of one kind at a time.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct CreditNeeds {
    /// Of quotas and budgets.
    pub accounts: Vec<CreditNeed>,
    /// Of rate limits.
    pub rates: Vec<RateNeed>,
}

/// An admission: the request as it may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// To be settled, exactly once.
    pub ticket: TicketId,
    /// The terms, after degradation.
    pub terms: Terms,
}

/// A position in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueTicket {
    /// To be cancelled if the client disconnects.
    pub ticket: TicketId,
    /// The terms on which it will be admitted.
    pub terms: Terms,
    /// The end of the longest wait.
    pub deadline: Time,
    /// The wait that is expected at the present pace.
    pub expected: Duration,
    /// The ticket that lost its position to this one and must be answered: the newest of a lower class, or of the project
    /// or user with the most waiting.
    pub displaced: Option<TicketId>,
}

/// The terms of an admission: the request as it was made, less what was degraded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Terms {
    /// The model that answers; the smaller one where the request was routed to it.
    pub model: ModelId,
    /// The most tokens that each answer may have.
    pub max_tokens: u64,
    /// The worst case, which is reserved.
    pub estimate: Estimate,
    /// The number of the degradation level in force.
    pub level: u32,
    /// The degradations that were applied.
    pub degradations: DegradationsApplied,
}

/// The degradations that were applied to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DegradationsApplied {
    /// `max_tokens` was reduced.
    pub max_tokens_reduced: bool,
    /// It was routed to the smaller model by a degradation level.
    pub routed_by_pressure: bool,
    /// It was routed to the smaller model because a budget is nearly used up.
    pub routed_by_budget: bool,
}

impl DegradationsApplied {
    /// Returns whether any was applied.
    pub fn any(self) -> bool {
        self != Self::default()
    }
}

/// The state of the tightest limits per minute, as in the `x-ratelimit-*` headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RateLimitStatus {
    /// Requests; `None` where nothing limits.
    pub requests: Option<RateWindow>,
    /// Tokens; `None` where nothing limits.
    pub tokens: Option<RateWindow>,
}
