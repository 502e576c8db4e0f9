//! The reservation of one request, from its offer until it is settled.

use crate::allowance::{AllowanceReservation, Wanted, Windows};
use crate::limits::Charge;
use crate::quota::Amounts;
use crate::request::Parties;
use crate::{AdmissionRequest, Rules, Terms};

/// A request on the terms that are being decided, and the amounts that are held for it.
#[derive(Debug)]
pub(crate) struct Proposal<'a> {
    pub(crate) ask: &'a AdmissionRequest,
    pub(crate) terms: Terms,
    pub(crate) charge: Charge,
    pub(crate) allowance: AllowanceReservation,
    /// As in [`Reservation::requests`].
    pub(crate) requests: u64,
}

/// The amounts held for a request until it is settled or refunded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reservation {
    pub(crate) parties: Parties,
    pub(crate) charge: Charge,
    pub(crate) allowance: AllowanceReservation,
    /// Requests that it counts as in quotas: 0 for a further attempt at one that is counted.
    pub(crate) requests: u64,
    /// The tokens of its worst case.
    pub(crate) tokens: u64,
}

impl<'a> Proposal<'a> {
    /// A request that nothing is taken for yet.
    pub(crate) fn new(rules: &Rules, ask: &'a AdmissionRequest, windows: Windows, (number, parts): (u64, u64)) -> Self {
        let estimate = ask.estimate(rules);
        Self {
            ask,
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
            allowance: AllowanceReservation {
                windows,
                amounts: Amounts::default(),
            },
            requests: 1,
        }
    }

    /// The request on its present terms.
    pub(crate) fn present(&self) -> AdmissionRequest {
        AdmissionRequest {
            model: self.terms.model,
            max_tokens: self.terms.max_tokens,
            ..*self.ask
        }
    }

    /// The parties on its present terms.
    pub(crate) fn parties(&self) -> Parties {
        Parties {
            model: self.terms.model,
            ..self.ask.parties()
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
        let (worst, least) = (self.terms.estimate, self.present().least(rules));
        Wanted {
            amounts: Amounts::new(worst.tokens(), self.requests, worst.cost.0),
            least: Amounts::new(least.tokens(), self.requests, least.cost.0),
            windows: self.allowance.windows,
            may_downgrade,
        }
    }

    /// The amounts that are held on its present terms.
    pub(crate) fn reservation(&self) -> Reservation {
        Reservation {
            parties: self.parties(),
            charge: self.charge,
            allowance: self.allowance,
            requests: self.requests,
            tokens: self.terms.estimate.tokens(),
        }
    }
}
