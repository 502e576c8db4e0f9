//! Objectives: how long a request may wait until its first token or its end would come too late.

use super::state::Model;
use crate::charge::Tokens;
use crate::{Milestone, Objectives};
use std::time::Duration;

/// The longest wait with which an objective is met.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slack {
    pub(super) wait: Duration,
    pub(super) milestone: Milestone,
    pub(super) within: Duration,
}

impl Model {
    /// The slack of a request of this size: its objective less the time that its prompt, or all of it, is predicted to
    /// take; of two objectives the smaller slack.
    pub(super) fn slack(&self, objectives: &Objectives, usual: Tokens) -> Option<Slack> {
        let seconds = |tokens: Tokens| {
            let known = self.service.0.map(|_| self.speed.seconds(tokens));
            Duration::try_from_secs_f64(known.unwrap_or_default()).unwrap_or(Duration::MAX)
        };
        let prompt = Tokens { output: 0, ..usual };
        let first = objectives.first_token.map(|within| Slack {
            wait: within.saturating_sub(seconds(prompt)),
            milestone: Milestone::FirstToken,
            within,
        });
        let total = objectives.total.map(|within| Slack {
            wait: within.saturating_sub(seconds(usual)),
            milestone: Milestone::End,
            within,
        });
        first.into_iter().chain(total).min_by_key(|slack| slack.wait)
    }
}
