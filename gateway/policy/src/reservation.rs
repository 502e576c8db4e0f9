//! The reservation of one request, from its offer until it is settled.

use crate::allowance::{AllowanceReservation, Wanted, Windows};
use crate::limits::Charge;
use crate::quota::Amounts;
use crate::{AdmissionRequest, Rules, Terms};

/// The amounts held for a request until it is settled or refunded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reservation {
    pub(crate) ask: AdmissionRequest,
    pub(crate) terms: Terms,
    pub(crate) charge: Charge,
    pub(crate) allowance: Option<AllowanceReservation>,
    /// The windows that it counts for.
    pub(crate) windows: Windows,
    /// Requests that it counts as in quotas: 0 for a further attempt at one that is counted.
    pub(crate) requests: u64,
}

impl Reservation {
    /// The reservation of a request that nothing is taken for yet.
    pub(crate) fn new(rules: &Rules, ask: &AdmissionRequest, windows: Windows, (number, parts): (u64, u64)) -> Self {
        let estimate = ask.estimate(rules);
        Self {
            ask: *ask,
            terms: Terms {
                model: ask.model,
                max_tokens: ask.max_tokens,
                estimate,
                ..Terms::default()
            },
            charge: Charge {
                number,
                requests: 1,
                model_requests: 1,
                tokens: estimate.tokens(),
                least_tokens: ask.least(rules).tokens(),
                parts,
            },
            allowance: None,
            windows,
            requests: 1,
        }
    }

    /// The request on its present terms.
    pub(crate) fn parties(&self) -> AdmissionRequest {
        AdmissionRequest {
            model: self.terms.model,
            max_tokens: self.terms.max_tokens,
            ..self.ask
        }
    }

    /// Makes the terms those of a degraded request.
    pub(crate) fn set_terms(&mut self, rules: &Rules, ask: &AdmissionRequest) {
        self.terms.model = ask.model;
        self.terms.max_tokens = ask.max_tokens;
        self.terms.estimate = ask.estimate(rules);
    }

    /// The amounts to be reserved from quotas and budgets.
    pub(crate) fn wanted(&self, rules: &Rules, may_downgrade: bool) -> Wanted {
        let (worst, least) = (self.terms.estimate, self.parties().least(rules));
        Wanted {
            amounts: Amounts::new(worst.tokens(), self.requests, worst.cost.0),
            least: Amounts::new(least.tokens(), self.requests, least.cost.0),
            windows: self.windows,
            may_downgrade,
        }
    }
}
